"""Cutting at pauses: which windows of speech become one segment, and the samples of each.

Times inside are counted in windows of 32 ms from the start of the audio.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float32

from paraformer.audio import SAMPLE_RATE, Samples, regrouped
from paraformer.errors import ConfigError
from paraformer.segment.silero import WINDOW, VoiceDetector, VoiceState
from paraformer.settings import Seconds, Share, check_ranges

Cut = tuple[float, Float32[np.ndarray, " _"]]
"""A segment: its start in seconds, and its samples."""

_GROUP = 64
"""Windows per call of the detector. Always so many: results then do not depend, to the bit, on how blocks arrive."""
_HYSTERESIS = 0.15
"""Speech goes on until its probability is so much below the threshold."""
_PAUSE = 7
"""Windows of a pause between words, about."""
_LEVEL = 10 ** (-45 / 20)
"""RMS of the loudest window, to which quieter audio is raised for the detector: it grows deaf below -60 dB."""
_MOST = 10 ** (40 / 20)
"""Raised by so much at most: the noise of the lowest of 16 bits is still far below speech then."""
_FALL = 10 ** (-40 * WINDOW / SAMPLE_RATE / 20)
"""The loudest window counts 40 dB less each second: half a second is enough to hear who speaks so much more softly."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """How audio is cut into segments, in seconds.

    A segment ends at a pause of `min_silence_s` once it is `min_s` long, and at a pause of `join_s` in any case, so
    that short neighbours become one. One that reaches `max_s` is cut at the quietest place of its second half.
    """

    max_s: Seconds = 20.0
    min_s: Seconds = 5.0
    min_silence_s: Seconds = 0.4
    join_s: Seconds = 1.0
    pad_s: Seconds = 0.2
    """Kept before the first and after the last speech of a segment."""
    min_speech_s: Seconds = 0.1
    """What holds less speech than this is a click, no segment."""
    threshold: Share = 0.5
    """Probability from which a window is speech."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold is a probability between 0 and 1, not {self.threshold}")
        if not 0 <= 2 * self.pad_s <= self.min_silence_s <= self.join_s:
            raise ConfigError("pads must fit the pauses: 0 <= 2 * pad_s <= min_silence_s <= join_s")
        if not 0 <= self.min_s <= self.max_s or self.max_s < 1 or self.min_speech_s < 0:
            raise ConfigError("lengths must be 0 <= min_s <= max_s, with max_s at least 1 s, and min_speech_s >= 0")


class VoiceSegmenter:
    """Finds speech in audio of any length. Memory is bounded by the longest segment plus a block."""

    def __init__(self, config: SegmentConfig = SegmentConfig(), detector: VoiceDetector | None = None) -> None:
        self.config = config
        self._detector = detector or VoiceDetector()

    def __call__(self, blocks: Iterable[Samples]) -> Iterator[tuple[float, Samples]]:
        """Segments of speech as (start in seconds, samples), in order and never overlapping; silence gives none.

        blocks: consecutive pieces of mono 16 kHz audio, of any sizes: the result is the same to the bit.
        """
        listening = self.open()
        for group in regrouped(blocks, _GROUP * WINDOW):
            yield from listening.push(group)
        yield from listening.finish()

    def open(self, together: int = _GROUP) -> Listening:
        """Cut one stream as it comes; together: windows of 32 ms that the detector hears at a time, one way or another
        always so many: fewer end a segment sooner, more take less time.
        """
        return Listening(self.config, self._detector, together)


