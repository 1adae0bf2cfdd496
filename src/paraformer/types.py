"""Results: what recognition hands back. All times are seconds from the start of the audio or stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another item that a token may have been.

    confidence: as that of a token, from what the decoder says of it alone.
    """

    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Token:
    """One recognised vocabulary item.

    text: as in the vocabulary, e.g. "好", "hel@@", "lo".
    start_s, end_s: from the CIF weights that were summed into it (spec: times of fires).
    confidence: probability that the chosen item is right, 0 to 1: the decoder's, or what calibration makes of that.
    alternatives: the likeliest other items, best first, as many as `load` was asked for.
    mark: the punctuation that follows it, "" for none.
    spoken: where numbers are rewritten and this token is "2024", the tokens that were heard for it, 二 零 二 四; its
    times are from the first to the last of them, its confidence is their mean.
    speaker: who says it, numbered from 0 by first appearance; None where nobody asked.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    alternatives: tuple[Alternative, ...] = ()
    mark: str = ""
    spoken: tuple[Token, ...] = ()
    speaker: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech between two pauses, its text ready for reading."""

    text: str
    start_s: float
    end_s: float
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Sentence:
    """What stands between two marks that end sentences, however many segments it was spoken in, and in one turn."""

    text: str
    start_s: float
    end_s: float
    tokens: tuple[Token, ...]

    @property
    def speaker(self) -> int | None:
        """Who says it, where that was asked for."""
        return self.tokens[0].speaker if self.tokens else None


@dataclass(frozen=True, slots=True)
class Transcript:
    """The result for one file, array or finished stream. No speech gives an empty text and no segments.

    sentences: the same tokens by sentence, cut where another speaks, where they were punctuated or speakers told apart;
    else none.
    """

    text: str
    duration_s: float
    segments: tuple[Segment, ...]
    sentences: tuple[Sentence, ...] = ()

    @property
    def tokens(self) -> tuple[Token, ...]:
        """All tokens in order."""
        return tuple(token for segment in self.segments for token in segment.tokens)

    @property
    def confidence(self) -> float:
        """Mean probability of the tokens; 0.0 for an empty text, for which nothing speaks."""
        tokens = self.tokens
        return sum(token.confidence for token in tokens) / len(tokens) if tokens else 0.0


@dataclass(frozen=True, slots=True)
class Revision:
    """A sentence of a live stream, recognised again in view of all of it once its pause has come.

    number: of the sentence, from 0. replaces: the live tokens that it stands for, as numbers from the start of the
    stream: the first, and the one behind the last; both the same where it stands for none. segment: its text, times
    and tokens; nothing where the whole sentence turned out to be none.
    """

    number: int
    replaces: tuple[int, int]
    segment: Segment
