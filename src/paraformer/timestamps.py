"""When each token was spoken, from the weights of continuous integrate-and-fire.

The running sum of the weights is a clock: token k was spoken while it went from k to k + 1. A window's weight is spread
evenly over its 60 ms, so the clock is a rising line of straight pieces, and times are where it crosses levels. What a
pause contributes is a trickle; so that a token does not stretch over the pause beside it, it reaches at most one window
beyond the middle four fifths of its weight.

`funasr_timestamps` is the other way to do it, the reference's, for programs that expect its numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

WINDOW_S = 0.06
"""From one window to the next; window i is centred on i * WINDOW_S (spec 1.3)."""

Span = tuple[float, float]
"""Start and end in seconds."""

_PARTS = 10
"""Levels per token at which the clock is read: its tenths."""
_SLACK = 1e-3
"""Levels lie this much lower, so that the rounding of the model's own sum never decides whether one was reached."""


def token_times(
    weights: Float32[np.ndarray, " windows"], tokens: int, *, offset_s: float = 0.0, window_s: float = WINDOW_S
) -> list[Span]:
    """Start and end of each token of a whole utterance, in order and not overlapping.

    weights: CIF weights of its windows, without the tail; tokens: how many fired, the tail's included; offset_s: when
    the utterance starts; window_s: from one window to the next.
    """
    spans = CifClock(window_s=window_s).push(weights, tokens)
    return [(start + offset_s, end + offset_s) for start, end in spans]


