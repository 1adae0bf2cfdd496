"""What operators watch, in Prometheus' words: base units, and nothing of users in the labels."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from paraformer import __version__
from paraformer.serve.scheduler import Step

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)


class Meters:
    """All numbers of one server process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.active = Gauge("paraformer_sessions_active", "Open sessions", ["proto"], registry=registry)
        self.sessions = Counter("paraformer_sessions", "Sessions by outcome", ["proto", "outcome"], registry=registry)
        self.audio = Counter("paraformer_audio_seconds", "Audio taken in", ["proto"], registry=registry)
        self.capacity = Gauge(
            "paraformer_capacity_streams", "Live streams that this process carries", registry=registry
        )
        self.queue = Gauge("paraformer_queue_depth", "Work that waits", ["kind"], registry=registry)
        self.batch = Histogram(
            "paraformer_batch_size", "Live streams in a step", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.step = Histogram("paraformer_step_seconds", "Time of a step", buckets=_SECONDS, registry=registry)
        self.lateness = Histogram(
            "paraformer_step_lateness_seconds",
            "From a chunk's last sample to its text, of the stream that waited for longest",
            buckets=_SECONDS,
            registry=registry,
        )
        self.finish = Histogram(
            "paraformer_finish_seconds", "From the end of speech to the last text", buckets=_SECONDS, registry=registry
        )
        self.first_text = Histogram(
            "paraformer_first_text_seconds", "From the first sample to text", buckets=_SECONDS, registry=registry
        )
        self.requests = Counter("paraformer_http_requests", "HTTP requests", ["route", "status"], registry=registry)
        self.rejected = Counter("paraformer_rejected", "Refused before any work", ["reason"], registry=registry)
        self.spool = Gauge("paraformer_spool_bytes", "Uploads on disk", registry=registry)
        self.loop_lag = Histogram(
            "paraformer_loop_lag_seconds", "How late the event loop is", buckets=_SECONDS, registry=registry
        )
        Info("paraformer_build", "Version", registry=registry).info({"version": __version__})
        self.model = Info("paraformer_model", "Model", registry=registry)

    def stepped(self, step: Step) -> None:
        """Take down one batch of live streams."""
        self.batch.observe(step.streams)
        self.step.observe(step.seconds)
        self.lateness.observe(step.late_s)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
