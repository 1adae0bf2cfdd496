"""FSMN-VAD in FunASR's words, both ways (variants 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from paraformer.checkpoint.form import Form
from paraformer.companions.detector import FsmnConfig, detector_config
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.kinds import DETECTOR
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


def read(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes and rules that config.yaml describes. Raises UnsupportedModel for what is not run here, ConfigError."""
    if settings.get("encoder") != "FSMN":
        raise UnsupportedModel(f"a detector of speech with encoder {settings.get('encoder')!r} is not supported")
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
    network = asdict(from_mapping(FsmnConfig, {**sizes, "silence_ids": ids}, "encoder_conf"))
    return {"network": network, "endpoints": {**ours, "single": rules.get("detect_mode", 1) == 0}}


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Rules by our names. Raises ConfigError for what is none of them."""
    if unknown := sorted(set(options) - set(ENDPOINTS)):
        known = ", ".join(ENDPOINTS)
        raise ConfigError(f"{', '.join(unknown)} means nothing to FSMN-VAD, which takes {known}")
    return {ENDPOINTS[key]: _number(value, ENDPOINTS[key]) for key, value in options.items()}


def _write(ours: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    network, rules = ours["network"], ours["endpoints"]
    frontend = {**_FRONTEND, **_STACKED, "dither": 0.0}
    return {
        "model": MODEL,
        "model_conf": {
            **_FIXED,
            **{theirs: rules[name] for theirs, name in ENDPOINTS.items() if name in rules},
            "detect_mode": 0 if rules.get("single") else 1,
            "sil_pdf_ids": list(network["silence_ids"]),
            "silence_pdf_num": len(network["silence_ids"]),
        },
        "encoder": "FSMN",
        "encoder_conf": {theirs: network[name] for theirs, name in NETWORK.items()} | {"rstride": 0},
        "frontend": "WavFrontendOnline",
        "frontend_conf": frontend if extras["cmvn"] else {**frontend, "cmvn_file": None},
    }


def _shapes(ours: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return detector_config(ours["network"]).shapes()


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


FORM = Form(
    DETECTOR,
    (MODEL,),
    "voice-activity-detection",
    read=lambda settings, _: read(settings),
    write=_write,
    shapes=_shapes,
    theirs=lambda ours: {name: name for name in _shapes(ours)},
    extras=("cmvn",),
    needed=("cmvn",),
)
