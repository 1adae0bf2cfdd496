"""FunASR model directories: config.yaml, configuration.json, model.pt, am.mvn, tokens.json and seg_dict, both ways.

Nothing of them is ever run: weights load as tensors and plain values alone, YAML as plain values alone.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
import yaml
from torch import Tensor

from paraformer.bundle import Bundle, replacing
from paraformer.checkpoint import funasr_config, strict
from paraformer.checkpoint.keys import funasr_names
from paraformer.config import ModelConfig
from paraformer.errors import CheckpointError, ConfigError, ModelError, ModelNotFound
from paraformer.frontend import Cmvn
from paraformer.model.paraformer import Paraformer
from paraformer.text import parse_tokens, parse_words

SETTINGS_FILE = "config.yaml"
METADATA_FILE = "configuration.json"
OURS = "paraformer"
"""The entry of configuration.json, unknown to FunASR, that keeps what its settings have no words for."""

NESTINGS = ("state_dict", "model_state_dict", "model")
"""Where training checkpoints keep the tensors, outermost first."""


@dataclass(frozen=True)
class Files:
    """The files of a FunASR directory; None where an optional one is absent."""

    settings: Path
    weights: Path
    tokens: Path
    cmvn: Path | None
    words: Path | None


def load(directory: str | Path) -> tuple[Bundle, Paraformer]:
    """Open a FunASR model directory: its settings and model, on the CPU and ready for recognition.

    Raises ModelNotFound (a file is missing), UnsupportedModel (another kind of model), ConfigError (unknown settings),
    CheckpointError (tensors that do not fit, or a file that holds more than tensors), ModelError (anything else).
    """
    directory = Path(directory)
    metadata = _read_metadata(directory)
    settings = _read_settings(_existing(directory, metadata, ("config",), SETTINGS_FILE))
    funasr_config.check_kind(settings)
    files = locate(directory, metadata)
    tokens = read_tokens(files.tokens)
    config, card = _add_ours(funasr_config.read(settings, len(tokens)), metadata)
    cmvn = Cmvn.parse(files.cmvn.read_text(encoding="utf-8")) if files.cmvn else None
    words = read_words(files.words) if files.words else {}
    bundle = Bundle(directory, config, tokens, cmvn, words, card)
    model = strict.skeleton(config)
    names = funasr_names(config, model.state_dict())
    return bundle, strict.fill(model, read_tensors(files.weights), names, str(files.weights))


def save(bundle: Bundle, model: Paraformer, directory: str | Path) -> None:
    """Write a directory that FunASR's `AutoModel(model=directory)` opens, each file atomically.

    A CTC layer with units of its own stays out: FunASR has no place for it. Raises ConfigError if the bundle describes
    another model, UnsupportedModel for an encoder that FunASR does not have.
    """
    if bundle.config != model.config:
        raise ConfigError("the bundle's settings are not those of the model; save both of the same model")
    funasr_config.check_encoder(bundle.config)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write_tensors(directory / "model.pt", model)
    save_settings(bundle, funasr_config.write(bundle.config), directory)
    _write_text(directory / METADATA_FILE, json.dumps(_metadata(bundle), ensure_ascii=False, indent=1) + "\n")


def save_settings(bundle: Bundle, settings: dict[str, Any], directory: Path) -> None:
    """Write config.yaml with these settings (see `funasr_config.write`), tokens.json and what else the bundle has."""
    # FunASR wants to know one token to stand for all that are not in the list.
    settings["tokenizer_conf"]["unk_symbol"] = "<unk>" if "<unk>" in bundle.tokens else bundle.tokens[0]
    _write_text(directory / SETTINGS_FILE, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    _write_text(directory / "tokens.json", json.dumps(list(bundle.tokens), ensure_ascii=False) + "\n")
    if bundle.cmvn:
        _write_text(directory / "am.mvn", bundle.cmvn.to_text())
    if bundle.words:
        lines = (" ".join((word, *pieces)) + "\n" for word, pieces in bundle.words.items())
        _write_text(directory / "seg_dict", "".join(lines))


def locate(directory: Path, metadata: Mapping[str, Any]) -> Files:
    """The files of a directory: where `file_path_metas` of configuration.json says, else by their usual names."""
    return Files(
        settings=_existing(directory, metadata, ("config",), SETTINGS_FILE),
        weights=_existing(directory, metadata, ("init_param",), "model.pt", "model.pb"),
        tokens=_existing(directory, metadata, ("tokenizer_conf", "token_list"), "tokens.json", "tokens.txt"),
        cmvn=_find(directory, metadata, ("frontend_conf", "cmvn_file"), "am.mvn"),
        words=_find(directory, metadata, ("tokenizer_conf", "seg_dict_file"), "seg_dict"),
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch checkpoint under their bare names: nestings and "module." prefixes of training are gone.

    The file is mapped into memory where its format allows. Raises CheckpointError for anything but tensors by name; in
    particular for pickled code, which is never run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; the error below says what matters
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused and nothing in it was run: it is damaged or holds more than tensors and plain values; "
            "get it again from where you trust it, or save its state_dict alone"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as a PyTorch checkpoint: {error}") from error
    for nesting in NESTINGS:
        if isinstance(held, dict) and isinstance(held.get(nesting), dict):
            held = held[nesting]
    if not isinstance(held, dict) or not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise CheckpointError(f"{path} does not hold tensors by name, but {_described(held)}")
    return {str(name).removeprefix("module."): tensor for name, tensor in held.items()}


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
    """seg_dict: on each line a word and its pieces, "hello hel@@ lo"."""
    return parse_words(_read_text(path))


# -- reading --------------------------------------------------------------------------------------------------------


def _read_metadata(directory: Path) -> dict[str, Any]:
    """configuration.json, empty where there is none."""
    if not directory.is_dir():
        raise ModelNotFound(f"there is no model directory {directory}")
    path = directory / METADATA_FILE
    metadata = _parse_json(_read_text(path), path) if path.is_file() else {}
    if not isinstance(metadata, dict):
        raise ModelError(f"{path} must be a JSON object")
    return metadata


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise ModelError(f"{path} is not plain YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{path} must be YAML settings by name")
    return settings


def _add_ours(config: ModelConfig, metadata: Mapping[str, Any]) -> tuple[ModelConfig, Mapping[str, Any]]:
    """The settings with what our own `save` kept beside FunASR's, and the model card."""
    ours = metadata.get(OURS)
    if not isinstance(ours, dict):
        return config, {}
    kept = {key: ours[key] for key in ("live", "training_chunks") if key in ours}
    return ModelConfig.from_dict({**config.to_dict(), **kept}), ours.get("card", {})


