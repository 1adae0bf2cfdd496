"""What is left out of a set of utterances because it cannot be used: named and counted, or else the run ends."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from paraformer.errors import DataError

Policy = Literal["skip", "stop"]
"""What to do with an utterance that cannot be used: leave it out and go on, or raise DataError."""

MISSING, UNREADABLE, TWICE = "missing file", "unreadable audio", "id used twice"
ENTRY = "unusable entry"
EMPTY, UNKNOWN, TOO_LONG = "empty text", "unknown characters only", "too long"
"""Reasons."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Skipped:
    """One utterance that was left out. detail: what a reader needs to find the fault, perhaps nothing."""

    id: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}" + (f", {self.detail}" if self.detail else "")


@dataclass
class Skips:
    """Collects what is left out. named: so many of each reason get a line of their own in the log."""

    on_bad: Policy = "skip"
    named: int = 20
    found: list[Skipped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """Utterances by reason."""

    def add(self, skipped: Skipped) -> None:
        """Count and name one utterance. Raises DataError where that is to stop the run."""
        if self.on_bad == "stop":
            raise DataError(f"utterance {skipped}; mend or remove it, or let bad utterances be skipped")
        self.found.append(skipped)
        self.counts[skipped.reason] += 1
        count = self.counts[skipped.reason]
        if count <= self.named:
            _log.warning("left out %s%s", skipped, "; more of these are only counted" * (count == self.named))

    def extend(self, skipped: Iterable[Skipped]) -> None:
        """`add` each."""
        for one in skipped:
            self.add(one)

    def __str__(self) -> str:
        most_first = sorted(self.counts.items(), key=lambda one: (-one[1], one[0]))
        reasons = ", ".join(f"{count} {reason}" for reason, count in most_first)
        return f"{len(self.found)} left out ({reasons})" if reasons else "none left out"
