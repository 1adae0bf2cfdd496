"""What the doctor found, as a table, as JSON and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paraformer.bundle import replacing
from paraformer.data.check import Finding, Report
from paraformer.errors import MissingExtra

_PERCENTILES = (0, 5, 50, 95, 100)
_WIDTH = 100
"""Columns for the example of a problem."""


def measures(report: Report) -> dict[str, list[float]]:
    """What is drawn and summed up of every utterance."""
    return {
        "duration, s": [one.duration_s for one in report.heard],
        "characters per second": [one.speed for one in report.heard if one.spoken],
    }


def by_kind(report: Report) -> dict[str, list[Finding]]:
    """The findings of each kind, most first."""
    counts = Counter(finding.kind for finding in report.findings)
    return {kind: [one for one in report.findings if one.kind == kind] for kind, _ in counts.most_common()}


def table(report: Report) -> str:
    """Lines for a terminal."""
    hours = sum(one.duration_s for one in report.heard) / 3600
    rates = ", ".join(f"{count} at {rate} Hz" for rate, count in _rates(report).items())
    lines = [f"{len(report.heard)} utterances, {hours:.2f} h; {rates or 'none readable'}", ""]
    lines.append(f"{'':<28}{'least':>8}{'5 %':>8}{'median':>8}{'95 %':>8}{'most':>8}")
    for name, values in measures(report).items():
        lines.append(f"{name:<28}" + "".join(f"{value:>8.2f}" for value in _percentiles(values)))
    if report.clean:
        return "\n".join([*lines, "", "no problems"])
    lines += ["", f"{'problem':<28}{'found':>8}  for example"]
    for kind, found in by_kind(report).items():
        lines.append(f"{kind:<28}{len(found):>8}  {_short(found[0])}")
    return "\n".join(lines)


def to_json(report: Report) -> dict[str, Any]:
    """Everything, with all findings."""
    return {
        "clean": report.clean,
        "utterances": len(report.heard),
        "hours": sum(one.duration_s for one in report.heard) / 3600,
        "rates": {str(rate): count for rate, count in _rates(report).items()},
        "percentiles": {
            name: dict(zip(map(str, _PERCENTILES), _percentiles(values), strict=True))
            for name, values in measures(report).items()
            if values
        },
        "problems": {
            kind: [{"id": one.id, "detail": one.detail} for one in found] for kind, found in by_kind(report).items()
        },
    }


def draw(report: Report, path: Path) -> None:
    """Write `path`, a PNG with histograms of durations and speaking rates. Raises MissingExtra without matplotlib."""
    try:
        from matplotlib.figure import Figure  # not pyplot: that would keep figures and choose a window system
    except ImportError as error:
        raise MissingExtra("Drawing histograms", "train") from error
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, 2), measures(report).items(), strict=True):
        axes.hist(values, bins=50)
        axes.set(xlabel=name, ylabel="utterances", yscale="log" if values else "linear")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _rates(report: Report) -> Mapping[int, int]:
    return dict(Counter(one.rate for one in report.heard).most_common())


def _percentiles(values: Sequence[float]) -> list[float]:
    """Least, 5 %, median, 95 % and most; nothing for no values."""
    return [float(value) for value in np.percentile(values, _PERCENTILES)] if values else []


def _short(finding: Finding) -> str:
    text = f"{finding.id}: {finding.detail}"
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
