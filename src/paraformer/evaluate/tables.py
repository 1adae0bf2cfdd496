"""Who and what is hard: error rates by speaker and by length, the worst utterances, delays in percentiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from paraformer.evaluate.cer import Cell, ErrorCounts, mark
from paraformer.evaluate.results import Pass, Scored, total

DURATIONS_S = (2.0, 5.0, 10.0, 20.0, 30.0)
"""Ends of the classes of length; the last class has none."""
PERCENTILES = (50, 90, 99)

_WIDE_SPACE = "\u3000"
_TO_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}


@dataclass(frozen=True)
class Row:
    """Some utterances together."""

    name: str
    utterances: int
    audio_s: float
    errors: ErrorCounts


def by_speaker(scored: Iterable[Scored]) -> list[Row]:
    """One row a speaker, the most errors first; utterances without one are under "-"."""
    rows = _rows(scored, lambda one: one.speaker or "-")
    return sorted(rows.values(), key=lambda row: (-row.errors.cer, row.name))


def by_duration(scored: Iterable[Scored]) -> list[Row]:
    """One row for each class of length that occurs, the shortest first."""
    names = [f"{low:g}-{high:g} s" for low, high in zip((0.0, *DURATIONS_S), DURATIONS_S, strict=False)]
    names.append(f"over {DURATIONS_S[-1]:g} s")
    rows = _rows(scored, lambda one: names[int(np.searchsorted(DURATIONS_S, one.duration_s, side="right"))])
    return [rows[name] for name in names if name in rows]


def worst(scored: Iterable[Scored], count: int) -> list[Scored]:
    """Utterances with the highest error rates, of equal ones the longest first; none without errors."""
    wrong = (one for one in scored if one.errors.edits)
    return sorted(wrong, key=lambda one: (-one.errors.cer, -one.errors.characters, one.id))[:count]


def delays(one: Pass) -> dict[str, tuple[float, ...]]:
    """Percentiles, seconds, of the delay of the first token and of all tokens; of what occurs."""
    measured: dict[str, Sequence[float]] = {
        "first token": [scored.first_token_s for scored in one.scored if scored.first_token_s is not None],
        "commit": list(chain.from_iterable(scored.commit_s for scored in one.scored)),
    }
    return {name: tuple(np.percentile(values, PERCENTILES).tolist()) for name, values in measured.items() if values}


def aligned_lines(cells: Sequence[Cell]) -> tuple[str, str, str]:
    """Reference, hypothesis and marks (S, D, I) for reading one under the other, all characters of one width."""
    reference, hypothesis = ("".join(cell[side] or "＊" for cell in cells) for side in (0, 1))
    return _wide(reference), _wide(hypothesis), _wide("".join(mark(cell) for cell in cells)).rstrip(_WIDE_SPACE)


def _wide(text: str) -> str:
    """Latin letters and spaces in the width of Chinese characters."""
    return text.translate(_TO_WIDE)


def _rows(scored: Iterable[Scored], name_of: Callable[[Scored], str]) -> Mapping[str, Row]:
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        groups.setdefault(name_of(one), []).append(one)
    return {
        name: Row(name, len(group), sum(one.duration_s for one in group), total(group))
        for name, group in groups.items()
    }
