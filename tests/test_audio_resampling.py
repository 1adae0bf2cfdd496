"""The live resampler: packets change no bit, a saved state goes on, and the sound is soxr's and the formula's."""

from __future__ import annotations

from math import gcd

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from paraformer import audio
from paraformer.audio import LiveResampler, RateState
from paraformer.errors import AudioError

RATES = (4000, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44056, 44100, 48000, 96000, 192000)


def through(resampler: LiveResampler, packets: list[np.ndarray]) -> np.ndarray:
    """All output of a stream."""
    state, made = resampler.init_state(), []
    for packet in packets:
        output, state = resampler.step(packet, state, final=False)
        made.append(output)
    return np.concatenate([*made, resampler.step(np.zeros(0, np.float32), state, final=True)[0]])


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)


@given(rate=st.sampled_from(RATES), count=st.integers(0, 9000), cuts=st.lists(st.integers(0, 9000), max_size=20))
def test_any_packets_give_the_same_bits(rate: int, count: int, cuts: list[int]) -> None:
    resampler, samples = LiveResampler(rate), noise(count)
    packets = np.split(samples, sorted(min(cut, count) for cut in cuts))
    np.testing.assert_array_equal(through(resampler, packets), through(resampler, [samples]))


@pytest.mark.parametrize("rate", [8000, 44100])
def test_single_samples_are_packets_too(rate: int) -> None:
    resampler, samples = LiveResampler(rate), noise(1500)
    np.testing.assert_array_equal(through(resampler, list(samples[:, None])), through(resampler, [samples]))


@given(rate=st.sampled_from(RATES), count=st.integers(0, 9000), at=st.integers(0, 9000))
def test_the_state_is_a_value(rate: int, count: int, at: int) -> None:
    """Going on from a copy, twice, gives the same; the length of the state does not grow."""
    resampler, samples = LiveResampler(rate), noise(count)
    first, state = resampler.step(samples[:at], resampler.init_state(), final=False)
    for _ in range(2):
        kept = RateState(state.waiting.copy(), state.received, state.given)
        rest, _ = resampler.step(samples[at:], kept, final=True)
        np.testing.assert_array_equal(np.concatenate([first, rest]), through(resampler, [samples]))
    assert len(state.waiting) <= 0.02 * rate + 1500


@given(rate=st.sampled_from(RATES), count=st.integers(0, 5000))
def test_as_many_samples_as_of_a_file(rate: int, count: int) -> None:
    samples = noise(count)
    assert len(through(LiveResampler(rate), [samples])) == len(audio.from_array(samples, rate))


@pytest.mark.parametrize("rate", RATES)
def test_the_sound_is_the_formula_s(rate: int) -> None:
    """Forty tones below 0.9 of the lower Nyquist frequency, against the same tones at 16 kHz: 120 dB apart."""
    rng = np.random.default_rng(rate)
    hertz, phases = rng.uniform(20, 0.45 * min(rate, 16000), 40), rng.uniform(0, 2 * np.pi, 40)

    def tones(rate: int) -> np.ndarray:
        return np.sin(2 * np.pi * np.outer(np.arange(rate) / rate, hertz) + phases).sum(axis=1) / 40

    wanted, got = tones(16000), through(LiveResampler(rate), [tones(rate).astype(np.float32)])
    middle = slice(1600, 14400)  # the tones begin and end at once, which rings
    error = np.square(got[middle] - wanted[middle]).sum() / np.square(wanted[middle]).sum()
    assert 10 * np.log10(error) < -120


@pytest.mark.parametrize("rate", [rate for rate in RATES if rate != 16000])
def test_the_sound_is_soxr_s(rate: int) -> None:
    """Noise below 0.9 of the lower Nyquist frequency. Where the ratio is no whole number, soxr itself is 72 dB off."""
    spectrum = np.fft.rfft(noise(rate))
    spectrum[np.fft.rfftfreq(rate, 1 / rate) > 0.45 * min(rate, 16000)] = 0
    samples = np.fft.irfft(spectrum, rate).astype(np.float32)
    wanted, got = soxr.resample(samples, rate, 16000), through(LiveResampler(rate), [samples])
    middle = slice(1600, 14400)
    error = np.square(got[middle] - wanted[middle]).sum() / np.square(wanted[middle]).sum()
    assert 10 * np.log10(error) < (-120 if 16000 // gcd(rate, 16000) <= 4 else -70)


@pytest.mark.parametrize("rate", [44100, 48000])
def test_nothing_from_above_is_folded_down(rate: int) -> None:
    high = np.sin(2 * np.pi * 9000 / rate * np.arange(rate)).astype(np.float32)
    assert np.abs(through(LiveResampler(rate), [high])[1600:14400]).max() < 1e-5


def test_16_khz_passes_as_it_is() -> None:
    samples = noise(5000)
    np.testing.assert_array_equal(through(LiveResampler(16000), [samples]), samples)


@pytest.mark.parametrize("rate", [0, -8000, 3999, 192001, 16000.0, "8000", None, True])
def test_impossible_rates(rate: object) -> None:
    with pytest.raises(AudioError, match="sample rate"):
        LiveResampler(rate)  # type: ignore[arg-type]


@settings(max_examples=5)
@given(st.integers(4000, 192000))
def test_any_rate_at_all(rate: int) -> None:
    samples = noise(rate // 4)
    halves = np.array_split(samples, 2)
    np.testing.assert_array_equal(through(LiveResampler(rate), halves), through(LiveResampler(rate), [samples]))
