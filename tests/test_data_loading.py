"""Batches of a whole run: the same from any place on, however they are loaded, and no gap between epochs."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet
from loaded_batches import loaded, run
from speech_archives import write_archive

from paraformer.config import FrontendConfig
from paraformer.data.augment import AugmentConfig
from paraformer.data.dataset import (
    BatchConfig,
    JoinConfig,
    SpeechDataset,
    Symbols,
    epoch_plan,
    estimate_cmvn,
)
from paraformer.data.loading import Part, Plan, Task, TaskDataset, Tasks, Usable, _in_background, load_tasks
from paraformer.data.prepare import prepare, vocabulary
from paraformer.data.skips import Skips
from paraformer.errors import DataError
from paraformer.text import Vocabulary

TEXTS = ["一", "二", "三", "四", "一二", "三四", "二三四", "一三"]
BATCH = BatchConfig(seconds=2.2, buckets=2)
SINGLE = JoinConfig(clips=1)


@pytest.fixture
def cuts(tmp_path: Path) -> CutSet:
    return prepare([write_archive(tmp_path / "tones.tar", TEXTS)], tmp_path / "plain")["tones"]


def planned(cuts: CutSet, join: JoinConfig = SINGLE, batch: BatchConfig = BATCH) -> Plan:
    return lambda epoch, skips: epoch_plan(cuts, join, batch, epoch, skips)


def dataset(cuts: CutSet, epoch: int = 0) -> SpeechDataset:
    cmvn = estimate_cmvn(list(cuts)[:2], FrontendConfig(), AugmentConfig())
    symbols = Symbols(Vocabulary(vocabulary(TEXTS)))
    return SpeechDataset(symbols, FrontendConfig(), cmvn, AugmentConfig(), seed=epoch)


def test_a_run_is_the_same_however_it_is_loaded_and_from_any_place_on(cuts: CutSet) -> None:
    def from_there(count: int, workers: int, part: Part) -> list[Usable]:
        return run(planned(cuts), lambda epoch: dataset(cuts, epoch), count, workers, part)

    whole = from_there(14, 0, Part())
    assert whole[-1].task.epoch >= 2, "three epochs are in it"
    for begin, workers in ((0, 1), (0, 2), (3, 1), (9, 1)):
        place = whole[begin].task
        again = from_there(14 - begin, workers, Part(place.epoch, place.index))
        for one, other in zip(whole[begin:], again, strict=True):
            assert (one.task.epoch, one.task.index, one.names) == (other.task.epoch, other.task.index, other.names)
            assert torch.equal(one.batch.feats, other.batch.feats)


@given(
    batches=st.lists(st.integers(6, 9), min_size=3, max_size=3),
    processes=st.integers(1, 3),
    accumulate=st.integers(1, 2),
    done=st.integers(0, 1),
)
def test_processes_share_each_epoch_in_whole_steps(
    batches: list[int], processes: int, accumulate: int, done: int
) -> None:
    step = processes * accumulate
    taken = [
        [
            [(epoch, index) for index in Part(0, done * step, step, rank, processes).indices(epoch, count)]
            for rank in range(processes)
        ]
        for epoch, count in enumerate(batches)
    ]
    for epoch, count in enumerate(batches):
        first = done * step if epoch == 0 else 0
        together = sorted(index for part in taken[epoch] for _, index in part)
        assert together == list(range(first, count - (count - first) % step))
        assert len({len(part) for part in taken[epoch]}) == 1
    with pytest.raises(DataError, match="make batches smaller"):
        Part(step=step).indices(0, step - 1)


def test_the_next_epoch_is_planned_while_this_one_is_taken(cuts: CutSet, tmp_path: Path) -> None:
    """Nothing but the first batch is asked for, and yet the plan of the epoch after comes to be."""

    def plan(epoch: int, skips: Skips) -> list[CutSet]:
        (tmp_path / f"planned-{epoch}").write_text(str(os.getpid()))
        return [CutSet.from_cuts([cut]) for cut in cuts] * 20

    tasks = Tasks(plan, Part())
    with closing(load_tasks(tasks, TaskDataset(lambda epoch: dataset(cuts, epoch)), 1)) as filled:
        next(filled)
        due = time.monotonic() + 60
        while not (tmp_path / "planned-1").exists() and time.monotonic() < due:
            time.sleep(0.02)
        pids = {(tmp_path / f"planned-{epoch}").read_text() for epoch in (0, 1)}
        assert len(pids) == 1
        assert str(os.getpid()) not in pids, "the loop's own process plans nothing"
        assert not (tmp_path / "planned-2").exists(), "one epoch ahead is enough"


def test_no_process_starts_anew_with_an_epoch(cuts: CutSet) -> None:
    class Telling(SpeechDataset):
        def __getitem__(self, part: CutSet):
            return super().__getitem__(part)._replace(texts=[str(os.getpid())])

    plain = dataset(cuts)
    telling = Telling(plain.symbols, FrontendConfig(), plain.cmvn)
    with closing(load_tasks(Tasks(planned(cuts), Part()), TaskDataset(lambda epoch: telling), 1)) as filled:
        some = list(islice(filled, 15))
    assert some[-1].task.epoch > 1
    assert len({one.loaded.texts[0] for one in some}) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_utterances_that_cannot_be_used_are_counted_and_the_run_goes_on(
    workers: int, cuts: CutSet, caplog: pytest.LogCaptureFixture
) -> None:
    some = list(cuts)
    for cut, text in zip(some, ["龍龘", "", "一"], strict=False):
        cut.supervisions[0].text = text
    single, batch = JoinConfig(clips=1, edge_s=(0.0, 0.0)), BatchConfig(seconds=3.0, longest_s=1.0)
    plan = planned(CutSet.from_cuts(some), single, batch)
    with caplog.at_level(logging.WARNING, "paraformer.data"):
        batches = run(plan, lambda epoch: dataset(cuts), 2 * len(plan(0, Skips(named=0))) + 1, workers)
    rows = [sum(len(one.batch.feats) for one in batches if one.task.epoch == epoch) for epoch in (0, 1)]
    assert min(rows) >= len(TEXTS) - 3
    assert batches[-1].task.epoch == 2
    for epoch in (0, 1):
        [said] = [message for message in caplog.messages if message.startswith(f"epoch {epoch}: 3 left out")]
        for reason in ("1 unknown characters only", "1 empty text", "1 too long"):
            assert reason in said
    assert sum(message.startswith("left out") for message in caplog.messages) == 3
    with pytest.raises(DataError, match="utterance tones-"):
        run(plan, lambda epoch: dataset(cuts), 9, workers, on_bad="stop")


def test_a_batch_of_nothing_usable_is_replaced_by_the_next(cuts: CutSet) -> None:
    """Not by the one before: a run that goes on from there would not know it."""
    plan = [CutSet.from_cuts([cut]) for cut in cuts]
    for number in (0, 1, 5):
        next(iter(plan[number])).supervisions[0].text = "龘"
    batches = [one.batch for one in loaded(plan, dataset(cuts))]
    assert len(batches) == len(plan)
    assert all(batch is batches[2] for batch in batches[:2])
    assert batches[5] is batches[6]
    with pytest.raises(DataError, match="not one utterance can be used"):
        loaded(plan[:2], dataset(cuts))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_that_cannot_be_planned_is_one_error(workers: int, cuts: CutSet) -> None:
    with pytest.raises(DataError, match=r"^no utterance is at most 0\.1 s long; "):
        run(planned(cuts, SINGLE, BatchConfig(longest_s=0.1)), lambda epoch: dataset(cuts), 1, workers)


def test_workers_heed_the_run_and_nobody_else(cuts: CutSet) -> None:
    tasks = Tasks(planned(cuts), Part())
    with closing(load_tasks(tasks, TaskDataset(lambda epoch: dataset(cuts)), 1)) as filled:
        next(filled)
        workers = multiprocessing.active_children()
        assert len(workers) == 2, "one plans, one loads"
        for worker in workers:
            subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
            subprocess.run(["kill", "-INT", str(worker.pid)], check=True)
        assert [one.task.epoch for one in islice(filled, 20)][-1] > 1
        for worker in workers:
            worker.terminate()
            worker.join(60)
            assert worker.exitcode == 0


def test_a_fault_of_the_planner_is_raised_where_the_plan_is_wanted() -> None:
    def broken(epoch: int) -> list[Task]:
        raise RuntimeError("out of order")

    wanted = _in_background(broken, 0)
    with pytest.raises(RuntimeError, match="out of order"):
        wanted()
