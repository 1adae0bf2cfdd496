"""From speech to windows, and from the speaker of each window to turns (variants 6.3, 6.5)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from paraformer.config import SAMPLE_RATE

WINDOW, SHIFT = SAMPLE_RATE * 3 // 2, SAMPLE_RATE * 3 // 4
"""Samples of a window, and from one to the next."""
SHORTEST_S = 0.7
"""A shorter turn is given to a neighbour."""


class Turn(NamedTuple):
    """Somebody speaks, in seconds."""

    start_s: float
    end_s: float
    speaker: int


class Window(NamedTuple):
    """A stretch of speech in which one voice is looked for; shorter ones are filled up with zeros."""

    start_s: float
    end_s: float
    samples: Float32[np.ndarray, " window"]


def windows(start_s: float, samples: Float32[np.ndarray, " samples"]) -> Iterator[Window]:
    """The windows of a segment of speech, which overlap by half; the last is moved back to be whole."""
    reached = 0
    for start in itertools.count(0, SHIFT):
        end = min(start + WINDOW, len(samples))
        if end <= reached:
            return
        reached, first = end, max(0, end - WINDOW)
        part = np.pad(samples[first:end], (0, WINDOW - (end - first)))
        yield Window(first / SAMPLE_RATE + start_s, end / SAMPLE_RATE + start_s, part)


def turns(spans: Sequence[tuple[float, float]], speakers: Sequence[int]) -> list[Turn]:
    """Windows in the order of time and who speaks in each, to turns that do not overlap.

    Numbers of speakers become those of their first appearance.
    """
    numbers = {label: number for number, label in enumerate(dict.fromkeys(speakers))}
    said = _joined([Turn(start, end, numbers[who]) for (start, end), who in zip(spans, speakers, strict=True)])
    for index in range(1, len(said)):
        before, after = said[index - 1], said[index]
        if before.end_s > after.start_s + 1e-4:
            middle = (after.start_s + before.end_s) / 2
            said[index - 1], said[index] = before._replace(end_s=middle), after._replace(start_s=middle)
    return _joined(_smoothed(said))


def speaker_of(start_s: float, end_s: float, said: Sequence[Turn]) -> int:
    """Who speaks most in a stretch; 0 where nobody does."""
    shares: dict[int, float] = {}
    for turn in said:
        overlap = min(end_s, turn.end_s) - max(start_s, turn.start_s)
        if overlap > 0:
            shares[turn.speaker] = shares.get(turn.speaker, 0.0) + overlap
    return max(shares, key=lambda speaker: shares[speaker]) if shares else 0


def _joined(said: Sequence[Turn]) -> list[Turn]:
    """Turns of one speaker that touch become one."""
    joined: list[Turn] = []
    for turn in said:
        last = joined[-1] if joined else None
        if last is not None and last.speaker == turn.speaker and turn.start_s <= last.end_s:
            joined[-1] = last._replace(end_s=turn.end_s)
        else:
            joined.append(turn)
    return joined


def _smoothed(said: list[Turn]) -> list[Turn]:
    """Turns in hundredths of a second, the short ones given to the nearer neighbour."""
    if len(said) < 2:
        return said
    said = list(said)
    for index, turn in enumerate(said):
        turn = Turn(round(turn.start_s, 2), round(turn.end_s, 2), turn.speaker)  # noqa: PLW2901
        if turn.end_s - turn.start_s < SHORTEST_S:
            turn = turn._replace(speaker=said[_neighbour(said, index, turn)].speaker)  # noqa: PLW2901
        said[index] = turn
    return said


def _neighbour(said: Sequence[Turn], index: int, turn: Turn) -> int:
    if index == 0:
        return 1
    if index == len(said) - 1:
        return index - 1
    before, after = turn.start_s - said[index - 1].end_s, said[index + 1].start_s - turn.end_s
    return index - 1 if before <= after else index + 1
