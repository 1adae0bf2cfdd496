"""CT-Transformer punctuation in FunASR's words, offline and realtime, both ways (spec: variants 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from paraformer.checkpoint.form import Form
from paraformer.checkpoint.funasr_config import conf_of, read_part
from paraformer.checkpoint.funasr_parts import ENCODERS, Named, Part, reasons
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.kinds import PUNCTUATION
from paraformer.punctuation.config import PunctuationConfig
from paraformer.punctuation.network import shapes

MODELS: Mapping[str, tuple[str, Any]] = {
    "CTTransformer": ("SANMEncoder", "whole"),
    "CTTransformerStreaming": ("SANMVadEncoder", "live"),
}
"""FunASR's classes, their encoder, and what a word sees in them."""
_FULL_WIDTH: Mapping[str, str] = {",": "，", ".": "。", "?": "？", "!": "！"}
"""Marks that FunASR's own template writes as no published model has them."""
_MODULES = {
    "attention.qkv": "self_attn.linear_q_k_v",
    "attention.out": "self_attn.linear_out",
    "attention.memory": "self_attn.fsmn_block",
    "feed_forward.up": "feed_forward.w_1",
    "feed_forward.down": "feed_forward.w_2",
    "norm1": "norm1",
    "norm2": "norm2",
}
_ENCODER = dataclasses.replace(ENCODERS["SANMEncoder"], elsewhere={"input_size": "compared with output_size"})
"""Of either class: they differ in what a word sees."""
_MODEL = Part(
    dict,
    {"sentence_end_id": ("end", 3)},
    elsewhere={"punc_list": "the marks", **reasons("compared with output_size", "embed_unit", "att_unit")},
    ignored=reasons("training", "ignore_id", "dropout_rate", "punc_weight"),
    tolerant=True,
)


def read_config(settings: Mapping[str, Any], words: int) -> PunctuationConfig:
    """Settings of config.yaml as ours. Raises ConfigError or UnsupportedModel saying which is wrong."""
    kind = settings.get("model")
    if not isinstance(kind, str) or kind not in MODELS:
        raise UnsupportedModel(f"{kind!r} is no punctuation model; those are {' and '.join(MODELS)}")
    encoder_class, attention = MODELS[kind]
    if settings.get("encoder") != encoder_class:
        raise UnsupportedModel(f"a {kind} with encoder {settings.get('encoder')!r} is not supported")
    model, encoder = conf_of(settings, "model_conf"), conf_of(settings, "encoder_conf")
    sizes = read_part(_ENCODER, encoder, "encoder_conf")
    end, width = read_part(_MODEL, model, "model_conf")["end"], sizes["dim"]
    others = {
        "input_size": encoder.get("input_size"),
        **{key: model.get(key, width) for key in ("embed_unit", "att_unit")},
    }
    if different := [key for key, value in others.items() if value != width]:
        raise UnsupportedModel(f"{different[0]} must be output_size, {width}, not {others[different[0]]}")
    listed = model.get("punc_list")
    if not isinstance(listed, list) or not all(isinstance(mark, str) for mark in listed):
        raise ConfigError(f"model_conf.punc_list must be a list of marks, not {listed!r:.60}")
    marks = tuple(_FULL_WIDTH.get(mark, mark) for mark in listed)
    if marks[end : end + 1] != ("。",):
        raise UnsupportedModel(
            f"model_conf.sentence_end_id is {end}, but this version runs only the place of 。in punc_list"
        )
    del sizes["attention_dropout"]
    return PunctuationConfig(**sizes, vocab_size=words, marks=marks, attention=attention)


def write_config(config: PunctuationConfig) -> dict[str, Any]:
    """The inverse of `read_config`."""
    kind = next(name for name, (_, attention) in MODELS.items() if attention == config.attention)
    return {
        "model": kind,
        "model_conf": {
            "ignore_id": 0,
            "embed_unit": config.dim,
            "att_unit": config.dim,
            "dropout_rate": config.dropout,
            "punc_list": list(config.marks),
            "punc_weight": [1.0] * len(config.marks),
            "sentence_end_id": config.marks.index("。"),
        },
        "encoder": MODELS[kind][0],
        "encoder_conf": {
            "input_size": config.dim,
            "output_size": config.dim,
            "attention_heads": config.heads,
            "linear_units": config.ffn_dim,
            "num_blocks": config.layers,
            "dropout_rate": config.dropout,
            "positional_dropout_rate": config.dropout,
            "attention_dropout_rate": 0.0,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": config.kernel,
            "sanm_shfit": config.shift,
            "selfattention_layer_type": "sanm",
            "padding_idx": 0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }


def _theirs(name: str) -> str:
    """FunASR's name of a tensor of ours.

    >>> _theirs("blocks.2.attention.qkv.weight")
    'encoder.encoders.1.self_attn.linear_q_k_v.weight'
    """
    module, leaf = name.rsplit(".", 1)
    whole = {"embed": "embed", "norm": "encoder.after_norm", "output": "decoder"}
    if module in whole:
        return f"{whole[module]}.{leaf}"
    _, index, part = module.split(".", 2)
    block = "encoder.encoders0.0" if index == "0" else f"encoder.encoders.{int(index) - 1}"
    return f"{block}.{_MODULES[part]}.{leaf}"


FORM = Form(
    PUNCTUATION,
    tuple(MODELS),
    "punctuation",
    read=lambda settings, extras: read_config(settings, len(extras["words"])).to_dict(),
    write=lambda ours, _: write_config(PunctuationConfig.from_dict(ours)),
    shapes=lambda ours: shapes(PunctuationConfig.from_dict(ours)),
    theirs=lambda ours: {name: _theirs(name) for name in shapes(PunctuationConfig.from_dict(ours))},
    extras=("words", "dictionary"),
    needed=("words",),
    weights=Named((("init_param",),), ("model.pt", "model.pb", "punc.pb")),
    by_word="embed.weight",
)
