"""One recording: its pieces while they are recognised, and the transcript that they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from paraformer import audio
from paraformer.audio import Samples
from paraformer.errors import ParaformerError, attempt
from paraformer.silence import Hearing
from paraformer.types import Segment, Token, Transcript
from paraformer.writing import Writer, readable, sentences

Voice = tuple[float, float, np.ndarray]
"""Start and end in seconds of a stretch of speech, and a vector that tells who speaks in it."""


class Speakers(Protocol):
    """What tells speakers apart."""

    def hear(self, start_s: float, samples: Samples) -> list[Voice]:
        """The voices of a stretch of speech that begins at start_s of its recording."""
        ...

    def label(self, tokens: Sequence[Token], voices: Sequence[Voice]) -> list[Token]:
        """The tokens of a recording with who says each, by all of its voices."""
        ...


@dataclass(frozen=True)
class Piece:
    """A stretch of speech that waits for its batch; recording: the number of the one that it is of."""

    recording: int
    start_s: float
    samples: Samples
    hearing: Hearing


class Recording(NamedTuple):
    """What is to be recognised: its name, for messages, and what gives its samples in blocks."""

    name: str
    open: Callable[[], Iterator[Samples]]


class Draft:
    """The transcript of one recording while it is made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: ParaformerError | None = None
        self.duration_s = 0.0
        self.pieces: list[tuple[float, list[Token]]] = []
        self.segments: list[list[Token]] = []
        self.voices: list[Voice] = []

    def measured(self, blocks: Iterator[Samples]) -> Iterator[Samples]:
        """The same blocks, their duration added up."""
        for block in blocks:
            self.duration_s += len(block) / audio.SAMPLE_RATE
            yield block

    def add(self, start_s: float, tokens: list[Token], voices: list[Voice]) -> None:
        """Take in the tokens of one piece, whose times count from its start, and its voices."""
        self.voices += voices
        moved = [replace(token, start_s=token.start_s + start_s, end_s=token.end_s + start_s) for token in tokens]
        self.pieces.append((start_s, moved))

    def close(self) -> None:
        """Turn the tokens recognised since the last call into segments, in order of time."""
        self.segments += [tokens for _, tokens in sorted(self.pieces, key=lambda piece: piece[0]) if tokens]
        self.pieces = []

    def result(self, writer: Writer, speakers: Speakers | None) -> Transcript | ParaformerError:
        """The outcome, once all pieces are in."""
        if self.error is not None:
            return self.error
        written = writer.whole(self.segments)
        if speakers is not None:
            with attempt(self.name) as telling:
                labelled = iter(speakers.label([token for one in written for token in one], self.voices))
                written = [list(islice(labelled, len(one))) for one in written]
            if telling.error is not None:
                return telling.error
        written = [one for one in written if one]
        segments = [Segment(readable(one), one[0].start_s, one[-1].end_s, tuple(one)) for one in written]
        text = join_segments([segment.text for segment in segments])
        found = sentences([token for one in written for token in one])
        return Transcript(text, self.duration_s, tuple(segments), found)


def join_segments(texts: Iterable[str]) -> str:
    """Texts of segments as one line: a space only between two Latin letters or digits."""
    joined = ""
    for text in texts:
        latin = joined[-1:].isascii() and text[:1].isascii() and joined and text
        joined += (" " if latin else "") + text
    return joined
