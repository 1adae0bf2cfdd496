"""Real-time factor, step latency, start-up time, memory and installed size of one model on this machine.

    python benchmarks/rtf.py                                          the embedded model
    python benchmarks/rtf.py --model runs/large-random --seconds 10,30 --live 5,10,5 --threads 1

One JSON object a line on standard output, a table on standard error. Every case runs in a process of its own, after one
pass to warm up; the figures are those of the best of `--repeat` passes, the latencies those of the steps of all passes.
Run it on an idle machine: each line records the load it met. `--model large-random` makes that model first (large.py).

rtf      seconds of computing per second of audio, from samples to text
step_ms  one live step: a packet of one chunk goes in, new text comes out; 50, 95 and 99 % of the steps took no longer
peak_mb  largest resident memory of the process, the interpreter and the model included
start_s  from starting the command until the first character of text of a 4-second file
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from comparison.sizes import sizes_mb

import paraformer
from paraformer import ChunkConfig, Recognizer
from paraformer.audio import SAMPLE_RATE, read

T = TypeVar("T")

LARGE = Path("runs/large-random")
SAMPLES = Path(str(files("paraformer"))) / "samples"


@dataclass(frozen=True)
class Case:
    """One measurement. live: None for whole utterances, else [left, chunk, right, encoder and decoder look-back]."""

    model: str | None
    backend: Literal["auto", "onnx", "torch"]
    threads: int
    seconds: float
    live: tuple[int, ...] | None
    repeat: int


def speech(seconds: float) -> np.ndarray:
    """The sample clips one after another, again and again, up to so many seconds."""
    clips = np.concatenate([read(path) for path in sorted(SAMPLES.glob("*.flac"))])
    return np.resize(clips, round(seconds * SAMPLE_RATE))


def measure(case: Case) -> dict[str, Any]:
    """Run one case in this process."""
    load = os.getloadavg()[0]
    recognizer = paraformer.load(case.model, backend=case.backend, threads=case.threads)
    samples = speech(case.seconds)
    passes = [_run(recognizer, samples, case.live) for _ in range(case.repeat + 1)][1:]
    best = min(sum(steps) for steps, _ in passes)
    rate = passes[0][1] / case.seconds
    figures: dict[str, Any] = {"rtf": round(best / case.seconds, 5), "tokens_per_s": round(rate, 2)}
    if case.live:
        every = np.array([step for steps, _ in passes for step in steps]) * 1000
        figures["step_ms"] = {f"p{p}": round(float(np.percentile(every, p)), 2) for p in (50, 95, 99)}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return figures | {"peak_mb": round(peak_mb), "load": round(load, 2)}


def _run(recognizer: Recognizer, samples: np.ndarray, live: tuple[int, ...] | None) -> tuple[list[float], int]:
    """Seconds of each step, one if whole, and the number of tokens recognised."""
    if not live:
        seconds, transcript = _timed(lambda: recognizer.transcribe(samples))
        return [seconds], len(transcript.tokens)
    chunk = ChunkConfig(**dict(zip(_CHUNK_FIELDS, live, strict=False)))
    session = recognizer.stream(chunk)
    packet = chunk.chunk * recognizer.config.frontend.window_samples
    packets = [samples[start : start + packet] for start in range(0, len(samples), packet)]
    steps = [_timed(partial(session.accept, part))[0] for part in packets]
    steps.append(_timed(session.finish)[0])
    return steps, len(session.tokens)


_CHUNK_FIELDS = ("left", "chunk", "right", "encoder_look_back", "decoder_look_back")


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def start_up(model: str | None, threads: int, repeat: int) -> dict[str, Any]:
    """Seconds from starting the command to its first character of text, best of several."""
    command = [sys.executable, "-c", "import sys; from paraformer.cli import main; sys.exit(main())", "transcribe"]
    command += [str(SAMPLES / "weather.flac"), *(["--model", model] if model else [])]
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment(threads)) as process:
            assert process.stdout is not None
            first = process.stdout.read(1)
            best = min(best, time.perf_counter() - start)
            process.stdout.read()
        if process.returncode or not first:
            raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}")
    return {"start_s": round(best, 3)}


def installed_mb() -> dict[str, Any]:
    """Size on disk of what `pip install paraformer` brings: the package and what it requires, extras left out."""
    sizes = sizes_mb("paraformer")
    return {"installed_mb": round(sum(sizes.values())), "parts_mb": {name: round(mb, 1) for name, mb in sizes.items()}}


def _environment(threads: int) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Every length whole, and then live."""
    for live in (None, options.live):
        for seconds in options.seconds:
            yield Case(options.model, options.backend, options.threads, seconds, live, options.repeat)


def spawned(case: Case) -> dict[str, Any]:
    """Measure a case in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps(dataclasses.asdict(case))]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=_environment(case.threads), check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return dataclasses.asdict(case) | figures


def table(rows: list[dict[str, Any]]) -> str:
    """The measured cases for a reader."""
    lines = ["mode              audio     RTF  step ms p50   p95   p99  peak MB  tokens/s  load"]
    for row in rows:
        mode = f"live {list(row['live'])}".replace(" ", "") if row["live"] else "whole"
        steps = row.get("step_ms", {})
        latencies = "".join(f"{steps[p]:6.1f}" if steps else "     -" for p in ("p50", "p95", "p99"))
        head = f"{mode:<16} {row['seconds']:4g} s {row['rtf']:7.4f}      "
        lines.append(f"{head}{latencies}  {row['peak_mb']:7}  {row['tokens_per_s']:8}  {row['load']:4}")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure speed, latency, start-up, memory and size.")
    parser.add_argument("--model", help="bundle or FunASR directory, 'embedded' (default) or 'large-random'")
    parser.add_argument("--backend", choices=("auto", "onnx", "torch"), default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=_numbers(float), default=(10.0, 30.0), help="lengths, e.g. 10,30")
    parser.add_argument("--live", type=_numbers(int), default=(5, 10, 5), help="left,chunk,right[,look-back,look-back]")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser.parse_args()


def _numbers(kind: type[int | float]) -> Callable[[str], tuple[float, ...]]:
    return lambda text: tuple(kind(number) for number in text.split(","))


def main() -> None:
    """The command."""
    options = _options()
    if options.case:
        print(json.dumps(measure(Case(**json.loads(options.case)))))
        return
    if options.model == "large-random":
        options.model = str(LARGE)
        if not (LARGE / "config.json").is_file():
            subprocess.run([sys.executable, str(Path(__file__).with_name("large.py")), options.model], check=True)
    options.model = None if options.model == "embedded" else options.model
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    rows = []
    for case in cases(options):
        rows.append(machine | spawned(case))
        print(json.dumps(rows[-1]), flush=True)
    last = start_up(options.model, options.threads, options.repeat) | installed_mb()
    print(json.dumps(machine | last))
    print(table(rows), file=sys.stderr)
    print(f"start to first text {last['start_s']} s, installed {last['installed_mb']} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
