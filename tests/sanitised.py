"""What scripts/sanitise runs: models of each kind, whole and live, on every family, precision and several threads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import test_backends_variants as variants
import tiny
from numpy.typing import ArrayLike

from paraformer import native
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.native import NativeEngine, available
from paraformer.backends.panels import Precision
from paraformer.bundle import Bundle
from paraformer.config import ChunkConfig, ModelConfig
from paraformer.weights import Stored

MODEL = Path(native.__file__).parents[1] / "models" / "zh-small"


def main() -> None:
    """The shipped model, and tiny ones of all kinds."""
    check("shipped", Bundle.open(MODEL).config, Stored(MODEL / "model.safetensors", mapped=False))
    for kind in tiny.KINDS:
        check(kind, tiny.config(kind), tiny.model(kind).state_dict())
    for family, kind in itertools.product(families(), variants.KINDS):
        os.environ[native.SWITCH] = family
        listening = variants.model(kind).config.hotwords is not None
        for words in ("few", "many") if listening else ("nobody asked",):
            variants.whole(variants.engine(kind, "int8", 3), variants.WORDS[words])
        print(kind, family, "clean", flush=True)


def families() -> list[str]:
    """Those with registers of their own: the plain one is slow, and the others' text."""
    return [family for family in native.families() if family != "plain"] or ["plain"]


def check(name: str, config: ModelConfig, weights: Mapping[str, ArrayLike]) -> None:
    """Every family and precision; no result may depend on the threads."""
    width = config.frontend.input_dim
    utterances = [np.random.default_rng(n).standard_normal((n, width)).astype(np.float32) for n in (1, 25)]
    for family, precision in itertools.product(families(), get_args(Precision)):
        os.environ[native.SWITCH] = family
        if not available(precision):
            continue
        one, three = (GraphBackend(NativeEngine(weights, config, precision, threads), config) for threads in (1, 3))
        expected = one.whole(utterances)
        with ThreadPoolExecutor(2) as callers:
            for got in callers.map(three.whole, [utterances] * 2):
                for left, right in zip(expected, got, strict=True):
                    np.testing.assert_array_equal(left.scores, right.scores)
        chunk = ChunkConfig(encoder_look_back=2, decoder_look_back=1)
        states = [three.init_state(chunk)] * 2
        for final in (False, True):
            rows = [np.ones((chunk.chunk, width), np.float32)] * 2
            _, states = three.step(rows, [final] * 2, states, chunk)
        print(name, family, precision, "clean", flush=True)


if __name__ == "__main__":
    main()
