"""A model directory of our own: `config.json`, the weights and, where it was exported, the graphs. Torch-free.

config.json holds everything but the weights: model settings, vocabulary, CMVN, word pieces, the model card, the
checksums of the files beside it, and a seal that tells at once whether all of these still belong together. Float32
values survive the trip through JSON exactly.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError

from paraformer import contract
from paraformer.confidence import UNCALIBRATED, Calibration
from paraformer.config import ModelConfig
from paraformer.errors import ConfigError, ModelError, ModelNotFound, UnsupportedModel
from paraformer.frontend import Cmvn
from paraformer.kinds import COMPANIONS, RECOGNISER, mixed_up
from paraformer.settings import nearest

FORMAT = 1
CONFIG_FILE = "config.json"
FUNASR_FILES = ("config.yaml", "configuration.json")
"""Settings of a FunASR directory, which `checkpoint.funasr` reads."""
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
    "confidence": (dict,),
    "sha256": (dict,),
    "seal": (dict,),
}
"""The keys of config.json and what each holds. All are required but those of `_LATER`."""
_LATER: Mapping[str, Any] = {"units": [], "confidence": {}, "seal": {}}
"""Keys that earlier files lack, and what these mean."""

_SEALED = ("model", "tokens", "cmvn", "confidence")
"""Keys that decide with the weights what is recognised, and how surely; the seal holds digests of them."""
_SPOT, _SPOTS = 4096, 64
"""Bytes of a spot that the seal looks at, and how many there are of them in a file."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a model needs besides its weights. directory: where it was opened; None: not on disk.

    words: English word -> its pieces ("hello" -> ("hel@@", "lo")), for training targets. card: free, for readers.
    units: of a CTC layer whose units are not the tokens, such as syllables, from number 1 on (0 is the blank); training
    goes on with them. confidence: what is made of the decoder's probabilities. weights: the checksum of the weights
    that were saved with it; None: not known. seal: digests of settings and files as they were saved, by name; edited:
    settings that are so no longer; see `check`.

    Raises ModelError where vocabulary or CMVN do not fit the settings.
    """

    directory: Path | None
    config: ModelConfig
    tokens: tuple[str, ...]
    cmvn: Cmvn | None = None
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    confidence: Calibration = UNCALIBRATED
    weights: str | None = None
    seal: Mapping[str, str] = field(default_factory=dict, repr=False)
    edited: tuple[str, ...] = ()

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
            config, confidence = ModelConfig.from_dict(values["model"]), Calibration.from_dict(values["confidence"])
        except (ConfigError, UnsupportedModel) as error:
            raise type(error)(f"{directory / CONFIG_FILE}: {error}") from error
        words = {word: tuple(pieces) for word, pieces in values["words"].items()}
        cmvn = cmvn_from_json(values["cmvn"], directory / CONFIG_FILE)
        recorded, seal = values["sha256"], values["seal"]
        edited = tuple(key for key in _SEALED if seal.get(key, _digest(values[key])) != _digest(values[key]))
        return cls(
            directory,
            config,
            tuple(values["tokens"]),
            cmvn,
            words,
            values["card"],
            tuple(values["units"]),
            confidence,
            weights=recorded.get(contract.WEIGHTS) or recorded.get(contract.PACKED),
            seal=seal,
            edited=edited,
        )

    def save(self, directory: str | Path) -> None:
        """Write config.json, atomically, with checksums of the weights and graphs that are in the directory by now."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        hashed = [path for path in sorted(directory.iterdir()) if path.suffix in HASHED]
        values: dict[str, Any] = {
            "format": FORMAT,
            "model": self.config.to_dict(),
            "tokens": list(self.tokens),
            "cmvn": None if self.cmvn is None else cmvn_to_json(self.cmvn),
            "words": {word: list(pieces) for word, pieces in self.words.items()},
            "card": dict(self.card),
            "units": list(self.units),
            "confidence": self.confidence.to_dict(),
            "sha256": {path.name: checksum(path) for path in hashed},
        }
        seal = {key: _digest(values[key]) for key in _SEALED}
        values["seal"] = seal | {path.name: digest_of_spots(path) for path in hashed}
        lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        with replacing(directory / CONFIG_FILE) as temporary:
            temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    def check(self, *files: str) -> None:
        """Whether settings and the files named are those that were saved together, as the seal tells in milliseconds.

        Of a large file it looks at its length and 64 spots: enough to know other weights of the same shape, or an end
        that is missing; `verify` sees every bit. Raises ModelError naming what is gone or another.
        """
        assert self.directory is not None, "a bundle that is not on disk has no files"
        paths = {name: self.directory / name for name in files if name in self.seal}
        gone = [name for name, path in paths.items() if not path.is_file()]
        if gone:
            raise ModelError(f"{self.directory} was saved with {', '.join(gone)}, gone since; get the model again")
        changed = [name for name, path in paths.items() if digest_of_spots(path) != self.seal[name]]
        if others := [*self.edited, *changed]:
            raise ModelError(
                f"{self.directory} was changed since it was saved: {', '.join(others)} belongs to another model or was "
                f"edited; get the model again, or run `paraformer export {self.directory}` if that was meant"
            )

    def verify(self) -> None:
        """Compare the files on disk with their checksums: seconds for large models, so `open` does not.

        Raises ModelError naming every file that changed or is gone.
        """
        assert self.directory is not None, "a bundle that is not on disk has no files"
        recorded = _read_settings(self.directory)["sha256"]
        wrong = [name for name, digest in recorded.items() if _checksum_or_none(self.directory / name) != digest]
        if wrong:
            raise ModelError(f"{self.directory} changed since it was saved: {', '.join(wrong)}; get the model again")


