"""The reference's tiny punctuation models, as directories of FunASR's, and the cases that it was asked."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from paraformer import load_punctuation
from paraformer.punctuation import Punctuation

GOLDEN = Path(__file__).parent / "golden/punctuation"


def cases(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


def tensors(name: str) -> dict[str, torch.Tensor]:
    """Kept in half precision, computed with in full."""
    return {key: tensor.float() for key, tensor in load_file(GOLDEN / f"{name}.safetensors").items()}


def write(name: str, directory: Path, **changed: Any) -> Path:
    """A directory as FunASR publishes them; changed: tensors by FunASR's names, or `words` for a dictionary."""
    directory.mkdir(parents=True, exist_ok=True)
    words = changed.pop("words", None)
    torch.save({**tensors(name), **changed}, directory / "model.pt")
    settings = yaml.safe_dump(cases(f"{name}.config"), allow_unicode=True)
    (directory / "config.yaml").write_text(settings, encoding="utf-8")
    (directory / "tokens.json").write_text(json.dumps(cases("punc_tokens"), ensure_ascii=False), encoding="utf-8")
    if words is not None:
        (directory / "jieba_usr_dict").write_text(words, encoding="utf-8")
    return directory


def model(name: str, directory: Path, **changed: Any) -> Punctuation:
    return load_punctuation(write(name, directory, **changed))


@cache
def tokens() -> list[str]:
    found: list[str] = cases("punc_tokens")
    return found
