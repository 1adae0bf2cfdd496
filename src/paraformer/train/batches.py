"""The order of a run: which batches each process sees at which step, from any position on."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from lhotse import CutSet

from paraformer.data.augment import UNCHANGED, AugmentConfig, Noise
from paraformer.data.dataset import JoinConfig, SpeechDataset, epoch_plan
from paraformer.data.loading import Part, Task, TaskDataset, Tasks, load_tasks, usable
from paraformer.data.skips import Skips
from paraformer.model.objective import Batch
from paraformer.train import parallel
from paraformer.train.checkpoints import Progress
from paraformer.train.config import TrainConfig
from paraformer.train.drawn import drawn
from paraformer.train.speech import Setup, Speech

T = TypeVar("T")

EASY_JOIN = JoinConfig(clips=1, edge_s=(0.0, 0.1))
EASY_AUGMENT = dataclasses.replace(
    UNCHANGED,
    speed=(0.9, 1.1),
    pace=(0.9, 1.1),
    gain_db=AugmentConfig.gain_db,
    floor_probability=AugmentConfig.floor_probability,
)
"""What an easy epoch changes: hardly anything."""


@dataclass(frozen=True)
class Piece:
    """One process's batch of a step, where it stands in the run, and what its utterances are called, row by row."""

    batch: Batch
    epoch: int
    index: int
    """Of the batch in the plan of its epoch."""
    names: tuple[str, ...]


def steps(config: TrainConfig, setup: Setup, speech: Speech, progress: Progress) -> Generator[list[Piece], None, None]:
    """What this process computes at each step, without end, from `progress`, which it moves to where each step begins.

    A step takes the next size() * accumulate batches of the plan; process r has every size()-th of them from r on. What
    is too little for a step at the end of an epoch is left out. Raises DataError where that is all of it.
    """
    part = Part(
        epoch=progress.epoch,
        batch=progress.batch,
        step=parallel.size() * config.accumulate,
        rank=parallel.rank(),
        processes=parallel.size(),
    )
    tasks = Tasks(partial(_plan, config, speech.train), part)
    dataset = TaskDataset(partial(_dataset, config, setup, speech.noises))
    with closing(load_tasks(tasks, dataset, config.workers)) as filled:
        batches = usable(filled, config.batch.on_bad)
        pieces = (
            Piece(_told(config, setup, one.batch, one.task), one.task.epoch, one.task.index, one.names)
            for one in batches
        )
        for group in grouped(pieces, config.accumulate):
            # Of the batches in hand, not of those last asked for: the processes that load are ahead.
            progress.epoch, progress.batch = group[0].epoch, group[0].index - part.rank
            yield group


def _told(config: TrainConfig, setup: Setup, batch: Batch, task: Task) -> Batch:
    """The batch, with hotwords for a model that listens for them."""
    listens = setup.model.hotwords is not None
    # By where the batch stands in the run, so that one that goes on is told the same words again.
    return drawn(batch, config.hotwords, config.seed, task.epoch, task.index) if listens else batch


def grouped(items: Iterator[T], count: int) -> Iterator[list[T]]:
    """Lists of `count` items each; an incomplete last one is left out.

    >>> list(grouped(iter("abcde"), 2))
    [['a', 'b'], ['c', 'd']]
    """
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == count:
            yield group
            group = []


def on_device(batch: Batch) -> Batch:
    """The batch where this process computes."""
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    target = parallel.device()
    # While the device still computes what came before, where the numbers lie in memory that it can read itself.
    moved: dict[str, Any] = {
        name: v.to(target, non_blocking=True) for name, v in values.items() if isinstance(v, torch.Tensor)
    }
    return dataclasses.replace(batch, **moved)


def _easy(config: TrainConfig, epoch: int) -> bool:
    return epoch < config.easy_epochs


def _plan(config: TrainConfig, cuts: CutSet, epoch: int, skips: Skips) -> list[CutSet]:
    join = EASY_JOIN if _easy(config, epoch) else config.join
    return epoch_plan(cuts, join, config.batch, epoch, skips)


def _dataset(config: TrainConfig, setup: Setup, noises: Sequence[Noise], epoch: int) -> SpeechDataset:
    augment = EASY_AUGMENT if _easy(config, epoch) else config.augment
    # Other changes in every epoch, and the same ones again where a run goes on in the midst of it.
    return SpeechDataset(setup.symbols, setup.model.frontend, setup.cmvn, augment, noises, seed=epoch)
