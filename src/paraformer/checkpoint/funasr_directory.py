"""FunASR model directories: config.yaml, configuration.json, model.pt, am.mvn, tokens.json and seg_dict. Torch-free.

Nothing of them is ever run: weights load as tensors and plain values alone, YAML as plain values alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import yaml

from paraformer.bundle import Bundle, digest_of_spots
from paraformer.checkpoint import funasr_config, funasr_parts, torch_file
from paraformer.checkpoint.funasr_parts import Named
from paraformer.checkpoint.keys import funasr_names
from paraformer.config import ModelConfig
from paraformer.errors import ConfigError, ModelError, ModelNotFound, UnsupportedModel
from paraformer.frontend import Cmvn
from paraformer.text import parse_tokens, parse_words
from paraformer.weights import check_all_finite, check_names

SETTINGS_FILE = "config.yaml"
METADATA_FILE = "configuration.json"
OURS = "paraformer"
"""The entry of configuration.json, unknown to FunASR, that keeps what its settings have no words for."""

RECOGNISERS = tuple(funasr_config.KINDS)
"""Classes that are run as recognisers."""


@dataclass(frozen=True)
class Directory:
    """A FunASR directory that was looked through: what its settings say, and where the files are that they name.

    tokens: the list itself, or the file that holds it. cmvn, words: None where the model has none.
    """

    path: Path
    settings: Mapping[str, Any]
    metadata: Mapping[str, Any]
    settings_file: Path
    weights: Path
    tokens: Path | tuple[str, ...]
    cmvn: Path | None
    words: Path | None


def read(directory: str | Path) -> Bundle:
    """The settings alone, for which the weights need only be there.

    Raises ModelNotFound (a file is missing), UnsupportedModel (another kind of model), ConfigError (unknown settings),
    ModelError (anything else).
    """
    found = locate(Path(directory))
    tokens = read_tokens(found.tokens) if isinstance(found.tokens, Path) else found.tokens
    try:
        config, card = _add_ours(funasr_config.read(found.settings, len(tokens)), found.metadata)
    except (ConfigError, UnsupportedModel) as error:
        raise type(error)(f"{found.settings_file}: {error}") from error
    cmvn = read_cmvn(found.cmvn) if found.cmvn else None
    words = read_words(found.words) if found.words else {}
    return Bundle(found.path, config, tokens, cmvn, words, card, weights=digest_of_spots(found.weights))


def load_weights(bundle: Bundle, shapes: Mapping[str, Sequence[int]]) -> Converted:
    """The weights of what `read` gave, by our names, for an engine that is not torch. shapes: of all that there are.

    Raises CheckpointError for tensors that do not fit, or a file that holds more than tensors, and as `read`.
    """
    arrays, names, source = arrays_of(bundle, shapes)
    expected = {names[ours]: shape for ours, shape in shapes.items()}
    check_names(expected, {name: array.shape for name, array in arrays.items()}, source)
    check_all_finite(arrays.items(), source)
    return Converted(arrays, names)


def arrays_of(bundle: Bundle, ours: Iterable[str]) -> tuple[dict[str, np.ndarray], dict[str, str], str]:
    """Of a directory that was read: tensors, their names by ours, the file. The vocabulary is compared first."""
    assert bundle.directory is not None
    found = locate(bundle.directory)
    arrays, names = torch_file.read(found.weights), funasr_names(bundle.config, ours)
    output = arrays.get(names["decoder.output.weight"])
    if output is not None and output.ndim == 2 and len(output) != len(bundle.tokens):
        raise ModelError(
            f"{_named(found.tokens)} lists {len(bundle.tokens)} tokens, but the vocabulary of {found.weights} is "
            f"{len(output)}; one of them belongs to another model"
        )
    return arrays, names, str(found.weights)


class Converted(Mapping[str, np.ndarray]):
    """Weights by our names, each in float32 when it is asked for.

    So a model that is brought into another layout is never in memory twice.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], names: Mapping[str, str]) -> None:
        self._arrays, self._names = arrays, names

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._arrays[self._names[name]]
        # An engine keeps rows as they are, and a row of a mapped file would keep that open; matrices it lays out anew.
        return np.array(array, np.float32) if array.ndim == 1 else np.asarray(array, np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _named(tokens: Path | tuple[str, ...]) -> str:
    return str(tokens) if isinstance(tokens, Path) else "token_list"


def locate(directory: Path) -> Directory:
    """Read the settings of a directory and find all files that they name.

    A file is where `file_path_metas` of configuration.json or config.yaml say, or beside them under the same name:
    whole paths are those of the machine that trained the model. What nothing names has its usual name.

    Raises ModelNotFound for a file that is named and nowhere, or that every model needs; CMVN may be absent only where
    `cmvn_file: null` says so, for without it a model hears noise.
    """
    metadata, paths = read_metadata(directory)
    settings_file = existing(directory, [paths], funasr_parts.SETTINGS)
    settings = read_settings(settings_file)
    try:
        funasr_config.check(settings)  # before files are looked for that another kind does not have
    except (ConfigError, UnsupportedModel) as error:
        raise type(error)(f"{settings_file}: {error}") from error
    both = [paths, settings]
    tokens = _value(settings, ("tokenizer_conf", "token_list"))
    cmvn = find(directory, both, funasr_parts.CMVN)
    if cmvn is None and "cmvn_file" not in (settings.get("frontend_conf") or {}):
        raise ModelNotFound(
            f"{directory} has no am.mvn, and its settings name no other CMVN file; put it there, or write "
            f"`cmvn_file: null` below frontend_conf in {settings_file.name} if the model was trained without"
        )
    return Directory(
        path=directory,
        settings=settings,
        metadata=metadata,
        settings_file=settings_file,
        weights=_weights(directory, [paths]),
        tokens=_listed(tokens, settings_file)
        if isinstance(tokens, list)
        else existing(directory, both, funasr_parts.TOKENS),
        cmvn=cmvn,
        words=find(directory, both, funasr_parts.WORDS),
    )


def read_tokens(path: Path) -> tuple[str, ...]:
    """The vocabulary in the order of ids, in any form of `parse_tokens`. Raises ModelError that names the file."""
    text = _read_text(path)
    if path.suffix == ".json":
        _parse_json(text, path)  # or else its lines would be the tokens
    try:
        return parse_tokens(text)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def read_words(path: Path) -> dict[str, tuple[str, ...]]:
    """seg_dict: on each line a word and its pieces, "hello hel@@ lo". Raises ModelError where there is no line."""
    words = parse_words(_read_text(path))
    if not words:
        raise ModelError(f"{path} is empty; get the model again")
    return words


def read_cmvn(path: Path) -> Cmvn:
    """am.mvn. Raises ModelError that names the file."""
    try:
        return Cmvn.parse(_read_text(path))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


# -- reading --------------------------------------------------------------------------------------------------------


def read_metadata(directory: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """configuration.json, empty where there is none, and of it the names of files."""
    if not directory.is_dir():
        raise ModelNotFound(f"there is no model directory {directory}")
    path = directory / METADATA_FILE
    metadata = _parse_json(_read_text(path), path) if os.path.lexists(path) else {}
    if not isinstance(metadata, dict):
        raise ModelError(f"{path} must be a JSON object")
    funasr_config.check_keys(funasr_parts.METADATA, metadata, str(path))
    paths = section(metadata, "file_path_metas", path)
    funasr_config.check_keys(funasr_parts.PATHS, paths, f"{path}: file_path_metas")
    return metadata, paths


def read_settings(path: Path) -> dict[str, Any]:
    """config.yaml. Raises ModelError for what is not plain YAML settings by name."""
    try:
        settings = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise ModelError(f"{path} is not plain YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{path} must be YAML settings by name")
    return settings


def _add_ours(config: ModelConfig, metadata: Mapping[str, Any]) -> tuple[ModelConfig, Mapping[str, Any]]:
    """The settings with what our own `save` kept beside FunASR's, and the model card."""
    ours = section(metadata, OURS, Path(METADATA_FILE))
    kept = {key: ours[key] for key in ("live", "training_chunks") if key in ours}
    return ModelConfig.from_dict({**config.to_dict(), **kept}), ours.get("card", {})


def section(values: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    """The settings below a key of a JSON file, empty where there are none. Raises ModelError for anything else."""
    section = values.get(name)
    if section is not None and not isinstance(section, dict):
        raise ModelError(f"{path}: {name} must be a JSON object, not {section!r:.60}")
    return section or {}


def _weights(directory: Path, settings: Sequence[Mapping[str, Any]]) -> Path:
    """As `existing`, which cannot say what to do with graphs alone."""
    try:
        return existing(directory, settings, funasr_parts.WEIGHTS)
    except ModelNotFound as error:
        if graphs := sorted(directory.glob("*.onnx")):
            raise ModelNotFound(
                f"{directory} has no weights, and {graphs[0].name} is for other runtimes; "
                "take the model that it was made of"
            ) from error
        raise


def existing(directory: Path, settings: Sequence[Mapping[str, Any]], file: Named) -> Path:
    """Where a file is that must be there; as `find`. Raises ModelNotFound, with names like its, where it is not."""
    path = find(directory, settings, file)
    if path is None:
        others = ", ".join(sorted(other.name for other in directory.glob(f"{file.usual[0]}*")))
        raise ModelNotFound(
            f"{directory} has no {' or '.join(file.usual)}; a FunASR model directory needs it"
            + (f"; rename the one you want of {others}" if others else "")
        )
    return path


def find(directory: Path, settings: Sequence[Mapping[str, Any]], file: Named) -> Path | None:
    """Where a file is; None where nothing names it and it is not there under a usual name."""
    named = [value for keys in file.keys for one in settings if (value := _value(one, keys)) is not None]
    for name in named:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{directory}: {'.'.join(file.keys[0])} must name a file, not {name!r:.60}")
        if found := next((path for path in _places(directory, name, file.usual) if path.is_file()), None):
            return found
    if named:
        raise ModelNotFound(
            f"{directory} is incomplete: its settings name {named[0]} ({'.'.join(file.keys[0])}), "
            "which is neither there nor beside them; get it from where the model is from"
        )
    return next((directory / name for name in file.usual if (directory / name).is_file()), None)


def _places(directory: Path, name: str, usual: Sequence[str]) -> Iterator[Path]:
    """Where a named file may be, the directory itself first: a path out of it is often of another machine."""
    inside = not (path := Path(name)).is_absolute() and ".." not in path.parts
    if inside:
        yield directory / name
    bare = PureWindowsPath(name).name  # of paths of either kind
    yield directory / bare
    if not inside:
        yield from (directory / one for one in usual)
        yield directory / path


def _value(settings: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """What stands below the keys, None where nothing does."""
    value: Any = settings
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _listed(tokens: list[Any], path: Path) -> tuple[str, ...]:
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise ConfigError(f"{path}: token_list must name a file or hold strings")
    return tuple(tokens)


def _read_text(path: Path) -> str:
    if not path.is_file():  # a pipe would be waited for
        raise ModelNotFound(f"{path} is not a file; get the model again")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text: {error}") from error


def _parse_json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
