"""What a run leaves on disk to go on from, and the weights that will be averaged.

`checkpoints/step-N/` holds everything: weights and optimiser as safetensors files, written by all processes together
and read by any number of them, and the progress as JSON. Random states are not in it: every batch draws from a seed of
its own. `weights/step-N.safetensors` holds the weights alone, with the CER that they reached.
Both appear in one move when they are complete and on the disk, so a full disk or a lost machine spoils nothing older.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save as save_together

from paraformer.bundle import replacing
from paraformer.checkpoint import native, strict
from paraformer.errors import CheckpointError
from paraformer.train import parallel
from paraformer.train.adapt import merged

CHECKPOINTS, WEIGHTS, PROGRESS = "checkpoints", "weights", "progress.json"
KEPT = 2
"""Complete checkpoints left in place: the newest, and one to go back to."""
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_WEIGHT, _MOMENT = "model.", "optimiser."


@dataclass
class Progress:
    """Where a run stands, and what it remembers of its way."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of the epoch's plan that were used."""
    best_cer: float | None = None
    """Lowest CER on dev_set so far."""
    stale: int = 0
    """Measurements since then."""
    norm: float | None = None
    """Running mean of the gradient norm."""
    bad: int = 0
    """Bad steps in a row."""
    skipped: int = 0
    """Bad steps in all."""


def save(out: Path, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress) -> Path:
    """Write the checkpoint of this step and drop all but the newest two. All processes must call it.

    Raises CheckpointError if it cannot be written; what was there before stays.
    """
    path = out / CHECKPOINTS / f"step-{progress.step:07d}"
    # Begins with a dot, so that `newest`, which looks for step-*, never sees half a checkpoint.
    partial = path.with_name(f".{path.name}.partial")
    try:
        _write(partial, model, optimiser, progress)
        if parallel.rank() == 0:
            _put_in_place(partial, path)
    except (OSError, CheckpointException) as error:
        shutil.rmtree(partial, ignore_errors=True)
        last = newest(out)
        cause = _cause(error)
        if last is None:
            raise CheckpointError(
                f"{path} could not be saved: {cause}; mend that, and give the same command again"
            ) from error
        raise CheckpointError(
            f"{path} could not be saved: {cause}; mend that, and the same command goes on from {last.name}"
        ) from error
    parallel.barrier()
    return path


def newest(out: Path) -> Path | None:
    """The last complete checkpoint of a run."""
    # By name, which has leading zeros: times of files are lost where a run is copied to another disk.
    return max((out / CHECKPOINTS).glob("step-*"), default=None)


def resume(out: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
    """Load the last complete checkpoint, if there is one; all processes must call it.

    Raises CheckpointError if it is damaged or belongs to another model.
    """
    path = newest(out)
    if path is None:
        return Progress()
    try:
        _read(path, model, optimiser)
        return Progress(**json.loads((path / PROGRESS).read_text(encoding="utf-8")))
    # It says already what does not fit; below would only say "damaged" once more.
    except CheckpointError:
        raise
    except (OSError, SafetensorError, ValueError, TypeError, CheckpointException) as error:
        raise CheckpointError(f"{path} is damaged: {_cause(error)}; without it the one before it is used") from error


def save_weights(out: Path, model: nn.Module, progress: Progress, cer: float, keep: int) -> None:
    """Write the weights, adapters merged into them, and the CER that they reached; drop all but the best `keep`.

    All processes must call it. Raises CheckpointError if they cannot be written; what was there before stays.
    """
    # Gathered by all before the others leave: each holds a part where the model is sharded.
    whole = merged(_tensors_of(get_model_state_dict(parallel.plain(model), options=_WHOLE)))
    if parallel.rank() > 0:
        return
    path = out / WEIGHTS / f"step-{progress.step:07d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    try:
        with replacing(path) as temporary:
            # repr keeps every bit of the rate by which the best are chosen.
            save_file({name: tensor.contiguous() for name, tensor in whole.items()}, temporary, {"cer": repr(cer)})
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be saved: {error.strerror}; mend that, and the same command goes on"
        ) from error
    for worse in best_weights(out)[keep:]:
        worse.unlink()


