"""Any rate to 16 kHz: of whole recordings by soxr, of live streams by a filter whose state is a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from math import gcd

import numpy as np
import soxr
from jaxtyping import Float32, Float64

from paraformer.audio.signal import Samples
from paraformer.errors import AudioError

SAMPLE_RATE = 16000
"""Hz, of everything that is recognised."""
LOWEST_RATE, HIGHEST_RATE = 4000, 192000


def check_rate(rate: int, name: str) -> int:
    """The rate. Raises AudioError for one that no speech is recorded at, and for what is no whole number."""
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise AudioError(f"{name} has a sample rate of {rate!r:.60}; it must be a whole number of Hz")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{name} has a sample rate of {rate!s:.60} Hz; it must lie between {LOWEST_RATE} and {HIGHEST_RATE}"
        )
    return int(rate)


def at_16k(runs: Iterable[tuple[int, Samples]]) -> Iterator[Samples]:
    """Blocks with their rates, Hz, at 16 kHz; one resampler runs through neighbours of one rate."""
    for rate, blocks in groupby(runs, key=lambda run: run[0]):
        yield from resampled((samples for _, samples in blocks), rate)


def resampled(blocks: Iterable[Samples], rate: int) -> Iterator[Samples]:
    """Blocks at 16 kHz: one resampler runs through all of them, so their sizes do not show in the result."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


# -- live -------------------------------------------------------------------------------------------------------------

_BLOCK = 160
"""Samples that leave the live resampler together: 10 ms, so that what is computed never depends on packets."""
_PASSED = 0.913
"""Up to here, as a part of the lower Nyquist frequency, nothing is changed; from 1 on, _ATTENUATION is reached."""
_ATTENUATION = 110.0
"""dB."""


@dataclass(frozen=True, eq=False)
class RateState:
    """Where a resampled stream stands. waiting: the input from where the next block of output needs it; received: input
    samples so far; given: output samples so far.
    """

    waiting: Samples
    received: int = 0
    given: int = 0


class LiveResampler:
    """A stream of any rate from 4 to 192 kHz to 16 kHz, `y, state = step(x, state)`; any packets give the same bits.

    A low-pass filter of finite length (Kaiser's window; Oppenheim and Schafer, Discrete-Time Signal Processing, 7.5),
    evaluated where output samples lie: no delay is added, sample n is the sound at n / 16000 s. Output comes up to
    10 ms and half the filter's length (5 to 20 ms) after its input; all of it, rounded to whole samples, at the end.
    """

    def __init__(self, rate: int) -> None:
        """rate: of the input, Hz. Raises AudioError for impossible ones."""
        self.rate = rate = check_rate(rate, "the stream")
        divisor = gcd(rate, SAMPLE_RATE)
        self._up, self._down = SAMPLE_RATE // divisor, rate // divisor
        self._half = _half_taps(rate)

    def init_state(self) -> RateState:
        """Before the first sample: silence, as far as the filter sees."""
        return RateState(np.zeros(0 if self.rate == SAMPLE_RATE else self._half - 1, np.float32))

    def step(
        self, samples: Samples, state: RateState, *, final: bool
    ) -> tuple[Float32[np.ndarray, " output"], RateState]:
        """Output that the samples make possible; final: all that is left."""
        received = state.received + len(samples)
        if self.rate == SAMPLE_RATE:
            return samples, RateState(state.waiting, received, received)
        total = (received * self._up + self._down // 2) // self._down if final else None
        waiting, given, made = np.concatenate([state.waiting, samples]), state.given, []
        while total is None or given < total:
            phase = given * self._down % self._up
            matrix = _block_of_filter(self.rate, phase)
            if len(waiting) < matrix.shape[1]:
                if total is None:
                    break
                waiting = np.concatenate([waiting, np.zeros(matrix.shape[1] - len(waiting), np.float32)])
            made.append(np.einsum("ij,j->i", matrix, waiting[: matrix.shape[1]]))
            waiting = waiting[(phase + _BLOCK * self._down) // self._up :]
            given += _BLOCK
        output = np.concatenate([np.zeros(0, np.float32), *made])[: None if total is None else total - state.given]
        return output, RateState(waiting.copy(), received, given)

    def missing(self, samples: int, state: RateState) -> int:
        """How many samples of input must come before `samples` more of output, at least one, do."""
        if self.rate == SAMPLE_RATE:
            return samples
        before = -(-samples // _BLOCK) - 1
        place, phase = divmod(state.given * self._down % self._up + before * _BLOCK * self._down, self._up)
        needed: int = place + _block_of_filter(self.rate, phase).shape[1]
        return max(0, needed - len(state.waiting))


def _half_taps(rate: int) -> int:
    """Input samples that the filter sees on either side."""
    width = 2 * np.pi * (1 - _PASSED) * min(rate, SAMPLE_RATE) / 2 / rate
    return int(np.ceil((_ATTENUATION - 7.95) / (2.285 * width) / 2)) + 1


@lru_cache(maxsize=128)
def _block_of_filter(rate: int, phase: int) -> Float32[np.ndarray, "_ inputs"]:
    """What makes a block of output of the input around it; phase: of its first sample between two of the input."""
    divisor = gcd(rate, SAMPLE_RATE)
    up, down, half = SAMPLE_RATE // divisor, rate // divisor, _half_taps(rate)
    places, phases = np.divmod(phase + np.arange(_BLOCK) * down, up)
    distances = np.arange(1 - half, half + 1) - phases[:, None] / up
    taps = _low_pass(distances, rate, half)
    matrix = np.zeros((_BLOCK, int(places[-1]) + 2 * half), np.float32)
    for row, place, weights in zip(matrix, places, taps, strict=True):
        row[place : place + 2 * half] = weights
    matrix.flags.writeable = False
    return matrix


def _low_pass(distances: Float64[np.ndarray, "_ taps"], rate: int, half: int) -> Float64[np.ndarray, "_ taps"]:
    """Weights of samples so far (in samples) from the output: a sinc under Kaiser's window, of sum 1."""
    beta = 0.1102 * (_ATTENUATION - 8.7)
    cutoff = (1 + _PASSED) / 2 * min(1.0, SAMPLE_RATE / rate)
    window = np.i0(beta * np.sqrt(np.maximum(0.0, 1 - np.square(distances / half))))
    weights = np.sinc(cutoff * distances) * window
    normed: Float64[np.ndarray, "_ taps"] = weights / weights.sum(axis=1, keepdims=True)
    return normed
