"""One live stream: samples go in from any thread; the scheduler's thread lets the session step."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paraformer.audio import packet
from paraformer.errors import attempt
from paraformer.recognizer import Recognizer
from paraformer.serve.pauses import Cut, Pauses
from paraformer.serve.protocol import Live, News, Packet, StreamOptions
from paraformer.session import Session

if TYPE_CHECKING:
    from paraformer.serve.scheduler import Scheduler


@dataclass(frozen=True)
class Saved:
    """A stream to go on with elsewhere. samples: taken in, at the stream's rate."""

    session: bytes
    samples: int
    options: StreamOptions


class Stream:
    """One live stream: what a connection holds. Its methods may be called in any thread, and never wait."""

    def __init__(self, scheduler: Scheduler, options: StreamOptions, session: Session, tool: Recognizer) -> None:
        self.options, self.session, self.tool = options, session, tool
        self.samples = 0
        self.gone = False
        self.since = scheduler.now()
        self.pending = 0
        self._scheduler = scheduler
        self._backlog: deque[tuple[float, Packet]] = deque()
        self._waiting = 0
        self._ended, self._end_at, self._stepped_at = False, 0.0, 0.0
        self._pauses = Pauses(options) if options.sentences else None
        self._wanted = self._missing()

    @property
    def backlog_s(self) -> float:
        """Seconds of audio that have come and are not recognised yet."""
        return self._waiting / self.options.rate

    def feed(self, samples: Packet) -> None:
        """Take in samples: floats in [-1, 1] or int16. Raises AudioError, and nothing changes, for anything else."""
        samples = packet(samples)
        if len(samples) and not self._ended:
            self._scheduler.change(lambda: self._take(samples))

    def end(self) -> None:
        """No more samples will come; Done follows."""
        self._scheduler.change(self._end)

    def cancel(self) -> None:
        """Nobody waits for the rest."""
        self.gone = True
        self._scheduler.ask(lambda: self._scheduler.forget(self))

    def save(self) -> Future[Saved]:
        """The stream as it stands, all that was fed taken in; it ends here and can go on elsewhere."""
        future: Future[Saved] = Future()
        self._scheduler.ask(lambda: self._save(future))
        return future

    def _take(self, samples: Packet) -> None:
        self._backlog.append((self._scheduler.now(), samples))
        self._waiting += len(samples)
        self.samples += len(samples)

    def _end(self) -> None:
        if not self._ended:
            self._ended, self._end_at = True, self._scheduler.now()

    # -- in the scheduler's thread ---------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether something can be done that could not before."""
        return not self.gone and (self._waiting >= self._wanted or self._ended) and not self._over

    @property
    def ready(self) -> bool:
        """Whether a step can be taken."""
        return not self.gone and self.session.ready

    @property
    def _over(self) -> bool:
        return self.session.done

    def prepare(self, lock: threading.Condition) -> list[Cut]:
        """Let the session take in up to a chunk of what has come, or its end; returns sentences that end in it."""
        if self.session.ready:
            return []
        with lock:
            part, over = self._next_part(), self._ended and not self._backlog
        if len(part):
            self.session.feed(part)
        cuts = self._pauses.push(part) if self._pauses is not None else []
        if over:
            self.session.end()
            self.since = self._end_at
            cuts += self._pauses.finish() if self._pauses is not None else []
        self._wanted = self._missing()
        return cuts

    def stepped(self, text: str) -> list[News]:
        """What a step has found."""
        self._stepped_at = self._scheduler.now()
        self._wanted = self._missing()
        tokens = self.session.take().tokens
        return [Live(text, tokens)] if text else []

    def _missing(self) -> int:
        """Samples to collect before anything is done with them."""
        most = self.session.missing if self._pauses is None else self.options.rate // 4
        return max(1, min(self.session.missing, most))

    def _next_part(self) -> Packet:
        """What the next step lacks, at most, so that who sends much at once takes no turns of the others."""
        lacking = max(1, self.session.missing)
        parts: list[Packet] = []
        while self._backlog and lacking > 0:
            came, head = self._backlog.popleft()
            self.since = max(came, self._stepped_at)
            if len(head) > lacking:
                self._backlog.appendleft((came, head[lacking:]))
            parts.append(head[:lacking])
            lacking -= len(parts[-1])
            self._waiting -= len(parts[-1])
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _save(self, future: Future[Saved]) -> None:
        """Answers with the session and everything that was fed in it; nothing is stepped for that."""
        with attempt("saving a stream") as saving:
            for _, samples in self._backlog:
                self.session.feed(samples)
            future.set_result(Saved(self.session.save(), self.samples, self.options))
        if saving.error is not None:
            future.set_exception(saving.error)
        self._scheduler.forget(self)
