"""FunASR's directories of models that stand beside a recogniser, both ways: one way for all kinds of them.

What each kind is, its settings and the names of its tensors, say `FORMS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from paraformer.bundle import cmvn_from_json, cmvn_to_json, digest_of_spots, replacing
from paraformer.checkpoint import (
    funasr_aligner,
    funasr_config,
    funasr_detector,
    funasr_punctuation,
    funasr_voices,
    torch_file,
)
from paraformer.checkpoint import funasr_directory as funasr
from paraformer.checkpoint.form import Form
from paraformer.checkpoint.funasr_parts import CMVN, DICTIONARY, SETTINGS, TOKENS, WHOLE_MODEL, WORDS, Named
from paraformer.companions import Companion
from paraformer.errors import ConfigError, ModelError, ModelNotFound, UnsupportedModel
from paraformer.kinds import RECOGNISER, Kind, mixed_up
from paraformer.weights import check_finite, check_names

FORMS = (funasr_punctuation.FORM, funasr_detector.FORM, funasr_voices.FORM, funasr_aligner.FORM)
_BY_MODEL: Mapping[str, Form] = {model: form for form in FORMS for model in form.models}


def _json_lines(words: Any) -> str:
    return json.dumps(words, ensure_ascii=False) + "\n"


def _read_pieces(path: Path) -> dict[str, list[str]]:
    return {word: list(pieces) for word, pieces in funasr.read_words(path).items()}


def _write_pieces(words: Mapping[str, Any]) -> str:
    return "".join(" ".join((word, *pieces)) + "\n" for word, pieces in words.items())


def _read_tokens(path: Path) -> list[str]:
    return list(funasr.read_tokens(path))


def _write_cmvn(values: Mapping[str, Any]) -> str:
    cmvn = cmvn_from_json(values, "cmvn")
    assert cmvn is not None
    return cmvn.to_text()


class _File(NamedTuple):
    """How one of the extras lies in a directory; empty: what stands for it where there is none."""

    named: Named
    read: Callable[[Path], Any]
    write: Callable[[Any], str]
    empty: Any = None


_FILES: Mapping[str, _File] = {
    "words": _File(TOKENS, _read_tokens, _json_lines),
    "tokens": _File(TOKENS, _read_tokens, _json_lines),
    "pieces": _File(WORDS, _read_pieces, _write_pieces, {}),
    "dictionary": _File(DICTIONARY, lambda path: path.read_text(encoding="utf-8-sig"), str),
    "cmvn": _File(CMVN, lambda path: cmvn_to_json(funasr.read_cmvn(path)), _write_cmvn),
}


def kind_of(directory: Path) -> Kind:
    """The kind of model whose class config.yaml names."""
    path = directory / SETTINGS.usual[0]
    form = _BY_MODEL.get(str(funasr.read_settings(path).get("model"))) if path.is_file() else None
    return form.kind if form else RECOGNISER


def load(directory: Path, kind: Kind | None = None) -> Companion:
    """Open a directory of FunASR's. kind: which it must be; None: any.

    Raises ModelNotFound (a file is missing), UnsupportedModel (another kind of model), ConfigError (settings),
    CheckpointError (tensors that do not fit, or a file that holds more than tensors), ModelError (anything else).
    """
    metadata, paths = funasr.read_metadata(directory)
    path = funasr.existing(directory, [paths], SETTINGS)
    settings = funasr.read_settings(path)
    form = _BY_MODEL.get(str(settings.get("model")))
    if kind is not None and (form is None or form.kind is not kind):
        if form is not None or settings.get("model") in funasr.RECOGNISERS:
            raise mixed_up(f"{directory} ({settings['model']})", form.kind if form else RECOGNISER, kind)
        raise UnsupportedModel(f"{path} names a model of kind {settings.get('model')!r}, which is not {kind.what}")
    assert form is not None
    weights = funasr.existing(directory, [paths], form.weights)
    card = funasr.section(metadata, funasr.OURS, directory / funasr.METADATA_FILE).get("card", {})
    try:
        funasr_config.check_keys(WHOLE_MODEL, settings, "")
        extras = _extras(form, directory, [paths, settings])
        ours = form.read(settings, extras)
        arrays = _arrays(form, ours, torch_file.read(weights), weights, extras)
    except (ConfigError, UnsupportedModel) as error:
        raise type(error)(f"{path}: {error}") from error
    return Companion(form.kind, ours, arrays, extras, card, digest_of_spots(weights), str(path))


def save(companion: Companion, directory: Path) -> None:
    """Write a directory that FunASR's `AutoModel` opens, each file atomically."""
    import torch

    from paraformer.checkpoint.funasr import save_tensors

    form = next(form for form in FORMS if form.kind is companion.kind)
    directory.mkdir(parents=True, exist_ok=True)
    names = form.theirs(companion.settings)
    tensors = {names.get(name, name): torch.from_numpy(np.array(companion.weights[name])) for name in companion.weights}
    save_tensors(tensors, directory / form.weights.usual[0])
    settings = form.write(companion.settings, companion.extras)
    _write(directory / SETTINGS.usual[0], yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    files: dict[str, Any] = {"init_param": form.weights.usual[0], "config": SETTINGS.usual[0]}
    for name in form.extras:
        if companion.extras[name]:
            file = _FILES[name]
            _write(directory / file.named.usual[0], file.write(companion.extras[name]))
            *sections, last = file.named.keys[0]
            holder = files
            for section in sections:
                holder = holder.setdefault(section, {})
            holder[last] = file.named.usual[0]
    metadata = {
        "framework": "pytorch",
        "task": form.task,
        "model": {"type": "funasr"},
        "file_path_metas": files,
        funasr.OURS: {"card": dict(companion.card)},
    }
    _write(directory / funasr.METADATA_FILE, json.dumps(metadata, ensure_ascii=False, indent=1) + "\n")


def _extras(form: Form, directory: Path, named: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What lies in files of its own. CMVN may be absent only where the settings say so, for without it is noise."""
    found: dict[str, Any] = {}
    for name in form.extras:
        file = _FILES[name]
        path = funasr.find(directory, named, file.named)
        if path is None and name in form.needed and not (name == "cmvn" and _without_cmvn(named[-1])):
            raise ModelNotFound(f"{directory} has no {file.named.usual[0]}; {form.kind.what} of FunASR's needs it")
        found[name] = file.empty if path is None else file.read(path)
    return found


def _without_cmvn(settings: Mapping[str, Any]) -> bool:
    conf = settings.get("frontend_conf")
    return isinstance(conf, Mapping) and "cmvn_file" in conf and conf["cmvn_file"] is None


def _arrays(
    form: Form, ours: Mapping[str, Any], tensors: Mapping[str, np.ndarray], path: Path, extras: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Every tensor in its place under our name, none missing, none left over."""
    names = form.theirs(ours)
    if form.by_word is not None:
        rows, words = tensors.get(names[form.by_word]), len(extras["words"])
        if rows is not None and rows.ndim == 2 and len(rows) != words:
            raise ModelError(
                f"the list of words has {words}, but the vocabulary of {path} is {len(rows)}; one of them belongs "
                "to another model"
            )
    beside = {name for name in tensors if form.beside and name.endswith(form.beside)}
    expected = {names[name]: shape for name, shape in form.shapes(ours).items()} | dict.fromkeys(beside, ())
    check_names(expected, {name: tensor.shape for name, tensor in tensors.items()}, str(path))
    arrays = {name: np.asarray(tensors[theirs], np.float32) for name, theirs in names.items()}
    for name, array in arrays.items():
        check_finite(names[name], array)
    return arrays | {name: tensors[name] for name in beside}


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
