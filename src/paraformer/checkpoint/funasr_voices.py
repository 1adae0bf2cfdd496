"""CAM++ in FunASR's words, both ways (variants 6.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from paraformer.checkpoint.form import Form
from paraformer.checkpoint.funasr_config import check_fixed, conf_of, read_part
from paraformer.checkpoint.funasr_parts import FRONTEND, Named, Only, Part
from paraformer.companions.voices import COUNTER, CamppConfig
from paraformer.kinds import VOICES
from paraformer.settings import from_mapping

NETWORK = Part(
    CamppConfig,
    {
        "feat_dim": ("mel_bins", 80),
        "embedding_size": ("embedding", 192),
        "growth_rate": ("growth", 32),
        "bn_size": ("bottleneck", 4),
        "init_channels": ("channels", 128),
    },
    fixed={
        "config_str": Only("batchnorm-relu", ("batchnorm-relu",), "other layers"),
        "output_level": Only("segment", ("segment",), "a vector for each frame"),
    },
    ignored={"memory_efficient": "how FunASR trains"},
    tolerant=True,
)


def read(settings: Mapping[str, Any]) -> CamppConfig:
    """Sizes that config.yaml describes. Raises UnsupportedModel for what is not run here, ConfigError."""
    check_fixed({"fs": FRONTEND.fixed["fs"]}, conf_of(settings, "frontend_conf"), "frontend_conf")
    return CamppConfig(**read_part(NETWORK, conf_of(settings, "model_conf"), "model_conf"))


def _write(ours: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {theirs: ours[name] for theirs, (name, _) in NETWORK.fields.items()}
    conf = {**sizes, **{key: only.default for key, only in NETWORK.fixed.items()}, "memory_efficient": True}
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
