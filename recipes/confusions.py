"""Which initials and finals a model takes for one another: counts for `paraformer.sounds`.

    paraformer evaluate --data DATA --live --json > result.json
    python -m recipes.confusions result.json --every 2 > src/paraformer/confusions.txt

Characters of references and hypotheses are aligned; of their readings those count that are most alike. A line has what
was heard, how often aright, and what else was said how often; a confusion counts once more in the other direction, with
half the weight. All counts are doubled and, of what was heard aright, tripled for that.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

from paraformer.evaluate.results import read_evaluation
from paraformer.sounds import parted, readings

Pairs = Counter[tuple[str, str]]
KINDS = ("initial", "final")


def aligned(said: str, heard: str) -> Iterator[tuple[str, str]]:
    """Characters that stand for one another in the alignment with the fewest errors."""
    table = [[(row + column, "") for column in range(len(heard) + 1)] for row in range(len(said) + 1)]
    for row, column in product(range(1, len(said) + 1), range(1, len(heard) + 1)):
        other = said[row - 1] != heard[column - 1]
        table[row][column] = min(
            (table[row - 1][column - 1][0] + other, "both"),
            (table[row - 1][column][0] + 1, "said"),
            (table[row][column - 1][0] + 1, "heard"),
        )
    row, column = len(said), len(heard)
    while row and column:
        step = table[row][column][1]
        if step == "both":
            yield said[row - 1], heard[column - 1]
        row, column = row - (step != "heard"), column - (step != "said")


def counted(texts: Iterable[tuple[str, str]]) -> tuple[Pairs, Pairs]:
    """(heard, said) of initials and of finals, in pairs of what was said and heard."""
    pairs: tuple[Pairs, Pairs] = (Counter(), Counter())
    known = readings()
    for said, heard in (pair for one in texts for pair in aligned(*one)):
        if said in known and heard in known:
            parts = [(parted(one), parted(other)) for one in known[said] for other in known[heard]]
            alike = max(parts, key=lambda two: sum(map(str.__eq__, *two)))
            for kind, (one, other) in zip(pairs, zip(*alike, strict=True), strict=True):
                kind[other, one] += 1
    return pairs


def lines(pairs: tuple[Pairs, Pairs]) -> Iterator[str]:
    """As `confusions.txt` has them; "-" stands for no initial."""
    for kind, found in zip(KINDS, pairs, strict=True):
        parts = sorted({part for pair in found for part in pair})
        for heard in parts:
            counts = {said: 2 * found[heard, said] + found[said, heard] for said in parts if said != heard}
            others = sorted((-count, said) for said, count in counts.items() if count)
            told = [f"{said or '-'}:{-count}" for count, said in others]
            yield " ".join([kind, heard or "-", str(3 * found[heard, heard]), *told])


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("results", nargs="+", type=Path, help="of evaluate --json")
    options.add_argument("--every", type=int, default=1, metavar="N", help="count each Nth utterance, in their order")
    asked = options.parse_args()
    passes = [one for path in asked.results for one in read_evaluation(path).passes]
    texts = [scored.compared for one in passes for scored in sorted(one.scored, key=lambda two: two.id)[:: asked.every]]
    print("\n".join(lines(counted(texts))))


if __name__ == "__main__":
    main()
