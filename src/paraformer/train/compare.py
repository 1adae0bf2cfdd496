"""Whether a model has become better: error rates before and after on the same utterances, and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paraformer.errors import DataError
from paraformer.evaluate.normalise import Normalizer
from paraformer.evaluate.results import Pass
from paraformer.evaluate.run import collect, recognize_whole
from paraformer.evaluate.significance import Comparison
from paraformer.evaluate.summary import compare_passes
from paraformer.loader import load
from paraformer.manifests import Utterance
from paraformer.train import parallel

_SAID = {"better": "better", "worse": "worse", "not distinguishable": "not told apart"}


@dataclass(frozen=True)
class Verdict:
    """What became of the error rate on one set."""

    name: str
    utterances: int
    comparison: Comparison

    def __str__(self) -> str:
        before, after = 100 * self.comparison.before, 100 * self.comparison.after
        return (
            f"{self.name}: {_SAID[self.comparison.verdict]}, CER {before:.2f} % -> {after:.2f} %, "
            f"{self.comparison.points}, {self.utterances} utterances"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; rates are shares, not percent."""
        change = self.comparison.change
        return {
            "verdict": _SAID[self.comparison.verdict],
            "utterances": self.utterances,
            "before": self.comparison.before,
            "after": self.comparison.after,
            "change": [change.low, change.high],
            "level": change.level,
            "probability_better": self.comparison.probability_better,
        }


def verdict(name: str, utterances: Sequence[Utterance], before: Path, after: Path) -> Verdict:
    """Recognise the utterances with both models, as files, and compare them by the paired bootstrap.

    Both run on torch, so that nothing else differs. Raises DataError where no utterance could be recognised.
    """
    first, second = recognised(before, utterances), recognised(after, utterances)
    if not (first.scored and second.scored):
        raise DataError(f"none of the {len(utterances)} utterances of {name} could be recognised")
    return Verdict(name, len(first.scored), compare_passes(first, second))


def recognised(model: Path, utterances: Sequence[Utterance]) -> Pass:
    """What a model makes of whole utterances."""
    recognizer = load(model, backend="torch", device=str(parallel.device()), vad=False)
    return collect(recognize_whole(recognizer, utterances, Normalizer()), "whole")
