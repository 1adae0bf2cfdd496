"""Products by NumPy: the same numbers, and none of its own threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.products import product

SIZES = st.one_of(st.integers(1, 5), st.integers(1, 700))


@given(SIZES, SIZES, SIZES, st.sampled_from([(), (1,), (3,)]), st.booleans(), st.integers(0, 99))
def test_a_product_is_that_of_numpy(rows: int, k: int, columns: int, stacked: tuple[int, ...], turned: bool, seed: int):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((*stacked, rows, k)).astype(np.float32)
    b = rng.standard_normal((k, columns) if not turned else (columns, k)).astype(np.float32)
    b = b.T if turned else b
    got = product(a, b)
    assert got.dtype == np.float32
    assert got.shape == (*stacked, rows, columns)
    assert np.allclose(got, a.astype(np.float64) @ b, atol=1e-4 * k**0.5)


_SCRIPT = """
import os
from pathlib import Path
import numpy as np
import paraformer
from paraformer.companions.detector import FsmnConfig
from paraformer.config import SanmEncoderConfig
from paraformer.sanm import Blocks, shapes
from paraformer.segment.fsmn import FsmnNetwork
from paraformer.speakers.clusters import _cosines

rng = np.random.default_rng(0)
def weights(shapes):
    return {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}

def ran_ns():
    '''Of all threads but this one.'''
    told = {task.name: int((task / "schedstat").read_text().split()[0]) for task in Path("/proc/self/task").iterdir()}
    return sum(ns for name, ns in told.items() if name != str(os.getpid()))

recognizer = paraformer.load(hotwords=["地铁站", "上海"])
marks = paraformer.load_punctuation()
encoder = SanmEncoderConfig(layers=1)
blocks = Blocks(weights(shapes(encoder, 512)), encoder, 512, "")
detector = FsmnNetwork(FsmnConfig(), weights(FsmnConfig().shapes()))
rows = rng.standard_normal((300, 512)).astype(np.float32)
feats = rng.standard_normal((300, 400)).astype(np.float32)
before = ran_ns()
recognizer.transcribe(rng.standard_normal(160_000).astype(np.float32) / 20)
marks.punctuate("今天天气很好我们出去玩吧然后去吃饭" * 20)
blocks(rows)
detector.step(feats, detector.init_state())
_cosines(rows)
assert ran_ns() - before < 5e6, ran_ns() - before
"""


@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="reads what threads ran for in /proc")
def test_numpys_own_threads_stay_asleep(monkeypatch) -> None:
    """Whatever the caller's environment says: they wait for a processor that may be busy."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
