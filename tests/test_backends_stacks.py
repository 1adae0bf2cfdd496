"""Stacks by the package's own engine: NumPy's within rounding, on every family of processors, for any callers."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer import native
from paraformer.backends.layers import FORMATS
from paraformer.backends.panels import Precision
from paraformer.backends.stacks import NativeStack, stacks
from paraformer.config import SanmEncoderConfig
from paraformer.errors import ModelError
from paraformer.sanm import Blocks, shapes

FAMILIES = tuple(native.families())
built = pytest.mark.skipif(native.code() is None, reason="the engine was not built, or is not to be used")
CONFIGS = (
    SanmEncoderConfig(dim=64, heads=4, ffn_dim=96, layers=2),
    SanmEncoderConfig(dim=66, heads=6, ffn_dim=70, layers=3, kernel=5, shift=2, norm_epsilon=1e-5),
    SanmEncoderConfig(dim=129, heads=3, ffn_dim=1, layers=1, kernel=1),
)
WIDTHS = (66, 30)
"""Of rows; of those that the first block keeps, and of those that it changes."""
ROWS = (1, 2, 17, 102)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def weights(config: SanmEncoderConfig, width: int) -> dict[str, np.ndarray]:
    """Such that rows stay about as large as they are."""
    drawn = {name: noise(*shape) / np.float32(shape[-1] ** 0.5) for name, shape in shapes(config, width).items()}
    return {f"its.{name}": array + np.float32("norm" in name and "weight" in name) for name, array in drawn.items()}


@built
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-5), ("bfloat16", 0.03), ("int8", 0.06)])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_those_of_numpy(
    family: str,
    precision: Precision,
    close: float,
    config: SanmEncoderConfig,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(native.SWITCH, family)
    if native.family(FORMATS[precision]) is None:
        pytest.skip(f"this processor has no {precision}")
    tensors = weights(config, width)
    plain, engine = Blocks(tensors, config, width, "its."), NativeStack(tensors, config, width, "its.", precision)
    for rows in ROWS:
        x = noise(rows, width)
        expected, given = plain(x), x.copy()
        got = engine(given)
        assert got.shape == (rows, config.dim)
        assert np.sqrt(np.square(got - expected).mean()) <= close * expected.std()
        np.testing.assert_array_equal(given, x)


@built
@pytest.mark.parametrize("config", CONFIGS)
def test_8_bits_are_the_same_on_every_family(config: SanmEncoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for numbers half-way between two of 8 bits, of which norms, each rounded in its own way, make either."""
    tensors, x, made = weights(config, config.dim), noise(17, config.dim), []
    for family in FAMILIES:
        monkeypatch.setenv(native.SWITCH, family)
        made.append(NativeStack(tensors, config, config.dim, "its.", "int8")(x))
    for other in made[1:]:
        assert np.median(np.abs(other - made[0])) < 1e-5
        np.testing.assert_allclose(other, made[0], atol=0.05)


@built
@given(st.lists(st.integers(1, 70), min_size=2, max_size=12), st.sampled_from(get_args(Precision)))
def test_not_one_bit_depends_on_other_callers(lengths: list[int], precision: Precision) -> None:
    config = CONFIGS[0]
    stack, texts = NativeStack(weights(config, 30), config, 30, "its.", precision), [noise(n, 30) for n in lengths]
    expected = [stack(x) for x in texts]
    with ThreadPoolExecutor(4) as callers:
        for got, alone in zip(callers.map(stack, texts), expected, strict=True):
            np.testing.assert_array_equal(got, alone)


@pytest.mark.parametrize("family", ["", *FAMILIES, "none"])
def test_the_engine_is_taken_where_it_is_fast(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is sent to another process is made anew there, by what is fast there."""
    monkeypatch.setenv(native.SWITCH, family)
    config, tensors = CONFIGS[0], weights(CONFIGS[0], 64)
    stack = stacks("int8")(tensors, config, 64, "its.")
    kernels = native.family(native.INT8)
    fast = kernels is not None and kernels.name != b"plain"
    assert type(stack) is (NativeStack if fast else Blocks)
    again = pickle.loads(pickle.dumps(stack))
    np.testing.assert_array_equal(again(noise(5, 64)), stack(noise(5, 64)))
    monkeypatch.setenv(native.SWITCH, "none")
    assert type(pickle.loads(pickle.dumps(stack))) is Blocks


@built
def test_weights_that_are_not_finite_are_named() -> None:
    tensors = weights(CONFIGS[0], 64)
    tensors["its.blocks.1.feed_forward.up.weight"][3, 4] = np.inf
    with pytest.raises(ModelError, match=r"its\.blocks\.1\.feed_forward\.up\.weight .*NaN or infinity"):
        NativeStack(tensors, CONFIGS[0], 64, "its.", "int8")
