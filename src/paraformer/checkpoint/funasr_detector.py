"""FSMN-VAD in FunASR's words, both ways (variants 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from paraformer.checkpoint.form import Form
from paraformer.checkpoint.funasr_config import check_fixed, check_keys, conf_of, read_part
from paraformer.checkpoint.funasr_parts import FRONTEND, Only, Part, reasons
from paraformer.companions.detector import FsmnConfig, detector_config
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.kinds import DETECTOR
from paraformer.settings import from_mapping

MODEL = "FsmnVADStreaming"
NETWORK = Part(
    FsmnConfig,
    {
        "input_dim": ("input_dim", 400),
        "input_affine_dim": ("input_affine", 140),
        "fsmn_layers": ("layers", 4),
        "linear_dim": ("dim", 250),
        "proj_dim": ("memory_dim", 128),
        "lorder": ("left", 20),
        "rorder": ("right", 0),
        "lstride": ("stride", 1),
        "output_affine_dim": ("output_affine", 140),
        "output_dim": ("outputs", 248),
    },
    fixed={"use_softmax": Only(True, (True,), "scores that are no probabilities")},
    ignored={"rstride": "of a memory that looks ahead, which FsmnConfig refuses"},
)
"""FunASR's class has no defaults; these are the published sizes."""
RULES = Part(
    dict,
    {
        "max_end_silence_time": ("end_silence_ms", 800),
        "max_start_silence_time": ("start_silence_ms", 3000),
        "window_size_ms": ("window_ms", 200),
        "sil_to_speech_time_thres": ("to_speech_ms", 150),
        "speech_to_sil_time_thres": ("to_silence_ms", 150),
        "do_extend": ("extend", True),
        "lookback_time_start_point": ("before_ms", 200),
        "lookahead_time_end_point": ("after_ms", 100),
        "max_single_segment_time": ("longest_ms", 60_000),
        "speech_noise_thres": ("threshold", 0.6),
        "speech_2_noise_ratio": ("noise_ratio", 1.0),
        "snr_thres": ("snr_db", -100.0),
        "decibel_thres": ("level_db", -100.0),
        "noise_frame_num_used_for_snr": ("noise_frames", 100),
        "detect_mode": ("many", 1),
    },
    fixed={
        "sample_rate": Only(16000, (16000,), "speech at another rate"),
        "snr_mode": Only(0, (0,), "another measure of noise"),
        "do_start_point_detection": Only(True, (True,), "segments that begin at once"),
        "do_end_point_detection": Only(True, (True,), "segments that never end"),
        "frame_in_ms": Only(10, (10,), "other frames"),
        "frame_length_ms": Only(25, (25,), "other frames"),
    },
    elsewhere={"sil_pdf_ids": "a list of outputs"},
    ignored={
        **reasons("FunASR never looks at it", "fe_prior_thres", "speech_noise_thresh_low", "speech_noise_thresh_high"),
        **reasons("FunASR never looks at it", "silence_pdf_num", "output_frame_probs"),
    },
    tolerant=True,
)
"""FunASR reads them from the top level of the settings, too."""
_FRAMES = {
    "fs": 16000,
    "window": "hamming",
    "n_mels": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "lfr_m": 5,
    "lfr_n": 1,
}

_FIXED_FRAMES = {key: Only(value, (value,), "other frames") for key, value in _FRAMES.items()}
_ENDPOINTS = {theirs: ours for theirs, (ours, _) in RULES.fields.items() if theirs != "detect_mode"}
"""Rules that FunASR's callers may change."""


def read(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes and rules that config.yaml describes. Raises UnsupportedModel for what is not run here, ConfigError."""
    if settings.get("encoder") != "FSMN":
        raise UnsupportedModel(f"a detector of speech with encoder {settings.get('encoder')!r} is not supported")
    frames = conf_of(settings, "frontend_conf")
    check_keys(FRONTEND, frames, "frontend_conf")
    check_fixed({**FRONTEND.fixed, **_FIXED_FRAMES}, frames, "frontend_conf")
    top = {key: settings[key] for key in (*RULES.fields, *RULES.fixed, *RULES.elsewhere) if key in settings}
    conf = {**conf_of(settings, "model_conf"), **top}
    ours = _read_rules(conf)
    many, ids = ours.pop("many"), conf.get("sil_pdf_ids", [0])
    if many not in (0, 1):
        raise ConfigError(f"model_conf.detect_mode must be 0 or 1, not {many!r}")
    if not isinstance(ids, list):
        raise ConfigError(f"model_conf.sil_pdf_ids must be a list of outputs, not {ids!r:.60}")
    sizes = read_part(NETWORK, conf_of(settings, "encoder_conf"), "encoder_conf")
    network = asdict(from_mapping(FsmnConfig, {**sizes, "silence_ids": tuple(ids)}, "encoder_conf"))
    return {"network": network, "endpoints": {**ours, "single": many == 0}}


def _read_rules(conf: Mapping[str, Any]) -> dict[str, Any]:
    """FunASR writes the switch of `do_extend` as 1 and 0."""
    switched = {"do_extend": conf["do_extend"] == 1} if conf.get("do_extend") in (0, 1) else {}
    return read_part(RULES, {**conf, **switched}, "model_conf")


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Rules by our names. Raises ConfigError for what is none of them."""
    if unknown := sorted(set(options) - set(_ENDPOINTS)):
        known = ", ".join(_ENDPOINTS)
        raise ConfigError(f"{', '.join(unknown)} means nothing to FSMN-VAD, which takes {known}")
    ours = _read_rules(options)
    return {_ENDPOINTS[key]: ours[_ENDPOINTS[key]] for key in options}


def _write(ours: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    network, rules = ours["network"], ours["endpoints"]
    frontend = {**_FRAMES, "dither": 0.0}
    return {
        "model": MODEL,
        "model_conf": {
            **{key: only.default for key, only in RULES.fixed.items()},
            **{theirs: rules[name] for theirs, name in _ENDPOINTS.items() if name in rules},
            "detect_mode": 0 if rules.get("single") else 1,
            "sil_pdf_ids": list(network["silence_ids"]),
            "silence_pdf_num": len(network["silence_ids"]),
        },
        "encoder": "FSMN",
        "encoder_conf": {theirs: network[name] for theirs, (name, _) in NETWORK.fields.items()} | {"rstride": 0},
        "frontend": "WavFrontendOnline",
        "frontend_conf": frontend if extras["cmvn"] else {**frontend, "cmvn_file": None},
    }


def _shapes(ours: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return detector_config(ours["network"]).shapes()


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
