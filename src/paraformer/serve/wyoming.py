"""Wyoming, Home Assistant's protocol for voice: JSON lines over TCP, samples after some of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from paraformer import __version__
from paraformer.recordings import join_segments
from paraformer.serve.doors import Line, caught_up
from paraformer.serve.engine import Engine
from paraformer.serve.files import Busy
from paraformer.serve.protocol import (
    BAD_DATA,
    MOST_HOTWORDS,
    RESTART,
    Action,
    Close,
    Done,
    End,
    Failed,
    Feed,
    Live,
    News,
    Open,
    Packet,
    Send,
    Sentence,
    StreamOptions,
    said,
)

LONGEST_HEADER, LONGEST_DATA, LONGEST_PAYLOAD = 64 << 10, 1 << 20, 1 << 20
LANGUAGES = ["zh", "zh-CN", "en"]


class WyomingConversation:
    """One connection; `binary` takes its bytes, cut anywhere."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._waiting = b""
        self._hotwords: tuple[str, ...] = ()
        self._count = 0
        self._form = (16_000, 2, 1)
        self._rest = b""
        self._open: int | None = None
        self._ending: int | None = None
        self._texts: list[str] = []

    @property
    def idle(self) -> bool:
        """Whether no transcript is awaited."""
        return self._open is None and self._ending is None

    def opened(self) -> Iterator[Action]:
        """The client speaks first."""
        yield from ()

    def text(self, message: str) -> Iterator[Action]:
        """As bytes."""
        yield from self.binary(message.encode())

    def binary(self, message: bytes) -> Iterator[Action]:
        """Bytes of the connection."""
        self._waiting += message
        while (event := self._next()) is not None:
            if isinstance(event, str):
                yield Close(BAD_DATA, event)
                return
            yield from self._event(*event)

    def _next(self) -> tuple[str, dict[str, Any], bytes] | str | None:
        """The next whole event; a text if what came is none."""
        line, found, rest = self._waiting.partition(b"\n")
        if not found:
            return "a header is too long" if len(line) > LONGEST_HEADER else None
        try:
            header = json.loads(line)
            kind, data = header["type"], header.get("data") or {}
            sizes = [header.get(name) or 0 for name in ("data_length", "payload_length")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return "a header is no Wyoming event"
        if not isinstance(kind, str) or not isinstance(data, dict) or not all(type(size) is int for size in sizes):
            return "a header is no Wyoming event"
        if not (0 <= sizes[0] <= LONGEST_DATA and 0 <= sizes[1] <= LONGEST_PAYLOAD):
            return "an event is too long"
        if len(rest) < sum(sizes):
            return None
        self._waiting = rest[sum(sizes) :]
        try:
            more = json.loads(rest[: sizes[0]]) if sizes[0] else {}
        except (ValueError, RecursionError):
            return "the data of an event is not JSON"
        return kind, {**data, **(more if isinstance(more, dict) else {})}, rest[sizes[0] : sum(sizes)]

    def _event(self, kind: str, data: dict[str, Any], payload: bytes) -> Iterator[Action]:
        match kind:
            case "describe":
                yield _event("info", self._info())
            case "ping":
                yield _event("pong", {"text": data.get("text")})
            case "transcribe":
                words = [*_texts(data.get("transcript_names")), *_texts(data.get("transcript_terms"))]
                self._hotwords = tuple(words[:MOST_HOTWORDS])
            case "audio-start":
                yield from self._start(data)
            case "audio-chunk":
                if self._open is None:
                    yield from self._start(data)
                if self._open is not None and self._ending is None:
                    yield Feed(self._open, self._samples(payload))
            case "audio-stop" if self._open is not None:
                self._ending = self._open
                yield End(self._open)
            case _:
                return

    def _start(self, data: dict[str, Any]) -> Iterator[Action]:
        if self._open is not None:
            return
        rate, width, channels = (data.get(name) for name in ("rate", "width", "channels"))
        form = (rate or 16_000, width or 2, channels or 1)
        if not all(type(one) is int for one in form) or form[1] != 2 or not 1 <= form[2] <= 8:
            yield _event("error", {"text": "audio must be 16-bit samples of up to 8 channels", "code": "format"})
            return
        if not 4000 <= form[0] <= 192_000:
            yield _event("error", {"text": "the rate must be from 4000 to 192000 Hz", "code": "format"})
            return
        self._form = form
        self._count += 1
        self._open, self._texts, self._rest = self._count, [], b""
        yield Open(self._count, StreamOptions(rate=form[0], sentences=True, hotwords=self._hotwords))
        yield _event("transcript-start", {})

    def _samples(self, payload: bytes) -> Packet:
        """Mono, the mean of channels."""
        _, width, channels = self._form
        data = self._rest + payload
        whole = len(data) // (width * channels) * width * channels
        self._rest = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2")
        return samples if channels == 1 else samples.reshape(-1, channels).mean(axis=1).astype(np.int16)

    def news(self, utterance: int, news: News) -> Iterator[Action]:
        """Live text in chunks, and the transcript at the end."""
        if utterance != self._open:
            return
        match news:
            case Live(text):
                yield _event("transcript-chunk", {"text": text})
            case Sentence(segment):
                self._texts.append(segment.text)
            case Done():
                self._open = self._ending = None
                yield _event("transcript", {"text": join_segments(self._texts), "language": "zh"})
                yield _event("transcript-stop", {})
            case Failed(error):
                self._open = self._ending = None
                yield _event("error", {"text": str(error), "code": "recognition_failed"})
            case _:
                return

    def closing(self) -> Iterator[Action]:
        """What was heard has its transcript before the end."""
        if self._open is not None and self._ending is None:
            self._ending = self._open
            yield End(self._open)
        elif self.idle:
            yield Close(RESTART, "the server restarts")

    def _info(self) -> dict[str, Any]:
        made = {"attribution": {"name": "paraformer", "url": ""}, "installed": True, "version": __version__}
        model = {"name": self._model, "description": "Mandarin, live", "languages": LANGUAGES, **made}
        program = {
            "name": "paraformer",
            "description": "Mandarin speech recognition",
            "models": [model],
            "supports_transcript_streaming": True,
            **made,
        }
        return {"asr": [program], "tts": [], "handle": [], "intent": [], "wake": [], "mic": [], "snd": []}


def _texts(values: Any) -> list[str]:
    return [one for one in values if isinstance(one, str)] if isinstance(values, list) else []


def _event(kind: str, data: dict[str, Any]) -> Send:
    return Send(said({"type": kind, "version": "1.5.2", "data": data}).text + "\n")


class _Wire:
    """A TCP connection as a wire."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, text: str) -> None:
        """A line."""
        self._writer.write(text.encode())
        await self._writer.drain()

    async def close(self, code: int, reason: str) -> None:  # noqa: ARG002
        """The end, which has no reason here; what the client still sends is read, or it might not get the last word."""
        if self._writer.can_write_eof():
            self._writer.write_eof()


async def serve(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection to its end."""
    conversation, limits = WyomingConversation(engine.model_name), engine.config.limits
    line = Line(engine, conversation, _Wire(writer), "wyoming", None)
    engine.lines.add(line)
    writing = asyncio.create_task(line.write())
    try:
        async with asyncio.timeout(limits.session_s):
            while not line.closing and (data := await _received(reader, line, limits.idle_s)):
                if line.finishing:
                    continue
                line.perform(conversation.binary(data))
                if line.backlog_s > limits.backlog_s and not await caught_up(line, limits.pause_s, limits.backlog_s):
                    break
        if line.closing:
            await asyncio.wait({writing}, timeout=5)
            async with asyncio.timeout(5):
                while await reader.read(1 << 16):
                    pass
    except (TimeoutError, OSError, Busy):
        line.outcome = "lost"
    finally:
        engine.lines.discard(line)
        line.leave()
        writing.cancel()
        writer.close()
        await asyncio.gather(writing, return_exceptions=True)


async def _received(reader: asyncio.StreamReader, line: Line, idle_s: float) -> bytes:
    """What comes next. Raises TimeoutError if nothing does while nothing is owed."""
    while True:
        try:
            return await asyncio.wait_for(reader.read(1 << 16), idle_s)
        except TimeoutError:
            if not line.owes:
                raise
