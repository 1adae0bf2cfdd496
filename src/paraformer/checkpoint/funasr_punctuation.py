"""FunASR's directories of CT-Transformer punctuation, offline and realtime, both ways (spec: variants 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from paraformer.bundle import digest_of_spots, replacing
from paraformer.checkpoint import funasr, strict
from paraformer.errors import ConfigError, ModelError, ModelNotFound, UnsupportedModel
from paraformer.punctuation.config import PunctuationConfig
from paraformer.punctuation.directory import PunctuationBundle
from paraformer.punctuation.network import shapes

MODELS: Mapping[str, tuple[str, Any]] = {
    "CTTransformer": ("SANMEncoder", "whole"),
    "CTTransformerStreaming": ("SANMVadEncoder", "live"),
}
"""FunASR's classes, their encoder, and what a word sees in them."""
DICTIONARY = "jieba_usr_dict"
_FULL_WIDTH = {",": "，", ".": "。", "?": "？", "!": "！"}
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
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "input_layer": ("pe",),
    "normalize_before": (True,),
    "selfattention_layer_type": ("sanm",),
    "concat_after": (False,),
}
_SIZES = ("input_size", "output_size", "attention_heads", "linear_units", "num_blocks", "kernel_size", "sanm_shfit")
_UNUSED = ("dropout_rate", "positional_dropout_rate", "attention_dropout_rate", "pos_enc_class", "padding_idx")


def is_punctuation(directory: Path) -> bool:
    """Whether config.yaml there names one of FunASR's punctuation models."""
    path = directory / funasr.SETTINGS_FILE
    return path.is_file() and _settings(path).get("model") in MODELS


def load(directory: Path) -> PunctuationBundle:
    """Open a directory of FunASR's.

    Raises ModelNotFound (a file is missing), UnsupportedModel (another kind of model), ConfigError (settings),
    CheckpointError (tensors that do not fit, or a file that holds more than tensors), ModelError (anything else).
    """
    path = directory / funasr.SETTINGS_FILE
    if not path.is_file():
        raise ModelNotFound(f"{directory} is no punctuation model: it has no {funasr.SETTINGS_FILE}")
    weights = _file(directory, "model.pt", "model.pb", "punc.pb")
    words = funasr.read_tokens(_file(directory, "tokens.json", "tokens.txt"))
    try:
        config = read_config(_settings(path), len(words))
    except (ConfigError, UnsupportedModel) as error:
        raise type(error)(f"{path}: {error}") from error
    tensors = funasr.read_tensors(weights)
    names = {name: _theirs(name) for name in shapes(config)}
    embed = tensors.get(names["embed.weight"])
    if embed is not None and embed.ndim == 2 and len(embed) != len(words):
        raise ModelError(
            f"the list of words has {len(words)}, but the vocabulary of {weights} is {len(embed)}; one of them belongs "
            "to another model"
        )
    strict.check({names[ours]: shape for ours, shape in shapes(config).items()}, tensors, str(weights))
    arrays: dict[str, np.ndarray] = {ours: tensors[theirs].float().numpy() for ours, theirs in names.items()}
    dictionary = directory / DICTIONARY
    text = dictionary.read_text(encoding="utf-8-sig") if dictionary.is_file() else None
    return PunctuationBundle(config, words, arrays, dictionary=text, digest=digest_of_spots(weights))


def save(bundle: PunctuationBundle, directory: Path) -> None:
    """Write a directory that FunASR's `AutoModel(model=directory)` opens, each file atomically."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        _theirs(name): torch.from_numpy(np.array(bundle.weights[name], np.float32)) for name in shapes(bundle.config)
    }
    with replacing(directory / "model.pt") as temporary:
        torch.save(tensors, temporary)
    _write(directory / funasr.SETTINGS_FILE, yaml.safe_dump(write_config(bundle.config), allow_unicode=True))
    _write(directory / "tokens.json", json.dumps(list(bundle.words), ensure_ascii=False) + "\n")
    files: dict[str, Any] = {"init_param": "model.pt", "config": funasr.SETTINGS_FILE}
    files["tokenizer_conf"] = {"token_list": "tokens.json"}
    if bundle.dictionary is not None:
        _write(directory / DICTIONARY, bundle.dictionary)
        files[DICTIONARY] = DICTIONARY
    metadata = {"framework": "pytorch", "task": "punctuation", "model": {"type": "funasr"}, "file_path_metas": files}
    _write(directory / funasr.METADATA_FILE, json.dumps(metadata, ensure_ascii=False, indent=1) + "\n")


def read_config(settings: Mapping[str, Any], words: int) -> PunctuationConfig:
    """Settings of config.yaml as ours. Raises ConfigError or UnsupportedModel saying which is wrong."""
    kind = settings.get("model")
    if not isinstance(kind, str) or kind not in MODELS:
        raise UnsupportedModel(f"{kind!r} is no punctuation model; those are {' and '.join(MODELS)}")
    encoder_class, attention = MODELS[kind]
    if settings.get("encoder") != encoder_class:
        raise UnsupportedModel(f"a {kind} with encoder {settings.get('encoder')!r} is not supported")
    model, encoder = settings.get("model_conf") or {}, settings.get("encoder_conf") or {}
    _check_encoder(encoder)
    width = encoder["output_size"]
    others = {"input_size": encoder["input_size"], **{key: model.get(key, width) for key in ("embed_unit", "att_unit")}}
    if different := [key for key, value in others.items() if value != width]:
        raise UnsupportedModel(f"{different[0]} must be output_size, {width}, not {others[different[0]]}")
    listed = model.get("punc_list")
    if not isinstance(listed, list) or not all(isinstance(mark, str) for mark in listed):
        raise ConfigError(f"model_conf.punc_list must be a list of marks, not {listed!r}")
    marks = [str(mark) for mark in listed]
    return PunctuationConfig(
        vocab_size=words,
        marks=tuple(_FULL_WIDTH.get(mark, mark) for mark in marks),
        dim=width,
        heads=encoder["attention_heads"],
        ffn_dim=encoder["linear_units"],
        layers=encoder["num_blocks"],
        kernel=encoder["kernel_size"],
        shift=encoder["sanm_shfit"],
        attention=attention,
    )


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


def _check_encoder(encoder: Mapping[str, Any]) -> None:
    if unknown := sorted(set(encoder) - set(_SIZES) - set(_FIXED) - set(_UNUSED)):
        raise ConfigError(f"unknown setting in encoder_conf: {', '.join(unknown)}")
    for key in _SIZES:
        if isinstance(encoder.get(key), bool) or not isinstance(encoder.get(key), int):
            raise ConfigError(f"encoder_conf.{key} must be a whole number, not {encoder.get(key)!r}")
    for key, accepted in _FIXED.items():
        if encoder.get(key, accepted[0]) not in accepted:
            raise UnsupportedModel(f"encoder_conf.{key} {encoder[key]!r} is not supported, only {accepted[0]!r}")


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


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not plain YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{path} must be YAML settings by name")
    return settings


def _file(directory: Path, *usual: str) -> Path:
    for name in usual:
        if (directory / name).is_file():
            return directory / name
    raise ModelNotFound(f"{directory} has no {' or '.join(usual)}; a punctuation model of FunASR's needs it")


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
