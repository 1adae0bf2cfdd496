"""One measurement in a process of its own: `python -m comparison.worker JOB`, a JSON object; so is what it prints.

Runs in every environment; see `comparison`. Times are best of some passes (whole, files) or of each step (live).
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from comparison import streams
from comparison.engines import ENGINES, RATE, Engine, Unavailable

T = TypeVar("T")

PACKET = 9600
"""Samples that a live client sends at a time: 600 ms, one step of every system."""
PASSES, ENOUGH_S = 5, 1.5
"""A pass is repeated so often, or until it has taken so many seconds in all."""
START_S = 4.0
TEXTS, TEXT_S = 61, 8.0
"""Pieces whose texts are compared, and their seconds: some 900 tokens of the large shape."""
IN_TURN = ("funasr",)
"""Systems that take files through one object in one thread; the others are called from a thread per core."""
BATCHES = (8, 32, 128)
"""Files at a time: the first on the CPU."""
PACKAGES = {"paraformer": ("paraformer",), "funasr": ("funasr", "torch"), "funasr-onnx": ("funasr-onnx",)}


@dataclass(frozen=True)
class Job:
    """What to measure.

    model: directory; audio: folder of speech.npy and files/. look_back: chunks of encoder and decoder, live.
    limit_s, share: streams count as kept up with while this share of packets has its text after so many seconds.
    guess: where the search for their number begins; 0: at what one step suggests.
    """

    runtime: str
    precision: str
    case: str
    model: str
    audio: str
    threads: int = 1
    device: str = "cpu"
    seconds: tuple[float, ...] = ()
    look_back: tuple[int, int] = (0, 0)
    limit_s: float = 0.3
    share: float = 0.95
    guess: int = 0

    def open(self, threads: int | None = None) -> Engine:
        """The system with the model. Raises Unavailable if it cannot be had so."""
        look_back = (self.look_back[0], self.look_back[1])
        engine: Engine = ENGINES[self.runtime](
            Path(self.model), self.precision, look_back, threads or self.threads, self.device
        )
        return engine

    def speech(self) -> np.ndarray:
        """The longest recording: float32 samples at 16 kHz."""
        samples: np.ndarray = np.load(Path(self.audio) / "speech.npy")
        return samples


def whole(job: Job) -> dict[str, Any]:
    """Seconds of computing per second of audio, for each length."""
    engine, samples, figures = job.open(), job.speech(), dict[str, Any]()
    for seconds in job.seconds:
        part = samples[: round(seconds * RATE)]
        figures[f"whole_{seconds:g}"] = _best(lambda part=part: engine.whole(part)) / seconds
    spoken = {"tokens_per_s": engine.tokens / seconds} if engine.tokens else {}
    return figures | spoken | {"whole_peak_mb": peak_mb()}


def live(job: Job) -> dict[str, Any]:
    """Milliseconds of each step of one stream that sends packets as fast as they are taken."""
    engine, samples = job.open(), job.speech()[: round(job.seconds[0] * RATE)]
    _stream(engine, samples[: 6 * PACKET])
    steps = _stream(engine, samples)
    name = "look_back" if any(job.look_back) else "live"
    figures = {f"{name}_p{p}_ms": 1000 * streams.percentile(steps, p) for p in (50, 95, 99)}
    return figures | {f"{name}_rtf": sum(steps) * RATE / len(samples), f"{name}_peak_mb": peak_mb()}


def _stream(engine: Engine, samples: np.ndarray) -> list[float]:
    """Seconds of each step from the first packet to the last text."""
    stream, packets = engine.open(), _packets(samples)
    steps = [_timed(lambda packet=packet: engine.step([stream], [packet]))[0] for packet in packets[:-1]]
    return [*steps, _timed(lambda: engine.close(stream, packets[-1]))[0]]


def many_streams(job: Job) -> dict[str, Any]:
    """How many streams one process keeps up with; seconds[0]: audio of each."""
    engine, packets = job.open(), _packets(job.speech())
    warmed: set[int] = set()
    count, period_s = round(job.seconds[0] * RATE / PACKET), PACKET / RATE

    def passes(number: int) -> bool:
        if engine.together and job.device != "cpu":  # what a GPU is given is prepared at the first batch of each size
            for size in set(range(1, number + 1)) - warmed:
                _step(engine, [engine.open() for _ in range(size)], packets)(list(range(size)))
                warmed.add(size)
        step = _step(engine, [engine.open() for _ in range(number)], packets)
        found = streams.latencies(number, count, period_s, step, together=engine.together)
        return streams.in_time(found, number * count, job.limit_s, job.share)

    steps = _stream(engine, np.concatenate(packets[:10]))
    guess = job.guess or round(0.9 * period_s / streams.percentile(steps[2:], 50))
    return {"streams": streams.largest(passes, guess), "streams_peak_mb": peak_mb()}


def _step(engine: Engine, opened: list[Any], packets: list[np.ndarray]) -> Callable[[list[int]], float]:
    """Steps the streams with these numbers with the next packet of each, every stream at its own place of the audio."""
    sent = [7 * number for number in range(len(opened))]

    def step(numbers: list[int]) -> float:
        taken = []
        for number in numbers:
            taken.append(packets[sent[number] % len(packets)])
            sent[number] += 1
        return _timed(lambda: engine.step([opened[number] for number in numbers], taken))[0]

    return step


def files(job: Job) -> dict[str, Any]:
    """Seconds that an hour of files takes on all cores, from what is there of them; of several batch sizes the best."""
    paths = sorted((Path(job.audio) / "files").glob("*.wav"))
    seconds = sum((path.stat().st_size - 44) / 2 / RATE for path in paths)
    if job.runtime in IN_TURN or job.device != "cpu":
        engine = job.open()
        engine.files(paths[:2], 2)
        sizes = BATCHES[:1] if job.device == "cpu" else BATCHES
        for size in sizes if job.device != "cpu" else ():  # a first pass prepares a GPU for batches of these shapes
            engine.files(paths, size)
        took, batch = min((_timed(lambda size=size: engine.files(paths, size))[0], size) for size in sizes)
    else:
        engine, batch = job.open(threads=1), 1
        engine.files(paths[:2], batch)
        with ThreadPoolExecutor(job.threads) as pool:
            took, _ = _timed(lambda: list(pool.map(lambda path: engine.files([path], batch), paths)))
    return {"hour_s": took / seconds * 3600, "batch": batch, "files_peak_mb": peak_mb()}


def start(job: Job) -> dict[str, Any]:
    """The text of a short recording: how long that takes from the start of the process is measured outside."""
    return {"text": job.open().whole(job.speech()[: round(START_S * RATE)])}


def texts(job: Job) -> dict[str, Any]:
    """Texts of pieces that begin all over the recording: it repeats a few clips, but no two pieces are alike."""
    engine, samples = job.open(), job.speech()
    starts = np.linspace(0, len(samples), TEXTS, endpoint=False).astype(int)
    return {"texts": [engine.whole(np.roll(samples, -start)[: round(TEXT_S * RATE)]) for start in starts]}


def size(job: Job) -> dict[str, Any]:
    """What installing the system takes on disk."""
    from comparison.sizes import sizes_mb

    return {"installed_mb": sum(sizes_mb(*PACKAGES.get(job.runtime, (job.runtime,))).values())}


def roofline(job: Job) -> dict[str, Any]:
    """How fast this machine multiplies matrices."""
    from comparison.roofline import rates

    return rates(job.threads)


CASES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "whole": whole,
    "live": live,
    "look-back": live,
    "streams": many_streams,
    "files": files,
    "start": start,
    "texts": texts,
    "size": size,
    "roofline": roofline,
}


def peak_mb() -> float:
    """Largest resident memory of this process so far; not of its parent, which Linux counts in ru_maxrss."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _packets(samples: np.ndarray) -> list[np.ndarray]:
    return [samples[start : start + PACKET] for start in range(0, len(samples), PACKET)]


def _best(call: Callable[[], object]) -> float:
    """Seconds of the best of some passes, after one to warm up."""
    call()
    taken: list[float] = []
    while len(taken) < PASSES and sum(taken) < ENOUGH_S:
        taken.append(_timed(call)[0])
    return min(taken)


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main() -> None:
    """The command. What others print on standard output goes to standard error."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    job = Job(**json.loads(sys.argv[1]))
    try:
        figures = CASES[job.case](job)
    except Unavailable as error:
        figures = {"unavailable": str(error)}
    print(json.dumps(figures), file=output, flush=True)


if __name__ == "__main__":
    main()
