"""Batches of a whole run, without a gap between its epochs.

One process plans the batches, and while it hands out those of an epoch it works on the plan of the next; others load
them ahead. Neither ever starts anew, so that the loop that takes the batches has nothing to wait for. Tasks travel
pickled: the process that trains passes them on unopened.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from lhotse import CutSet
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from paraformer.data.dataset import Loaded, SpeechDataset
from paraformer.data.skips import Policy, Skipped, Skips
from paraformer.errors import DataError
from paraformer.model.objective import Batch

PLANNED, LOADED = 64, 8
"""Batches that wait: planned ones, and loaded ones of each process that loads."""

_log = logging.getLogger(__name__)

Plan = Callable[[int, Skips], list[CutSet]]
"""The batches of an epoch, by its number alone; what is left out goes to the skips, which must not stop it."""


@dataclass(frozen=True)
class Task:
    """A batch to load, and where it stands: its epoch, and its number in the epoch's plan."""

    epoch: int
    index: int = 0
    first: bool = False
    """Whether it is this process's first of the epoch."""
    cuts: bytes = b""
    """A pickled CutSet."""
    left_out: tuple[Skipped, ...] = ()
    """Of all the epoch, with the first of its batches that is handed out."""
    error: DataError | None = None
    """Why the epoch cannot be planned; nothing comes after this."""


@dataclass(frozen=True)
class Filled:
    """What became of a task, whose cuts are no longer in it."""

    task: Task
    loaded: Loaded


@dataclass(frozen=True)
class Usable:
    """A batch to train on, the task that it is for, and what its rows are called."""

    task: Task
    batch: Batch
    names: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """The part of each epoch's plan that one of several processes takes, and where in the plans it begins.

    epoch, batch: batches of that epoch which are done. step: batches that all processes together take at a time; what
    is too little for that at the end of an epoch is left out.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 1
    rank: int = 0
    processes: int = 1

    def indices(self, epoch: int, batches: int) -> range:
        """Of the plan of `batches` batches of an epoch. Raises DataError where a whole one has too few for a step.

        >>> list(Part(step=4, rank=1, processes=2).indices(0, 11))  # two processes, two batches each: 8 of 11
        [1, 3, 5, 7]
        """
        if batches < self.step:
            raise DataError(f"an epoch has {batches} batches, but one step needs {self.step}: make batches smaller")
        done = self.batch if epoch == self.epoch else 0
        return range(done + self.rank, batches - (batches - done) % self.step, self.processes)


class Tasks(IterableDataset[Task]):
    """All tasks of a process from its part's beginning on, without end."""

    def __init__(self, plan: Plan, part: Part) -> None:
        self.plan, self.part = plan, part

    def __iter__(self) -> Iterator[Task]:
        """In a process of their own the next epoch is planned while this one's tasks are taken, else when it is due."""
        begin = _in_background if get_worker_info() else _when_due
        epoch = self.part.epoch
        following = begin(self._tasks, epoch)
        while True:
            tasks, following = following(), begin(self._tasks, epoch + 1)
            yield from tasks
            if tasks and tasks[0].error:
                return
            epoch += 1

    def _tasks(self, epoch: int) -> list[Task]:
        """Those of one epoch, or an error in place of them."""
        skips = Skips(named=0)
        try:
            plan = self.plan(epoch, skips)
            indices = self.part.indices(epoch, len(plan))
        except DataError as error:
            return [Task(epoch, error=error)]
        tasks = [Task(epoch, index, index == self.part.rank, pickle.dumps(plan[index])) for index in indices]
        return [replace(task, left_out=tuple(skips.found)) for task in tasks[:1]] + tasks[1:]


class TaskDataset(Dataset[Filled]):
    """Loads tasks. of_epoch: the dataset that loads the batches of an epoch."""

    def __init__(self, of_epoch: Callable[[int], SpeechDataset]) -> None:
        self.of_epoch = of_epoch
        self.current: tuple[int, SpeechDataset] | None = None

    def __getitem__(self, task: Task) -> Filled:
        """The batch of a task; of one that is an error, nothing."""
        if task.error:
            return Filled(task, Loaded(None, [], [], []))
        if self.current is None or self.current[0] != task.epoch:
            self.current = task.epoch, self.of_epoch(task.epoch)
        cuts = pickle.loads(task.cuts)  # noqa: S301 - of our own process
        return Filled(replace(task, cuts=b""), self.current[1][cuts])


def load_tasks(tasks: Tasks, dataset: TaskDataset, workers: int) -> Generator[Filled, None, None]:
    """Every task, in order, loaded ahead by `workers` processes and planned by one more; 0: all in this one.

    Whoever takes them must close this generator, which ends the processes.
    """
    planned = DataLoader(
        tasks,
        batch_size=None,
        num_workers=min(workers, 1),
        prefetch_factor=PLANNED if workers else None,
        worker_init_fn=_leave_signals_to_the_run,
    )
    loader = DataLoader(
        dataset,
        sampler=planned,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=LOADED if workers else None,
        worker_init_fn=_leave_signals_to_the_run,
    )
    yield from loader


def usable(filled: Iterable[Filled], on_bad: Policy) -> Iterator[Usable]:
    """A batch for every task; what is left out of an epoch is named and counted, or ends the run.

    Where nothing of a batch can be used, the next one takes its place as well: processes that train together must keep
    step, and the next is what a run that goes on from here finds, too. Raises DataError if nothing of an epoch can be
    used, and where an epoch could not be planned.
    """
    owed: list[Task] = []
    epoch, skips = -1, Skips(on_bad)
    for one in filled:
        if one.task.error:
            raise one.task.error
        if one.task.epoch != epoch:
            if any(task.first for task in owed):
                raise DataError(f"not one utterance can be used: {skips}; see `paraformer data check`")
            _sum_up(epoch, skips)
            # What is wrong with an utterance is wrong in every epoch: names are told in the first, then numbers alone.
            epoch, skips = one.task.epoch, Skips(on_bad) if epoch < 0 else Skips(on_bad, named=0)
        skips.extend((*one.task.left_out, *one.loaded.skipped))
        owed.append(one.task)
        if one.loaded.batch is not None:
            for task in owed:
                yield Usable(task, one.loaded.batch, tuple(one.loaded.names))
            owed = []


def _sum_up(epoch: int, skips: Skips) -> None:
    if skips.found:
        _log.warning("epoch %d: %s", epoch, skips)


def _in_background(function: Callable[[int], list[Task]], epoch: int) -> Callable[[], list[Task]]:
    """Call in a thread, now; what is returned waits for the result. The thread holds up no process that ends."""
    result: Future[list[Task]] = Future()

    def run() -> None:
        try:
            result.set_result(function(epoch))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result


def _when_due(function: Callable[[int], list[Task]], epoch: int) -> Callable[[], list[Task]]:
    return partial(function, epoch)


def _leave_signals_to_the_run(_: int) -> None:
    """A worker lives as long as the process it works for, which wants to save when all of them are told to stop.

    A SIGTERM from that process itself does end it: torch sends one where a worker has not gone within five seconds, and
    one that stayed would keep the run from ever ending.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # all but macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end_when_told_by(process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)
