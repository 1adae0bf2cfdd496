"""Several processes compute what one computes, and checkpoints pass between any numbers of them."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from train_rank import TOGETHER
from training import events, prepared

from paraformer.model.paraformer import Paraformer
from paraformer.train import parallel
from paraformer.train.checkpoints import Progress, newest
from paraformer.train.loop import Trained, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("speech"))


def two(data: Path, out: Path, form: str = "whole", stop: int = 0) -> None:
    """Train in two processes over gloo, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), *sys.path])
    shared = {**os.environ, "PYTHONPATH": path, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, str(tests / "train_rank.py"), str(data), str(out), form, str(stop)]
    processes = [subprocess.Popen(command, env={**shared, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]


def close(left: Paraformer, right: Paraformer) -> bool:
    """Whether all weights agree to 1e-5.

    Not the biases of attention keys: adding a constant to all keys changes no softmax, so their gradient is nothing but
    rounding, which Adam makes as large as any.
    """
    others = right.state_dict()
    return all(
        torch.allclose(tensor, others[name], rtol=0, atol=1e-5)
        for name, tensor in left.state_dict().items()
        if not name.endswith("kv.bias")
    )


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """The run of one process whose batches are twice as large, its directory and how it ended."""
    out = tmp_path_factory.mktemp("one")
    return out, train(dataclasses.replace(TOGETHER, accumulate=2), data, out)


def where(progress: Progress) -> dict[str, Any]:
    """Progress but for the last bits of the gradient norm, which shards add up in another order."""
    return dataclasses.asdict(progress) | {"norm": round(progress.norm, 3)}


def means(out: Path) -> list[tuple[float, float]]:
    return [(event["total"], event["norm"]) for event in events(out) if "total" in event]


def test_two_processes_equal_one_with_twice_the_batch(data: Path, one: tuple[Path, Trained], tmp_path: Path) -> None:
    """Dropout and sampler included, for what a batch draws depends on its place in the run alone."""
    two(data, tmp_path)
    together = train(TOGETHER, data, tmp_path)  # nothing is left to do: it reads what two wrote
    assert together.progress == one[1].progress
    assert close(together.model, one[1].model)
    assert means(tmp_path) == means(one[0])
    assert [event["processes"] for event in events(tmp_path) if "processes" in event] == [2, 1]


@pytest.mark.slow
def test_shards_equal_the_whole(data: Path, one: tuple[Path, Trained], tmp_path: Path) -> None:
    two(data, tmp_path, "sharded")
    assert close(train(TOGETHER, data, tmp_path).model, one[1].model)
    assert means(tmp_path) == means(one[0])
    assert [event["cer"] for event in events(tmp_path) if "cer" in event] == [
        event["cer"] for event in events(one[0]) if "cer" in event
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("whole", "whole"), ("sharded", "whole"), ("whole", "sharded")])
def test_two_processes_stop_and_go_on(
    before: str, after: str, data: Path, one: tuple[Path, Trained], tmp_path: Path
) -> None:
    two(data, tmp_path, before, stop=3)
    assert newest(tmp_path).name == "step-0000003"
    two(data, tmp_path, after)
    resumed = train(TOGETHER, data, tmp_path)
    assert where(resumed.progress) == where(one[1].progress)
    assert close(resumed.model, one[1].model)


@pytest.mark.slow
def test_one_process_goes_on_from_the_shards_of_two(data: Path, tmp_path: Path) -> None:
    two(data, tmp_path, "sharded", stop=3)
    outcome = train(TOGETHER, data, tmp_path)
    assert outcome.progress.step == TOGETHER.steps
    assert [event["step"] for event in events(tmp_path) if "processes" in event] == [0, 3]


def test_one_process_needs_no_others() -> None:
    assert (parallel.rank(), parallel.size()) == (0, 1)
    assert parallel.total([1.5, 2.0]) == [1.5, 2.0]
    assert parallel.any_of(False, True) == [False, True]
    assert parallel.gathered(["a"]) == ["a"]
