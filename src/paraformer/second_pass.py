"""Where the sentences of a live stream end, and which of its tokens each of them stands for.

A pause ends a sentence, and so does its length, so that what has to be kept of a stream is bounded. What was recognised
live is replaced by the sentence recognised again in view of all of it, token for token: which ones is decided by their
times, at a step that depends on the samples alone. So packets change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from jaxtyping import Float32

from paraformer.audio import SAMPLE_RATE
from paraformer.errors import ConfigError
from paraformer.segment import Listening, SegmentConfig, VoiceSegmenter
from paraformer.segment.cut import Cut
from paraformer.segment.silero import WINDOW
from paraformer.settings import as_number, check_type
from paraformer.types import Revision, Segment, Token, Transcript
from paraformer.writing import readable, sentences

PAUSE_S = 0.6
LONGEST_S = 20.0
"""A sentence without a pause is cut here, where it is quietest in its second half."""
_LEAST_S = 0.1
_TOGETHER = 8
"""Windows of 32 ms in which a stream is searched for pauses: a sentence ends at most a quarter of a second late."""
_PATIENCE_S = 1.0
"""A sentence waits so long for live tokens that began in it."""
_KEPT_S = 3 * LONGEST_S
"""No sentence that is still to come is of tokens so long ago."""


@dataclass(frozen=True)
class SecondPass:
    """When sentences are recognised again: after a pause of pause_s seconds.

    deferred: not by the session, but by those who `Session.take_ended` them, at their own time.
    """

    pause_s: float = PAUSE_S
    deferred: bool = False

    def __post_init__(self) -> None:
        if not 0 < as_number(self.pause_s, "pause_s") <= LONGEST_S:
            raise ConfigError(f"pause_s must be a number of seconds up to {LONGEST_S:g}, not {self.pause_s!r}")
        check_type(self.deferred, bool, "deferred")

    def open(self) -> Listening:
        """What finds the sentences of one stream at 16 kHz."""
        pause = max(_LEAST_S, self.pause_s)
        config = SegmentConfig(max_s=LONGEST_S, min_s=0.0, min_silence_s=pause, join_s=pause, pad_s=min(0.2, pause / 2))
        return VoiceSegmenter(config).open(_TOGETHER)


@dataclass(frozen=True, eq=False)
class Ended:
    """A sentence that has ended. known_s: up to where the stream was heard when that was found."""

    number: int
    start_s: float
    samples: Float32[np.ndarray, " samples"]
    known_s: float

    @property
    def end_s(self) -> float:
        """Seconds from the start of the stream."""
        return self.start_s + len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, eq=False)
class Sentences:
    """Where a stream stands.

    ended: sentences whose live tokens are not all decided; due: those that can be recognised again, and which tokens
    they replace; free: when the last live tokens began, which no sentence has replaced, in seconds; first: the number
    of the first of them; count: sentences so far.
    """

    listening: Listening
    ended: tuple[Ended, ...] = ()
    due: tuple[tuple[Ended, tuple[int, int]], ...] = ()
    free: tuple[float, ...] = ()
    first: int = 0
    count: int = 0

    def heard(self, samples: Float32[np.ndarray, " samples"], *, final: bool) -> Sentences:
        """After further samples at 16 kHz."""
        listening, found = self.listening.copy(), list[tuple[Cut, float]]()
        for start in range(0, len(samples), _TOGETHER * WINDOW):  # so that it is known how much was heard for each
            cuts = listening.push(samples[start : start + _TOGETHER * WINDOW])
            found += [(cut, listening.heard_s) for cut in cuts]
        found += [(cut, math.inf) for cut in listening.finish()] if final else []
        ended = (Ended(self.count + n, *cut, known_s) for n, (cut, known_s) in enumerate(found))
        return replace(self, listening=listening, ended=(*self.ended, *ended), count=self.count + len(found))

    def decided(self, tokens: Sequence[Token], waiting: Iterable[float], *, now_s: float, final: bool) -> Sentences:
        """After a step: new live tokens, and when those begin that are still to come; now_s: stepped up to there."""
        undecided_s = min(waiting, default=math.inf)
        state = replace(self, free=(*self.free, *(token.start_s for token in tokens)))
        while state.ended and (final or _is_due(state.ended[0], undecided_s, now_s)):
            state = _replaced(state)
        return _without(state, sum(start < now_s - _KEPT_S for start in state.free))

    def to_dict(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Plain values, ready for JSON, and arrays."""
        kept = [(one, None) for one in self.ended] + list(self.due)
        values = {
            "sentences": [[one.number, one.start_s, len(one.samples), one.known_s, tokens] for one, tokens in kept],
            **{name: getattr(self, name) for name in ("free", "first", "count")},
        }
        samples = np.concatenate([np.zeros(0, np.float32), *(one.samples for one, _ in kept)])
        return values, {"samples": samples, **self.listening.to_arrays()}

    @classmethod
    def from_dict(cls, second: SecondPass, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Sentences:
        """The inverse of `to_dict`."""
        listening = second.open()
        listening.restore(arrays)
        ends = accumulate(row[2] for row in values["sentences"])
        kept = [
            (Ended(number, start_s, arrays["samples"][end - size : end], known_s), tokens)
            for (number, start_s, size, known_s, tokens), end in zip(values["sentences"], ends, strict=True)
        ]
        return cls(
            listening,
            tuple(one for one, tokens in kept if tokens is None),
            tuple((one, (tokens[0], tokens[1])) for one, tokens in kept if tokens is not None),
            tuple(values["free"]),
            values["first"],
            values["count"],
        )


def _is_due(ended: Ended, undecided_s: float, now_s: float) -> bool:
    """Whether all of its live tokens are decided; one that takes its time will be the next sentence's."""
    return ended.known_s <= now_s and (undecided_s >= ended.end_s or ended.known_s + _PATIENCE_S <= now_s)


def _replaced(state: Sentences) -> Sentences:
    """The first sentence that has ended gets all live tokens that begin before its end."""
    one, *ended = state.ended
    count = sum(start < one.end_s for start in state.free)
    due = (one, (state.first, state.first + count))
    return _without(replace(state, ended=tuple(ended), due=(*state.due, due)), count)


def _without(state: Sentences, count: int) -> Sentences:
    return replace(state, free=state.free[count:], first=state.first + count)


def revision(ended: Ended, replaces: tuple[int, int], segments: Sequence[Segment]) -> Revision:
    """What came of a sentence that was recognised again."""
    segment = segments[0] if segments else Segment("", ended.start_s, ended.end_s, ())
    return Revision(ended.number, replaces, segment)


def revised(live: Transcript, revisions: Iterable[Revision]) -> Transcript:
    """A whole stream's transcript with its sentences in place of the live tokens that they stand for."""
    segments, place = list[Segment](), 0
    tokens = live.tokens
    for one in revisions:
        first, behind = one.replaces
        segments += [*_segment(tokens[place:first]), *_segment(one.segment.tokens)]
        place = max(place, behind)
    segments += _segment(tokens[place:])
    every = [token for segment in segments for token in segment.tokens]
    return Transcript(readable(every), live.duration_s, tuple(segments), sentences(every))


def _segment(tokens: Sequence[Token]) -> list[Segment]:
    return [Segment(readable(tokens), tokens[0].start_s, tokens[-1].end_s, tuple(tokens))] if tokens else []
