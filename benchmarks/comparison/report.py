"""The page and the data of one comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison import plots, results, roofline
from comparison.results import Rows
from paraformer.config import ChunkConfig, ModelConfig

NOTES = """\
Median of the rounds, and for ours in brackets the least and the most. Below the others' figures stands theirs divided
by ours of the same precision in the same round: median (least–most). RTF: seconds of computing per second of audio.
On {device}, one core and one thread but for the hour of files, which is extrapolated from {files_s:g} s of files of
3 to 15 s.

The same weights everywhere; funasr-onnx and sherpa-onnx run FunASR's own export, FunASR's int8 is torch's dynamic
quantisation. Live: one stream in packets of 600 ms; FunASR, funasr-onnx and ours with [5,10,5] and no look-back,
sherpa-onnx with its own [5,10,3]. Live streams on one core: so many clients at once, each with a packet every 600 ms,
{percent:g} % of which have their text within {limit_ms:g} ms, over {streams_s:g} s; ours step together, others in turn.
"""


def write(data: Mapping[str, Any], config: ModelConfig, folder: Path) -> str:
    """Write SHAPE.json, SHAPE.md and the pictures into the folder. Returns the page.

    What was measured off the CPU, or on other kernels than the machine's best, has SHAPE-DEVICE or SHAPE-KERNELS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings, machine = data["settings"], data["machine"]
    shape, device = settings["shape"], settings["device"]
    apart = (device.replace(":", "-") if device != "cpu" else None, settings["kernels"])
    stem = "-".join([shape, *filter(None, apart)])
    (folder / f"{stem}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    title = f"{shape} model, {machine['processor']}, {machine['cores']} cores, {device}"
    pictures = plots.draw(data["rows"], title, folder, stem)
    page = _page(data, config, [path.name for path in pictures])
    (folder / f"{stem}.md").write_text(page, encoding="utf-8")
    return page


def row(data: Mapping[str, Any]) -> str:
    """This comparison in README's table of speed: whole 10 s and live, ours and the best other's, all in int8."""
    rows, machine = data["rows"], data["machine"]
    others = [name for name in results.systems(rows) if name.endswith("-int8") and not name.startswith("paraformer")]
    cells = [f"{machine['processor']}, {machine['kernels']} kernels", data["settings"]["shape"]]
    for key in ("whole_10", "live_rtf"):
        ours = results.spread(rows, "paraformer-int8", key)
        theirs = [found.middle for name in others if (found := results.spread(rows, name, key))]
        cells += [results.written(ours.middle) if ours else "", results.written(min(theirs)) if theirs else ""]
    return f"| {' | '.join(cells)} |"


def _page(data: Mapping[str, Any], config: ModelConfig, pictures: Sequence[str]) -> str:
    rows, settings, machine = data["rows"], data["settings"], data["machine"]
    names = results.systems(rows)
    parts = [f"# {settings['shape'].capitalize()} model beside other runtimes", f"`{settings['command']}`"]
    hardware = [machine["processor"], f"{machine['cores']} cores", *machine["integers"], f"{machine['memory_gb']} GB"]
    hardware.append(f"ours in int8 by {machine['kernels']} kernels")
    software = [machine["system"], *(f"{name} {version}" for name, version in data["versions"].items())]
    parts.append(f"{', '.join(hardware)}; {', '.join(software)}; {settings['rounds']} rounds.")
    percent, limit_ms = 100 * settings["share"], 1000 * settings["limit_s"]
    given = {name: settings[name] for name in ("device", "files_s", "streams_s")}
    parts.append(NOTES.format(percent=percent, limit_ms=limit_ms, **given).strip())
    groups = {"Float32": [name for name in names if not name.endswith("-int8")]}
    groups["Int8"] = [name for name in names if name.endswith("-int8")]
    parts += [f"## {head}\n\n{results.table(rows, group)}" for head, group in groups.items() if group]
    parts += [*_load(rows), *_failures(rows), *_reached(rows, config)]
    parts += [f"![{name}]({name})" for name in pictures]
    return "\n\n".join(parts) + "\n"


def _load(rows: Rows) -> list[str]:
    """How many measurements other work disturbed."""
    timed = [row for row in rows if results.timed(row)]
    busy = [row["others"] for row in timed if results.disturbed(row)]
    if not busy:
        most = max((row["others"] for row in timed), default=0.0)
        return [f"Other processes used at most {most:.2f} cores during any measurement of time."]
    told = f"more than {results.IDLE_CORES} cores, up to {max(busy):.2f}, in {len(busy)} of {len(timed)} measurements"
    return [f"**Not an idle machine:** other processes used {told}. Figures with * come from these."]


def _failures(rows: Rows) -> list[str]:
    """What was not measured, and why."""
    failed: dict[str, list[str]] = {}
    for row in rows:
        if row["error"]:
            failed.setdefault(f"{row['system']}: {row['error']}", []).append(row["case"])
    lines = [f"- {what} ({', '.join(dict.fromkeys(cases))})" for what, cases in failed.items()]
    return ["Not measured:\n\n" + "\n".join(lines)] if lines else []


def _reached(rows: Rows, config: ModelConfig) -> list[str]:
    """The roofline lines: how much of the measured rate of matrix products recognition reaches."""
    lines, heard = [], results.spread(rows, "paraformer", "tokens_per_s")
    if heard is None:
        return []
    tokens_per_s = heard.middle
    for system, kind in (("paraformer", "fp32"), ("paraformer-int8", "int8")):
        rate = results.spread(rows, "machine", f"{kind}_gops")
        if rate is None:
            continue
        work = {f"whole_{s}": roofline.per_second(config, s, tokens_per_s) for s in (10, 30)}
        work["live_rtf"] = roofline.per_second_live(config, ChunkConfig(), tokens_per_s)
        shares = [_share(rows, system, key, count, rate.middle) for key, count in work.items()]
        if any(shares):
            lines.append(f"- {system}: {rate.middle:.0f} a second measured; {'; '.join(filter(None, shares))}")
    head = "One core beside its own rate of matrix products of 512x512 by 512x2048, in billions of operations:"
    return [head + "\n\n" + "\n".join(lines)] if lines else []


def _share(rows: Rows, system: str, key: str, count: float, rate: float) -> str:
    found = results.spread(rows, system, key)
    if found is None:
        return ""
    name = {"live_rtf": "live"}.get(key, key.replace("whole_", "whole ") + " s")
    needed = results.written(count / 1e9)
    return f"{name}: {needed} for a second of speech, {count / 1e9 / found.middle / rate:.0%} of the rate"
