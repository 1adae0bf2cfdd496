"""A client that loses nothing: where its connection or server ends, it goes on at the next from what is acknowledged.

It keeps the audio that is not acknowledged yet, and the number of the last message it has got; that is all it takes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import websockets


class TooLate(Exception):
    """Nothing is kept of the stream any more."""


class Steady:
    """One utterance of 16-bit samples at 16 kHz, spoken to FunASR's door of whatever server answers."""

    def __init__(self, url: str, data: bytes, cuts: Callable[[], tuple[int, float]], **settings: Any) -> None:
        """cuts: bytes of the next packet, and seconds to wait after it; settings: of the first message."""
        self._url, self._data, self._cuts = url, data, cuts
        self._settings = {"mode": "online", **settings, "resumable": True}
        self.token, self._base = "", 0
        self.messages: dict[int, dict[str, Any]] = {}
        self.resumed = 0
        self.ws: websockets.ClientConnection | None = None

    async def run(self, patience_s: float = 60.0) -> list[dict[str, Any]]:
        """All messages of the utterance. Raises TooLate, or TimeoutError if no server answers for so long."""
        while not any(message["is_final"] for message in self.messages.values()):
            async with asyncio.timeout(patience_s):
                with suppress(OSError, websockets.WebSocketException, EOFError):
                    await self._connected()
                await asyncio.sleep(0.2)
        return [self.messages[number] for number in sorted(self.messages)]

    async def _connected(self) -> None:
        async with websockets.connect(self._url, compression=None, ping_interval=None) as self.ws:
            await self._begin(self.ws)
            speaking = asyncio.create_task(self._speak(self.ws))
            try:
                async for text in self.ws:
                    if self._hear(json.loads(text)):
                        return
            finally:
                speaking.cancel()
                with suppress(asyncio.CancelledError, websockets.WebSocketException):
                    await speaking

    async def _begin(self, ws: websockets.ClientConnection) -> None:
        """Begin anew as long as nothing is acknowledged, then go on where the server says."""
        if not self.token:
            self.messages.clear()
            await ws.send(json.dumps(self._settings))
            return
        heard = max(self.messages, default=0)
        await ws.send(json.dumps({**self._settings, "resume": self.token, "heard": heard}))
        answer = json.loads(await ws.recv())
        if not answer["resumed"]:
            raise TooLate
        self.token, self._base, self.resumed = answer["resume"], 2 * answer["samples"], self.resumed + 1
        self.messages = {number: one for number, one in self.messages.items() if number <= answer["after"]}

    def _hear(self, message: dict[str, Any]) -> bool:
        if "kept" in message:
            self.token, self._base = message["resume"], 2 * message["kept"]
        else:
            self.messages[message["number"]] = message
        return bool(message["is_final"])

    async def _speak(self, ws: websockets.ClientConnection) -> None:
        for packet, wait_s in self._packets(self._base):
            await ws.send(packet)
            await asyncio.sleep(wait_s)
        await ws.send('{"is_speaking": false}')

    def _packets(self, place: int) -> Iterator[tuple[bytes, float]]:
        while place < len(self._data):
            size, wait_s = self._cuts()
            yield self._data[place : place + size], wait_s
            place += size