class Listening:
    """One stream that is cut at pauses while it comes. Made by `VoiceSegmenter.open`."""

    def __init__(self, config: SegmentConfig, detector: VoiceDetector, together: int) -> None:
        self._cutter, self._detector, self._together = _Cutter(config), detector, together
        self._state = detector.init_state()
        self._waiting: list[Samples] = []
        self._held = np.zeros(0, np.float32)
        self._offset, self._total, self._level = 0, 0, 0.0

    @property
    def speaking_since_s(self) -> float | None:
        """Where the segment that is being heard begins; None while nobody speaks."""
        start = self._cutter.start
        return None if start is None else start * WINDOW / SAMPLE_RATE

    @property
    def heard_s(self) -> float:
        """Up to where the detector has heard."""
        return self._total / SAMPLE_RATE

    def copy(self) -> Listening:
        """Another one in the same state."""
        twin = copy(self)
        twin._waiting, twin._cutter = list(self._waiting), self._cutter.copy()  # noqa: SLF001  # of this very class
        return twin

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state, ready to be saved."""
        numbers = [self._offset, self._total]
        arrays = {"waiting": np.concatenate([np.zeros(0, np.float32), *self._waiting]), "held": self._held}
        arrays |= {"numbers": np.array(numbers, np.int64), "level": np.array(self._level, np.float64)}
        detector = {f"detector.{one.name}": getattr(self._state, one.name) for one in fields(self._state)}
        return arrays | detector | self._cutter.to_arrays()

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from what `to_arrays` gave."""
        self._waiting, self._held = [arrays["waiting"]], arrays["held"]
        self._offset, self._total = arrays["numbers"].tolist()
        self._level = float(arrays["level"])
        self._state = VoiceState(*(arrays[f"detector.{one.name}"] for one in fields(VoiceState)))
        self._cutter.restore(arrays)

    def push(self, block: Samples) -> list[Cut]:
        """Take in further samples, any number; returns the segments that they complete."""
        size = self._together * WINDOW
        self._waiting.append(block)
        if sum(map(len, self._waiting)) < size:
            return []
        samples = np.concatenate(self._waiting)
        whole = len(samples) // size * size
        self._waiting = [samples[whole:].copy()]
        return [cut for start in range(0, whole, size) for cut in self._hear(samples[start : start + size])]

    def finish(self) -> list[Cut]:
        """No more samples come: returns what is left."""
        rest = np.concatenate([np.zeros(0, np.float32), *self._waiting])
        self._waiting = []
        cuts = list(self._hear(rest)) if len(rest) else []
        return [*cuts, *self._extracted(self._cutter.finish())]

    def _hear(self, group: Samples) -> Iterator[Cut]:
        """A full group, or the last."""
        self._total += len(group)
        windows = np.pad(group, (0, self._together * WINDOW - len(group))).reshape(-1, WINDOW)
        loudness = np.sqrt(np.square(windows).mean(axis=1))
        gains, self._level = _gains(loudness, self._level)
        speech, self._state = self._detector.step(windows * gains[:, None], self._state)
        self._held = np.concatenate([self._held, group])
        used = math.ceil(len(group) / WINDOW)
        yield from self._extracted(self._cutter.push(speech[:used].tolist(), loudness[:used].tolist()))
        self._held = self._held[max(0, self._cutter.needed * WINDOW - self._offset) :]
        self._offset = self._total - len(self._held)

    def _extracted(self, spans: Iterator[tuple[int, int]]) -> Iterator[Cut]:
        for start, end in spans:
            yield _extract(self._held, self._offset, start, end)


def split(blocks: Iterable[Samples], max_s: float = 60.0) -> Iterator[tuple[float, Samples]]:
    """All of the audio in pieces of up to max_s, cut where the second half of one is quietest: no search for speech.

    For those who want no voice activity detection: a model's memory grows with the square of a piece's length.
    """
    most, held, start = int(_windows(max_s)) * WINDOW, np.zeros(0, np.float32), 0
    for block in regrouped(blocks, most):
        held = np.concatenate([held, block])
        while len(held) > most:
            loudness = np.sqrt(np.square(held[:most].reshape(-1, WINDOW)).mean(axis=1))
            smooth = np.convolve(loudness, np.ones(_PAUSE), mode="same")
            half = len(smooth) // 2
            cut = (half + int(smooth[half : 1 - _PAUSE].argmin())) * WINDOW
            yield start / SAMPLE_RATE, held[:cut]
            held, start = held[cut:].copy(), start + cut
    if len(held):
        yield start / SAMPLE_RATE, held


