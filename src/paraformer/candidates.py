"""What each token may be: the few best items by the decoder's scores and, where there is one, a lexicon."""

from __future__ import annotations

from ctypes import CDLL, byref, c_void_p, pointer
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from paraformer import native
from paraformer.lexicon import Lexicon, log_softmax
from paraformer.native.layout import Scored

CANDIDATES = 24
"""Items of each token that are considered."""
IMPOSSIBLE = -1e4
"""The log-probability of what cannot be."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The few best items of each token, best first, of equal ones the first, and their log-probabilities."""

    ids: Int64[np.ndarray, "tokens candidates"]
    log_probs: Float32[np.ndarray, "tokens candidates"]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, tokens: slice) -> Candidates:
        return Candidates(self.ids[tokens], self.log_probs[tokens])

    @classmethod
    def none(cls, tokens: int = 0) -> Candidates:
        """Of so many tokens, each of which can be nothing."""
        return cls(np.zeros((tokens, CANDIDATES), np.int64), np.full((tokens, CANDIDATES), IMPOSSIBLE, np.float32))

    @classmethod
    def of(
        cls,
        scores: Float32[np.ndarray, "tokens vocab"],
        units: Float32[np.ndarray, "tokens units"] | None = None,
        lexicon: Lexicon | None = None,
    ) -> Candidates:
        """By scores of items and, where there is a lexicon of them, of units, before or after softmax.

        Where the vocabulary is smaller, its first item fills up.
        """
        heard = None if lexicon is None or units is None else _Heard(lexicon, units)
        code = native.code()
        if code is not None:
            return _compiled(code, scores, heard)
        if heard is not None:
            scores = heard.lexicon.scores(scores, heard.units)
        found, ids = cls.none(len(scores)), _best(scores, min(CANDIDATES, scores.shape[1]))
        found.ids[:, : ids.shape[1]] = ids
        found.log_probs[:, : ids.shape[1]] = np.take_along_axis(log_softmax(scores), ids, 1)
        return found

    def followed_by(self, later: Candidates) -> Candidates:
        """Those of both."""
        return Candidates(np.concatenate([self.ids, later.ids]), np.concatenate([self.log_probs, later.log_probs]))

    def chosen(self, places: Int64[np.ndarray, " tokens"]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and probabilities of one candidate of each token."""
        rows = np.arange(len(places))
        return self.ids[rows, places], np.exp(self.log_probs[rows, places])


class _Heard(NamedTuple):
    """Scores of units, and the lexicon that they are read by."""

    lexicon: Lexicon
    units: Float32[np.ndarray, "tokens units"]


def _best(scores: Float32[np.ndarray, "tokens vocab"], count: int) -> Int64[np.ndarray, "tokens count"]:
    """The best items of each token."""
    behind = -scores
    last = np.partition(behind, count - 1, axis=1)[:, count - 1, None]
    tokens, items = np.nonzero(behind <= last)
    order = np.lexsort((behind[tokens, items], tokens))
    ids: np.ndarray = items[order][tokens.searchsorted(np.arange(len(scores)))[:, None] + np.arange(count)]
    return ids


def _compiled(code: CDLL, scores: Float32[np.ndarray, "tokens vocab"], heard: _Heard | None) -> Candidates:
    """`Candidates.of` in compiled code, the same to float32's rounding."""
    (tokens, size), found = scores.shape, Candidates.none(len(scores))
    scores = np.ascontiguousarray(scores, np.float32)
    scored = Scored(None, scores.ctypes.data, None, tokens, size, 0, CANDIDATES)
    if heard is not None:
        lexicon, units = heard.lexicon, np.ascontiguousarray(heard.units, np.float32)
        if len(units) != tokens or size < lexicon.size or units.shape[1] < lexicon.units:
            raise IndexError("a lexicon of other items or units")
        scored.lexicon, scored.units, scored.heard = pointer(lexicon.compiled), units.ctypes.data, units.shape[1]
    if code.pf_candidates(byref(scored), c_void_p(found.ids.ctypes.data), c_void_p(found.log_probs.ctypes.data)):
        raise MemoryError("for what each token may be")
    return found
