"""From recognised tokens to a text that people read: marks, numbers, sentences.

Every step gives tokens for tokens, in order: a mark is a field of the token that it follows, and a number written in
digits is one token that holds those it was made of. So times, confidences and alternatives are never moved from one
token to another, and whatever is made of a transcript is made of its tokens alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any, Protocol

from paraformer.punctuation import ENDS, Punctuation, Undecided
from paraformer.punctuation.model import PAUSE_S
from paraformer.text import TextAssembler, words_of
from paraformer.types import Alternative, Sentence, Token

SENTENCE_ENDS = frozenset({*ENDS, ".", "?", "!"})
LONGEST = 40
"""Tokens of a stream that wait for the end of their clause, before the first of them are given out without it."""


class Rewriter(Protocol):
    """Writes what was spoken in another way, as numbers in digits."""

    @property
    def name(self) -> str:
        """Tells what it does from what another does."""
        ...

    def __call__(self, text: str) -> list[tuple[int, int, str]]:
        """What to replace in a text, in order: from where to where, and by what."""
        ...


@dataclass(frozen=True)
class WritingState:
    """Where a stream stands.

    waiting: tokens whose marks are not decided; undecided: their units, and those before; clause: decided tokens that
    wait until a clause is whole, for numbers; begins: whether the next token begins a sentence.
    """

    waiting: tuple[Token, ...] = ()
    undecided: Undecided = field(default_factory=Undecided)
    clause: tuple[Token, ...] = ()
    begins: bool = True

    @property
    def starts(self) -> tuple[float, ...]:
        """When the tokens that wait begin, in seconds."""
        return tuple(token.start_s for token in (*self.clause, *self.waiting))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WritingState:
        """The inverse of `to_dict`."""
        undecided = Undecided(*(tuple(values["undecided"][name]) for name in ("context", "waiting")))
        waiting, clause = (tuple(map(token_from, values[name])) for name in ("waiting", "clause"))
        return cls(waiting, undecided, clause, values["begins"])


@dataclass(frozen=True)
class Writer:
    """What is done to recognised tokens; read-only. Either part may be absent."""

    punctuation: Punctuation | None = None
    rewriter: Rewriter | None = None

    @property
    def fingerprint(self) -> str | None:
        """Tells what it does from anything else; None: nothing."""
        parts = (self.punctuation.fingerprint if self.punctuation else "", self.rewriter.name if self.rewriter else "")
        return "/".join(parts) if any(parts) else None

    def whole(self, segments: Sequence[Sequence[Token]]) -> list[list[Token]]:
        """The tokens of all segments of one recording, written in view of all of them.

        A number that goes on in the next segment, without a long pause, is one token of the segment where it begins,
        which may leave nothing to the next.
        """
        tokens = [token for segment in segments for token in segment]
        if self.punctuation is not None:
            units = _units(tokens)
            silences = _silences(tokens, [last for _, last in units])
            marks = self.punctuation.marks([text for text, _ in units], silences)
            tokens, _ = _marked(tokens, [last for _, last in units], marks, begins=True)
        ends, written, begin = list(accumulate(map(len, segments))), [list[Token]() for _ in segments], 0
        for end in ends:
            if end < len(tokens) and tokens[end].start_s - tokens[end - 1].end_s < PAUSE_S:
                continue
            for token in self._rewritten(tokens[begin:end]):
                written[bisect_right(ends, begin)].append(token)
                begin += len(token.spoken) or 1
        return written

    def step(
        self, tokens: Sequence[Token], state: WritingState, *, now_s: float, final: bool
    ) -> tuple[list[Token], WritingState]:
        """Take in further tokens of a stream; those that are decided by now, and the state after.

        now_s: up to where the stream was heard; final: it ends there. Nothing waits beyond a pause.
        """
        waiting = [*state.waiting, *tokens]
        paused = final or (bool(waiting) and now_s - waiting[-1].end_s >= PAUSE_S)
        decided, state = self._decided(waiting, state, now_s=now_s, final=final, paused=paused)
        if self.rewriter is None:
            return decided, state
        held = [*state.clause, *decided]
        if whole := len(held) if paused else _clause_end(held):
            return self._rewritten(held[:whole]), replace(state, clause=tuple(held[whole:]))
        written, given = _first(self._rewritten(held), len(held) - LONGEST)
        return written, replace(state, clause=tuple(held[given:]))

    def _decided(
        self, waiting: list[Token], state: WritingState, *, now_s: float, final: bool, paused: bool
    ) -> tuple[list[Token], WritingState]:
        if self.punctuation is None:
            return waiting, state
        units = _units(waiting)
        lasts = [last for _, last in units]
        # A word that ends with the last token may go on with the next one.
        if not paused and units and lasts[-1] == len(waiting) - 1 and _goes_on(waiting[-1]):
            units, lasts = units[:-1], lasts[:-1]
        new = [text for text, _ in units[len(state.undecided.waiting) :]]
        silences = _silences(waiting, lasts)
        if paused and silences:
            silences[-1] = max(0.0, now_s - waiting[lasts[-1]].end_s)
        marks, undecided = self.punctuation.step(new, state.undecided, silences, final=final, paused=paused)
        count = len(waiting) if paused else lasts[len(marks) - 1] + 1 if marks else 0
        decided, begins = _marked(waiting[:count], lasts[: len(marks)], marks, begins=state.begins)
        return decided, replace(state, waiting=tuple(waiting[count:]), undecided=undecided, begins=begins)

    def _rewritten(self, tokens: Sequence[Token]) -> list[Token]:
        return list(tokens) if self.rewriter is None else _rewritten(tokens, self.rewriter)


def readable(tokens: Iterable[Token]) -> str:
    """The text of tokens, with their marks."""
    assembler = TextAssembler()
    return "".join([assembler.push(token.text, token.mark) for token in tokens]) + assembler.finish()


def sentences(tokens: Sequence[Token]) -> tuple[Sentence, ...]:
    """Tokens by sentence, cut where another speaks, what stands after the last end apart.

    None where no token has a mark, and nobody asked who speaks.
    """
    if not any(token.mark or token.speaker is not None for token in tokens):
        return ()
    assembler, found = TextAssembler(), list[Sentence]()  # one for all: a word may go on behind a mark
    for part in _parts(tokens):
        text = "".join([assembler.push(token.text, token.mark) for token in part])
        text += assembler.finish() if part[-1] is tokens[-1] else ""
        found.append(Sentence(text.strip(), part[0].start_s, part[-1].end_s, part))
    return tuple(found)


def turns(token: Token, following: Token) -> bool:
    """Whether another speaks from the token after this one on; within a word nobody takes over."""
    return token.speaker != following.speaker and not token.text.endswith("@@")


def token_from(values: Mapping[str, Any]) -> Token:
    """The inverse of `asdict`."""
    others = tuple(Alternative(**one) for one in values["alternatives"])
    spoken = tuple(map(token_from, values["spoken"]))
    return Token(**{**values, "alternatives": others, "spoken": spoken})


def _parts(tokens: Sequence[Token]) -> Iterator[tuple[Token, ...]]:
    begin = 0
    for place, token in enumerate(tokens, 1):
        if place == len(tokens) or token.mark in SENTENCE_ENDS or turns(token, tokens[place]):
            yield tuple(tokens[begin:place])
            begin = place


def _units(tokens: Sequence[Token]) -> list[tuple[str, int]]:
    """What stands in the text as one, and its last token."""
    found: list[tuple[str, int]] = []
    for word in words_of(token.text for token in tokens):
        # One that began inside the word before it, as pieces around an abbreviation do, ends where both have ended.
        found.append((word.text, max(word.last, found[-1][1]) if found else word.last))
    return found


def _goes_on(token: Token) -> bool:
    """Whether the word of this last token may be an abbreviation that the next one belongs to."""
    return token.text.isascii() and token.text.isalpha()


def _silences(tokens: Sequence[Token], lasts: Sequence[int]) -> list[float]:
    """Seconds between the tokens at these places and those that follow them; none after the last."""
    return [
        max(0.0, tokens[last + 1].start_s - tokens[last].end_s) if last + 1 < len(tokens) else 0.0 for last in lasts
    ]


def _marked(
    tokens: Sequence[Token], lasts: Sequence[int], marks: Sequence[str], *, begins: bool
) -> tuple[list[Token], bool]:
    """Tokens with the marks of their units; a Latin word that begins a sentence gets a capital letter."""
    written, first = list(tokens), 0
    for last, mark in zip(lasts, marks, strict=True):
        if begins and written[first].text[:1].isascii():
            text = written[first].text
            written[first] = replace(written[first], text=text[:1].upper() + text[1:])
        if mark:
            written[last] = replace(written[last], mark=mark)
        begins, first = mark in SENTENCE_ENDS, last + 1
    return written, begins


def _clause_end(tokens: Sequence[Token]) -> int:
    """How many tokens from the front are whole clauses."""
    return next((place for place in range(len(tokens), 0, -1) if tokens[place - 1].mark), 0)


def _first(written: Sequence[Token], most: int) -> tuple[list[Token], int]:
    """The first of these tokens that were made of `most` at most, and of how many; a number longer than any goes, too.

    So none is cut where a clause is too long to wait for its end.
    """
    counts = list(accumulate(len(token.spoken) or 1 for token in written))
    given = bisect_right(counts, most)
    if not given and most > LONGEST:
        given = 1
    return list(written[:given]), counts[given - 1] if given else 0


def _rewritten(tokens: Sequence[Token], rewriter: Rewriter) -> list[Token]:
    """Tokens with those of each replaced stretch made one. Latin words and marks end a stretch."""
    written: list[Token] = []
    for run in _runs(tokens):
        if not run[0].text.isascii():
            written += _replaced(run, rewriter("".join(token.text for token in run)))
        else:
            written += run
    return written


def _runs(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Stretches of Chinese tokens up to a mark, and each other token by itself."""
    run: list[Token] = []
    for token in tokens:
        plain = len(token.text) == 1 and not token.text.isascii()
        if run and not plain:
            yield run
            run = []
        run.append(token)
        if token.mark or not plain:
            yield run
            run = []
    if run:
        yield run


def _replaced(run: Sequence[Token], changes: Sequence[tuple[int, int, str]]) -> list[Token]:
    """Tokens of one character each with the stretches of `changes` made one token."""
    written, place = list[Token](), 0
    for begin, end, text in changes:
        written += run[place:begin]
        written.append(_made_one(run[begin:end], text))
        place = end
    return [*written, *run[place:]]


def _made_one(tokens: Sequence[Token], text: str) -> Token:
    confidence = sum(token.confidence for token in tokens) / len(tokens)
    first, last = tokens[0], tokens[-1]
    return Token(text, first.start_s, last.end_s, confidence, mark=last.mark, spoken=tuple(tokens))
