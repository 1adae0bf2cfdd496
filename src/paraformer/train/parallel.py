"""Several processes that train one model: each takes its share of the batches, gradients are averaged every step.

Started by `torchrun --nproc-per-node N -m paraformer.train ...`; without torchrun there is one process.
On a CPU, one process per core is faster than one process with as many threads, and minds other load less.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


def join() -> None:
    """Meet the other processes, if torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo")


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes train."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Run the block in process 0, then in the others: they find the files that it wrote."""
    if distributed.is_initialized() and rank() > 0:
        distributed.barrier()
    yield
    if distributed.is_initialized() and rank() == 0:
        distributed.barrier()


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of `items`; all parts have one length, so up to size() - 1 items are left out."""
    whole = len(items) // size() * size()
    return items[rank() : whole : size()]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes."""
    if size() == 1:
        return
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= size()
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