class _Cutter:
    """Decides, window after window, where segments start and end."""

    def __init__(self, config: SegmentConfig) -> None:
        self._config = config
        self._max, self._pad = int(_windows(config.max_s)), math.floor(_windows(config.pad_s))
        self._now = 0
        self._free = 0  # end of the last segment: nothing before it is given out again
        self._start: int | None = None
        self._voiced_end = 0
        self._voiced = 0
        self._history: deque[tuple[float, float]] = deque(maxlen=self._max)

    def copy(self) -> _Cutter:
        """Another one in the same state."""
        twin = copy(self)
        twin._history = self._history.copy()  # noqa: SLF001  # of this very class
        return twin

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state, ready to be saved."""
        start = -1 if self._start is None else self._start
        windows = [self._now, self._free, start, self._voiced_end, self._voiced]
        history = np.array(self._history, np.float64).reshape(-1, 2)
        return {"windows": np.array(windows, np.int64), "history": history}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from what `to_arrays` gave."""
        self._now, self._free, start, self._voiced_end, self._voiced = arrays["windows"].tolist()
        self._start = None if start < 0 else start
        self._history.extend((float(speech), float(level)) for speech, level in arrays["history"])

    @property
    def start(self) -> int | None:
        """The first window of the segment that is open."""
        return self._start

    @property
    def needed(self) -> int:
        """The first window whose samples a later segment may hold."""
        return max(self._free, self._now - self._pad) if self._start is None else self._start

    def push(self, speech: list[float], loudness: list[float]) -> Iterator[tuple[int, int]]:
        """Take in windows with their probability of speech and loudness; give out the segments that they complete."""
        for probability, level in zip(speech, loudness, strict=True):
            self._history.append((probability, level))
            self._hear(probability)
            self._now += 1
            if self._start is None:
                continue
            if self._now - self._voiced_end >= self._pause():
                yield from self.finish()
            elif self._now - self._start >= self._max:
                yield from self._cut(self._start)

    def finish(self) -> Iterator[tuple[int, int]]:
        """Close the segment that is open, if there is one."""
        if self._start is None:
            return
        start, self._start = self._start, None
        self._free = min(self._voiced_end + self._pad, self._now)
        if self._voiced >= max(1, math.floor(_windows(self._config.min_speech_s))):
            yield start, self._free
        self._voiced = 0

    def _hear(self, probability: float) -> None:
        """Open or extend the segment if this window is speech."""
        speaking = self._start is not None and self._voiced_end == self._now
        if probability < self._config.threshold - (_HYSTERESIS if speaking else 0.0):
            return
        if self._start is None:
            self._start = max(self._free, self._now - self._pad)
        self._voiced += 1
        self._voiced_end = self._now + 1

    def _pause(self) -> float:
        """How many windows of silence end the open segment."""
        assert self._start is not None
        long = self._voiced_end - self._start >= _windows(self._config.min_s)
        return _windows(self._config.min_silence_s if long else self._config.join_s)

    def _cut(self, start: int) -> Iterator[tuple[int, int]]:
        """Cut a segment that has become too long; what follows the cut stays open if there is speech in it."""
        place = start + self._quietest()
        if self._voiced_end <= place:
            yield from self.finish()
            return
        yield start, place
        self._start = self._free = place

    def _quietest(self) -> int:
        """The middle of the three windows that are least like speech and softest, in the second half of `max_s`."""
        speech, level = np.array(self._history).T
        score = np.convolve(speech + level / max(level.max(), 1e-9), np.ones(3), mode="same")
        half = len(score) // 2
        return half + int(score[half:-1].argmin())


def _gains(loudness: Float32[np.ndarray, " n"], level: float) -> tuple[Float32[np.ndarray, " n"], float]:
    """By what to multiply windows for the detector; level: of the loudest window so far, before and after these."""
    levels = [level := max(loud, level * _FALL) for loud in loudness.tolist()]
    return np.clip(_LEVEL / np.maximum(levels, _LEVEL / _MOST), 1, None).astype(np.float32), level


def _windows(seconds: float) -> float:
    return seconds * SAMPLE_RATE / WINDOW


def _extract(held: Samples, offset: int, start: int, end: int) -> tuple[float, Float32[np.ndarray, " segment"]]:
    """Windows start to end out of the samples held from `offset` on; the last window may be incomplete."""
    return start * WINDOW / SAMPLE_RATE, held[start * WINDOW - offset : end * WINDOW - offset].copy()
