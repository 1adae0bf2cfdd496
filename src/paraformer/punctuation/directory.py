"""A punctuation model's directory of our own: `config.json` with its words, `model.safetensors`. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from paraformer import contract
from paraformer.bundle import CONFIG_FILE, checksum, digest_of_spots, replacing
from paraformer.errors import ConfigError, ModelError, ModelNotFound
from paraformer.punctuation.config import PunctuationConfig
from paraformer.weights import SCALE, Storage, Stored, check_finite, quantised

FORMAT = 1
KIND = "punctuation"
"""The key of config.json that holds the settings, and tells such a directory from a recogniser's."""


@dataclass(frozen=True, eq=False)
class PunctuationBundle:
    """What a punctuation model is: settings, words in the order of their ids, weights by name.

    dictionary: words for jieba, in its format, where texts are cut by it and not at each character; None: not.
    """

    config: PunctuationConfig
    words: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    card: Mapping[str, Any] = field(default_factory=dict)
    dictionary: str | None = None
    digest: str = ""
    """Tells these weights from others; empty: not known."""

    def __post_init__(self) -> None:
        if len(self.words) != self.config.vocab_size:
            raise ModelError(f"{len(self.words)} words, but the model's vocabulary is {self.config.vocab_size}")


def is_punctuation(directory: Path) -> bool:
    """Whether a directory is one of ours with a punctuation model."""
    try:
        values = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and KIND in values


def open_bundle(directory: Path) -> PunctuationBundle:
    """Read a directory of ours. Raises ModelNotFound, ConfigError, CheckpointError or ModelError, each naming it."""
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise ModelNotFound(f"{directory} is no punctuation model: it has no {CONFIG_FILE}")
    values = _settings(path)
    try:
        config = PunctuationConfig.from_dict(values[KIND])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    weights = directory / contract.WEIGHTS
    if not weights.is_file():
        raise ModelNotFound(f"{directory} has no weights: {contract.WEIGHTS} is missing; copy or save it again")
    stored = Stored(weights, mapped=True)
    stored.check_finite()
    words = tuple(values["words"])
    return PunctuationBundle(config, words, stored, values["card"], values["dictionary"], digest_of_spots(weights))


def save_bundle(bundle: PunctuationBundle, directory: Path, *, stored: Storage = "float32") -> None:
    """Write it, each file atomically. stored: how the weights are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = directory / contract.WEIGHTS
    with replacing(weights) as temporary:
        save_file(_kept(bundle.weights, stored), temporary)
    values = {
        "format": FORMAT,
        KIND: bundle.config.to_dict(),
        "words": list(bundle.words),
        "card": dict(bundle.card),
        "dictionary": bundle.dictionary,
        "sha256": {contract.WEIGHTS: checksum(weights)},
    }
    lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    with replacing(directory / CONFIG_FILE) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def digest_of(words: Sequence[str], config: PunctuationConfig, weights: str) -> str:
    """Tells a model from any other."""
    described = json.dumps([list(words), config.to_dict(), weights], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _kept(weights: Mapping[str, np.ndarray], stored: Storage) -> dict[str, np.ndarray]:
    kept: dict[str, np.ndarray] = {}
    for name in weights:
        tensor = np.ascontiguousarray(weights[name], np.float16 if stored == "float16" else np.float32)
        check_finite(name, tensor)
        pair = quantised(tensor) if stored == "int8" else None
        if pair is None:
            kept[name] = tensor
        else:
            kept[name], kept[name + SCALE] = pair
    return kept


_FORMS: Mapping[str, tuple[type, ...]] = {
    "format": (int,),
    KIND: (dict,),
    "words": (list,),
    "card": (dict,),
    "dictionary": (str, type(None)),
    "sha256": (dict,),
}


def _settings(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}; get the model again") from error
    if not isinstance(values, dict) or KIND not in values:
        raise ModelError(f"{path} is not of a punctuation model; give a recogniser as the model, not as punctuation")
    if values.get("format") != FORMAT:
        raise ModelError(f"{path} has format {values.get('format')!r}, this version reads {FORMAT}; update paraformer")
    if set(values) != set(_FORMS):
        raise ConfigError(f"{path} must have the keys {', '.join(_FORMS)}, not {', '.join(sorted(values))}")
    for key, forms in _FORMS.items():
        if not isinstance(values[key], forms):
            raise ConfigError(f"{path}: {key} must be {forms[0].__name__}, not {type(values[key]).__name__}")
    if not all(isinstance(word, str) for word in values["words"]):
        raise ConfigError(f"{path}: words must be strings")
    return values
