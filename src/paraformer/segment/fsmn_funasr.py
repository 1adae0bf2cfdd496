"""FunASR's directories of FSMN-VAD: config.yaml, model.pt, am.mvn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from paraformer.checkpoint import funasr
from paraformer.errors import CheckpointError, ConfigError, ModelNotFound, ParaformerError, UnsupportedModel
from paraformer.segment.endpoints import EndpointConfig
from paraformer.segment.fsmn import FsmnConfig, FsmnNetwork, FsmnVad
from paraformer.settings import from_mapping

MODEL = "FsmnVADStreaming"
NETWORK = {
    "input_dim": "input_dim",
    "input_affine_dim": "input_affine",
    "fsmn_layers": "layers",
    "linear_dim": "dim",
    "proj_dim": "memory_dim",
    "lorder": "left",
    "rorder": "right",
    "lstride": "stride",
    "output_affine_dim": "output_affine",
    "output_dim": "outputs",
}
ENDPOINTS = {
    "max_end_silence_time": "end_silence_ms",
    "max_start_silence_time": "start_silence_ms",
    "window_size_ms": "window_ms",
    "sil_to_speech_time_thres": "to_speech_ms",
    "speech_to_sil_time_thres": "to_silence_ms",
    "do_extend": "extend",
    "lookback_time_start_point": "before_ms",
    "lookahead_time_end_point": "after_ms",
    "max_single_segment_time": "longest_ms",
    "speech_noise_thres": "threshold",
    "speech_2_noise_ratio": "noise_ratio",
    "snr_thres": "snr_db",
    "decibel_thres": "level_db",
    "noise_frame_num_used_for_snr": "noise_frames",
}
"""FunASR's settings and ours; it reads them from the top level of the settings, too."""
_FIXED = {
    "sample_rate": 16000,
    "snr_mode": 0,
    "do_start_point_detection": True,
    "do_end_point_detection": True,
    "frame_in_ms": 10,
    "frame_length_ms": 25,
}
_FRONTEND = {"fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
_STACKED = {"lfr_m": 5, "lfr_n": 1}
_FLOATS = ("threshold", "noise_ratio", "snr_db", "level_db")


def load(directory: Path) -> FsmnVad:
    """Open a directory; errors as those of `FsmnVad.open`."""
    path = directory / funasr.SETTINGS_FILE
    if not path.is_file():
        raise ModelNotFound(f"{directory} is no detector of speech: it has no {funasr.SETTINGS_FILE}")
    settings = funasr.read_settings(path)
    try:
        network, endpoints = read(settings)
    except ParaformerError as error:
        raise type(error)(f"{path}: {error}") from error
    weights = next((directory / name for name in ("model.pt", "model.pb") if (directory / name).is_file()), None)
    if weights is None:
        raise ModelNotFound(f"{directory} has no model.pt; get the model again")
    if not (directory / "am.mvn").is_file():
        raise ModelNotFound(f"{directory} has no am.mvn, without which a detector hears noise; get the model again")
    tensors = {name: tensor.float().numpy() for name, tensor in funasr.read_tensors(weights).items()}
    try:
        return FsmnVad(FsmnNetwork(network, tensors), funasr.read_cmvn(directory / "am.mvn"), endpoints)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from error


def read(settings: Mapping[str, Any]) -> tuple[FsmnConfig, EndpointConfig]:
    """Sizes and rules that config.yaml describes. Raises UnsupportedModel for another kind of model, ConfigError."""
    if settings.get("model") != MODEL or settings.get("encoder") != "FSMN":
        raise UnsupportedModel(f"the model is of kind {settings.get('model')!r}, not a detector of speech, {MODEL}")
    rules = {**(settings.get("model_conf") or {})}
    rules |= {key: settings[key] for key in (*ENDPOINTS, *_FIXED, "detect_mode", "sil_pdf_ids") if key in settings}
    frontend = {**_FRONTEND, **_STACKED, **(settings.get("frontend_conf") or {})}
    _check({**_FIXED, **rules}, _FIXED, "model_conf")
    _check(frontend, {**_FRONTEND, **_STACKED}, "frontend_conf")
    sizes = {ours: settings["encoder_conf"][key] for key, ours in NETWORK.items() if key in settings["encoder_conf"]}
    ids = tuple(rules.get("sil_pdf_ids", (0,)))
    ours = {field: _number(rules[key], field) for key, field in ENDPOINTS.items() if key in rules}
    if rules.get("detect_mode", 1) not in (0, 1):
        raise ConfigError(f"model_conf.detect_mode must be 0 or 1, not {rules['detect_mode']!r}")
    return (
        from_mapping(FsmnConfig, {**sizes, "silence_ids": ids}, "encoder_conf"),
        from_mapping(EndpointConfig, {**ours, "single": rules.get("detect_mode", 1) == 0}, "model_conf"),
    )


def changed(vad: FsmnVad, options: Mapping[str, Any]) -> FsmnVad:
    """The same with other rules, by FunASR's names. Raises ConfigError for what is none of them."""
    if unknown := sorted(set(options) - set(ENDPOINTS)):
        known = ", ".join(ENDPOINTS)
        raise ConfigError(f"{', '.join(unknown)} means nothing to FSMN-VAD, which takes {known}")
    values = {ENDPOINTS[key]: _number(value, ENDPOINTS[key]) for key, value in options.items()}
    return replace(vad, endpoints=from_mapping(EndpointConfig, {**asdict(vad.endpoints), **values}, "vad"))


def _number(value: Any, field: str) -> Any:
    """As our settings have it: FunASR writes switches as 1 and 0, and some whole numbers as 800.0."""
    if field == "extend" and value in (0, 1):
        return bool(value)
    if field not in _FLOATS and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _check(values: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> None:
    for key, only in fixed.items():
        if values[key] != only:
            raise UnsupportedModel(f"{where}: {key} is {values[key]!r}, but this version runs only {only!r}")
