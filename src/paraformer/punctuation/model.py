"""A loaded punctuation model: the marks of a text, at once or as its units come.

A *unit* is what stands in a text as one: a character, an English word, an abbreviation. A model's words may be others:
published ones take letters and digits in a row for one word, and some have words of several characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int64

from paraformer.errors import DataError
from paraformer.punctuation.config import ENDS, NONE, UNKNOWN_MARK, PunctuationConfig
from paraformer.punctuation.directory import PunctuationBundle, digest_of
from paraformer.punctuation.network import Network
from paraformer.punctuation.words import Cutter

UNKNOWN = "<unk>"
BLOCK = 100
"""Units of a text that are looked at together, besides those before them."""
CONTEXT = 60
"""Units before, of the same sentence, that are looked at with them."""
AHEAD = 20
"""Units after a unit of which the decision about its mark takes notice, where they are there already."""
LIVE_AHEAD = 4
"""The same in a live stream, where a text waits for them."""
SURE = 0.93
"""Probability of no mark with which a live unit need not wait for so many."""
PAUSE_S = 0.9
"""A live stream in which nothing more was said for so long is marked up to here."""
_UNITS = re.compile(r"[A-Za-z0-9][A-Za-z0-9'.+_%-]*|[^\s]")
_HALF_WIDTH = {"，": ",", "。": ".", "？": "?", "！": "!", "、": ","}
_END_WEIGHT = 2.0
"""How much more a pause in a stream speaks for the end of a sentence than for any other mark."""
_NO_PAUSE_S, _PAUSE_WEIGHT, _LONGEST_S = 0.25, 2.0, 1.25
"""A silence after a unit speaks for a mark: from the first on, by this log-odds a second, up to the last."""


@dataclass(frozen=True)
class Undecided:
    """Where marking stands in a stream: units of the sentence that are decided, and those that wait for their mark."""

    context: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


class Scoring(Protocol):
    """What computes a punctuation model: `Network`, or its plain form on torch."""

    def scores(self, ids: Int64[np.ndarray, " words"], heard: int | None = None) -> Float32[np.ndarray, "words marks"]:
        """See Network.scores."""
        ...


class Punctuation:
    """One loaded model, read-only: any number of texts, sessions and threads may share it."""

    def __init__(self, bundle: PunctuationBundle, network: Scoring | None = None) -> None:
        """network: what computes it; None: NumPy. Raises CheckpointError where weights and settings do not fit."""
        self.bundle = bundle
        self.config: PunctuationConfig = bundle.config
        self.cutter = Cutter(bundle.dictionary)
        self._network: Scoring = network or Network(bundle.weights, bundle.config)
        self._ids = {word: index for index, word in enumerate(bundle.words)}
        self._unknown = self._ids.get(UNKNOWN, 0)

    @cached_property
    def fingerprint(self) -> str:
        """Tells this model from any other."""
        return digest_of(self.bundle.words, self.config, self.bundle.digest)

    def scores(self, words: Sequence[str], heard: int | None = None) -> Float32[np.ndarray, "words marks"]:
        """Of the mark after each of the model's words, before softmax; heard: see `Network.scores`."""
        ids = np.array([self._ids.get(word, self._unknown) for word in words], np.int64)
        return self._network.scores(ids, heard)

    def punctuate(self, text: str) -> str:
        """The same text with marks. What marks it has already are replaced; spaces stay between Latin words only.

        Raises DataError for what is no text.
        """
        if not isinstance(text, str):
            raise DataError(f"a punctuation model takes a text, not {text!r:.60}")
        units = [unit for unit in _UNITS.findall(text) if unit[0].isalnum()]
        return joined(units, self.marks(units))

    def marks(self, units: Sequence[str], silences_s: Sequence[float] | None = None) -> list[str]:
        """The mark after each unit of a whole text, "" where none is; the last one ends a sentence.

        silences_s: after each unit, where they were spoken.
        """
        silences = list(silences_s) if silences_s is not None else [0.0] * len(units)
        state, found = Undecided(), list[str]()
        for begin in range(0, len(units), BLOCK):
            block = list(units[begin : begin + BLOCK])
            final = begin + BLOCK >= len(units)
            held = len(state.waiting)
            marks, state = self.step(block, state, silences[begin - held : begin + BLOCK], final=final, ahead=AHEAD)
            found += marks
        return found

    def step(
        self,
        units: Sequence[str],
        state: Undecided,
        silences_s: Sequence[float],
        *,
        final: bool = False,
        paused: bool = False,
        ahead: int = LIVE_AHEAD,
    ) -> tuple[list[str], Undecided]:
        """Take in further units; the marks of those that are decided, oldest first, and what waits.

        silences_s: after each unit that waits and each new one. final: no more will come; paused: none for a while.
        Then nothing waits. ahead: units after one for which it waits, unless there is hardly a mark.
        """
        waiting = [*state.waiting, *units]
        if not waiting:
            return [], state
        probabilities = self._probabilities([*state.context, *waiting])[len(state.context) :]
        probabilities = _with_silences(probabilities, silences_s, self._classes.index(NONE))
        ready = len(waiting) if final or paused else self._ready(probabilities, ahead)
        marks = [self._classes[place] for place in probabilities[:ready].argmax(axis=1).tolist()]
        if (final or paused) and marks:
            marks[-1] = self._last(probabilities[ready - 1], final=final)
        context = [*state.context, *waiting[:ready]]
        ends = [place for place, mark in enumerate(marks) if mark in ENDS]
        since = len(state.context) + ends[-1] + 1 if ends else 0
        kept = tuple(context[since:][-CONTEXT:])
        widths = self._written([*state.context[-1:], *waiting], len(state.context[-1:]), marks)
        return widths, Undecided(kept, tuple(waiting[ready:]))

    @cached_property
    def _classes(self) -> list[str]:
        return [NONE if mark == UNKNOWN_MARK else mark for mark in self.config.marks]

    def _probabilities(self, units: Sequence[str]) -> Float32[np.ndarray, "units marks"]:
        """Of the mark after each unit: that after a word is its last unit's, others have none."""
        words, lasts = self.cutter.words(units)
        scores = self.scores(words)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = np.zeros((len(units), scores.shape[1]), np.float32)
        probabilities[:, self.config.marks.index(NONE)] = 1.0
        probabilities[lasts] = scores / scores.sum(axis=1, keepdims=True)
        return probabilities

    def _ready(self, probabilities: Float32[np.ndarray, "units marks"], ahead: int) -> int:
        """How many units from the front can be decided."""
        none = probabilities[:, self.config.marks.index(NONE)]
        later = np.arange(len(none))[::-1]
        waits = np.flatnonzero((later < ahead) & ~((later > 0) & (none >= SURE)))
        return int(waits[0]) if len(waits) else len(none)

    def _last(self, probabilities: Float32[np.ndarray, " marks"], *, final: bool) -> str:
        """The likeliest mark that ends a text; where it is a pause that ends it, that may be one within a sentence."""
        within = 0.0 if final else 1.0
        weights = {mark: _END_WEIGHT if mark in ENDS else within for mark in self._classes if mark != NONE}
        return max(weights, key=lambda mark: weights[mark] * probabilities[self._classes.index(mark)])

    @staticmethod
    def _written(units: Sequence[str], first: int, marks: Sequence[str]) -> list[str]:
        """Marks as they are written: narrow between Latin words, "" for none."""
        written = []
        for place, mark in enumerate(marks, first):
            beside = units[place + 1] if place + 1 < len(units) else units[max(place - 1, 0)]
            latin = _is_latin(units[place]) and _is_latin(beside)
            written.append("" if mark == NONE else _HALF_WIDTH.get(mark, mark) if latin else mark)
        return written