def best_weights(out: Path) -> list[Path]:
    """Weights that a run kept, those with the lowest CER first, the later of equals before the earlier."""
    return sorted(sorted((out / WEIGHTS).glob("step-*.safetensors"), reverse=True), key=_cer)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Weights alone: a safetensors file, or what `torch.save` wrote, then perhaps under "model".

    Raises CheckpointError where it is neither.
    """
    try:
        if path.suffix == ".safetensors":
            return native.read(path)
        # Tensors alone: a pickle of anything else could run whatever it likes.
        values = torch.load(path, map_location="cpu", weights_only=True)
        return dict(values.get("model", values))
    except (OSError, SafetensorError, RuntimeError, UnpicklingError, AttributeError) as error:
        raise CheckpointError(f"{path} holds no weights: {error}") from error


def _cer(path: Path) -> float:
    with safe_open(path, "np") as file:
        return float(file.metadata()["cer"])


def _write(partial: Path, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    """Tensors from all processes, progress from the first."""
    if parallel.rank() == 0:
        for left in partial.parent.glob(".step-*.partial"):  # by a run that was killed
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        (partial / PROGRESS).write_text(json.dumps(dataclasses.asdict(progress)), encoding="utf-8")
    parallel.barrier()
    # Every process writes what it holds, so that none needs the memory for all.
    writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
    with _alone_is_fine():
        save_together(_tensors(model, optimiser), storage_writer=writer)


def _put_in_place(partial: Path, path: Path) -> None:
    """One move, once all is on the disk, names too; then older ones may go."""
    # Without this a lost machine can keep the name of a file and lose what is in it.
    _sync(partial / PROGRESS)
    _sync(partial)
    if path.exists():  # of a run that was stopped between this step and the next
        shutil.rmtree(path)
    partial.replace(path)
    _sync(path.parent)
    for old in sorted(path.parent.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Weights and optimiser from one checkpoint, into the shards of any number of processes."""
    reader = HuggingFaceStorageReader(str(path))
    # Names and shapes alone, which need no memory, to say what does not fit before anything is overwritten.
    stored = {
        name: torch.empty(entry.size, device="meta")
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    tensors = _tensors(model, optimiser)
    weights = {name: tensor.shape for name, tensor in tensors.items() if _is_weight(name)}
    strict.check(weights, {name: tensor for name, tensor in stored.items() if _is_weight(name)}, str(path))
    # A parameter that never had a gradient has no moments in the file; those it starts with are right.
    tensors = {name: tensor for name, tensor in tensors.items() if name in stored}
    with _alone_is_fine():
        load(tensors, storage_reader=reader)
    state: dict[str, Any] = dict(get_optimizer_state_dict(parallel.plain(model), optimiser, options=_FLAT))
    state |= {name.removeprefix(_MOMENT): tensor for name, tensor in tensors.items() if not _is_weight(name)}
    set_optimizer_state_dict(parallel.plain(model), optimiser, state, options=_FLAT)


def _tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of a run under flat names; settings of the optimiser come from the configuration."""
    inner = parallel.plain(model)
    weights = _tensors_of(get_model_state_dict(inner))
    moments = _tensors_of(get_optimizer_state_dict(inner, optimiser, options=_FLAT))
    return {_WEIGHT + name: tensor for name, tensor in weights.items()} | {
        _MOMENT + name: tensor for name, tensor in moments.items()
    }


def _tensors_of(values: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _is_weight(name: str) -> bool:
    return name.startswith(_WEIGHT)


def _cause(error: BaseException) -> BaseException:
    """What went wrong in the process where it did."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


@contextmanager
def _alone_is_fine() -> Iterator[None]:
    """torch warns where a distributed checkpoint is used by a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def average(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each tensor, computed in float64. Raises CheckpointError where names or shapes differ."""
    if not weights:
        raise CheckpointError("nothing to average: there is no checkpoint")
    shapes = {name: tensor.shape for name, tensor in weights[0].items()}
    for other in weights[1:]:
        if {name: tensor.shape for name, tensor in other.items()} != shapes:
            raise CheckpointError("the checkpoints to average are of different models")
    return {
        name: (sum(w[name].double() for w in weights) / len(weights)).to(weights[0][name].dtype)  # type: ignore[union-attr]
        for name in shapes
    }
