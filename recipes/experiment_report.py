"""The table and the plot of an experiment, from its figures as `recipes.experiment` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paraformer.bundle import replacing

Report = Mapping[str, Any]
_SAID = {"better": "better", "worse": "worse", "not distinguishable": "not told apart"}


def write_page(report: Report, path: Path) -> None:
    """Put the table into a page of Markdown, between the marks with the experiment's name; make them if need be."""
    begin, end = f"<!-- {report['name']} -->\n", f"<!-- /{report['name']} -->\n"
    page = path.read_text(encoding="utf-8") if path.is_file() else f"# {report['title']}\n\n{begin}{end}"
    head, _, rest = page.partition(begin)
    tail = rest.partition(end)[2]
    with replacing(path) as temporary:
        temporary.write_text(head + begin + "\n".join(lines(report)) + "\n" + end + tail, encoding="utf-8")


def lines(report: Report) -> Iterator[str]:
    """The table with what must be known to read it."""
    sets = list(report["runs"][0]["sets"])
    head = ["run", "parameters", "hours of speech", "steps", "minutes", *(f"CER, {name}" for name in sets), "RTF"]
    yield "| " + " | ".join(head) + " |"
    yield "|---|" + "---:|" * (len(head) - 1)
    for run in report["runs"]:
        yield "| " + " | ".join(row(run, report["beside"])) + " |"
    yield ""
    yield "CER in percent, with the 95 % interval of the bootstrap over utterances, and how it compares with"
    yield f"*{report['beside']}* on the same draws. RTF: {report['device']}, from features to text, one utterance after"
    yield f"the other; in brackets the encoder's part. torch {report['torch']}."
    yield ""
    yield f"![{report['title']}]({report['name']}.png)"
    if judged := next((run for run in report["runs"] if run["name"] == report["judged"]), None):
        yield ""
        yield claim(judged, next(run for run in report["runs"] if run["label"] == report["beside"]))


def row(run: Mapping[str, Any], compared: str) -> list[str]:
    """One run's cells."""
    spent = run["training"]
    minutes = f"{(spent['waited_s'] + spent['worked_s']) / 60:.1f}" if spent else ""
    rates = [rate(values, alone=run["label"] == compared) for values in run["sets"].values()]
    speed = f"{run['rtf']:.4f} ({run['encoder_rtf']:.4f})"
    return [
        run["label"],
        f"{run['parameters'] / 1e6:.2f} M",
        f"{run['hours']:.1f}",
        str(run["steps"]),
        minutes,
        *rates,
        speed,
    ]


def rate(values: Mapping[str, Any], *, alone: bool) -> str:
    """An error rate, its interval and the verdict."""
    low, high = (100 * value for value in values["interval"])
    said = "" if alone else f", {_SAID[values['verdict']]}"
    return f"{100 * values['cer']:.1f} ({low:.1f} to {high:.1f}){said}"


def claim(run: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Whether a run has fewer errors than another and is faster, in a sentence."""
    parts = []
    for name, values in run["sets"].items():
        low, high = (100 * value for value in values["change"])
        change = 100 * (values["cer"] - other["sets"][name]["cer"])
        parts.append(f"{change:+.1f} points on {name} (95 % interval {low:+.1f} to {high:+.1f})")
    after = [one["rtf"] - one["encoder_rtf"] for one in (other, run)]
    times, times_after = other["rtf"] / run["rtf"], after[0] / max(after[1], 1e-9)
    return (
        f"{run['label']} beside {other['label']}: {'; '.join(parts)}; decoding is {times:.1f} times as fast, "
        f"{times_after:.1f} times after the encoder."
    )


def draw(report: Report, path: Path) -> None:
    """Write a PNG: error rates with their intervals, as a curve over x, or as bars beside the speed of decoding."""
    from matplotlib.figure import Figure  # not pyplot: that would keep figures and choose a window system

    figure = Figure(figsize=(9, 1.5 + 0.45 * max(6, len(report["runs"]))), layout="constrained")
    if report["x_label"]:
        _curve(report, figure.subplots())
    else:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        _bars(report, left)
        encoding = [1000 * run["encoder_rtf"] for run in report["runs"]]
        rest = [1000 * run["rtf"] - part for run, part in zip(report["runs"], encoding, strict=True)]
        right.barh(range(len(encoding)), encoding, 0.5, color="tab:gray", label="encoder")
        right.barh(range(len(encoding)), rest, 0.5, left=encoding, color="silver", label="all that follows")
        right.set(xlabel="milliseconds for a second of speech", xlim=(0, None))
        right.grid(alpha=0.3, axis="x")
        _legend_above(right)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _rates(report: Report, name: str) -> tuple[list[float], list[list[float]]]:
    """Error rates of a set, percent, and how far their intervals reach below and above."""
    values = [run["sets"][name] for run in report["runs"]]
    rates = [100 * one["cer"] for one in values]
    below = [max(0.0, mid - 100 * one["interval"][0]) for mid, one in zip(rates, values, strict=True)]
    above = [max(0.0, 100 * one["interval"][1] - mid) for mid, one in zip(rates, values, strict=True)]
    return rates, [below, above]


def _curve(report: Report, axes: Any) -> None:
    for name in report["runs"][0]["sets"]:
        rates, reach = _rates(report, name)
        axes.errorbar([run["x"] for run in report["runs"]], rates, yerr=reach, marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel=report["x_label"], ylabel="character error rate, %", ylim=(0, None))
    axes.set_xticks([run["x"] for run in report["runs"]], [f"{run['x']:g}" for run in report["runs"]])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()


def _bars(report: Report, axes: Any) -> None:
    sets, count = list(report["runs"][0]["sets"]), len(report["runs"])
    height = 0.8 / len(sets)
    for number, name in enumerate(sets):
        rates, reach = _rates(report, name)
        places = [place + (number - (len(sets) - 1) / 2) * height for place in range(count)]
        axes.barh(places, rates, height, xerr=reach, capsize=3, label=name)
    axes.set_yticks(range(count), [run["label"] for run in report["runs"]])
    axes.invert_yaxis()
    axes.set(xlabel="character error rate, %", xlim=(0, None))
    axes.grid(alpha=0.3, axis="x")
    _legend_above(axes)


def _legend_above(axes: Any) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
