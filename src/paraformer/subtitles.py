"""Subtitles: text cut into subtitle lines that a viewer can read: at the ends of sentences, after marks, at pauses.

Never within a word, and none too wide or too long.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from paraformer.text import words_of
from paraformer.types import Segment, Token, Transcript
from paraformer.writing import SENTENCE_ENDS, readable, turns

MAX_COLUMNS = 36
"""A Chinese character takes two columns: 18 of them, or about 36 Latin letters."""
MAX_S = 7.0
MIN_S = 1.0
"""A line stays at least so long, unless the next one begins."""

Group = tuple[Token, ...]
"""Tokens that must stay on one line: one character, or the pieces of an English word."""


@dataclass(frozen=True, slots=True)
class Cue:
    """One line of subtitles; seconds from the start of the audio."""

    text: str
    start_s: float
    end_s: float
    speaker: int | None = None


def cues(transcript: Transcript) -> list[Cue]:
    """The transcript as subtitle lines, in order and not overlapping; the first of each turn says whose it is."""
    lines = [cue for segment in transcript.segments for cue in _of_segment(segment)]
    before = [None, *(cue.speaker for cue in lines)]
    lines = [
        replace(cue, text=f"{label(cue.speaker)}: {cue.text}") if cue.speaker not in (None, last) else cue
        for cue, last in zip(lines, before, strict=False)
    ]
    nexts = [*(cue.start_s for cue in lines), float("inf")][1:]
    return [replace(cue, end_s=_end(cue, following)) for cue, following in zip(lines, nexts, strict=False)]


def label(speaker: int | None) -> str:
    """What a speaker is called in results: S0, S1 and so on; "" where nobody asked."""
    return "" if speaker is None else f"S{speaker}"


def _end(cue: Cue, following_s: float) -> float:
    return max(cue.start_s, min(following_s, max(cue.end_s, cue.start_s + MIN_S)))


def _of_segment(segment: Segment) -> Iterator[Cue]:
    groups = _groups(segment.tokens)
    if not segment.text:
        return
    if not groups:
        yield Cue(segment.text, segment.start_s, segment.end_s)
        return
    for sentence in _sentences(groups):
        for line in _lines(sentence):
            yield Cue(_text(line), line[0][0].start_s, line[-1][-1].end_s, line[0][0].speaker)


def _sentences(groups: Sequence[Group]) -> Iterator[Sequence[Group]]:
    begin = 0
    for place, group in enumerate(groups, 1):
        last = place == len(groups)
        if last or group[-1].mark in SENTENCE_ENDS or turns(group[-1], groups[place][0]):
            yield groups[begin:place]
            begin = place


def _groups(tokens: Sequence[Token]) -> list[Group]:
    """The tokens of each word; of several where one began inside another."""
    spans: list[tuple[int, int]] = []
    for word in words_of(token.text for token in tokens):
        first, last = word.first, word.last
        while spans and first <= spans[-1][1]:
            before = spans.pop()
            first, last = min(first, before[0]), max(last, before[1])
        spans.append((first, last))
    return [tuple(tokens[first : last + 1]) for first, last in spans]


def _lines(groups: Sequence[Group]) -> list[Sequence[Group]]:
    """Halve at a mark near the middle, or else at the widest pause there, until every line fits."""
    if len(groups) == 1 or _fits(_text(groups), groups[-1][-1].end_s - groups[0][0].start_s):
        return [groups]
    cut = _best_cut(groups)
    return _lines(groups[:cut]) + _lines(groups[cut:])


def _best_cut(groups: Sequence[Group]) -> int:
    """Index of the word, in the middle half, after a mark, else after the longest pause; of equal ones the middlest."""
    pauses = [after[0].start_s - before[-1].end_s for before, after in pairwise(groups)]
    middle = len(groups) / 2
    candidates = range(max(1, len(groups) // 4), max(2, len(groups) - len(groups) // 4))
    return max(
        candidates,
        key=lambda cut: (bool(groups[cut - 1][-1].mark), round(pauses[cut - 1], 2), -abs(cut - middle)),
    )


def _text(groups: Sequence[Group]) -> str:
    return readable(token for group in groups for token in group)


def _fits(text: str, duration_s: float) -> bool:
    return columns(text) <= MAX_COLUMNS and duration_s <= MAX_S


def columns(text: str) -> int:
    """Width of a text on a terminal or screen, Chinese characters counting twice."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def srt(lines: Sequence[Cue]) -> str:
    """SubRip, without a line break at its end."""
    return "\n\n".join(f"{n}\n{_span(cue, ',')}\n{cue.text}" for n, cue in enumerate(lines, 1))


def vtt(lines: Sequence[Cue]) -> str:
    """WebVTT, without a line break at its end."""
    blocks = (f"{_span(cue, '.')}\n{html.escape(cue.text, quote=False)}" for cue in lines)
    return "\n\n".join(["WEBVTT", *blocks])


def clock(seconds: float, point: str = ".") -> str:
    """hours:minutes:seconds.milliseconds"""
    minutes, ms = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}{point}{ms % 1000:03}"


def _span(cue: Cue, point: str) -> str:
    return f"{clock(cue.start_s, point)} --> {clock(cue.end_s, point)}"
