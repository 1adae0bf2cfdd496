"""Streams that have run for hours: what they cost, and what they hear, must not depend on how long they have run."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from paraformer.backends import native
from paraformer.config import ChunkConfig
from paraformer.model.layers import sinusoid

DAY = 24 * 3600 * 1000 // 60
"""Windows of 24 hours."""
FAR = (DAY, 365 * DAY, 2**40)


def rates_of(half: int) -> np.ndarray:
    """As FunASR computes them, in float32: some lie 5e-7 of themselves beside those of the formula.

    Its last step, whose last bit depends on the processor, is rounded correctly.
    """
    exponents = torch.arange(half).type(torch.float32) * -(torch.log(torch.tensor([10000.0])) / (half - 1))
    rates: np.ndarray = np.exp(exponents.numpy().astype(np.float64)).astype(np.float32)
    np.testing.assert_array_max_ulp(rates, torch.exp(exponents).numpy(), maxulp=1)
    return rates


def exact(positions: np.ndarray, width: int) -> np.ndarray:
    """Sinusoids by whole and fractional turns in Python's integers, correct to 1e-9, at FunASR's rates."""
    half, table = width // 2, np.zeros((len(positions), width))
    for column, rate in enumerate(rates_of(half)):
        whole, scale = (np.longdouble(rate) / (2 * np.longdouble(np.pi)) * np.longdouble(2) ** 64, 2**64)
        for row, position in enumerate(positions.tolist()):
            angle = 2 * np.pi * (int(whole) * position % scale) / scale
            table[row, column], table[row, half + column] = np.sin(angle), np.cos(angle)
    return table


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("position", [1, 500, *FAR[:2]])
def test_sinusoids_are_exact_at_any_position(position: int, first: int) -> None:
    positions = position + np.arange(3)
    expected = exact(positions, 560)
    np.testing.assert_allclose(sinusoid(torch.from_numpy(positions), 560).numpy(), expected, atol=1e-6)
    for near in (3, 1000):
        np.testing.assert_allclose(native._added(positions[None], 560, first, near)[0], expected, atol=1e-6)


@pytest.mark.parametrize("first", [0, 1])
def test_rows_before_the_audio_have_no_position(first: int) -> None:
    positions = np.array([-3, first - 1, first])
    for near in (1, 9):
        got = native._added(positions[None], 8, first, near)[0]
        assert not got[:2].any()
        assert got[2].any()
    assert not sinusoid(torch.from_numpy(positions), 8, first)[:2].any()


def stepped(
    name: str, position: int, chunk: ChunkConfig, kind: tiny.Kind, steps: int = 4
) -> tuple[list[Any], dict[str, np.ndarray]]:
    """A stream of noise whose position is moved ahead after its first step."""
    backend, rng = tiny.backend(name, kind), np.random.default_rng(5)
    state, heard = backend.init_state(chunk), []
    for step in range(steps):
        rows = rng.standard_normal((chunk.chunk, 560)).astype(np.float32)
        (decoded,), (state,) = backend.step([rows], [step == steps - 1], [state], chunk)
        heard.append(decoded)
        if step == 0:
            state = {**state, "position": state["position"] + position}
    return heard, dict(state)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("position", FAR)
@pytest.mark.parametrize("chunk", tiny.CHUNKS[::2])
def test_engines_agree_wherever_a_stream_is(chunk: ChunkConfig, position: int, kind: tiny.Kind) -> None:
    expected, after = stepped("torch", position, chunk, kind)
    assert int(after["position"]) == 4 * chunk.chunk + position
    for name in tiny.EXACT:
        got, _ = stepped(name, position, chunk, kind)
        for one, two in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one.ids, two.ids)
            np.testing.assert_allclose(one.weights, two.weights, atol=1e-5)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("name", tiny.ENGINES)
def test_a_step_a_day_later_needs_no_more_memory(name: str, kind: tiny.Kind) -> None:
    """Neither while it is computed nor in what is kept."""
    peaks, sizes = [], []
    for position in (0, DAY, FAR[-1]):
        stepped(name, position, ChunkConfig(), kind)
        tracemalloc.start()
        _, state = stepped(name, position, ChunkConfig(), kind)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append({key: array.nbytes for key, array in state.items()})
    assert sizes[0] == sizes[1] == sizes[2]
    assert max(peaks) <= 1.1 * min(peaks) + 65536
