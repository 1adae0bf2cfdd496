"""From measured rows to medians, ratios in one round, and tables.

A row is a mapping: round, system, case, figures (by the keys of METRICS), others (cores that other processes used) and
error, None where there was none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rapidfuzz.distance import Levenshtein

from comparison.machine import IDLE_CORES
from comparison.systems import ONCE

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Metric:
    """One figure: how it is called and written. digits: significant ones."""

    key: str
    label: str
    digits: int = 3
    more_is_better: bool = False


METRICS = (
    *(Metric(f"whole_{s}", f"whole, {s} s: RTF") for s in (3, 10, 30, 60)),
    Metric("live_rtf", "live: RTF"),
    *(Metric(f"live_p{p}_ms", f"live step p{p}, ms") for p in (50, 95, 99)),
    Metric("look_back_rtf", "live, look-back 4/1: RTF"),
    *(Metric(f"look_back_p{p}_ms", f"live, look-back 4/1: step p{p}, ms") for p in (50, 95, 99)),
    Metric("streams", "live streams on one core", more_is_better=True),
    Metric("hour_s", "an hour of files, all cores, s"),
    Metric("start_s", "start to first text, s"),
    Metric("whole_peak_mb", "peak memory, whole, MB"),
    Metric("live_peak_mb", "peak memory, live, MB"),
    Metric("installed_mb", "installed, MB"),
    Metric("agreement", "tokens as in float32, %", more_is_better=True),
    Metric("same", "tokens as ours, %", more_is_better=True),
)


@dataclass(frozen=True)
class Spread:
    """Median, least and most over the rounds. doubtful: a measurement met other load, or would not have been made."""

    middle: float
    low: float
    high: float
    doubtful: bool = False

    @classmethod
    def of(cls, values: Iterable[float], *, doubtful: bool = False) -> Spread | None:
        """None of no values."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[0], ordered[-1], doubtful) if ordered else None


def timed(row: Mapping[str, Any]) -> bool:
    """Whether other processes can change what was measured: times, and not what is the same every time."""
    return row["case"] not in ONCE


def disturbed(row: Mapping[str, Any]) -> bool:
    """Whether they may have done so."""
    return timed(row) and bool(row["others"] > IDLE_CORES)


def by_round(rows: Rows, system: str, key: str) -> dict[int, float]:
    """One system's values of one figure."""
    return {row["round"]: row["figures"][key] for row in rows if row["system"] == system and key in row["figures"]}


def spread(rows: Rows, system: str, key: str) -> Spread | None:
    """Over the rounds; None where nothing was measured."""
    met = [row for row in rows if row["system"] == system and key in row["figures"]]
    return Spread.of(by_round(rows, system, key).values(), doubtful=any(map(disturbed, met)))


def ratio(rows: Rows, system: str, reference: str, key: str) -> Spread | None:
    """System by reference in the same round, over the rounds in which both were measured."""
    theirs, ours = by_round(rows, system, key), by_round(rows, reference, key)
    return Spread.of(theirs[number] / ours[number] for number in theirs.keys() & ours.keys() if ours[number])


def reference(system: str) -> str:
    """Ours at the same precision."""
    return "paraformer-int8" if system.endswith("-int8") else "paraformer"


def systems(rows: Rows) -> list[str]:
    """Systems of which something was measured, in the order of the rows."""
    return list(dict.fromkeys(row["system"] for row in rows if row["figures"] and row["case"] != "roofline"))


def table(rows: Rows, columns: Sequence[str]) -> str:
    """Markdown: a line per figure, a column per system, the ratio to ours with its spread below theirs."""
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for metric in METRICS:
        cells = [_cell(rows, system, metric) for system in columns]
        if any(cells):
            lines.append(f"| {metric.label} | {' | '.join(cell or '–' for cell in cells)} |")
    return "\n".join(lines)


def _cell(rows: Rows, system: str, metric: Metric) -> str:
    found = spread(rows, system, metric.key)
    if found is None:
        return ""
    text = written(found.middle, metric.digits) + "*" * found.doubtful
    by_ours = ratio(rows, system, reference(system), metric.key)
    if system == reference(system) and found.low != found.high:
        return f"{text} ({written(found.low, metric.digits)}–{written(found.high, metric.digits)})"
    if system == reference(system) or by_ours is None or metric.key in ("agreement", "same"):
        return text
    return f"{text}<br>× {by_ours.middle:.2f} ({by_ours.low:.2f}–{by_ours.high:.2f})"


def written(value: float, digits: int = 3) -> str:
    """With so many significant digits, and no more than whole numbers need."""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text or value >= 10**digits else text


def agreement(wanted: Sequence[str], given: Sequence[str]) -> float:
    """Percent of the characters of some texts that another run of the same audio has, too, spaces aside."""
    total = wrong = 0
    for left, right in zip(map(_dense, wanted), map(_dense, given), strict=True):
        total, wrong = total + len(left), wrong + Levenshtein.distance(left, right)
    return 100 * max(0.0, 1 - wrong / total) if total else 100.0


def _dense(text: str) -> str:
    return "".join(text.split())


def with_agreement(rows: Rows) -> list[Mapping[str, Any]]:
    """The rows with texts replaced by how far they agree: int8 with its own float32, the peers' float32 with ours."""
    texts = {row["system"]: row["figures"]["texts"] for row in rows if "texts" in row["figures"]}
    changed: list[Mapping[str, Any]] = []
    for row in rows:
        if "texts" not in row["figures"]:
            changed.append(row)
            continue
        system, figures = row["system"], dict[str, float]()
        exact = system.removesuffix("-int8")
        if exact != system and exact in texts:
            figures["agreement"] = agreement(texts[exact], texts[system])
        elif "paraformer" in texts and system != "paraformer":
            figures["same"] = agreement(texts["paraformer"], texts[system])
        changed.append({**row, "figures": figures})
    return changed
