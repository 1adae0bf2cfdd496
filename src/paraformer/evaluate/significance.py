"""How far an error rate can be trusted, and whether one model is better than another, by the bootstrap over utterances.

After Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation" (ICASSP 2004): the
test set is drawn again and again from itself, utterance by utterance, with replacement. Two models are compared on the
same draws, so that what is hard for both does not blur the difference. Utterances of one speaker resemble each other;
a set of few speakers says less about others than its interval does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from paraformer.errors import DataError
from paraformer.evaluate.cer import ErrorCounts

DRAWS = 10_000
LEVEL = 0.95

_BLOCK = 1 << 20
"""Utterances drawn at a time, which bounds memory."""


@dataclass(frozen=True)
class Interval:
    """Where a figure lies with a confidence of `level`, both ends included."""

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Comparison:
    """Error rates of two models on the same utterances."""

    before: float
    after: float
    change: Interval
    """Of after - before: below zero is better."""
    probability_better: float
    """Share of the draws in which `after` has the lower error rate; draws without a difference count half."""

    @property
    def verdict(self) -> Literal["better", "worse", "not distinguishable"]:
        """What can be said of `after` with the confidence of the interval."""
        if self.change.high < 0:
            return "better"
        return "worse" if self.change.low > 0 else "not distinguishable"

    @property
    def points(self) -> str:
        """The change of the error rate in words."""
        change, low, high = (100 * value for value in (self.after - self.before, self.change.low, self.change.high))
        return f"{change:+.2f} points of CER ({100 * self.change.level:g} % interval {low:+.2f} to {high:+.2f})"

    def __str__(self) -> str:
        said = {
            "better": "the second is better",
            "worse": "the second is worse",
            "not distinguishable": "no difference can be shown",
        }[self.verdict]
        return (
            f"{said}: CER {100 * self.before:.2f} % -> {100 * self.after:.2f} %, {self.points}; "
            f"lower in {100 * self.probability_better:.1f} % of the draws"
        )


def cer_interval(
    utterances: Sequence[ErrorCounts], *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Confidence interval of the error rate over some utterances, each counted on its own.

    Raises DataError if there are none, or no character of reference among them.
    """
    return _interval(_drawn_rates(utterances, draws, seed), level)


def compare(
    before: Sequence[ErrorCounts],
    after: Sequence[ErrorCounts],
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison:
    """Is the model with the counts `after` better than the one with `before`, on the same utterances in one order?

    Raises DataError if they differ in number, or hold no character of reference.
    """
    if len(before) != len(after):
        raise DataError(
            f"{len(before)} utterances cannot be compared with {len(after)}; evaluate both on the same ones"
        )
    change = _drawn_rates(after, draws, seed) - _drawn_rates(before, draws, seed)
    return Comparison(
        before=sum(before, ErrorCounts()).cer,
        after=sum(after, ErrorCounts()).cer,
        change=_interval(change, level),
        probability_better=float((change < 0).mean() + (change == 0).mean() / 2),
    )


def _drawn_rates(counts: Sequence[ErrorCounts], draws: int, seed: int) -> Float64[np.ndarray, " draws"]:
    """The error rate of each draw. The draws depend on the seed and the number of utterances alone."""
    edits, characters = (np.array(column) for column in ([c.edits for c in counts], [c.characters for c in counts]))
    if not characters.sum():
        raise DataError("there are no reference characters to measure an error rate on")
    rng, rates = np.random.default_rng(seed), []
    block = max(1, _BLOCK // len(counts))
    for first in range(0, draws, block):
        chosen = rng.integers(len(counts), size=(min(block, draws - first), len(counts)))
        rates.append(edits[chosen].sum(1) / np.maximum(1, characters[chosen].sum(1)))  # a draw may be of empty ones
    return np.concatenate(rates)


def _interval(values: Float64[np.ndarray, " draws"], level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(low, high, level)