class CifClock:
    """Token times of a live stream: the same as `token_times`, however the windows come in."""

    def __init__(self, first_window: int = 0, window_s: float = WINDOW_S) -> None:
        """first_window: index of the first weight to come; negative where a stream starts with empty look-ahead."""
        self._window = first_window
        self._window_s = window_s
        self._sum = 0.0
        self._tokens = 0
        self._crossings: list[float] = []
        """Times at which the sum crossed the tenths of the token now spoken, and of those that follow it."""

    def push(self, weights: Float32[np.ndarray, " windows"], tokens: int) -> list[Span]:
        """Take in further windows; give the spans of the `tokens` that fired in them, at the end with the tail."""
        for weight in weights.astype(np.float64).tolist():
            self._advance(weight)
        return [self._next_span() for _ in range(tokens)]

    def copy(self) -> CifClock:
        """Another one in the same state."""
        return CifClock.from_dict(self.to_dict())

    @property
    def began_s(self) -> float:
        """Seconds before which no token begins that is still to come."""
        return self._crossings[0] if self._crossings else self._now

    def to_dict(self) -> dict[str, Any]:
        """The clock as plain values, ready for JSON."""
        return {
            "window": self._window,
            "window_s": self._window_s,
            "sum": self._sum,
            "tokens": self._tokens,
            "crossings": list(self._crossings),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CifClock:
        """Read back `to_dict`. Raises KeyError if a value is missing."""
        clock = cls(first_window=values["window"], window_s=values["window_s"])
        clock._sum, clock._tokens, clock._crossings = values["sum"], values["tokens"], list(values["crossings"])
        return clock

    @property
    def _now(self) -> float:
        """Seconds at the end of the last window."""
        return max(0.0, (self._window - 0.5) * self._window_s)

    def _advance(self, weight: float) -> None:
        """Run through one window and note when the sum crosses the tenths of the current and following tokens."""
        before, self._sum = self._sum, self._sum + weight
        while (level := self._next_level()) <= self._sum:
            share = min(1.0, max(0.0, level - before) / weight) if weight > 0 else 0.0
            self._crossings.append(max(0.0, (self._window - 0.5 + share) * self._window_s))
        self._window += 1

    def _next_level(self) -> float:
        return self._tokens + len(self._crossings) / _PARTS - _SLACK

    def _next_span(self) -> Span:
        """Times of the oldest token not yet given out; its last tenth begins the next token."""
        reached = self._crossings[: _PARTS + 1] or [self._now]
        whole = len(reached) == _PARTS + 1
        first, last = reached[min(1, len(reached) - 1)], reached[-2 if whole else -1]
        start = max(reached[0], first - self._window_s)
        end = min(reached[-1] if whole else self._now, last + self._window_s)
        self._crossings = self._crossings[_PARTS:] or [self._now]
        self._tokens += 1
        self._sum = max(self._sum, self._tokens)  # a pause or the end adds what the token lacks
        return start, end


def fine_times(weights: Float32[np.ndarray, " steps"], silent: Sequence[bool], *, rate: int) -> list[Span]:
    """Start and end of each token of a whole utterance, from a second integrate-and-fire: FunASR's, peak to peak.

    weights: `rate` to a window, their sum the number of tokens; silent: of each token, whether it stands for no text,
    as </s>, which ends the last one that does. What is silent gets the time at which the one before ends.
    """
    heard = len(silent) - sum(silent)
    peaks = np.array(_running_values(weights.tolist()), np.float32)
    told = funasr_timestamps(weights, peaks, [""] * heard, upsample_rate=rate)
    spans = [(max(0, start) / 1000, max(0, end) / 1000) for start, end in told]
    if len(spans) != heard:  # there is not much else to go by where one weight makes two peaks
        spans = token_times(weights, heard, offset_s=-WINDOW_S / rate, window_s=WINDOW_S / rate)
    following, times = iter(spans), list[Span]()
    for quiet in silent:
        end = times[-1][1] if times else 0.0
        times.append((end, end) if quiet else next(following))
    return times


def funasr_timestamps(
    weights: Float32[np.ndarray, " frames"],
    peaks: Float32[np.ndarray, " frames"],
    tokens: Sequence[str],
    *,
    offset_ms: float = 0.0,
    upsample_rate: int = 3,
) -> list[tuple[int, int]]:
    """Start and end in whole milliseconds of each token, as FunASR's `ts_prediction_lfr6_standard` (spec 7.3).

    weights, peaks: CIF weights and running values, tail included, `upsample_rate` of them per 60 ms window; tokens: of
    which a last "</s>" is left out. A token lasts from its peak to the next one, moved back by 1.5 frames, 12 frames at
    most. Where the peaks do not number one more than the tokens, the weights are scaled until they do.
    """
    count = len(tokens) - (1 if tokens and tokens[-1] == "</s>" else 0)
    if count == 0:
        return []
    places = _peak_places(peaks)
    if len(places) != count + 1:
        scaled = weights / (weights.sum(dtype=np.float32) / np.float32(count + 1))
        places = _peak_places(_running_values(scaled.tolist()))
    frame_s = WINDOW_S / upsample_rate
    return [
        (math.trunc((start * frame_s + offset_ms / 1000) * 1000), math.trunc((end * frame_s + offset_ms / 1000) * 1000))
        for start, end in _spans(places, len(peaks))
    ]


_PEAK = 1.0 - 1e-4
"""FunASR's numbers, here and below: the running value from which a frame is a peak."""
_PEAK_SHIFT = -1.5
"""Frames from a peak to the beginning of its token."""
_LONGEST_TOKEN = 12
_EDGE_SILENCE = 5
"""Frames behind the last peak from which on they are silence, of which the last token gets half."""


def _peak_places(values: Iterable[float]) -> list[float]:
    """Frames of the peaks, moved back by 1.5."""
    return [index + _PEAK_SHIFT for index, value in enumerate(values) if value >= _PEAK]


def _running_values(weights: Sequence[float]) -> list[float]:
    """CIF's running sum as FunASR's loop keeps it: at a peak the threshold is taken off."""
    total, values = np.float32(0), []
    for weight in weights:
        total += np.float32(weight)
        values.append(float(total))
        if total >= np.float32(_PEAK):
            total -= np.float32(_PEAK)
    return values


def _spans(places: Sequence[float], frames: int) -> list[tuple[float, float]]:
    """From peak to peak, in frames, at most 12. The last one ends with the audio, or half-way if that is far off."""
    spans = [(start, min(end, start + _LONGEST_TOKEN)) for start, end in itertools.pairwise(places)]
    if spans and spans[-1][1] == places[-1]:
        far = frames - places[-1] > _EDGE_SILENCE
        spans[-1] = (spans[-1][0], (frames + places[-1]) / 2 if far else float(frames))
    return spans
