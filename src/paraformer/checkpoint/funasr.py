"""FunASR model directories, and models in torch: from the one to the other, both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from paraformer.bundle import Bundle, replacing
from paraformer.checkpoint import funasr_directory, funasr_writer, strict
from paraformer.checkpoint.funasr_directory import METADATA_FILE, OURS, SETTINGS_FILE
from paraformer.checkpoint.keys import funasr_names
from paraformer.errors import ConfigError
from paraformer.model.paraformer import Paraformer


def load(directory: str | Path) -> tuple[Bundle, Paraformer]:
    """Open a FunASR model directory: its settings and model, on the CPU and ready for recognition.

    Raises ModelNotFound (a file is missing), UnsupportedModel (another kind of model), ConfigError (unknown settings),
    CheckpointError (tensors that do not fit, or a file that holds more than tensors), ModelError (anything else).
    """
    bundle = funasr_directory.read(directory)
    model = strict.skeleton(bundle.config)
    arrays, names, source = funasr_directory.arrays_of(bundle, model.state_dict())
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return bundle, strict.fill(model, tensors, names, source)


def save(bundle: Bundle, model: Paraformer, directory: str | Path) -> None:
    """Write a directory that FunASR's `AutoModel(model=directory)` opens, each file atomically.

    A CTC layer with units of its own stays out: FunASR has no place for it. Raises ConfigError if the bundle describes
    another model, UnsupportedModel for parts that FunASR does not have.
    """
    if bundle.config != model.config:
        raise ConfigError("the bundle's settings are not those of the model; save both of the same model")
    funasr_writer.check_parts(bundle.config)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write_tensors(directory / "model.pt", model)
    save_settings(bundle, funasr_writer.write(bundle.config), directory)
    _write_text(directory / METADATA_FILE, json.dumps(_metadata(bundle), ensure_ascii=False, indent=1) + "\n")


def save_settings(bundle: Bundle, settings: dict[str, Any], directory: Path) -> None:
    """Write config.yaml with these settings (see `funasr_writer.write`), tokens.json and what else the bundle has."""
    # FunASR wants to know one token to stand for all that are not in the list.
    settings["tokenizer_conf"]["unk_symbol"] = "<unk>" if "<unk>" in bundle.tokens else bundle.tokens[0]
    if bundle.cmvn is None:
        settings["frontend_conf"]["cmvn_file"] = None  # said, not forgotten
    _write_text(directory / SETTINGS_FILE, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    _write_text(directory / "tokens.json", json.dumps(list(bundle.tokens), ensure_ascii=False) + "\n")
    if bundle.cmvn:
        _write_text(directory / "am.mvn", bundle.cmvn.to_text())
    if bundle.words:
        lines = (" ".join((word, *pieces)) + "\n" for word, pieces in bundle.words.items())
        _write_text(directory / "seg_dict", "".join(lines))


# -- writing --------------------------------------------------------------------------------------------------------


def _write_tensors(path: Path, model: Paraformer) -> None:
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith("ctc.") or funasr_writer.has_shared_ctc(model.config)
    }
    names = funasr_names(model.config, tensors)
    save_tensors({names[ours]: tensor for ours, tensor in tensors.items()}, path)


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write what FunASR reads by `torch.load`, atomically. Raises OSError, which torch would not tell from its own."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(dict(tensors), file)
        except RuntimeError as error:
            if isinstance(before := error.__context__, OSError):
                raise OSError(before.errno, before.strerror) from error
            raise


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
