"""Plans, loaded as a run loads its batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice

from lhotse import CutSet

from paraformer.data.dataset import SpeechDataset
from paraformer.data.loading import Part, Plan, TaskDataset, Tasks, Usable, load_tasks, usable


def loaded(plan: Sequence[CutSet], dataset: SpeechDataset, workers: int = 0, on_bad: str = "skip") -> list[Usable]:
    """The batches of one epoch; every epoch is the same."""
    return run(lambda epoch, skips: list(plan), lambda epoch: dataset, len(plan), workers, on_bad=on_bad)


def run(
    plan: Plan,
    of_epoch: Callable[[int], SpeechDataset],
    count: int,
    workers: int = 0,
    part: Part = Part(),  # noqa: B008 - frozen
    on_bad: str = "skip",
) -> list[Usable]:
    """The first `count` batches of a run."""
    with closing(load_tasks(Tasks(plan, part), TaskDataset(of_epoch), workers)) as filled:
        return list(islice(usable(filled, on_bad), count))
