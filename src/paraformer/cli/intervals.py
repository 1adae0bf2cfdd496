"""Words with their times, for programs that score and draw: CTM's rows, Praat's TextGrid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from paraformer.subtitles import label
from paraformer.text import words_of
from paraformer.types import Token, Transcript
from paraformer.writing import readable

_LEAST_S = 1e-4
"""Praat takes no interval of length zero."""


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word of the text, without marks: a character, an English word, a number in digits."""

    text: str
    start_s: float
    end_s: float
    confidence: float
    speaker: int | None


class SpokenTurn(NamedTuple):
    """What one speaker says without a pause."""

    start_s: float
    end_s: float
    text: str
    speaker: int


def spoken_turns(transcript: Transcript) -> list[SpokenTurn]:
    """Of a transcript whose tokens tell who says them, in order; tokens that do not are left out."""
    found = []
    for segment in transcript.segments:
        for speaker, group in groupby(segment.tokens, key=lambda token: token.speaker):
            if speaker is not None:
                own = tuple(group)
                found.append(SpokenTurn(own[0].start_s, own[-1].end_s, readable(own).strip(), speaker))
    return found


def spoken_words(tokens: Sequence[Token]) -> list[SpokenWord]:
    """The words of tokens in order of their beginning; confidence: the mean of their tokens'."""
    found = []
    for word in words_of(token.text for token in tokens):
        own = tokens[word.first : word.last + 1]
        confidence = sum(token.confidence for token in own) / len(own)
        found.append(SpokenWord(word.text, own[0].start_s, own[-1].end_s, confidence, own[0].speaker))
    return sorted(found, key=lambda word: word.start_s)


def textgrid(channels: Mapping[int | None, Transcript]) -> str:
    """Praat's long text form: for each channel a tier of sentences, or else segments, one of words, one of speakers."""
    tiers: list[tuple[str, list[tuple[float, float, str]]]] = []
    end_s = max([one.duration_s for one in channels.values()], default=0.0)
    for channel, one in channels.items():
        name = "" if channel is None else f" {channel}"
        rows = [(row.start_s, row.end_s, row.text) for row in one.sentences or one.segments]
        words = [(word.start_s, word.end_s, word.text) for word in spoken_words(one.tokens)]
        kind = "sentences" if one.sentences else "segments"
        tiers += [(kind + name, _filled(rows, end_s)), ("words" + name, _filled(words, end_s))]
        if said := [(turn.start_s, turn.end_s, label(turn.speaker)) for turn in spoken_turns(one)]:
            tiers.append(("speakers" + name, _filled(said, end_s)))
    end_s = max([end_s, *(rows[-1][1] for _, rows in tiers if rows)])
    head = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end_s:.4f}"]
    lines = [*head, "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, rows) in enumerate(tiers, 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {end_s:.4f}", f"        intervals: size = {len(rows)}"]
        for place, (start, end, text) in enumerate(rows, 1):
            quoted = text.replace('"', '""')
            lines += [f"        intervals [{place}]:", f"            xmin = {start:.4f}"]
            lines += [f"            xmax = {end:.4f}", f'            text = "{quoted}"']
    return "\n".join(lines)


def _filled(rows: Iterable[tuple[float, float, str]], end_s: float) -> list[tuple[float, float, str]]:
    """Rows without gaps and overlaps, from 0 to the end: Praat's tiers leave nothing out."""
    filled: list[tuple[float, float, str]] = []
    now = 0.0
    for start, end, text in rows:
        begin = start if start - now >= _LEAST_S else now
        if begin > now:
            filled.append((now, begin, ""))
        now = max(end, begin + _LEAST_S)
        filled.append((begin, now, text))
    if end_s - now >= _LEAST_S or not filled:
        filled.append((now, max(end_s, now + _LEAST_S), ""))
    return filled
