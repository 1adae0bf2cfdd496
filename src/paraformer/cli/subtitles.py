"""Segments cut into subtitle lines that a viewer can read: at pauses, between words, none too wide or too long."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from paraformer.text import TextAssembler
from paraformer.types import Segment, Token, Transcript

MAX_COLUMNS = 36
"""A Chinese character takes two columns: 18 of them, or about 36 Latin letters."""
MAX_S = 7.0
MIN_S = 1.0
"""A line stays at least so long, unless the next one begins."""

Word = tuple[Token, ...]
"""Tokens that must stay on one line: one character, or the pieces of an English word."""


@dataclass(frozen=True, slots=True)
class Cue:
    """One line of subtitles; seconds from the start of the audio."""

    text: str
    start_s: float
    end_s: float


def cues(transcript: Transcript) -> list[Cue]:
    """The transcript as subtitle lines, in order and not overlapping."""
    lines = [cue for segment in transcript.segments for cue in _of_segment(segment)]
    starts = [*(cue.start_s for cue in lines[1:]), float("inf")]
    return [
        replace(cue, end_s=min(max(cue.end_s, cue.start_s + MIN_S), max(start, cue.start_s)))
        for cue, start in zip(lines, starts, strict=True)
    ]


def _of_segment(segment: Segment) -> Iterator[Cue]:
    words = _words(segment.tokens)
    if _fits(segment.text, segment.end_s - segment.start_s) or not words:
        yield Cue(segment.text, segment.start_s, segment.end_s)
        return
    for line in _lines(words):
        yield Cue(_text(line), line[0][0].start_s, line[-1][-1].end_s)


def _words(tokens: Sequence[Token]) -> list[Word]:
    words: list[list[Token]] = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if before is not None and before.text.endswith("@@"):
            words[-1].append(token)
        else:
            words.append([token])
    return [tuple(word) for word in words]


def _lines(words: Sequence[Word]) -> list[Sequence[Word]]:
    """Halve at the widest pause near the middle until every line fits."""
    if len(words) == 1 or _fits(_text(words), words[-1][-1].end_s - words[0][0].start_s):
        return [words]
    cut = _widest_pause(words)
    return _lines(words[:cut]) + _lines(words[cut:])


def _widest_pause(words: Sequence[Word]) -> int:
    """Index of the word, in the middle half, after the longest pause; of equal ones the nearest to the middle."""
    pauses = [after[0].start_s - before[-1].end_s for before, after in pairwise(words)]
    middle = len(words) / 2
    candidates = range(max(1, len(words) // 4), max(2, len(words) - len(words) // 4))
    return max(candidates, key=lambda cut: (round(pauses[cut - 1], 2), -abs(cut - middle)))


def _text(words: Sequence[Word]) -> str:
    assembler = TextAssembler()
    return ("".join(assembler.push(token.text) for word in words for token in word) + assembler.finish()).strip()


def _fits(text: str, duration_s: float) -> bool:
    return columns(text) <= MAX_COLUMNS and duration_s <= MAX_S


def columns(text: str) -> int:
    """Width of a text on a terminal or screen, Chinese characters counting twice."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
