"""OpenAI's Realtime API, transcription only: GA and beta spelling, turns by voice activity or the client's commits."""

from __future__ import annotations

import base64
import binascii
import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

from paraformer.recordings import join_segments
from paraformer.serve.openai import logprobs
from paraformer.serve.protocol import (
    RESTART,
    Action,
    Cancel,
    Close,
    Done,
    End,
    Failed,
    Feed,
    Live,
    News,
    Open,
    Packet,
    Pcm16,
    Send,
    Sentence,
    Speaking,
    StreamOptions,
    heard,
    said,
    unheard,
)
from paraformer.serve.realtime_session import Refused, Session, g711
from paraformer.types import Segment, Token

SHORTEST_MS = 100
"""Of a buffer that can be committed."""
_LONGEST_APPEND = 15 << 20
_INCLUDE_LOGPROBS = "item.input_audio_transcription.logprobs"


@dataclass
class _Item:
    """One piece of the conversation, from the first sample to its transcript."""

    id: str
    texts: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class _Buffer:
    """Audio that was appended and not yet committed, which is one live stream."""

    number: int
    start_ms: float
    rate: int
    encoding: str
    turns: bool
    samples: int = 0
    pcm: Pcm16 = field(default_factory=Pcm16)
    item: _Item | None = None
    heard_s: float = -math.inf
    """Where the last sentence ended: live text before it comes too late."""

    @property
    def ms(self) -> float:
        return 1000 * self.samples / self.rate

    def decoded(self, data: bytes) -> Packet:
        """The samples that are complete now."""
        return self.pcm.samples(data) if self.encoding == "audio/pcm" else g711(self.encoding, data)


