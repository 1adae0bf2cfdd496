"""How much of a core's int8 products the engine reaches, by each family of kernels that the processor has.

    python benchmarks/peak.py runs/compare/large/paraformer

Of a model directory: 10 s of audio whole, live steps of [5,10,5] without look-back, by one thread and by two. A core's
peak is measured in registers alone, with the instructions that a family has for products of bytes, and its clock by
additions that wait for each other. Needs x86-64, a C compiler called cc and an idle machine: all is the best of many.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from comparison.roofline import operations

from paraformer import native
from paraformer.backends.base import Backend
from paraformer.config import ChunkConfig
from paraformer.loader import open_model

FAMILIES = ("amx", "avx512", "avxvnni", "avx2")
"""As comparison/peak.c counts them."""
ROWS = 167
"""Of 10 s."""
LIVE = ChunkConfig()
SECONDS = 1.0
"""Of trying, for each figure."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="The share of a core's peak of int8 products that the engine reaches.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--families", default=",".join(name for name in FAMILIES if name in native.families()))
    options = parser.parse_args()
    with TemporaryDirectory() as directory:
        code = built(Path(directory))
        clock = _rate(partial(code.adds, 1 << 22))
        print(f"clock {clock:.2f} GHz")
        print("| kernels | peak, Gop/s | a cycle | whole 10 s | of the peak | live step | of the peak | two threads |")
        print("|---|---|---|---|---|---|---|---|")
        for name in options.families.split(","):
            peak = _rate(partial(code.products, FAMILIES.index(name), 1 << 16))
            print(_row(name, peak, clock, options.directory), flush=True)


def built(directory: Path) -> ctypes.CDLL:
    """comparison/peak.c, compiled."""
    source = Path(__file__).parent / "comparison" / "peak.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", directory / "peak.so"], check=True)  # noqa: S607
    code = ctypes.CDLL(str(directory / "peak.so"))
    for function in (code.adds, code.products):
        function.restype = ctypes.c_long
    code.adds.argtypes, code.products.argtypes = [ctypes.c_long], [ctypes.c_int, ctypes.c_long]
    return code


def _row(name: str, peak: float, clock: float, directory: Path) -> str:
    """What one family reaches."""
    os.environ[native.SWITCH] = name
    one, two = (open_model(directory, "native", precision="int8", threads=threads)[1] for threads in (1, 2))
    cells = [name, f"{peak:.0f}", f"{peak / clock:.0f}"]
    for rows, run in ((ROWS, _whole), (LIVE.rows, _live)):
        tokens, taken = run(one)
        reached = operations(one.config, rows, tokens) / taken / 1e9
        cells += [f"{1000 * taken:.1f} ms", f"{100 * reached / peak:.0f} %"]
    together = " and ".join(f"{1000 * run(two)[1]:.1f}" for run in (_whole, _live))
    return f"| {' | '.join([*cells, f'{together} ms'])} |"


def _whole(backend: Backend) -> tuple[int, float]:
    feats = np.random.default_rng(0).standard_normal((ROWS, backend.config.frontend.input_dim)).astype(np.float32)
    return _best(lambda: len(backend.whole([feats])[0].ids))


def _live(backend: Backend) -> tuple[int, float]:
    """A step in the middle of a stream."""
    shape = (LIVE.chunk, backend.config.frontend.input_dim)
    feats = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    _, states = backend.step([feats], [False], [backend.init_state(LIVE)], LIVE)
    return _best(lambda: len(backend.step([feats], [False], states, LIVE)[0][0].ids))


def _best(call: Callable[[], int]) -> tuple[int, float]:
    """What a call returns, and the seconds of the fastest of those that fit into the time."""
    taken, end = [], time.perf_counter() + SECONDS
    while True:
        start = time.perf_counter()
        found = call()
        taken.append(time.perf_counter() - start)
        if time.perf_counter() > end and len(taken) > 1:
            return found, min(taken[1:])


def _rate(call: Callable[[], int]) -> float:
    """Billions a second of what a call returns the number of."""
    count, taken = _best(call)
    return count / taken / 1e9


if __name__ == "__main__":
    main()
