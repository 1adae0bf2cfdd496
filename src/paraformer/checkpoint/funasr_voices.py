"""CAM++ in FunASR's words, both ways (variants 6.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from paraformer.checkpoint.form import Form
from paraformer.checkpoint.funasr_parts import Named
from paraformer.companions.voices import COUNTER, CamppConfig
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.kinds import VOICES
from paraformer.settings import from_mapping

_SIZES = {
    "feat_dim": "mel_bins",
    "embedding_size": "embedding",
    "growth_rate": "growth",
    "bn_size": "bottleneck",
    "init_channels": "channels",
}
_FIXED = {"config_str": "batchnorm-relu", "output_level": "segment"}


def read(settings: Mapping[str, Any]) -> CamppConfig:
    """Sizes that config.yaml describes. Raises UnsupportedModel for what is not run here, ConfigError."""
    conf = settings.get("model_conf") or {}
    if not isinstance(conf, Mapping):
        raise ConfigError(f"model_conf must hold settings, not {conf!r:.60}")
    for key, only in _FIXED.items():
        if conf.get(key, only) != only:
            raise UnsupportedModel(f"model_conf: {key} is {conf[key]!r}, but this version runs only {only!r}")
    return from_mapping(CamppConfig, {ours: conf[key] for key, ours in _SIZES.items() if key in conf}, "model_conf")


def _write(ours: Mapping[str, Any]) -> dict[str, Any]:
    conf = {**{theirs: ours[name] for theirs, name in _SIZES.items()}, **_FIXED, "memory_efficient": True}
    return {"model": "CAMPPlus", "model_conf": conf, "frontend": "WavFrontend", "frontend_conf": {"fs": 16000}}


def _shapes(ours: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return from_mapping(CamppConfig, ours, "voices").shapes()


FORM = Form(
    VOICES,
    ("CAMPPlus",),
    "speaker-verification",
    read=lambda settings, _: asdict(read(settings)),
    write=lambda ours, _: _write(ours),
    shapes=_shapes,
    theirs=lambda ours: {name: name for name in _shapes(ours)},
    weights=Named((("init_param",),), ("campplus_cn_common.bin", "model.pt", "model.pb")),
    beside=f".{COUNTER}",
)
