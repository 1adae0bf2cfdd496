"""Ours beside FunASR, funasr-onnx and sherpa-onnx on this machine: speed, latency, streams, start-up, memory, size.

    python benchmarks/compare.py --shape large                       all of it, into docs/benchmarks/
    python benchmarks/compare.py --shape embedded --rounds 5
    python benchmarks/compare.py --shape large --device cuda         on a GPU: ours, in bfloat16 too, and FunASR
    python benchmarks/compare.py --systems paraformer,funasr-onnx --cases whole,live --rounds 1 --out runs/try
    PARAFORMER_ISA=avx2 python benchmarks/compare.py --shape large   all as where there is AVX2 alone, into own files

The first run installs the peers (scripts/peers) and makes the models (runs/, some 9 GB for the large shape). Every
system and case is measured in a process of its own on one core; rounds interleave the systems, so that a ratio compares
figures of the same minutes. Run it on an otherwise idle machine: what others use is recorded, and doubtful figures are
marked. Needs the extras [train,export].
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from comparison import hidden, machine, models, report, results
from comparison.systems import DEFAULT, LOOK_BACK, ONCE, SYSTEMS, Outcome, System, run
from comparison.worker import CASES, Job

from paraformer.bundle import Bundle
from paraformer.native import SWITCH

ROOT = Path(__file__).parent.parent
WHOLE_S = (3.0, 10.0, 30.0, 60.0)
SETTINGS = ("shape", "device", "rounds", "seconds", "live_s", "streams_s", "limit_s", "share", "files_s")
PEERS = ("funasr", "funasr-onnx", "sherpa-onnx", "onnxruntime", "torch")


class Comparison:
    """The rounds of one comparison and what they gave."""

    def __init__(self, options: argparse.Namespace, python: Path, hidden: Mapping[str, str]) -> None:
        """python: of the peers; hidden: variables for them."""
        self.options = options
        self.python = python
        self.hidden = hidden
        self.folder = options.runs / options.shape
        self.ours = models.directory(options.shape, self.folder)
        self.log = self.folder / "complaints.log"
        self.rows: list[dict[str, Any]] = []

    def measure(self) -> None:
        """All rounds."""
        for number in range(1, self.options.rounds + 1):
            for case, system in self._order(number):
                self._add(number, case, system.name, self._run(self._job(case, system), system.ours))
            if "roofline" in self.options.cases:
                job = Job("machine", "float32", "roofline", "", "")
                self._add(number, "roofline", "machine", self._run(job, True))

    def _order(self, number: int) -> Iterator[tuple[str, System]]:
        """A round: for each case every system, one after another, each round from another one on."""
        chosen = [SYSTEMS[name] for name in self.options.systems]
        turned = chosen[(number - 1) % len(chosen) :] + chosen[: (number - 1) % len(chosen)]
        for case in self.options.cases:
            if case != "roofline" and not (case in ONCE and number > 1):
                yield from ((case, system) for system in turned if system.measures(case))

    def _job(self, case: str, system: System) -> Job:
        given = self.options
        model = system.model(case, self.ours, self.folder)
        job = Job(system.runtime, system.precision, case, str(model), str(self.folder / "audio"), device=given.device)
        match case:
            case "whole":
                return replace(job, seconds=given.seconds)
            case "live":
                return replace(job, seconds=(given.live_s,))
            case "look-back":
                return replace(job, seconds=(given.live_s,), look_back=LOOK_BACK)
            case "streams":
                known = results.by_round(self.rows, system.name, "streams").values()
                guess = round(max(known, default=0))
                return replace(job, seconds=(given.streams_s,), limit_s=given.limit_s, share=given.share, guess=guess)
            case "files":
                return replace(job, threads=len(machine.cores()))
        return job

    def _run(self, job: Job, ours: bool) -> Outcome:
        """One measurement, once the machine is idle or patience is at its end."""
        machine.wait_until_idle(self.options.patience_s)
        outcome = run(job, Path(sys.executable) if ours else self.python, self.log, {} if ours else self.hidden)
        if job.case == "start" and outcome.error is None:
            return replace(outcome, figures={"start_s": outcome.wall_s})
        return outcome

    def _add(self, number: int, case: str, system: str, outcome: Outcome) -> None:
        row = {"round": number, "system": system, "case": case, **asdict(outcome)}
        self.rows.append(row)
        shown = {key: round(value, 4) for key, value in row["figures"].items() if isinstance(value, float | int)}
        mark = f"  others used {outcome.others:.2f} cores" if outcome.others > machine.IDLE_CORES else ""
        print(f"{number} {case:<9} {system:<17} {outcome.wall_s:5.1f} s  {outcome.error or shown}{mark}", flush=True)


def installed_peers(names: Sequence[str]) -> Path:
    """The Python of the environment that has the peers, made first if any is among the names."""
    if any(not SYSTEMS[name].ours for name in names):
        subprocess.run([ROOT / "scripts" / "peers"], check=True)
    return ROOT / ".venv-peers" / "bin" / "python"


def versions(python: Path) -> dict[str, str]:
    """Of ours and of the peers, where they are installed."""
    found = {"paraformer": version("paraformer")}
    if python.exists():
        code = f"from importlib.metadata import version\nfor name in {PEERS!r}: print(name, version(name))"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        found |= dict(line.split() for line in done.stdout.splitlines())
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure ours beside the other runtimes.")
    parser.add_argument("--shape", choices=("embedded", "large"), default="embedded")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", type=_names(SYSTEMS), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--cases", type=_names(CASES), help=f"of {','.join(CASES)}")
    parser.add_argument("--device", default="cpu", help="e.g. cuda, for ours with torch and FunASR")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks", help="folder of table, plots, JSON")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "compare", help="folder of models and audio")
    parser.add_argument("--seconds", type=_numbers, default=WHOLE_S, help="lengths of whole audio, e.g. 3,10,30,60")
    parser.add_argument("--live-s", type=float, default=24.0, help="seconds of audio of the live cases")
    parser.add_argument("--streams-s", type=float, default=6.0, help="seconds that every one of many streams lasts")
    parser.add_argument("--limit-s", type=float, default=0.3, help="latency that packets of many streams may have")
    parser.add_argument(
        "--share", type=float, help="share of packets that must keep it; default 0.95, off the CPU 0.99"
    )
    parser.add_argument(
        "--files-s", type=float, help="seconds of files that stand for an hour of them; default 120, off the CPU 3600"
    )
    parser.add_argument("--patience-s", type=float, default=10.0, help="how long to wait for an idle machine each time")
    options = parser.parse_args()
    cpu = options.device == "cpu"
    options.systems = options.systems or (list(DEFAULT) if cpu else ["paraformer", "paraformer-bfloat16", "funasr"])
    options.cases = options.cases or (list(CASES) if cpu else ["whole", "live", "streams", "files"])
    options.files_s = options.files_s or (120.0 if cpu else 3600.0)
    options.share = options.share or (0.95 if cpu else 0.99)
    return options


def _names(known: Sequence[str] | dict[str, Any]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
        return names

    return parse


def _without_folders(arguments: Sequence[str]) -> list[str]:
    """What was asked for, without where it lies on this machine, which changes no figure."""
    folders, kept = ("--runs", "--out"), []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before not in folders and argument.partition("=")[0] not in folders:
            kept.append(argument)
    return kept


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def main() -> None:
    """The command."""
    options = _options()
    python = installed_peers(options.systems)
    peers = any(not SYSTEMS[name].ours for name in options.systems)
    lesser = os.environ.get(SWITCH) == hidden.KERNELS and peers
    comparison = Comparison(
        options, python, hidden.environment(python, options.runs / hidden.KERNELS) if lesser else {}
    )
    if options.shape == "embedded" and not models.known_to_funasr(comparison.ours):
        print("FunASR does not know a model like the embedded one: left out", flush=True)
        options.systems = [name for name in options.systems if SYSTEMS[name].runtime != "funasr"]
    models.prepare(options.shape, comparison.folder, python if peers else None)
    models.write_audio(comparison.folder / "audio", max(*options.seconds, options.live_s), options.files_s)
    comparison.measure()
    config = Bundle.open(comparison.ours).config
    settings = {name: getattr(options, name) for name in SETTINGS}
    settings["kernels"] = os.environ.get(SWITCH) or None
    chosen = f"{SWITCH}={settings['kernels']} " if settings["kernels"] else ""
    settings["command"] = f"{chosen}python benchmarks/compare.py {shlex.join(_without_folders(sys.argv[1:]))}"
    data = {
        "machine": machine.describe(),
        "versions": versions(python),
        "settings": settings,
        "rows": results.with_agreement(comparison.rows),
    }
    print(report.write(data, config, options.out))
    print("For README:", report.row(data))


if __name__ == "__main__":
    main()
