"""One accepted WebSocket, from its first message to its end."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from paraformer.serve.doors import Line, Pace, caught_up, comes_true
from paraformer.serve.engine import Engine
from paraformer.serve.protocol import OVERLOAD, POLICY, RESTART, Close, Conversation

log = logging.getLogger("paraformer.serve")
_TURN = 32
"""Messages of one client, if they have come already, before the others have their turn."""


class SocketWire:
    """A WebSocket as a wire."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def send(self, text: str) -> None:
        """A text message."""
        await self._socket.send_text(text)

    async def close(self, code: int, reason: str) -> None:
        """The closing handshake, unless the client has begun it."""
        if self._socket.application_state is WebSocketState.CONNECTED:
            await self._socket.close(code, reason)


async def converse(socket: WebSocket, line: Line, conversation: Conversation, engine: Engine) -> None:
    """Serve one accepted WebSocket to its end."""
    engine.lines.add(line)
    line.perform(conversation.opened())
    writer = asyncio.create_task(line.write())
    reader = asyncio.create_task(_Reader(socket, line, conversation, engine).run())
    try:
        await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
        if reader.done() and not writer.done():
            if reader.exception() is not None or reader.result():
                line.outcome = "lost"
            if line.closing:
                await asyncio.wait({writer}, timeout=engine.config.limits.pause_s)
        elif writer.exception() is not None:
            line.outcome = "slow"
            await _closed(socket)
    finally:
        engine.lines.discard(line)
        line.leave()
        for task in (writer, reader):
            task.cancel()
        for result in await asyncio.gather(writer, reader, return_exceptions=True):
            known = TimeoutError | OSError | RuntimeError | WebSocketDisconnect
            if isinstance(result, Exception) and not isinstance(result, known):
                log.error("a connection failed", exc_info=result)


async def _closed(socket: WebSocket) -> None:
    """Let go of a client that does not read; it may never see why."""
    try:
        async with asyncio.timeout(1.0):
            await socket.close(OVERLOAD, "the client does not read")
    except (TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
        return


class _Reader:
    """Takes in one client's messages."""

    def __init__(self, socket: WebSocket, line: Line, conversation: Conversation, engine: Engine) -> None:
        self._socket, self._line, self._conversation = socket, line, conversation
        self._limits, self._drain_s = engine.config.limits, engine.config.drain_s
        self._heard_at, self._began = monotonic(), False
        self._until = self._heard_at + self._limits.session_s
        self._pace, self._rest_s, self._taken = Pace(self._limits.messages_per_s), 0.0, 0

    async def run(self) -> bool:
        """Until the client leaves, or has to; tells whether it was cut off."""
        line, limits = self._line, self._limits
        while not line.closing:
            try:
                async with asyncio.timeout(self._due - monotonic()):  # of many messages: then it is set anew
                    lost = await self._take_in()
            except TimeoutError:
                if monotonic() >= self._due and await self._over():
                    return False
                continue
            except WebSocketDisconnect as gone:
                return gone.code in (1005, 1006)
            if lost is not None:
                return lost
            await asyncio.sleep(self._rest_s)
            if line.backlog_s > limits.backlog_s and not await caught_up(line, limits.pause_s, limits.backlog_s):
                line.perform([Close(OVERLOAD, "audio comes faster than it can be recognised")])
        return False

    @property
    def _due(self) -> float:
        """When nothing has come for too long, or the session is too long."""
        return min(self._heard_at + (self._limits.idle_s if self._began else self._limits.first_s), self._until)

    async def _take_in(self) -> bool | None:
        """Until the others are to have their turn; where the client has left, whether it was cut off."""
        line, conversation = self._line, self._conversation
        while not line.closing:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return message.get("code") in (None, 1005, 1006)
            self._heard_at, self._began = monotonic(), True
            if line.finishing:
                continue
            said = message.get("text")
            line.perform(
                conversation.text(said) if said is not None else conversation.binary(message.get("bytes") or b"")
            )
            self._taken += 1
            self._rest_s = self._pace.take()
            if self._rest_s or self._taken % _TURN == 0 or line.backlog_s > self._limits.backlog_s:
                break
        return None

    async def _over(self) -> bool:
        """Let go of a client that is silent, or has been here for long, unless it waits for what it has ended."""
        line, long = self._line, monotonic() >= self._until
        if line.owes and not long:
            self._heard_at = monotonic()
            return False
        if self._began and not line.idle:
            line.finish()
            await comes_true(lambda: line.idle or line.closing, self._drain_s)
        line.outcome = "timeout"
        code, reason = (RESTART, "the session is too long") if long else (POLICY, "nothing came for too long")
        line.perform([Close(code, reason)])
        return True