def _with_silences(
    probabilities: Float32[np.ndarray, "units marks"], silences_s: Sequence[float], none: int
) -> Float32[np.ndarray, "units marks"]:
    """Each silence makes a mark likelier; which one, the text says."""
    beyond = np.clip(np.array(silences_s, np.float32), _NO_PAUSE_S, _LONGEST_S) - np.float32(_NO_PAUSE_S)
    weighted = probabilities * np.exp(np.float32(_PAUSE_WEIGHT) * beyond)[:, None]
    weighted[:, none] = probabilities[:, none]
    total: Float32[np.ndarray, "units marks"] = weighted / weighted.sum(axis=1, keepdims=True)
    return total


def joined(units: Sequence[str], marks: Sequence[str]) -> str:
    """Units with the mark after each, a space between Latin ones."""
    return "".join(_spaced(units, marks))


def _spaced(units: Sequence[str], marks: Sequence[str]) -> Iterator[str]:
    for place, (unit, mark) in enumerate(zip(units, marks, strict=True)):
        latin = place > 0 and _is_latin(unit) and _is_latin(units[place - 1])
        yield f"{' ' if latin else ''}{unit}{mark}"


def _is_latin(unit: str) -> bool:
    return unit[-1:].isascii() and any(map(str.isalpha, unit))
