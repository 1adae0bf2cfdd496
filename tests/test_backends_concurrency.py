"""Threads, signals and forks: whatever comes while a model computes, nothing hangs, breaks, or computes beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import paraformer
from paraformer.backends import native, panels
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.torch import TorchBackend
from paraformer.bundle import Bundle
from paraformer.errors import UnsupportedModel
from paraformer.weights import Stored

CHILD = Path(__file__).with_name("concurrency_child.py")
NAMES = ("onnx", "torch", *(["int8"] if native.available("int8") else []))
MATRIX = [
    # Threads of OpenMP spin where they wait for each other: minutes, where the other core is busy.
    pytest.param(name, threads, marks=[pytest.mark.slow] if name == "torch" and threads > 1 else [])
    for name in NAMES
    for threads in (1, 2, 8)
]
LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
@pytest.mark.parametrize(("name", "threads"), MATRIX)
def test_signals_forks_and_threads(name: str, threads: int) -> None:
    """In a process whose environment limits no library: see concurrency_child.py."""
    environment = {name: value for name, value in os.environ.items() if name not in LIBRARIES}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(CHILD), name, str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[0])
    most = {"int8": 0, "onnx": 3 * (threads - 1), "torch": 2 * (threads - 1)}  # three graphs; torch has two libraries
    assert found["came"] <= most[name]
    assert found["others"] < 0.02


def test_a_lease_that_a_fork_inherited_is_nobodys() -> None:
    """A child made while helpers computed for its parent has helpers too: else its calls would all compute alone."""
    if not native.available("float32"):
        pytest.skip("the engine was not built")
    backend = tiny.backend("native")
    runner = backend._runner
    runner._lent_to.value = os.getppid()
    backend.whole([np.zeros((60, 560), np.float32)])
    assert runner._lent_to.value == os.getppid(), "one thread borrows nothing"
    divided = native.NativeEngine(tiny.model().state_dict(), tiny.config(), "float32", 3)
    divided._lent_to.value = os.getppid()
    expected = backend.whole([np.zeros((60, 560), np.float32)])[0]
    got = type(backend)(divided, tiny.config()).whole([np.zeros((60, 560), np.float32)])[0]
    np.testing.assert_array_equal(got.scores, expected.scores)
    assert divided._lent_to.value == 0, "borrowed, and given back"
    runner._lent_to.value = 0


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_threads_that_divide_columns_change_nothing(precision: panels.Precision) -> None:
    """Of the shipped model, whose layers have panels enough."""
    if not native.available(precision):
        pytest.skip(f"this processor has no {precision}")
    directory = Path(native.__file__).parents[1] / "models" / "zh-small"
    config, weights = Bundle.open(directory).config, Stored(directory / "model.safetensors", mapped=False)
    rows = np.random.default_rng(0).standard_normal((14, config.frontend.input_dim)).astype(np.float32)
    assert native.division(3, 42, config.encoder.output_dim) == (3, True)
    one, three = (
        GraphBackend(native.NativeEngine(weights, config, precision, threads), config).whole([rows])[0]
        for threads in (1, 3)
    )
    np.testing.assert_array_equal(one.weights, three.weights)
    np.testing.assert_array_equal(one.scores, three.scores)


def test_more_threads_than_the_system_has_are_fewer_threads() -> None:
    """Where no thread can be started at all, the caller computes alone."""
    if not native.available("float32"):
        pytest.skip("the engine was not built")
    rows = [np.random.default_rng(n).standard_normal((40, 560)).astype(np.float32) for n in range(60)]
    engine = native.NativeEngine(tiny.model().state_dict(), tiny.config(), "float32", 10_000)
    got = type(tiny.backend("native"))(engine, tiny.config()).whole(rows)
    for one, two in zip(got, tiny.backend("native").whole(rows), strict=True):
        np.testing.assert_array_equal(one.scores, two.scores)
    assert threading.active_count() < 100


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds processes to processors")
@pytest.mark.skipif(not native.available("float32"), reason="the engine was not built")
@pytest.mark.parametrize("processors", [1, 2])
def test_a_busy_processor_does_not_hold_up_two_threads(processors: int) -> None:
    """On one processor, or two of which another process wants one, two threads take about as long as one.

    If they waited awake for each other, a live step would take five times that.
    """
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < processors:
        pytest.skip("needs two processors")
    recognizers = {threads: paraformer.load(threads=threads) for threads in (1, 2)}
    packets, best = np.split(tiny.signal(9600 * 10), 10), {1: np.inf, 2: np.inf}
    endless = f"import os; os.sched_setaffinity(0, {{{mine[processors - 2]}}})\nwhile {processors} == 2: pass"
    with subprocess.Popen([sys.executable, "-c", endless]) as busy:
        try:
            os.sched_setaffinity(0, mine[:processors])
            for _ in range(8):
                for threads, recognizer in recognizers.items():
                    began = time.perf_counter()
                    session = recognizer.stream()
                    for packet in packets:
                        session.accept(packet)
                    best[threads] = min(best[threads], time.perf_counter() - began)
                if best[2] <= 1.6 * best[1]:
                    return
        finally:
            busy.kill()
            os.sched_setaffinity(0, mine)
    assert best[2] <= 1.6 * best[1]


def test_a_device_is_not_taken_into_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TorchBackend(tiny.model())
    backend.device = torch.device("cuda")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(UnsupportedModel, match="put on cuda before the process forked"):
        backend.whole([np.zeros((3, 560), np.float32)])
