"""How much this machine carries: measured on it, with its model, in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from paraformer.audio import SAMPLE_RATE
from paraformer.config import ChunkConfig
from paraformer.recognizer import Recognizer
from paraformer.serve.engine import FULL
from paraformer.serve.scheduler import TOGETHER

SERVER_SHARE = 0.15
"""Of the processor's time, what the server itself takes beside recognition: sockets, packets, messages."""


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


@dataclass(frozen=True)
class Plan:
    """What a server of so many workers carries; latency_s: from a chunk's last sample to its text, at worst."""

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
    """What servers of one worker up to one a core carry, so that text comes within latency_s of its chunk's end.

    A chunk waits, at worst, for a batch that has just begun, then for those before it; streams are taken on up to FULL
    of what the processor does, less the server's own share.
    """
    workers = 1
    while workers * measured.threads <= cores or workers == 1:
        by_time = FULL * (1 - SERVER_SHARE) * measured.limit
        by_latency = max(1.0, latency_s / measured.step_s - TOGETHER)
        each = max(1, int(min(by_time, by_latency * measured.chunk_s / max(latency_s, measured.chunk_s) * 2)))
        worst = (TOGETHER + each / 2) * measured.step_s
        yield Plan(
            workers,
            measured.threads,
            workers * each,
            worst,
            workers * FULL / measured.whole,
            workers * each * (measured.session_bytes + 2 * SAMPLE_RATE * 4) / 1e6,
        )
        workers *= 2