class RealtimeConversation:
    """One connection."""

    def __init__(self, model: str, *, beta: bool = False, longest_s: float = 7200.0) -> None:
        """model: asked for in the address; beta: the older, flat spelling; longest_s: of a session."""
        self._beta = beta
        self._session = Session(transcription={"model": model} if model else None)
        self._id = "sess_" + secrets.token_hex(10)
        self._expires = int(time() + longest_s)
        self._events = self._count = 0
        self._passed_ms = 0.0
        self._buffer: _Buffer | None = None
        self._ending: dict[int, _Buffer] = {}
        self._previous: str | None = None

    @property
    def idle(self) -> bool:
        """Whether no item waits for its transcript."""
        return not self._ending and self._buffer is None

    def opened(self) -> Iterator[Action]:
        """The session as it begins."""
        yield self._event(f"{self._kind}.created", session=self._described())

    def binary(self, message: bytes) -> Iterator[Action]:  # noqa: ARG002
        """Not a part of this protocol."""
        yield self._error(Refused("send JSON in text messages; audio goes into input_audio_buffer.append"), None)

    def text(self, message: str) -> Iterator[Action]:
        """One event of the client's."""
        cause: str | None = None
        try:
            try:
                values = heard(message)
            except ValueError as error:
                raise Refused(str(error), "invalid_json") from error
            if not isinstance(values, dict) or not isinstance(values.get("type"), str):
                raise Refused("the message is not an event with a type", "invalid_json")
            cause = values["event_id"] if isinstance(values.get("event_id"), str) else None
            actions = list(self._handled(values))
        except Refused as refused:
            actions = [self._error(refused, cause)]
        yield from actions

    def _handled(self, values: Mapping[str, Any]) -> Iterator[Action]:
        match values["type"]:
            case "session.update" | "transcription_session.update":
                self._session.update(values.get("session"))
                yield self._event(values["type"] + "d", session=self._described())
            case "input_audio_buffer.append":
                yield from self._append(values.get("audio"))
            case "input_audio_buffer.commit":
                yield from self._commit()
            case "input_audio_buffer.clear":
                yield from self._clear()
            case kind:
                raise Refused(f"{kind[:60]} is not a part of transcription sessions", "invalid_value", "type")

    # -- settings ----------------------------------------------------------------------------------------------------

    @property
    def _kind(self) -> str:
        return "transcription_session" if self._beta else "session"

    def _described(self) -> dict[str, Any]:
        common = {"id": self._id, "object": "realtime.transcription_session", "expires_at": self._expires}
        return common | (self._session.flat() if self._beta else self._session.nested())

    # -- audio -------------------------------------------------------------------------------------------------------

    def _append(self, audio: Any) -> Iterator[Action]:
        if not isinstance(audio, str) or len(audio) > _LONGEST_APPEND * 4 // 3:
            raise Refused("audio must be base64 of at most 15 MiB", param="audio")
        try:
            data = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused("audio is not base64", "invalid_base64", "audio") from error
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = self._begin()
            session = self._session
            options = StreamOptions(buffer.rate, None, True, session.pause_s, session.hotwords)
            yield Open(buffer.number, options)
        samples = buffer.decoded(data)
        buffer.samples += len(samples)
        yield Feed(buffer.number, samples)

    def _begin(self) -> _Buffer:
        self._count += 1
        session = self._session
        return _Buffer(self._count, self._passed_ms, session.rate, session.encoding, session.turns is not None)

    def _commit(self) -> Iterator[Action]:
        buffer = self._buffer
        ms = buffer.ms if buffer is not None else 0.0
        if buffer is None or ms < SHORTEST_MS:
            raise Refused(
                f"Error committing input audio buffer: buffer too small. Expected at least {SHORTEST_MS}ms of audio, "
                f"but buffer only has {ms:.2f}ms of audio.",
                "input_audio_buffer_commit_empty",
            )
        self._buffer = None
        self._passed_ms += ms
        self._ending[buffer.number] = buffer
        item = self._item(buffer)
        item.seconds = ms / 1000
        yield from self._committed(item)
        yield End(buffer.number)

    def _clear(self) -> Iterator[Action]:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._passed_ms += buffer.ms
            yield Cancel(buffer.number)
        yield self._event("input_audio_buffer.cleared")

    # -- news --------------------------------------------------------------------------------------------------------

    def news(self, utterance: int, news: News) -> Iterator[Action]:
        """Text becomes deltas, sentences items of their own or parts of the one that the client commits."""
        current = self._buffer is not None and self._buffer.number == utterance
        buffer = self._buffer if current else self._ending.get(utterance)
        if buffer is None:
            return
        match news:
            case Speaking(start_s) if buffer.turns and buffer.item is None:
                yield from self._started(buffer, start_s)
            case Live() if (fresh := unheard(news, buffer.heard_s)) and (fresh.tokens or buffer.item):
                yield from self._delta(buffer, fresh.text, fresh.tokens)
            case Sentence(segment):
                yield from self._said(buffer, segment, committed=not current)
            case Done():
                self._ending.pop(utterance, None)
                yield self._completed(self._item(buffer))
            case Failed(error):
                self._ending.pop(utterance, None)
                self._buffer = None if current else self._buffer
                yield self._failed(self._item(buffer), str(error))
            case _:
                return

    def closing(self) -> Iterator[Action]:
        """What was appended is committed, and has its transcript, before the end."""
        if self._buffer is not None and self._buffer.ms >= SHORTEST_MS:
            yield from self._commit()
        elif not self._ending:
            refused = Refused("the server restarts, or the session is over", "session_expired")
            yield self._error(refused, None)
            yield Close(RESTART, "the server restarts")

    def _item(self, buffer: _Buffer) -> _Item:
        if buffer.item is None:
            buffer.item = _Item("item_" + secrets.token_hex(10))
        return buffer.item

    def _started(self, buffer: _Buffer, start_s: float) -> Iterator[Action]:
        item = self._item(buffer)
        ms = round(buffer.start_ms + 1000 * start_s)
        yield self._event("input_audio_buffer.speech_started", audio_start_ms=ms, item_id=item.id)

    def _delta(self, buffer: _Buffer, text: str, tokens: tuple[Token, ...]) -> Iterator[Action]:
        if buffer.turns and buffer.item is None:
            yield from self._started(buffer, tokens[0].start_s)
        more = {"logprobs": logprobs(tokens)} if self._wants_logprobs else {}
        yield self._of_item(self._item(buffer), "delta", delta=text, **more)

    def _said(self, buffer: _Buffer, segment: Segment, *, committed: bool) -> Iterator[Action]:
        """A sentence; with turns by voice activity, and not committed by the client, it is an item that ends here."""
        item = self._item(buffer)
        item.texts.append(segment.text)
        item.tokens += segment.tokens
        if buffer.turns and not committed:
            item.seconds, buffer.heard_s = segment.end_s - segment.start_s, segment.end_s
            ms = round(buffer.start_ms + 1000 * segment.end_s)
            yield self._event("input_audio_buffer.speech_stopped", audio_end_ms=ms, item_id=item.id)
            yield from self._committed(item)
            yield self._completed(item)
            buffer.item = None

    def _committed(self, item: _Item) -> Iterator[Action]:
        previous, self._previous = self._previous, item.id
        yield self._event("input_audio_buffer.committed", item_id=item.id, previous_item_id=previous)
        described = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        for kind in ("created",) if self._beta else ("added", "done"):
            yield self._event(f"conversation.item.{kind}", previous_item_id=previous, item=described)

    @property
    def _wants_logprobs(self) -> bool:
        return _INCLUDE_LOGPROBS in (self._session.include or [])

    def _completed(self, item: _Item) -> Send:
        usage = {"type": "duration", "seconds": max(1, round(item.seconds))}
        more = {"logprobs": logprobs(item.tokens)} if self._wants_logprobs else {}
        return self._of_item(item, "completed", transcript=join_segments(item.texts), usage=usage, **more)

    def _failed(self, item: _Item, message: str) -> Send:
        error = {"type": "server_error", "code": "recognition_failed", "message": message, "param": None}
        return self._of_item(item, "failed", error=error)

    def _of_item(self, item: _Item, kind: str, **values: Any) -> Send:
        name = f"conversation.item.input_audio_transcription.{kind}"
        return self._event(name, item_id=item.id, content_index=0, **values)

    def _error(self, refused: Refused, cause: str | None) -> Send:
        values = {"type": "invalid_request_error", "code": refused.code, "message": str(refused)}
        return self._event("error", error={**values, "param": refused.param, "event_id": cause})

    def _event(self, kind: str, **values: Any) -> Send:
        self._events += 1
        return said({"event_id": f"event_{self._id[5:13]}_{self._events:06}", "type": kind, **values})
