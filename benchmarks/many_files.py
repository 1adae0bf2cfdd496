"""What a Ray cluster of this machine adds to recognition: `python benchmarks/many_files.py --hours 2`.

The same recordings, cut from the package's samples to 1 to 15 s, are recognised by as many processes without Ray as
there are workers with it. Compared are processor time, all of Ray's processes counted, and the rate between the first
parts and the last, which leaves out the start of processes and models on both sides. Memory is that of the largest
worker, at a quarter, the half, three quarters and the end of the run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Self

import numpy as np
import soundfile

import paraformer
from paraformer import audio, batch

_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Make the recordings, run both, print a line for each and their difference."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hours", type=float, default=1.0)
    options.add_argument("--workers", type=int, default=2)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "in"
        seconds = make(source, asked.hours * 3600)
        names = sorted(map(str, source.iterdir()))
        print(f"{len(names)} recordings, {seconds / 3600:.2f} h, {asked.workers} workers")
        alone_s, alone_cpu_s = alone(names, asked.workers)
        report("without Ray", seconds, alone_s, alone_cpu_s)
        many_s, many_cpu_s = clustered(source, Path(directory) / "out", asked.workers)
        report("with Ray", seconds, many_s, many_cpu_s)
        print(f"more time {many_s / alone_s - 1:.1%}, more processor time {many_cpu_s / alone_cpu_s - 1:.1%}")


def report(name: str, seconds: float, took_s: float, cpu_s: float) -> None:
    """One line."""
    print(f"{name}: {seconds / took_s:.0f} times real time, {cpu_s:.1f} s of processors")


def make(directory: Path, seconds: float) -> float:
    """Recordings of so many seconds together; returns how many they have."""
    samples = [audio.read(path) for path in sorted((Path(paraformer.__file__).parent / "samples").glob("*.flac"))]
    sound, random, made = np.concatenate(samples), np.random.default_rng(0), 0
    directory.mkdir()
    number = 0
    while made < seconds * audio.SAMPLE_RATE:
        length = int(random.uniform(1, 15) * audio.SAMPLE_RATE)
        start = random.integers(len(sound))
        cut = np.roll(sound, -start)[:length]
        soundfile.write(directory / f"{number:07d}.flac", cut, audio.SAMPLE_RATE, subtype="PCM_16")
        made, number = made + length, number + 1
    return made / audio.SAMPLE_RATE


def share(names: list[str]) -> tuple[float, float, float]:
    """When one process began and ended to recognise its share, and its processor time, model and all."""
    recognizer = paraformer.load()
    began = time.time()
    for _ in recognizer.transcribe_each(names):
        pass
    return began, time.time(), time.process_time()


def alone(names: list[str], workers: int) -> tuple[float, float]:
    """Seconds and processor seconds of processes that know nothing of each other."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        shares = list(pool.map(share, [names[number::workers] for number in range(workers)]))
    return max(end for _, end, _ in shares) - min(began for began, _, _ in shares), sum(cpu for *_, cpu in shares)


def clustered(source: Path, out: Path, workers: int) -> tuple[float, float]:
    """The same by a cluster; seconds are those of all, at the rate between the first part and the last."""
    import ray

    with Cost() as watch:
        ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        began = time.time()
        outcome = batch.transcribe([str(source)], str(out), form="json")
        whole_s = time.time() - began
    ray.shutdown()
    assert outcome.failed == 0
    times = sorted(path.stat().st_mtime for path in out.glob("part-*"))
    if len(times) < 4 * workers:
        raise SystemExit(f"{len(times)} parts are too few to tell the rate: give more --hours")
    rate = (len(times) - workers) / (times[-1] - times[workers - 1])  # the first part of each worker ends its start
    print(f"{len(times)} parts, {whole_s:.0f} s with the start; largest worker {watch.told()}")
    return len(times) / rate, watch.cpu_s()


class Watch(ABC):
    """Looks at this process and all below it every `every_s` seconds, while a block runs."""

    every_s = 0.5

    def __enter__(self) -> Self:
        self._over = Event()
        self._thread = Thread(target=self._looking)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _looking(self) -> None:
        while not self._over.wait(self.every_s):
            self.look()

    @abstractmethod
    def look(self) -> None:
        """Once."""


@dataclass
class Cost(Watch):
    """Processor time and memory."""

    times: dict[int, float] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    before: float = field(default_factory=lambda: sum(os.times()[:2]))

    def look(self) -> None:
        """What each process took so far, and the largest worker."""
        largest = 0
        for pid, fields in below(os.getpid()):
            self.times[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
            if (worker := resident(pid)) and b"MapWorker" in worker[0]:
                largest = max(largest, worker[1])
        self.memory.append(largest)

    def cpu_s(self) -> float:
        """Of all together."""
        return sum(self.times.values()) + sum(os.times()[:2]) - self.before

    def told(self) -> str:
        """Memory at four times of the run."""
        found = [size for size in self.memory if size]
        return ", ".join(f"{found[round(at * (len(found) - 1))] / 1e6:.0f}" for at in (0.25, 0.5, 0.75, 1)) + " MB"


def below(pid: int) -> Iterator[tuple[int, list[str]]]:
    """The processes started by one, and by these, with the fields of /proc/PID/stat from the third on."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats[int(path.parent.name)] = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
    known = {pid}
    while found := {one for one, fields in stats.items() if int(fields[1]) in known and one not in known}:
        known |= found
    return ((one, stats[one]) for one in known - {pid})


def resident(pid: int) -> tuple[bytes, int] | None:
    """Name and memory of a process, bytes."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return Path(f"/proc/{pid}/cmdline").read_bytes(), pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


if __name__ == "__main__":
    main()
