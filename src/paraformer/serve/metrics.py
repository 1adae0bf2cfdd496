"""What operators watch, in Prometheus' words: base units, and nothing of users in the labels.

Several workers write into files of one directory (`SHARED`), and each tells the sum: counters of workers that have died
stay in it, so that it never goes back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from paraformer import __version__
from paraformer.serve.scheduler import Step

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""In the environment of several workers, as prometheus_client wants it."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)


class Meters:
    """All numbers of one server process, and how the sum of all its siblings reads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.active = self._gauge("sessions_active", "Open sessions", ["proto"])
        self.sessions = self._counter("sessions", "Sessions by outcome", ["proto", "outcome"])
        self.audio = self._counter("audio_seconds", "Audio taken in", ["proto"])
        self.capacity = self._gauge("capacity_streams", "Live streams that this server carries")
        self.session = self._gauge("session_bytes", "Of a live stream's state, as measured at start", mode="livemax")
        self.queue = self._gauge("queue_depth", "Work that waits", ["kind"])
        self.batch = self._histogram("batch_size", "Live streams in a step", (1, 2, 4, 8, 16, 32, 64))
        self.step = self._histogram("step_seconds", "Time of a step")
        self.lateness = self._histogram(
            "step_lateness_seconds",
            "From a chunk's last sample to its text, of the stream that waited for longest",
        )
        self.finish = self._histogram("finish_seconds", "From the end of speech to the last text")
        self.first_text = self._histogram("first_text_seconds", "From the first sample to text")
        self.requests = self._counter("http_requests", "HTTP requests", ["route", "status"])
        self.rejected = self._counter("rejected", "Refused before any work", ["reason"])
        self.kept = self._counter("streams_kept", "Savings of streams that can go on elsewhere", ["outcome"])
        self.resumed = self._counter("streams_resumed", "Streams that were to go on here", ["outcome"])
        self.spool = self._gauge("spool_bytes", "Uploads on disk")
        self.loop_lag = self._histogram("loop_lag_seconds", "How late the event loop is")
        self._gauge("build_info", "Version", ["version"], mode="livemax").labels(__version__).set(1)
        self.model = self._gauge("model_info", "Model", ["name", "engine"], mode="livemax")

    def _gauge(self, name: str, what: str, labels: Sequence[str] = (), mode: Any = "livesum") -> Gauge:
        return Gauge(f"paraformer_{name}", what, labels, registry=self._registry, multiprocess_mode=mode)

    def _counter(self, name: str, what: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"paraformer_{name}", what, labels, registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
        return Histogram(f"paraformer_{name}", what, registry=self._registry, buckets=buckets)

    def stepped(self, step: Step) -> None:
        """Take down one batch of live streams."""
        self.batch.observe(step.streams)
        self.step.observe(step.seconds)
        self.lateness.observe(step.late_s)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them; of all workers where there are several."""
        if SHARED not in os.environ:
            return generate_latest(self._registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)  # type: ignore[no-untyped-call]
        return generate_latest(every)
