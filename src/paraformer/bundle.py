"""A model directory of our own: `config.json`, the weights and, where it was exported, the graphs. Torch-free.

config.json holds everything but the weights: model settings, vocabulary, CMVN, word pieces, the model card, and the
checksums of the files beside it. Float32 values survive the trip through JSON exactly.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from paraformer import contract
from paraformer.config import ModelConfig
from paraformer.errors import ConfigError, ModelError, ModelNotFound
from paraformer.frontend import Cmvn

FORMAT = 1
CONFIG_FILE = "config.json"
HASHED = (".safetensors", ".onnx")
"""Files whose checksums config.json records."""

_FORMS: Mapping[str, tuple[type, ...]] = {
    "format": (int,),
    "model": (dict,),
    "tokens": (list,),
    "cmvn": (dict, type(None)),
    "words": (dict,),
    "card": (dict,),
    "units": (list,),
    "sha256": (dict,),
}
"""The keys of config.json and what each holds. All are required but units, which earlier files lack."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a model needs besides its weights. directory: where it was opened; None: not on disk.

    words: English word -> its pieces ("hello" -> ("hel@@", "lo")), for training targets. card: free, for readers.
    units: of a CTC layer whose units are not the tokens, such as syllables, from number 1 on (0 is the blank); training
    goes on with them. Raises ModelError where vocabulary or CMVN do not fit the settings.
    """

    directory: Path | None
    config: ModelConfig
    tokens: tuple[str, ...]
    cmvn: Cmvn | None = None
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    weights: str | None = None

    def __post_init__(self) -> None:
        where = f"{self.directory}: " if self.directory else ""
        size = self.config.vocab_size
        if len(self.tokens) != size:
            raise ModelError(f"{where}{len(self.tokens)} tokens, but the model's vocabulary is {size}")
        if len(set(self.tokens)) != len(self.tokens):
            twice = next(token for index, token in enumerate(self.tokens) if token in self.tokens[:index])
            raise ModelError(f"{where}the vocabulary holds {twice!r} twice")
        width = self.config.frontend.input_dim
        if self.cmvn is not None and self.cmvn.shift.shape != (width,):
            raise ModelError(f"{where}CMVN has {self.cmvn.shift.size} values, but model input rows have {width}")

    @classmethod
    def open(cls, directory: str | Path) -> Bundle:
        """Read a model directory; the weights themselves stay closed.

        Raises ModelNotFound (no directory, settings or weights), ConfigError (unknown or impossible settings) and
        ModelError (anything else wrong in it).
        """
        directory = Path(directory)
        values = _read_settings(directory)
        if not any((directory / name).is_file() for name in (contract.WEIGHTS, contract.PACKED)):
            raise ModelNotFound(f"{directory} has no weights: {contract.WEIGHTS} is missing; copy or save it again")
        try:
            config = ModelConfig.from_dict(values["model"])
        except (ConfigError, AttributeError, TypeError) as error:
            raise ConfigError(f"{directory / CONFIG_FILE}: {error}") from error
        words = {word: tuple(pieces) for word, pieces in values["words"].items()}
        cmvn = _cmvn_from_json(values["cmvn"], directory / CONFIG_FILE)
        recorded = values["sha256"]
        weights = recorded.get(contract.WEIGHTS) or recorded.get(contract.PACKED)
        tokens, units = tuple(values["tokens"]), tuple(values["units"])
        return cls(directory, config, tokens, cmvn, words, values["card"], units, weights)

    def save(self, directory: str | Path) -> None:
        """Write config.json, atomically, with checksums of the weights and graphs that are in the directory by now."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        values = {
            "format": FORMAT,
            "model": self.config.to_dict(),
            "tokens": list(self.tokens),
            "cmvn": None if self.cmvn is None else _cmvn_to_json(self.cmvn),
            "words": {word: list(pieces) for word, pieces in self.words.items()},
            "card": dict(self.card),
            "units": list(self.units),
            "sha256": {path.name: checksum(path) for path in sorted(directory.iterdir()) if path.suffix in HASHED},
        }
        lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        with replacing(directory / CONFIG_FILE) as temporary:
            temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    def verify(self) -> None:
        """Compare the files on disk with their checksums: seconds for large models, so `open` does not.

        Raises ModelError naming every file that changed or is gone.
        """
        assert self.directory is not None, "a bundle that is not on disk has no files"
        recorded = _read_settings(self.directory)["sha256"]
        wrong = [name for name, digest in recorded.items() if _checksum_or_none(self.directory / name) != digest]
        if wrong:
            raise ModelError(f"{self.directory} changed since it was saved: {', '.join(wrong)}; get the model again")


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` when the block ends well: all of it or nothing."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.new")  # short: the name of `path` may be as long as a disk allows
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # some writers make files that nobody else may read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _checksum_or_none(path: Path) -> str | None:
    return checksum(path) if path.is_file() else None


def _read_settings(directory: Path) -> dict[str, Any]:
    """config.json, its keys and their forms checked."""
    path = directory / CONFIG_FILE
    if not directory.is_dir():
        raise ModelNotFound(f"there is no model directory {directory}")
    if not path.is_file():
        raise ModelNotFound(f"{directory} is not a model directory of ours: it has no {CONFIG_FILE}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}; get the model again") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise ModelError(f"{path} has format {found!r}, this version reads {FORMAT}; update paraformer or the model")
    values.setdefault("units", [])
    _check_forms(values, path)
    return values


def _check_forms(values: dict[str, Any], path: Path) -> None:
    unknown, missing = sorted(set(values) - set(_FORMS)), sorted(set(_FORMS) - set(values))
    if unknown or missing:
        wrong = [f"unknown: {', '.join(unknown)}"] * bool(unknown) + [f"missing: {', '.join(missing)}"] * bool(missing)
        raise ConfigError(f"{path} does not have the keys of a model, {'; '.join(wrong)}")
    for key, forms in _FORMS.items():
        if not isinstance(values[key], forms):
            raise ConfigError(f"{path}: {key} must be {forms[0].__name__}, not {type(values[key]).__name__}")
    if not all(isinstance(token, str) for token in values["tokens"]):
        raise ConfigError(f"{path}: tokens must be strings")


def _cmvn_to_json(cmvn: Cmvn) -> dict[str, list[float]]:
    return {"shift": _shortest(cmvn.shift), "scale": _shortest(cmvn.scale)}


def _shortest(row: Float32[np.ndarray, " dim"]) -> list[float]:
    """The shortest decimals that read back as the same float32."""
    return [float(str(value)) for value in row]


def _cmvn_from_json(values: Mapping[str, Any] | None, path: Path) -> Cmvn | None:
    if values is None:
        return None
    try:
        return Cmvn(np.array(values["shift"], np.float32), np.array(values["scale"], np.float32))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: cmvn must hold two rows of numbers, shift and scale: {error}") from error