def is_ours(directory: Path) -> bool:
    """Whether a model directory is one of ours, rather than FunASR's: the one place that tells them apart.

    Ours has the config.json that `Bundle.save` writes, whatever lies beside it. Hubs put a config.json or
    configuration.json of their own into directories of either form, so names alone do not tell.
    Raises ModelNotFound, with what is there instead, where there is no directory or it is in neither form.
    """
    if directory.is_file():
        raise ModelNotFound(f"{directory} is a file; a model is a directory, so name the one that holds it")
    if not directory.is_dir():
        raise ModelNotFound(f"there is no model directory {directory}")
    settings, weights = ((directory / name).is_file() for name in (CONFIG_FILE, contract.WEIGHTS))
    if settings and len(_keys(directory / CONFIG_FILE) & set(_FORMS)) > 1:
        return True
    if (directory / FUNASR_FILES[0]).is_file():
        return False
    if settings and weights:
        return True  # damaged, as `Bundle.open` will say
    if (directory / FUNASR_FILES[1]).is_file():
        return False
    if settings:
        return True
    raise ModelNotFound(
        f"{directory} is not a model directory: it has neither {CONFIG_FILE} nor {FUNASR_FILES[0]}, {_holds(directory)}"
    )


def _keys(path: Path) -> set[str]:
    """Those of a JSON object; none where the file holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return set()
    return set(values) if isinstance(values, dict) else set()


def _holds(directory: Path) -> str:
    """What a directory that is no model holds, and the model that may have been meant."""
    names = sorted(path.name for path in directory.iterdir())
    within = (path.parent for pattern in _WITHIN for path in sorted(directory.glob(pattern)))
    if meant := next(within, None):
        return f"but there is a model in {meant}; name that"
    if not names:
        return "nor anything else; get the model again"
    if graph := next((name for name in names if name.endswith(".onnx")), None):
        return f"and {graph} is for other runtimes; take the model that it was made of"
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"but {shown}; name the directory that holds a model's settings and weights"


_SHOWN = 5
"""Names that an error lists, before it only counts."""
_WITHIN = ("*/config.[jy]*", "snapshots/*/config.[jy]*", "models--*/snapshots/*/config.[jy]*")
"""Where models lie below a directory: a folder of some, or a cache of Hugging Face's."""


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_spots(path: Path) -> str:
    """Of the length of a file and of spots at even distances, the first and last bytes among them."""
    size = path.stat().st_size
    last = max(size - _SPOT, 0)
    with path.open("rb") as file:
        digest = hashlib.sha256(str(size).encode())
        for place in sorted({last * index // (_SPOTS - 1) for index in range(_SPOTS)}):
            file.seek(place)
            digest.update(file.read(_SPOT))
    return digest.hexdigest()[:16]


def _digest(value: Any) -> str:
    """Of plain values as they stand in a file, where settings of later versions may be missing."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` when the block ends well: all of it or nothing.

    Raises OSError that names `path`, whichever file could not be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.new")  # short: the name of `path` may be as long as a disk allows
    try:
        with naming(path, temporary):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)  # some writers make files that nobody else may read
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an error of the system while `path` is written name it: that of a full disk names none, or a temporary one.

    safetensors' own become the errors of the system that they tell of.
    """
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else str(error.filename)
        if error.errno is not None and (named is None or (temporary and named.startswith(str(temporary)))):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    except SafetensorError as error:
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


@contextmanager
def making(directory: Path) -> Iterator[Path]:
    """A temporary directory beside `directory`, whose files go there when the block ends well: all of them or nothing.

    Files of the same names that are in `directory` already are replaced, others stay.
    """
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    try:
        with naming(directory, temporary):
            temporary.mkdir()
            yield temporary
            if directory.is_dir():
                for path in sorted(temporary.iterdir()):
                    path.replace(directory / path.name)
            else:
                temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_empty(directory: Path, purpose: str) -> None:
    """Raise ModelError if there is anything at `directory` that writing a model there would mix with."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ModelError(f"{directory} is not empty; name a new directory to {purpose}")


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
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}; get the model again") from error
    found = values.get("format") if isinstance(values, dict) else None
    if not isinstance(values, dict) or isinstance(found, bool) or found != FORMAT:
        raise ModelError(f"{path} has format {found!r}, this version reads {FORMAT}; update paraformer or the model")
    if other := next((kind for name, kind in COMPANIONS.items() if name in values), None):
        raise mixed_up(directory, other, RECOGNISER)
    values = {**_LATER, **values}
    _check_forms(values, path)
    return values


def _check_forms(values: dict[str, Any], path: Path) -> None:
    unknown, missing = sorted(set(values) - set(_FORMS)), sorted(set(_FORMS) - set(values))
    if unknown or missing:
        meant = nearest(unknown[0], missing) if unknown else ""
        parts = {"unknown": unknown, "missing": missing}
        wrong = [f"{what}: {', '.join(keys)}" for what, keys in parts.items() if keys]
        raise ConfigError(f"{path} does not have the keys of a model, {'; '.join(wrong)}{meant}")
    for key, forms in _FORMS.items():
        if not isinstance(values[key], forms):
            raise ConfigError(f"{path}: {key} must be {forms[0].__name__}, not {type(values[key]).__name__}")
    texts = {"tokens": [values["tokens"]], "units": [values["units"]], "words": values["words"].values()}
    for key, lists in texts.items():
        if not all(isinstance(row, list) and all(isinstance(text, str) for text in row) for row in lists):
            raise ConfigError(f"{path}: {key} must be strings")


def cmvn_to_json(cmvn: Cmvn) -> dict[str, list[float]]:
    """As config.json holds it; `cmvn_from_json` gives it back to the bit."""
    return {"shift": _shortest(cmvn.shift), "scale": _shortest(cmvn.scale)}


def _shortest(row: Float32[np.ndarray, " dim"]) -> list[float]:
    """The shortest decimals that read back as the same float32."""
    return [float(str(value)) for value in row]


def cmvn_from_json(values: Mapping[str, Any] | None, path: Path | str) -> Cmvn | None:
    """The inverse of `cmvn_to_json`; None is none. Raises ConfigError, naming the path, for what is no CMVN."""
    if values is None:
        return None
    try:
        with np.errstate(over="ignore"):  # what is beyond float32 is not finite, and is told as that
            rows = np.array([values["shift"], values["scale"]], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: cmvn must hold two rows of numbers, shift and scale: {error}") from error
    if rows.ndim != 2:
        raise ConfigError(f"{path}: cmvn must hold two rows of numbers, shift and scale")
    try:
        return Cmvn(*rows)
    except ModelError as error:
        raise ConfigError(f"{path}: {error}") from error
