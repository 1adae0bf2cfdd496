"""Checkpoints of a run: everything in latest.pt, to go on from; weights alone in step-N.pt, to average."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paraformer.errors import CheckpointError
from paraformer.model.paraformer import Paraformer

LATEST = "latest.pt"


@dataclass
class Position:
    """Where a run stands: optimiser steps taken, epoch, batches of it used."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


def save(out: Path, model: Paraformer, optimiser: torch.optim.Optimizer, position: Position, keep: int) -> None:
    """Write latest.pt (everything) and step-N.pt (weights), each in one move; drop all but `keep` of the latter."""
    weights = {"model": model.state_dict(), "step": position.step}
    _write(weights, out / f"step-{position.step:07d}.pt")
    _write(
        {**weights, "optimiser": optimiser.state_dict(), "epoch": position.epoch, "batch": position.batch}, out / LATEST
    )
    for old in checkpoints(out)[:-keep]:
        old.unlink()


def _write(values: dict[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(values, partial)
    partial.replace(path)


def checkpoints(out: Path) -> list[Path]:
    """Weight checkpoints of a run, oldest first."""
    return sorted(out.glob("step-*.pt"))


def resume(out: Path, model: Paraformer, optimiser: torch.optim.Optimizer) -> Position:
    """Load latest.pt if there is one. Raises CheckpointError if it belongs to another model."""
    path = out / LATEST
    if not path.is_file():
        return Position()
    values = torch.load(path, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(values["model"])
    except RuntimeError as error:
        raise CheckpointError(f"{path} belongs to another model: {error}") from error
    optimiser.load_state_dict(values["optimiser"])
    return Position(values["step"], values["epoch"], values["batch"])
