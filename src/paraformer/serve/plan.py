"""How much this machine carries: measured on it, with its model, in seconds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from paraformer.audio import SAMPLE_RATE
from paraformer.config import ChunkConfig
from paraformer.recognizer import Recognizer
from paraformer.serve.engine import FULL
from paraformer.serve.scheduler import TOGETHER

SERVER_SHARE = 0.15
"""Of the processor's time, what the server itself takes beside recognition: sockets, packets, messages."""

_CONTAINER = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where a container's limit of memory stands, and what is taken of it: of control groups 2 and 1."""


@dataclass(frozen=True)
class Measured:
    """What recognition takes here.

    step_s: of one live stream's chunk, several together; chunk_s: of audio in it; whole: seconds of processing for a
    second of a file. threads: that computed.
    """

    step_s: float
    chunk_s: float
    whole: float
    session_bytes: int
    threads: int

    @property
    def limit(self) -> float:
        """Live streams that would fill the time without anything left."""
        return self.chunk_s / self.step_s

    @property
    def stream_bytes(self) -> int:
        """Memory of a live stream: its state, and the next one while it steps."""
        return 2 * self.session_bytes


@dataclass(frozen=True)
class Plan:
    """What a server of so many workers carries; latency_s: from a chunk's last sample to its text, 99 of 100 times."""

    workers: int
    threads: int
    streams: int
    latency_s: float
    file_hours: float
    memory_mb: float


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise in syllables: the time of recognition depends little on what is said."""
    count = int(seconds * SAMPLE_RATE)
    random = np.random.default_rng(seed)
    loudness = 0.1 * (1 + np.sin(2 * np.pi * 4 * np.arange(count) / SAMPLE_RATE))
    return (loudness * random.standard_normal(count)).clip(-1, 1).astype(np.float32)


def measure(recognizer: Recognizer, threads: int = 1, seconds: float = 2.0) -> Measured:
    """Time live steps, and whole pieces, for about so long."""
    chunk = recognizer.chunk or ChunkConfig()
    chunk_s = chunk.chunk * recognizer.config.row_s
    step_s, saved = (_step(recognizer, chunk_s, seconds / 2)) if recognizer.config.streaming else (chunk_s, 0)
    return Measured(step_s, chunk_s, _whole(recognizer, seconds / 2), saved, threads)


def _step(recognizer: Recognizer, chunk_s: float, seconds: float) -> tuple[float, int]:
    """Seconds of a step for each of TOGETHER streams, the median, and bytes of a stream's state."""
    sessions = [recognizer.stream() for _ in range(TOGETHER)]
    samples = speech(chunk_s)
    took: list[float] = []
    until = perf_counter() + seconds
    while len(took) < 3 or (perf_counter() < until and len(took) < 200):
        began = perf_counter()
        for session in sessions:
            session.feed(samples)
        recognizer.advance(sessions)
        took.append((perf_counter() - began) / TOGETHER)
    return sorted(took[1:])[len(took[1:]) // 2], len(sessions[0].save())


def _whole(recognizer: Recognizer, seconds: float) -> float:
    samples = speech(10.0)
    took: list[float] = []
    until = perf_counter() + seconds
    while len(took) < 2 or perf_counter() < until:
        began = perf_counter()
        recognizer.segments(samples)
        took.append((perf_counter() - began) / 10.0)
    return min(took)


def plans(measured: Measured, cores: int, latency_s: float) -> Iterator[Plan]:
    """What servers of one worker up to one a core carry, so that 99 of 100 texts come within latency_s of their chunk.

    Streams are taken on up to FULL of what the processor does beside the server's own share, fewer if `late` says so.
    """
    most = max(1, int(FULL * (1 - SERVER_SHARE) * measured.limit))
    each = max(1, bisect_right(range(1, most + 1), latency_s, key=lambda streams: late(measured, streams)))
    workers = 1
    while workers * measured.threads <= max(cores, measured.threads):
        yield Plan(
            workers,
            measured.threads,
            workers * each,
            late(measured, each),
            workers * FULL / measured.whole,
            workers * each * measured.stream_bytes / 1e6,
        )
        workers *= 2


def too_little(measured: Measured, streams: int, workers: int = 1) -> str | None:
    """What to say where workers of so many streams each need more memory than is free; None where all is well.

    >>> too_little(Measured(0.01, 0.6, 0.01, 3_000_000, 1), 1)
    """
    free, needed = free_memory(), workers * streams * measured.stream_bytes
    if free is None or needed <= free:
        return None
    fit = max(1, free // measured.stream_bytes // workers)
    return (
        f"{workers * streams} live streams take {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
        f"lower --streams to {fit}, or give the machine more"
    )


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that processes here can still have, of the machine and of its container; None where nothing says."""
    said = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        said.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    for most, now in _CONTAINER:
        with suppress(OSError, ValueError):
            said.append(int((root / most).read_text()) - int((root / now).read_text()))
    return max(0, min(said)) if said else None


def late(measured: Measured, streams: int, draws: int = 20) -> float:
    """How long after its chunk's last sample a text comes, in seconds, at the 99th of 100: by playing it through.

    So many streams, each with a chunk every chunk_s and phases at random, are stepped as the scheduler does it: those
    that wait for longest, TOGETHER at a time.
    """
    random, found = np.random.default_rng(0), []
    for _ in range(draws):
        phases = random.uniform(0, measured.chunk_s, streams)
        arrivals = np.sort((phases[:, None] + measured.chunk_s * np.arange(4)).ravel()).tolist()
        now, place = 0.0, 0
        while place < len(arrivals):
            now = max(now, arrivals[place])
            batch = [came for came in arrivals[place : place + TOGETHER] if came <= now]
            now += measured.step_s * len(batch)
            found += [now - came for came in batch]
            place += len(batch)
    return float(np.quantile(found, 0.99))
