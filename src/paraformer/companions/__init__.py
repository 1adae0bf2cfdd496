"""Directories of our own of the models that stand beside a recogniser: `config.json`, `model.safetensors`. Torch-free.

They punctuate, find speech, tell voices apart, align: see `kinds`. All are kept alike. config.json holds the settings
under the name of the kind, which tells such a directory from a recogniser's, and what else is no tensor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import save_file

from paraformer import contract
from paraformer.bundle import CONFIG_FILE, checksum, digest_of_spots, replacing
from paraformer.errors import ConfigError, ModelError, ModelNotFound
from paraformer.kinds import ALIGNER, COMPANIONS, DETECTOR, PUNCTUATION, RECOGNISER, VOICES, Kind, mixed_up
from paraformer.weights import SCALE, Storage, Stored, check_finite, quantised

T = TypeVar("T")
FORMAT = 1
EXTRAS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    PUNCTUATION.name: {"words": (list,), "dictionary": (str, type(None))},
    DETECTOR.name: {"cmvn": (dict, type(None))},
    VOICES.name: {},
    ALIGNER.name: {"tokens": (list,), "pieces": (dict,), "cmvn": (dict, type(None))},
}
"""What each kind has in config.json besides its settings, and what it holds."""


@dataclass(frozen=True, eq=False)
class Companion:
    """What such a model is, as plain values. extras: those of `EXTRAS`; weights by our names."""

    kind: Kind
    settings: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]
    extras: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    """Tells these weights from others; empty: not known."""
    source: str = "the model"
    """Where the settings were read, for errors."""

    def parsed(self, read: Callable[[Mapping[str, Any]], T]) -> T:
        """The settings as `read` understands them; its errors name the source."""
        with self.naming(ConfigError, ModelError):
            return read(self.settings)

    @contextmanager
    def naming(self, *kinds: type[ConfigError | ModelError]) -> Iterator[None]:
        """Errors of these kinds, in the block, name the source."""
        try:
            yield
        except kinds as error:
            raise type(error)(f"{self.source}: {error}") from error


def kind_of(directory: Path) -> Kind | None:
    """The kind of model in a directory of ours; None where there is no model of ours."""
    try:
        values = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    keys = values if isinstance(values, dict) else {}
    return next((kind for kind in (*COMPANIONS.values(), RECOGNISER) if kind.name in keys), None)


def open_directory(directory: Path, kind: Kind) -> Companion:
    """Read a directory of ours. Raises ModelNotFound, ConfigError, CheckpointError or ModelError, each naming it."""
    path, weights = directory / CONFIG_FILE, directory / contract.WEIGHTS
    if not path.is_file():
        raise ModelNotFound(f"{directory} is not {kind.what}: it has no {CONFIG_FILE}")
    values = _settings(path, kind)
    if not weights.is_file():
        raise ModelNotFound(f"{directory} has no weights: {contract.WEIGHTS} is missing; copy or save it again")
    stored = Stored(weights, mapped=True)
    stored.check_finite()
    extras = {key: values[key] for key in EXTRAS[kind.name]}
    return Companion(kind, values[kind.name], stored, extras, values["card"], digest_of_spots(weights), str(path))


def save_directory(companion: Companion, directory: Path, *, stored: Storage = "float32") -> None:
    """Write it, each file atomically. stored: how the weights are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = directory / contract.WEIGHTS
    with replacing(weights) as temporary:
        save_file(_kept(companion.weights, stored), temporary)
    values = {
        "format": FORMAT,
        companion.kind.name: companion.settings,
        **companion.extras,
        "card": dict(companion.card),
        "sha256": {contract.WEIGHTS: checksum(weights)},
    }
    lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    with replacing(directory / CONFIG_FILE) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _kept(weights: Mapping[str, np.ndarray], stored: Storage) -> dict[str, np.ndarray]:
    """Tensors of the file; whole numbers, such as the counters of batch norms, stay what they are."""
    kept: dict[str, np.ndarray] = {}
    for name in weights:
        given = weights[name]
        if given.dtype.kind == "i":
            kept[name] = given
            continue
        tensor = np.ascontiguousarray(given, np.float16 if stored == "float16" else np.float32)
        check_finite(name, tensor)
        pair = quantised(tensor) if stored == "int8" else None
        if pair is None:
            kept[name] = tensor
        else:
            kept[name], kept[name + SCALE] = pair
    return kept


def _settings(path: Path, kind: Kind) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}; get the model again") from error
    if not isinstance(values, dict) or kind.name not in values:
        if (found := kind_of(path.parent)) is not None:
            raise mixed_up(path.parent, found, kind)
        raise ModelError(f"{path} is not of {kind.what}: it has no {kind.name!r}; get the model again")
    if values.get("format") != FORMAT:
        raise ModelError(f"{path} has format {values.get('format')!r}, this version reads {FORMAT}; update paraformer")
    forms = {"format": (int,), kind.name: (dict,), **EXTRAS[kind.name], "card": (dict,), "sha256": (dict,)}
    if set(values) != set(forms):
        raise ConfigError(f"{path} must have the keys {', '.join(forms)}, not {', '.join(sorted(values))}")
    for key, types in forms.items():
        if not isinstance(values[key], types):
            raise ConfigError(f"{path}: {key} must be {types[0].__name__}, not {type(values[key]).__name__}")
    _check_lists(values, path)
    return values


def _check_lists(values: Mapping[str, Any], path: Path) -> None:
    """Of words and of their pieces."""
    named = {key: values[key] for key in ("words", "tokens") if key in values}
    named |= {f"pieces of {word!r}": pieces for word, pieces in values.get("pieces", {}).items()}
    for key, listed in named.items():
        if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
            raise ConfigError(f"{path}: {key} must be a list of strings, not {listed!r:.60}")
