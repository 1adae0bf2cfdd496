"""One live stream: samples go in from any thread; the scheduler's thread lets the session step."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from paraformer.audio import packet
from paraformer.recognizer import Recognizer
from paraformer.second_pass import Ended
from paraformer.serve.protocol import Kept, Live, News, Packet, Saved, StreamOptions
from paraformer.session import Session

if TYPE_CHECKING:
    from paraformer.serve.scheduler import Scheduler


class Stream:
    """One live stream: what a connection holds. Its methods may be called in any thread, and never wait."""

    def __init__(
        self,
        scheduler: Scheduler,
        options: StreamOptions,
        session: Session,
        tool: Recognizer,
        saved: Saved | None = None,
    ) -> None:
        """saved: what the session goes on from."""
        self.options, self.session, self.tool = options, session, tool
        self.samples = self._kept = saved.samples if saved else 0
        self.gone = False
        self.since = scheduler.now()
        self.pending = 0
        self._scheduler = scheduler
        self._backlog: deque[tuple[float, Packet]] = deque()
        self._waiting = 0
        self._ended, self._end_at, self._stepped_at = False, 0.0, 0.0
        self._told: float | None = None
        self._wanted = self._missing()

    @property
    def backlog_s(self) -> float:
        """Seconds of audio that have come and are not recognised yet."""
        return self._waiting / self.options.rate

    def feed(self, samples: Packet) -> None:
        """Take in samples: floats in [-1, 1] or int16. Raises AudioError, and nothing changes, for anything else."""
        if samples.dtype != np.int16:  # of which all are samples, and which the session takes as they are
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

    def hand_over(self) -> None:
        """End here, so that the stream can go on elsewhere: Kept follows, and nothing more."""
        self._scheduler.ask(lambda: self._scheduler.hand_over(self))

    def _take(self, samples: Packet) -> bool:
        """Whether there is enough for a step now: the others' thread is not woken for each packet."""
        self._backlog.append((self._scheduler.now(), samples))
        self._waiting += len(samples)
        return self.due

    def _end(self) -> None:
        if not self._ended:
            self._ended, self._end_at = True, self._scheduler.now()

    # -- in the scheduler's thread ---------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether something can be done that could not before."""
        return not self.gone and (self._waiting >= self._wanted or self._ended) and not self.session.done

    @property
    def ready(self) -> bool:
        """Whether a step can be taken."""
        return not self.gone and self.session.ready

    def prepare(self, lock: threading.Condition) -> tuple[list[Ended], float | None]:
        """Let the session take in up to a chunk of what has come, or its end.

        Returns sentences that end in it, and where the next one begins if it was not told before.
        """
        if self.session.ready:
            return [], None
        with lock:
            part, over = self._next_part(), self._ended and not self._backlog
        if len(part):
            self.session.feed(part)
            self.samples += len(part)
        since = self.session.speaking_since_s
        if over:
            self.session.end()
            self.since = self._end_at
        self._wanted = self._missing()
        new = since is not None and since != self._told
        self._told = since if new else self._told
        return self.session.take_ended(), since if new else None

    def stepped(self, text: str) -> list[News]:
        """What a step has found."""
        self._stepped_at = self._scheduler.now()
        self._wanted = self._missing()
        tokens = self.session.take().tokens
        return [Live(text, tokens)] if text else []

    def saved(self) -> Saved | None:
        """What can go on elsewhere; None while a sentence is being recognised again, and after the end."""
        if self._ended or self.pending:
            return None
        self._kept = self.samples
        return Saved(self.session.save(), self.samples, self.options)

    def kept(self, every_s: float) -> list[News]:
        """The stream as it stands, if it is to be kept and was not for so long."""
        if not self.options.kept or self.samples - self._kept < every_s * self.options.rate:
            return []
        saved = self.saved()
        return [Kept(saved)] if saved is not None else []

    def _missing(self) -> int:
        """Samples to collect before anything is done with them."""
        most = self.options.rate // 4 if self.options.sentences else self.session.missing
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
        if len({part.dtype for part in parts}) > 1:
            parts = [packet(part) for part in parts]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
