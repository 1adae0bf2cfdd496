from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraformer.data.augment import AugmentConfig
from paraformer.data.rooms import convolved, in_room, require_rooms, room_response
from paraformer.errors import MissingExtra

pytest.importorskip("pyroomacoustics")
require_rooms()


@settings(deadline=None, max_examples=15)
@given(length=st.integers(1, 20000), echo_s=st.floats(0.05, 1.5), seed=st.integers(0, 1 << 30))
def test_a_room_keeps_length_and_power_and_follows_its_seed(length: int, echo_s: float, seed: int) -> None:
    samples = np.random.default_rng(1).standard_normal(length, dtype=np.float32)
    heard, again = (in_room(samples, echo_s, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(heard, again)
    assert heard.dtype == np.float32
    assert len(heard) == length
    assert np.mean(heard**2) == pytest.approx(np.mean(samples**2), rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_direct_sound_comes_first_and_is_one(seed: int) -> None:
    response = room_response(0.3, np.random.default_rng(seed))
    assert np.abs(response[:3]).max() == pytest.approx(1.0, abs=0.4)
    assert np.isfinite(response).all()


def test_a_longer_echo_time_is_a_longer_echo() -> None:
    def late(echo_s: float) -> float:
        responses = [room_response(echo_s, np.random.default_rng(seed)) for seed in range(5)]
        return float(np.mean([np.sum(r[800:] ** 2) / np.sum(r**2) for r in responses]))

    assert late(0.15) < late(0.4) < late(0.8)


def test_silence_stays_silent() -> None:
    silence = np.zeros(1000, np.float32)
    np.testing.assert_array_equal(in_room(silence, 0.3, np.random.default_rng(0)), silence)


@given(length=st.integers(1, 500), taps=st.integers(1, 500), seed=st.integers(0, 99))
def test_convolution_is_that_of_numpy(length: int, taps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples, response = rng.standard_normal(length, dtype=np.float32), rng.standard_normal(taps, dtype=np.float32)
    np.testing.assert_allclose(convolved(samples, response), np.convolve(samples, response)[:length], atol=1e-4)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(MissingExtra, match=r"paraformer\[train\]"):
        AugmentConfig(room_probability=0.1)
