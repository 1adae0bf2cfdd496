"""Connections: bytes of a socket to a protocol, its actions to the engine and back. Nothing here knows what is said."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from paraformer.errors import ParaformerError, attempt
from paraformer.serve.engine import Engine, Seat
from paraformer.serve.files import Busy, Job, Spool, TooBig
from paraformer.serve.protocol import (
    OVERLOAD,
    TOO_BIG,
    Action,
    Append,
    Cancel,
    Close,
    Conversation,
    Done,
    End,
    Failed,
    Feed,
    HandOver,
    Keep,
    Live,
    News,
    Open,
    OpenFile,
    Resume,
    Resumed,
    Send,
)
from paraformer.serve.stream import Stream

log = logging.getLogger("paraformer.serve")


class Wire(Protocol):
    """What carries messages to one client."""

    async def send(self, text: str) -> None:
        """A message; waits while the client does not read."""

    async def close(self, code: int, reason: str) -> None:
        """The end."""


@dataclass
class _File:
    """An upload on a connection."""

    spool: Spool
    rate: int | None
    hotwords: tuple[str, ...]
    job: Job | None = None


@dataclass
class _Timing:
    """When things happened in an utterance: first samples, their end."""

    began: float
    ended: float | None = None
    told: bool = False


class Line:
    """One connection: does what its protocol asks, and lets go of everything in the end."""

    def __init__(self, engine: Engine, conversation: Conversation, wire: Wire, proto: str, seat: Seat | None) -> None:
        """seat: its place among the live streams; None: it takes one when it begins a stream."""
        self._engine, self._conversation, self._wire, self._proto = engine, conversation, wire, proto
        self._seat = seat
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = False
        self._streams: dict[int, Stream] = {}
        self._files: dict[int, _File] = {}
        self._timing: dict[int, _Timing] = {}
        self._outgoing: deque[Send | Close] = deque()
        self._unsent = 0
        self._wake = asyncio.Event()
        self.closing = self.finishing = False
        self.outcome = "ok"
        self.audio_s = 0.0

    @property
    def backlog_s(self) -> float:
        """Audio of the connection's streams that is not recognised yet."""
        return max((stream.backlog_s for stream in self._streams.values()), default=0.0)

    @property
    def idle(self) -> bool:
        """Whether nothing is being recognised, kept, or waits to be sent."""
        return self._conversation.idle and not self._outgoing and not self._tasks

    @property
    def owes(self) -> bool:
        """Whether something that the client has ended is not recognised yet, so that it is right to say nothing."""
        files = any(file.job is not None for file in self._files.values())
        return files or any(timing.ended is not None for timing in self._timing.values())

    def perform(self, actions: Iterable[Action]) -> None:
        """Do all of it, at once and in order."""
        for action in list(actions):
            if self.closing:
                return
            if instead := self._do(action):
                self.perform(instead)

    def _do(self, action: Action) -> Iterable[Action]:
        """One action; returns those that the protocol wants where it cannot be done."""
        match action:
            case Send(text):
                self._unsent += len(text)
                self._outgoing.append(action)
                self._wake.set()
                if self._unsent > self._engine.config.limits.unsent:
                    self.drop("slow")
            case Close():
                self._outgoing.append(action)
                self._wake.set()
                self.closing = True
            case Resume():
                self._later(self._resume(action))
            case Keep():
                self._later(self._keep(action))
            case _:
                with attempt("the stream") as doing:
                    self._work(action)
                if doing.error is not None:
                    return self._failed(action.utterance, doing.error)
        return ()

    def _work(self, action: Open | HandOver | OpenFile | Feed | Append | End | Cancel) -> None:
        number = action.utterance
        match action:
            case Open(_, options):
                if self._seat is None:
                    self._seat = self._engine.sit(self._proto)
                self._streams[number] = self._engine.open(options, lambda news: self.hear(number, news))
                self._timing[number] = _Timing(monotonic())
            case OpenFile(_, rate, hotwords):
                self._files[number] = _File(Spool(self._engine.config.limits), rate, hotwords)
            case Feed(_, samples) if number in self._streams:
                stream = self._streams[number]
                stream.feed(samples)
                self.audio_s += len(samples) / stream.options.rate
            case Append(_, data) if number in self._files:
                self._files[number].spool.append(data)
            case End() if number in self._streams:
                self._timing[number].ended = monotonic()
                self._streams[number].end()
            case End() if number in self._files:
                file = self._files[number]
                file.job = self._engine.submit(
                    file.spool, file.rate, file.hotwords, lambda news: self.hear(number, news)
                )
            case HandOver() if number in self._streams:
                self._streams[number].hand_over()
            case Cancel():
                self._forget(number)
            case _:
                pass

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what the disk takes time for, beside the rest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resume(self, action: Resume) -> None:
        number, found = action.utterance, None
        try:
            found = await self._engine.resume(action, lambda news: self.hear(number, news))
        except (ParaformerError, OSError) as error:
            log.warning("%s: a stream that was kept cannot go on: %s", self._proto, type(error).__name__)
        self._engine.meters.resumed.labels("ok" if found else "gone").inc()
        if found is not None:
            if self._left:
                self._engine.leave(found[1])
                return
            self._streams[number], self._timing[number] = found[1], _Timing(monotonic())
        self.perform(self._conversation.news(number, Resumed(found[0] if found else None)))

    async def _keep(self, action: Keep) -> None:
        try:
            await asyncio.to_thread(self._engine.shelf.put, action.token, action.saved)
        except OSError as error:
            log.warning("%s: a stream could not be kept: %s", self._proto, error.strerror)
            self._engine.meters.kept.labels("no_room").inc()
            return
        self._engine.meters.kept.labels("ok").inc()
        self.perform(action.then)

    def _failed(self, number: int, error: ParaformerError) -> Iterable[Action]:
        """What the protocol says of an utterance that cannot go on."""
        self._forget(number)
        self.outcome = "busy" if isinstance(error, Busy) else "failed"
        actions = list(self._conversation.news(number, Failed(error)))
        if isinstance(error, TooBig):
            actions.append(Close(TOO_BIG, "the audio is too large"))
        if isinstance(error, Busy):
            actions.append(Close(OVERLOAD, str(error)[:120]))
        return actions

    def _forget(self, number: int) -> None:
        self._timing.pop(number, None)
        if stream := self._streams.pop(number, None):
            self._engine.leave(stream)
        if file := self._files.pop(number, None):
            if file.job is not None:
                file.job.cancel()
            else:
                file.spool.close()

    def hear(self, number: int, news: News) -> None:
        """The engine has something to tell of an utterance."""
        self._time(number, news)
        if isinstance(news, Done | Failed):
            self._streams.pop(number, None)
            self._files.pop(number, None)
            self._timing.pop(number, None)
        if isinstance(news, Failed):
            self.outcome = "failed"
            log.warning("%s: an utterance failed: %s", self._proto, type(news.error).__name__)
        self.perform(self._conversation.news(number, news))

    def _time(self, number: int, news: News) -> None:
        timing, meters = self._timing.get(number), self._engine.meters
        if timing is None:
            return
        if isinstance(news, Live) and not timing.told:
            timing.told = True
            meters.first_text.observe(monotonic() - timing.began)
        if isinstance(news, Done) and timing.ended is not None:
            meters.finish.observe(monotonic() - timing.ended)

    # -- sending --------------------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Send what there is to send, until the end; a client that does not read for long is dropped."""
        while True:
            while self._outgoing:
                message = self._outgoing.popleft()
                if isinstance(message, Close):
                    await self._wire.close(message.code, message.reason)
                    return
                self._unsent -= len(message.text)
                async with asyncio.timeout(self._engine.config.limits.pause_s):
                    await self._wire.send(message.text)
            self._wake.clear()
            await self._wake.wait()

    def drop(self, outcome: str) -> None:
        """Send nothing of what waits, and close."""
        self.outcome, self.closing = outcome, True
        self._outgoing.clear()
        self._outgoing.append(Close(OVERLOAD, "the client does not read"))
        self._wake.set()

    def leave(self) -> None:
        """The connection is over."""
        self._left = True
        for number in [*self._streams, *self._files]:
            self._forget(number)
        if self._seat is not None:
            self._seat.leave()
        meters = self._engine.meters
        meters.sessions.labels(self._proto, self.outcome).inc()
        meters.audio.labels(self._proto).inc(self.audio_s)

    def finish(self) -> None:
        """Say the last word; what still comes is not listened to."""
        self.finishing = True
        self.perform(self._conversation.closing())


class Pace:
    """So many messages a second, and no more over a few seconds."""

    def __init__(self, per_s: float) -> None:
        self._per_s, self._left, self._at = per_s, 10 * per_s, monotonic()

    def take(self) -> float:
        """Seconds to wait before the next message is taken."""
        now = monotonic()
        self._left = min(10 * self._per_s, self._left + (now - self._at) * self._per_s) - 1
        self._at = now
        return max(0.0, -self._left / self._per_s)


async def caught_up(line: Line, pause_s: float, most_s: float) -> bool:
    """Wait, the socket unread, until the backlog is half of what is too much; False if it does not become so."""
    return await comes_true(lambda: line.backlog_s <= most_s / 2, pause_s)


async def comes_true(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait for it; False if it has not become so."""
    until = monotonic() + within_s
    while not condition():
        if monotonic() > until:
            return False
        await asyncio.sleep(0.02)
    return True
