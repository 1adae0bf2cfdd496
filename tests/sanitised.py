"""What scripts/sanitise runs: models of each kind, whole and live, on every family, precision and several threads.

Whether threads divide rows or columns is set here, however many there are of either: some models are so small, and
some utterances so long, that only one of the two would be seen. Each matrix has memory of its own, beyond whose end
nobody may look.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import get_args
from unittest.mock import patch

import numpy as np
import test_backends_stacks as stacks
import test_backends_variants as variants
import tiny
from numpy.typing import ArrayLike

from paraformer import native
from paraformer.backends import native as engine
from paraformer.backends.base import Decoded
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.panels import LINE, Precision, Room
from paraformer.backends.stacks import NativeStack
from paraformer.bundle import Bundle
from paraformer.config import ChunkConfig, ModelConfig
from paraformer.weights import Stored

MODEL = Path(native.__file__).parents[1] / "models" / "zh-small"
DIVISIONS = {"rows": False, "columns": True}


def main() -> None:
    """The shipped model, and tiny ones of all kinds."""
    shipped = Bundle.open(MODEL).config, Stored(MODEL / "model.safetensors", mapped=False)
    check("shipped", *shipped, [name for name in native.families() if name != "plain"] or ["plain"])  # which is slow
    for kind in tiny.KINDS:
        check(kind, tiny.config(kind), tiny.model(kind).state_dict(), list(native.families()))
    for family, kind, by in itertools.product(native.families(), variants.KINDS, DIVISIONS):
        os.environ[native.SWITCH] = family
        listening = variants.model(kind).config.hotwords is not None
        for words in ("few", "many") if listening else ("nobody asked",):
            with dividing(by):
                one, three = (variants.whole(variants.engine(kind, "int8", n), variants.WORDS[words]) for n in (1, 3))
            assert_same(one, three)
        print(kind, family, by, "clean", flush=True)
    for family, precision in itertools.product(native.families(), get_args(Precision)):
        os.environ[native.SWITCH] = family
        if engine.available(precision):
            check_stacks(precision)
            print("stacks", family, precision, "clean", flush=True)


def alone(room: Room, size: int) -> np.ndarray:
    """As Room.bytes, for one array."""
    memory = np.empty(size + LINE - 1, np.uint8)
    return memory[-memory.ctypes.data % LINE :][:size]


@contextmanager
def dividing(by: str) -> Iterator[None]:
    """Threads that divide rows, or columns."""
    with patch.object(engine, "division", lambda threads, rows, dim: (threads, DIVISIONS[by])):
        yield


def assert_same(one: list[Decoded], three: list[Decoded]) -> None:
    """No result may depend on the threads."""
    for left, right in zip(one, three, strict=True):
        np.testing.assert_array_equal(left.weights, right.weights)
        np.testing.assert_array_equal(left.scores, right.scores)


def check(name: str, config: ModelConfig, weights: Mapping[str, ArrayLike], families: list[str]) -> None:
    """Every precision and division, with two callers at once, of whom one finds the helpers lent."""
    width, chunk = config.frontend.input_dim, ChunkConfig(encoder_look_back=2, decoder_look_back=1)
    utterances = [np.random.default_rng(n).standard_normal((n, width)).astype(np.float32) for n in (1, 25)]
    packets = [np.random.default_rng(n).standard_normal((chunk.chunk, width)).astype(np.float32) for n in range(2)]
    for family, precision, by in itertools.product(families, get_args(Precision), DIVISIONS):
        os.environ[native.SWITCH] = family
        if not engine.available(precision):
            continue
        one, three = (
            GraphBackend(engine.NativeEngine(weights, config, precision, threads), config) for threads in (1, 3)
        )
        with dividing(by), ThreadPoolExecutor(2) as callers:
            expected = one.whole(utterances)
            for got in callers.map(three.whole, [utterances] * 2):
                assert_same(expected, got)
            states = {backend: [backend.init_state(chunk)] * 2 for backend in (one, three)}
            for final in (False, True):
                heard = {}
                for backend in states:
                    heard[backend], states[backend] = backend.step(packets, [final] * 2, states[backend], chunk)
                assert_same(heard[one], heard[three])
        print(name, family, precision, by, "clean", flush=True)


def check_stacks(precision: Precision) -> None:
    """Those of what stands beside a recogniser, of any number of rows."""
    for config, width in itertools.product(stacks.CONFIGS, stacks.WIDTHS):
        stack = NativeStack(stacks.weights(config, width), config, width, "its.", precision)
        for rows in stacks.ROWS:
            stack(stacks.noise(rows, width))


if __name__ == "__main__":
    with patch.object(Room, "bytes", alone):
        main()
