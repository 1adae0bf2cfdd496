"""The course of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paraformer.bundle import replacing
from paraformer.errors import MissingExtra

LOSSES = ("total", "cross_entropy", "quantity", "ctc", "mwer")


def draw(events: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write `path`, a PNG of losses and character error rates over steps, from the lines of events.jsonl."""
    try:
        from matplotlib.figure import Figure  # not pyplot: that would keep figures and choose a window system
    except ImportError as error:
        raise MissingExtra("Drawing curves", "train") from error
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in LOSSES:
        points = [(event["step"], event[name]) for event in events if event.get(name)]
        if points:
            left.plot(*zip(*points, strict=True), label=name)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    measured = [event for event in events if "cer" in event]
    for name in dict.fromkeys(name for event in measured for name in event["cer"]):
        points = [(event["step"], event["cer"][name]) for event in measured if name in event["cer"]]
        right.plot(*zip(*points, strict=True), marker="o", label=name)
    right.set(xlabel="step", ylabel="character error rate, %", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
