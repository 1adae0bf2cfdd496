"""Pictures of the results: speed of whole audio, live steps and streams, and what it costs besides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from comparison.results import METRICS, Metric, Rows, Spread, spread, systems, written

mpl.use("agg")  # needs no screen, which has to be said before the next import

from matplotlib import pyplot as plt

COLOURS = {"paraformer": "#1b6ca8", "funasr": "#d1495b", "funasr-onnx": "#edae49", "sherpa-onnx": "#66a182"}
PICTURES = {
    "whole": [f"whole_{seconds}" for seconds in (3, 10, 30, 60)],
    "live": ["live_p50_ms", "live_p95_ms", "live_p99_ms", "streams"],
    "costs": ["hour_s", "start_s", "whole_peak_mb", "live_peak_mb"],
}


def draw(rows: Rows, title: str, folder: Path, stem: str) -> list[Path]:
    """Write a PNG for each of PICTURES of which something was measured. Returns their paths."""
    written_files = []
    for name, keys in PICTURES.items():
        metrics = [metric for metric in METRICS if metric.key in keys and _any(rows, metric)]
        if metrics:
            path = folder / f"{stem}-{name}.png"
            _draw(rows, metrics, title, path)
            written_files.append(path)
    return written_files


def _any(rows: Rows, metric: Metric) -> bool:
    return any(metric.key in row["figures"] for row in rows)


def _draw(rows: Rows, metrics: Sequence[Metric], title: str, path: Path) -> None:
    names = systems(rows)
    high = 0.32 * len(names) + 0.9
    figure, axes = plt.subplots(-(-len(metrics) // 2), 2, figsize=(11, high * (-(-len(metrics) // 2))), squeeze=False)
    for axis, metric in zip(axes.flat, metrics, strict=False):
        _bars(axis, rows, names, metric)
    for axis in list(axes.flat)[len(metrics) :]:
        axis.remove()
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axis: Any, rows: Rows, names: Sequence[str], metric: Metric) -> None:
    """A bar per system with the median written at its end and the rounds' spread as a line."""
    found = {name: spread(rows, name, metric.key) for name in names}
    longest = max(value.high for value in found.values() if value) or 1.0
    for place, name in enumerate(names):
        value = found[name]
        if value is not None:
            _bar(axis, place, name, value, longest)
    axis.set_yticks(np.arange(len(names)), names, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.18 * longest)
    axis.set_title(f"{metric.label} ({'more' if metric.more_is_better else 'less'} is better)", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def _bar(axis: Any, place: int, name: str, value: Spread, longest: float) -> None:
    colour = COLOURS.get(name.removesuffix("-int8"), COLOURS["paraformer"])
    hatch = "///" if name.endswith("-int8") else ""
    axis.barh(place, value.middle, 0.7, color=colour, hatch=hatch, edgecolor="white")
    axis.hlines(place, value.low, value.high, color="black", linewidth=1)
    axis.text(value.high + 0.01 * longest, place, written(value.middle), va="center", fontsize=9)