def _existing(directory: Path, metadata: Mapping[str, Any], keys: tuple[str, ...], *usual: str) -> Path:
    path = _find(directory, metadata, keys, *usual)
    if path is None:
        raise ModelNotFound(f"{directory} has no {' or '.join(usual)}; a FunASR model directory needs it")
    return path


def _find(directory: Path, metadata: Mapping[str, Any], keys: tuple[str, ...], *usual: str) -> Path | None:
    """The file that `file_path_metas` names under the keys, if it exists within the directory, else a usual one."""
    named: Any = metadata.get("file_path_metas")
    for key in keys:
        named = named.get(key) if isinstance(named, dict) else None
    names = (named, *usual) if isinstance(named, str) and _stays_inside(named) else usual
    return next((directory / name for name in names if (directory / name).is_file()), None)


def _stays_inside(name: str) -> bool:
    """Judged by the words of the path alone: hub caches link to files elsewhere."""
    return not PurePath(name).is_absolute() and ".." not in PurePath(name).parts


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text: {error}") from error


def _parse_json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error


def _described(held: Any) -> str:
    if not isinstance(held, dict):
        return f"a {type(held).__name__}"
    others = [str(name) for name, value in held.items() if not isinstance(value, Tensor)]
    return f"other things as well: {', '.join(others[: strict.SHOWN])}"


# -- writing --------------------------------------------------------------------------------------------------------


def _write_tensors(path: Path, model: Paraformer) -> None:
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith("ctc.") or funasr_config.has_shared_ctc(model.config)
    }
    names = funasr_names(model.config, tensors)
    with replacing(path) as temporary:
        torch.save({names[ours]: tensor for ours, tensor in tensors.items()}, temporary)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _metadata(bundle: Bundle) -> dict[str, Any]:
    """configuration.json: where FunASR finds each file, and what only we know."""
    files: dict[str, Any] = {"init_param": "model.pt", "config": SETTINGS_FILE}
    files["tokenizer_conf"] = {"token_list": "tokens.json"}
    if bundle.words:
        files["tokenizer_conf"]["seg_dict_file"] = "seg_dict"
    if bundle.cmvn:
        files["frontend_conf"] = {"cmvn_file": "am.mvn"}
    config = bundle.config
    return {
        "framework": "pytorch",
        "task": "auto-speech-recognition",
        "model": {"type": "funasr"},
        "pipeline": {"type": "funasr-pipeline"},
        "file_path_metas": files,
        OURS: {
            "live": asdict(config.live) if config.live else None,
            "training_chunks": [asdict(chunk) for chunk in config.training_chunks],
            "card": dict(bundle.card),
        },
    }
