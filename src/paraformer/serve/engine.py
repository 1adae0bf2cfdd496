"""The recogniser behind one event loop: who listens to what, how much there is room for, what is kept for later."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING

from paraformer.config import ChunkConfig
from paraformer.recognizer import Recognizer
from paraformer.serve.config import ServeConfig
from paraformer.serve.files import Busy, Files, Job, Spool
from paraformer.serve.metrics import Meters
from paraformer.serve.protocol import Done, Failed, News, Resume, Saved, StreamOptions
from paraformer.serve.quotas import Quotas
from paraformer.serve.scheduler import Scheduler, Step
from paraformer.serve.shelf import Shelf
from paraformer.serve.stream import Stream

if TYPE_CHECKING:
    from paraformer.serve.doors import Line

Listener = Callable[[News], None]
log = logging.getLogger("paraformer.serve")
FULL = 0.8
"""Of what the machine was measured to carry, this much is taken on."""


class Capacity:
    """How many live streams fit: from a measurement at start, then from what steps take."""

    def __init__(self, step_s: float, chunk_s: float, most: int) -> None:
        """step_s: of one stream's step, as measured; chunk_s: of audio in a step; most: a limit that was set, or 0."""
        self._step_s, self._chunk_s, self._most = step_s, chunk_s, most
        self._recent: deque[float] = deque(maxlen=200)

    @property
    def streams(self) -> int:
        """Live streams that are taken on at a time."""
        return self._most or max(1, int(FULL * self._chunk_s / self._step_s))

    def observe(self, step: Step) -> None:
        """Keep up with what a step of one stream takes now, from the median of recent ones."""
        self._recent.append(step.seconds / step.streams)
        if len(self._recent) == self._recent.maxlen:
            self._step_s = 0.5 * self._step_s + 0.5 * sorted(self._recent)[len(self._recent) // 2]
            self._recent.clear()


class Engine:
    """One process's recogniser, as its doors use it: in the event loop's thread, never waiting."""

    def __init__(self, config: ServeConfig, recognizer: Recognizer, step_s: float) -> None:
        """step_s: what one stream's step takes here, alone (`plan.measure`)."""
        self.config, self.meters = config, Meters()
        chunk = recognizer.chunk or ChunkConfig()
        self.capacity = Capacity(step_s, chunk.chunk * recognizer.config.row_s, config.limits.streams)
        self.scheduler = Scheduler(recognizer, self._deliver, keep_s=config.keep_s, observe=self._stepped)
        self.files = Files(self.scheduler, config.limits)
        self._own = None if config.state else TemporaryDirectory(prefix="paraformer-streams-")
        state = Path(self._own.name if self._own else config.state)
        self.shelf = Shelf(state, config.resume_s, config.limits.kept)
        self.quotas = Quotas(config.limits)
        self.seats = 0
        self.lines: set[Line] = set()
        self.draining = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: dict[Stream, Listener] = {}
        self.meters.model.labels(self.model_name, recognizer.engine).set(1)
        self.look()

    @property
    def recognizer(self) -> Recognizer:
        """What streams that begin now are recognised with."""
        return self.scheduler.recognizer

    @property
    def model_name(self) -> str:
        """As clients may call it."""
        bundle = self.recognizer.bundle
        return str(bundle.card.get("name") or (bundle.directory.name if bundle.directory else "paraformer"))

    def start(self) -> None:
        """Begin to work for the loop that runs."""
        self._loop = asyncio.get_running_loop()
        self.scheduler.start()

    def stop(self) -> None:
        """Let go of files that wait, and end the scheduler's thread."""
        threading.Thread(target=self.files.stop, daemon=True).start()
        self.scheduler.stop()
        if self._own is not None:
            self._own.cleanup()

    def look(self) -> None:
        """Take down what changes by itself."""
        self.meters.capacity.set(self.capacity.streams)
        self.meters.queue.labels("pieces").set(self.scheduler.waiting)
        self.meters.queue.labels("files").set(self.files.jobs)
        self.meters.spool.set(self.files.size)

    @property
    def alive(self) -> bool:
        """Whether the scheduler works: it has begun a round within the last seconds."""
        return self.scheduler.failure is None and monotonic() - self.scheduler.beat < 30.0

    @property
    def ready(self) -> bool:
        """Whether new work is taken."""
        return self.alive and not self.draining.is_set()

    # -- live streams -------------------------------------------------------------------------------------------------

    def sit(self, proto: str) -> Seat:
        """A place for a connection with a live stream, to be left in the end. Raises Busy if there is none."""
        if self.draining.is_set():
            raise Busy("the server is about to stop")
        if self.seats >= self.capacity.streams:
            raise Busy("the server carries as many live streams as it can")
        return Seat(self, proto)

    def open(self, options: StreamOptions, listener: Listener) -> Stream:
        """Begin a live stream. Raises ParaformerError for what this model cannot do."""
        stream = self.scheduler.open(options)
        self._listeners[stream] = listener
        return stream

    async def resume(self, asked: Resume, listener: Listener) -> tuple[Saved, Stream] | None:
        """Go on with a stream that is kept, from now on under its new token too; None if there is none.

        Raises ParaformerError for one that this model cannot go on with, and OSError where it cannot be kept again.
        """
        found = await asyncio.to_thread(self._restored, asked)
        if found is not None:
            self._listeners[found[1]] = listener
        return found

    def _restored(self, asked: Resume) -> tuple[Saved, Stream] | None:
        saved = self.shelf.find(asked.token)
        if saved is None:
            return None
        self.shelf.put(asked.new_token, saved)
        return saved, self.scheduler.restore(replace(saved, options=replace(asked.options, rate=saved.options.rate)))

    def leave(self, stream: Stream) -> None:
        """Nobody listens to a stream any more."""
        stream.cancel()
        self._listeners.pop(stream, None)

    # -- files --------------------------------------------------------------------------------------------------------

    def submit(self, spool: Spool, rate: int | None, hotwords: tuple[str, ...], listener: Listener) -> Job:
        """Recognise an upload; the listener is called in the loop. Raises Busy if too many wait."""
        loop = self._loop
        assert loop is not None

        def told(news: News) -> None:
            loop.call_soon_threadsafe(listener, news)

        return self.files.submit(spool, rate, hotwords, told)

    # -- from the scheduler's thread ---------------------------------------------------------------------------------

    def _stepped(self, step: Step) -> None:
        self.meters.stepped(step)
        self.capacity.observe(step)

    def _deliver(self, found: Sequence[tuple[Stream, News]]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._dispatch, found)

    def _dispatch(self, found: Sequence[tuple[Stream, News]]) -> None:
        for stream, news in found:
            listener = self._listeners.get(stream)
            if isinstance(news, Done | Failed):
                self._listeners.pop(stream, None)
            if listener is not None:
                listener(news)


class Seat:
    """One connection's place among the live streams."""

    def __init__(self, engine: Engine, proto: str) -> None:
        self._engine, self._proto, self._left = engine, proto, False
        engine.seats += 1
        engine.meters.active.labels(proto).inc()

    def leave(self) -> None:
        """Make room for another; the second time nothing happens."""
        if not self._left:
            self._left = True
            self._engine.seats -= 1
            self._engine.meters.active.labels(self._proto).dec()
