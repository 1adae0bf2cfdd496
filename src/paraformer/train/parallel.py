"""Several processes that train one model, on one machine or many.

Started by `torchrun --nproc-per-node N -m paraformer.cli train ...`; without torchrun there is one process. Each holds
the whole model and averages gradients (DistributedDataParallel), or a part of it (fully_shard, FSDP2).
On a CPU, one process per core is faster than one process with as many threads, and minds other load less.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from paraformer.model.objective import Trainable
from paraformer.model.paraformer import Paraformer


@contextmanager
def joined() -> Iterator[None]:
    """Work together with the other processes, if torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # Gloo works wherever there is a network; NCCL knows GPUs alone.
    distributed.init_process_group("nccl" if device().type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes train."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def device() -> torch.device:
    """Where this process computes: its GPU, or the CPU of a machine without one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # torchrun numbers the processes of each machine, which have a GPU each.
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def barrier() -> None:
    """Wait for all processes."""
    if distributed.is_initialized():
        distributed.barrier()


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Run the block in process 0, then in the others: they find the files that it wrote."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def total(values: Sequence[float]) -> list[float]:
    """Sums over the processes, in float64: exact for counts."""
    if size() == 1:
        return list(values)
    # Counts stay exact up to 2 ** 53, far beyond any number of tokens.
    sums = torch.tensor(values, dtype=torch.float64, device=device())
    distributed.all_reduce(sums)
    return [float(value) for value in sums]


def any_of(*facts: bool) -> list[bool]:
    """Whether each is true in any process."""
    # A sum over processes says it, since what none of them has found adds up to 0.
    return [count > 0 for count in total([float(fact) for fact in facts])]


def gathered(names: Sequence[str]) -> list[str]:
    """The names of all processes, one after the other."""
    if size() == 1:
        return list(names)
    lists: list[list[str]] = [[] for _ in range(size())]
    distributed.all_gather_object(lists, list(names))
    return [name for part in lists for name in part]


def distribute(model: Trainable, *, sharded: bool) -> nn.Module:
    """The model as this process trains it. With one process and nothing to shard, the model itself.

    Shards of a block are gathered when it computes, those of all else for the whole of a step.
    """
    model.to(device())
    if size() == 1:
        return model
    if sharded:
        # Blocks first, then the whole: what is outermost takes only what no inner one has.
        for block in (*model.encoder.blocks, *model.decoder.blocks):
            fully_shard(block)
        fully_shard(model)
        return model
    # The sampler is all that reads a Paraformer's token embeddings, and it is off at ratio 0.
    unused = isinstance(model, Paraformer) and model.config.objective.sampling_ratio == 0
    return DistributedDataParallel(model, find_unused_parameters=unused)


@contextmanager
def gradients(model: nn.Module, *, shared: bool) -> Iterator[None]:
    """Whether the backward pass in this block ends with the exchange of gradients: once a step is enough."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(shared)
    if isinstance(model, DistributedDataParallel) and not shared:
        # Exchanged after each batch of a step, the sum would be the same and sent as often as there are batches.
        with model.no_sync():
            yield
    else:
        yield


def plain(model: nn.Module) -> Trainable:
    """The model itself, without what distributes it; its parameters may be shards."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(inner, Trainable)
    return inner


def whole(model: nn.Module) -> Trainable:
    """A model to decode with: a copy put together from the shards, or the model itself. All processes must call it."""
    inner = plain(model)
    if not isinstance(inner, FSDPModule):
        return inner
    # Not gathered in place: the optimiser holds the shards, and training goes on with them.
    copy = type(inner)(inner.config).to(device())
    copy.load_state_dict(get_model_state_dict(inner, options=StateDictOptions(full_state_dict=True)))
    return copy


def number(value: Tensor) -> float:
    """A scalar that every process computed together."""
    return float(value.full_tensor() if isinstance(value, DTensor) else value)
