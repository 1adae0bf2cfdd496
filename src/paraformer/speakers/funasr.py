"""FunASR's directories of CAM++: config.yaml, campplus_cn_common.bin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paraformer.checkpoint import funasr
from paraformer.errors import CheckpointError, ConfigError, ModelNotFound, ParaformerError, UnsupportedModel
from paraformer.settings import from_mapping
from paraformer.speakers.campplus import CamppConfig, VoiceEncoder

MODEL = "CAMPPlus"
_SIZES = {
    "feat_dim": "mel_bins",
    "embedding_size": "embedding",
    "growth_rate": "growth",
    "bn_size": "bottleneck",
    "init_channels": "channels",
}
_FIXED = {"config_str": "batchnorm-relu", "output_level": "segment"}
_WEIGHTS = ("campplus_cn_common.bin", "model.pt", "model.pb")


def load(directory: Path) -> VoiceEncoder:
    """Open a directory; errors as those of `VoiceEncoder.open`."""
    path = directory / funasr.SETTINGS_FILE
    if not path.is_file():
        raise ModelNotFound(f"{directory} is no model of voices: it has no {funasr.SETTINGS_FILE}")
    try:
        config = read(funasr.read_settings(path))
    except ParaformerError as error:
        raise type(error)(f"{path}: {error}") from error
    names = (*_named(directory), *_WEIGHTS)
    weights = next((directory / name for name in names if (directory / name).is_file()), None)
    if weights is None:
        raise ModelNotFound(f"{directory} has no {_WEIGHTS[0]}; get the model again")
    tensors = {name: tensor.float().numpy() for name, tensor in funasr.read_tensors(weights).items()}
    try:
        return VoiceEncoder(config, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from error


def read(settings: Mapping[str, Any]) -> CamppConfig:
    """Sizes that config.yaml describes. Raises UnsupportedModel for another kind of model, ConfigError."""
    if settings.get("model") != MODEL:
        raise UnsupportedModel(f"the model is of kind {settings.get('model')!r}, not one of voices, {MODEL}")
    conf = settings.get("model_conf") or {}
    if not isinstance(conf, Mapping):
        raise ConfigError(f"model_conf must hold settings, not {conf!r}")
    for key, only in _FIXED.items():
        if conf.get(key, only) != only:
            raise UnsupportedModel(f"model_conf: {key} is {conf[key]!r}, but this version runs only {only!r}")
    return from_mapping(CamppConfig, {ours: conf[key] for key, ours in _SIZES.items() if key in conf}, "model_conf")


def _named(directory: Path) -> tuple[str, ...]:
    """The file that configuration.json names, inside the directory."""
    path = directory / funasr.METADATA_FILE
    try:
        named = json.loads(path.read_text(encoding="utf-8-sig"))["file_path_metas"]["init_param"]
    except (OSError, ValueError, LookupError, TypeError):
        return ()
    return (Path(named).name,) if isinstance(named, str) else ()
