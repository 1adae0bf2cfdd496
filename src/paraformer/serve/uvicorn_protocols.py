"""uvicorn's two protocols, with the limits that they lack on what means nothing, has no end or is not read."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from paraformer.serve.doors import Pace
from paraformer.serve.protocol import POLICY

LONGEST_HEAD = 64 << 10
"""Bytes of a request that are no body: its head, or what stands between chunks and after them."""
EMPTY_PER_S = 100.0
"""Frames of a client that carry nothing, pings among them; ten times as many at once."""
_PART, _TINY = 4096, 16
_UNREAD_S = 30.0
"""So long may an HTTP client read nothing of what it is sent, and send what is not listened to."""


class GuardedSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which by itself parses all that has come at once, answers any number of pings, and leaves a
    connection open on which a client reads nothing any more.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._rest = bytearray()
        self._pace = Pace(EMPTY_PER_S)

    def data_received(self, data: bytes) -> None:
        if self._rest or self.read_paused or len(data) > _PART:
            self._rest += data
            self._feed()
        else:
            super().data_received(data)

    def _feed(self) -> None:
        """Parse a little at a time, until there is a message: a read full of tiny frames takes a second."""
        while self._rest and not self.read_paused and not self.transport.is_closing():
            part = bytes(self._rest[:_PART])
            del self._rest[:_PART]
            super().data_received(part)

    async def receive(self) -> Any:
        message = await super().receive()
        self._feed()
        return message

    async def send(self, message: Any) -> None:
        await super().send(message)
        self._feed()

    def handle_ping(self) -> None:
        super().handle_ping()
        self._spend()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._spend()

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        if len(event.data) < _TINY:
            self._spend()

    def _spend(self) -> None:
        if self._pace.take() and not self.transport.is_closing():
            self.conn.fail(POLICY, "too many frames with nothing in them")
            self.handle_parser_exception()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self.loop.call_later(self.close_timeout + 5.0, self.transport.abort)


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP, which by itself keeps all of a head that never ends, and waits for ever for the rest of a request
    and for a client that does not read.
    """

    first_s = 10.0
    """Until the headers are complete."""
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._head > LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._done()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._done()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and self._timer is None:  # it was refused
            self._timer = self.loop.call_later(_UNREAD_S, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(_UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._read()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()
        self._read()
        super().connection_lost(exc)

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.first_s, self.transport.close)

    def _done(self) -> None:
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
