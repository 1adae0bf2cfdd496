"""Character error rate: edits that turn the reference into the hypothesis, per character of the reference."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

_DIGITS = str.maketrans("0123456789幺〇", "零一二三四五六七八九一零")


@dataclass(frozen=True)
class ErrorCounts:
    """Edits over some utterances and the characters of their references."""

    substitutions: int
    deletions: int
    insertions: int
    characters: int

    @property
    def cer(self) -> float:
        """Edits per reference character; 0 for nothing against nothing, 1 for anything against nothing."""
        edits = self.substitutions + self.deletions + self.insertions
        return edits / self.characters if self.characters else float(edits > 0)

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.characters + other.characters,
        )

    def __str__(self) -> str:
        return (
            f"CER {100 * self.cer:.2f} % of {self.characters} characters "
            f"(S {self.substitutions}, D {self.deletions}, I {self.insertions})"
        )


def scored_text(text: str) -> str:
    """What counts in scoring: letters and digits in lower case, digits read one by one as Chinese, 幺 as 一."""
    kept = (c for c in unicodedata.normalize("NFKC", text).lower() if unicodedata.category(c)[0] in "LN")
    return "".join(kept).translate(_DIGITS)


def count_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Edits of one utterance, both texts brought to `scored_text` first."""
    reference, hypothesis = scored_text(reference), scored_text(hypothesis)
    tags = [operation.tag for operation in Levenshtein.editops(reference, hypothesis)]
    return ErrorCounts(tags.count("replace"), tags.count("delete"), tags.count("insert"), len(reference))


def total_errors(pairs: Iterable[tuple[str, str]]) -> ErrorCounts:
    """Edits over (reference, hypothesis) pairs."""
    return sum((count_errors(*pair) for pair in pairs), ErrorCounts(0, 0, 0, 0))
