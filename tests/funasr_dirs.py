"""FunASR model directories built from the golden models: shared by the tests of checkpoints, hubs and commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"
METAS = {
    "init_param": "model.pt",
    "config": "config.yaml",
    "tokenizer_conf": {"token_list": "tokens.json", "seg_dict_file": "seg_dict"},
    "frontend_conf": {"cmvn_file": "am.mvn"},
}
WORDS = "hello he@@ llo\nworld world\n\n"


def golden_settings(name: str) -> dict[str, Any]:
    """The reference's settings of a golden model."""
    settings: dict[str, Any] = json.loads((GOLDEN / f"{name}.config.json").read_text())
    return settings


def golden_tensors(name: str) -> dict[str, torch.Tensor]:
    """The reference's weights of a golden model."""
    return load_file(GOLDEN / f"{name}.safetensors")


def write_funasr(
    path: Path, name: str = "online", *, settings: Mapping[str, Any] | None = None, weights: Any = None
) -> Path:
    """A complete FunASR directory of a golden model; settings override its top level, weights replace its tensors."""
    path.mkdir(parents=True, exist_ok=True)
    merged = {**golden_settings(name), "train_conf": {"grad_clip": 5}, "optim": "adam", **(settings or {})}
    metas = dict(METAS)
    if name == "aishell_conformer":  # the golden statistics are 560 wide, as the others' rows
        merged.setdefault("frontend_conf", {"cmvn_file": None})
        del metas["frontend_conf"]
    else:
        (path / "am.mvn").write_bytes((GOLDEN / "am.mvn").read_bytes())
    (path / "config.yaml").write_text(yaml.safe_dump(merged))
    (path / "configuration.json").write_text(json.dumps({"framework": "pytorch", "file_path_metas": metas}))
    torch.save(golden_tensors(name) if weights is None else weights, path / "model.pt")
    (path / "tokens.json").write_bytes((GOLDEN / "tokens.json").read_bytes())
    (path / "seg_dict").write_text(WORDS)
    return path
