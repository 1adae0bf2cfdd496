"""Character error rate: edits that turn the reference into the hypothesis, per character of the reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product, zip_longest

from paraformer.errors import MissingExtra
from paraformer.evaluate.normalise import PLAIN

try:
    from rapidfuzz.distance import Levenshtein
except ImportError as error:
    raise MissingExtra("Counting errors", "evaluate") from error

Cell = tuple[str, str]
"""A character of the reference and the one beside it in the hypothesis; "" on one side is an insertion or deletion."""


@dataclass(frozen=True)
class ErrorCounts:
    """Edits over some utterances and the characters of their references."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    characters: int = 0

    @property
    def edits(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def cer(self) -> float:
        """Edits per reference character; 0 for nothing against nothing, 1 for anything against nothing."""
        return self.edits / self.characters if self.characters else float(self.edits > 0)

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


def align(reference: str, hypothesis: str) -> list[Cell]:
    """The texts side by side, character by character, with as few edits as there can be.

    >>> align("今天好", "金天很好")
    [('今', '金'), ('天', '天'), ('', '很'), ('好', '好')]
    """
    cells: list[Cell] = []
    for part in Levenshtein.opcodes(reference, hypothesis):
        left, right = reference[part.src_start : part.src_end], hypothesis[part.dest_start : part.dest_end]
        cells += zip_longest(left, right, fillvalue="")
    return cells


def mark(cell: Cell) -> str:
    """What became of a character: substituted S, deleted D, inserted I, or right and a space."""
    reference, hypothesis = cell
    if reference == hypothesis:
        return " "
    return "S" if reference and hypothesis else "D" if reference else "I"


def count_edits(reference: str, hypothesis: str) -> ErrorCounts:
    """Edits between two texts as they stand."""
    tags = [operation.tag for operation in Levenshtein.editops(reference, hypothesis)]
    return ErrorCounts(tags.count("replace"), tags.count("delete"), tags.count("insert"), len(reference))


def count_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Edits of one utterance by the plain rules: width, case, punctuation, digits one by one.

    >>> count_errors("今天，很好。", "今天好！")
    ErrorCounts(substitutions=0, deletions=1, insertions=0, characters=4)
    """
    return count_edits(PLAIN(reference), PLAIN(hypothesis))


def total_errors(pairs: Iterable[tuple[str, str]]) -> ErrorCounts:
    """Edits over (reference, hypothesis) pairs, by the plain rules."""
    return sum((count_errors(*pair) for pair in pairs), ErrorCounts())


def nearest(references: Iterable[str], hypotheses: Iterable[str]) -> tuple[str, str]:
    """Of several readings of one utterance, the reference and hypothesis with the fewest edits between them.

    >>> nearest(["一百二十", "一二零"], ["一二零"])
    ('一二零', '一二零')
    """
    return min(product(references, hypotheses), key=lambda pair: Levenshtein.distance(*pair))
