"""What protocols and the engine tell each other: a protocol takes messages and news, and gives actions, nothing else.

    client's message --> protocol --> actions: Open, Feed, End, ... for the engine; Send, Close for the client
    engine's news    --> protocol --> actions

An utterance is known by a number that the protocol chooses; its news bear the same number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Shaped

from paraformer.audio import SAMPLE_RATE
from paraformer.config import ChunkConfig
from paraformer.errors import ParaformerError
from paraformer.types import Segment, Token, Transcript
from paraformer.writing import readable

Packet = Shaped[np.ndarray, " n"]

MOST_HOTWORDS = 1000
"""That a client may name for a stream or a file."""

NORMAL, UNSUPPORTED, BAD_DATA, POLICY, TOO_BIG, FAILED, RESTART, OVERLOAD = (
    1000, 1003, 1007, 1008, 1009, 1011, 1012, 1013,
)  # fmt: skip
"""Close codes of WebSockets (RFC 6455, section 7.4.1, and its registry)."""


@dataclass(frozen=True)
class StreamOptions:
    """How one live stream is to be recognised.

    rate: of its samples, Hz. chunk: None for the recogniser's own. sentences: at each pause the sentence again, in view
    of all of it; pause_s: how long a pause is. hotwords: what may be said, for models that can be told.
    kept: saved now and then, for a client that can go on elsewhere after its connection, or this process, has ended.
    """

    rate: int = SAMPLE_RATE
    chunk: ChunkConfig | None = None
    sentences: bool = False
    pause_s: float = 0.6
    hotwords: tuple[str, ...] = ()
    kept: bool = False


@dataclass(frozen=True)
class Saved:
    """A stream to go on with elsewhere. samples: that it has taken in, at its rate; notes: what the protocol has to
    know there.
    """

    session: bytes
    samples: int
    options: StreamOptions
    notes: str = ""


# -- what a protocol wants ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Open:
    """Begin a live stream."""

    utterance: int
    options: StreamOptions = field(default_factory=StreamOptions)


@dataclass(frozen=True)
class Resume:
    """Go on with the stream that is kept under a token, and keep it under another; Resumed answers."""

    utterance: int
    options: StreamOptions
    token: str
    new_token: str


@dataclass(frozen=True)
class HandOver:
    """End a stream here, so that it can go on elsewhere; Kept answers."""

    utterance: int


@dataclass(frozen=True)
class Keep:
    """Put what was saved where other processes find it; then, if that could be done, do the rest."""

    token: str
    saved: Saved
    then: tuple[Send | Close, ...]


@dataclass(frozen=True)
class OpenFile:
    """Begin a file, which is recognised when it is complete; rate: of headerless 16-bit samples, None for a format that
    its content tells.
    """

    utterance: int
    rate: int | None = None
    hotwords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feed:
    """Samples of a live stream."""

    utterance: int
    samples: Packet


@dataclass(frozen=True)
class Append:
    """Bytes of a file."""

    utterance: int
    data: bytes


@dataclass(frozen=True)
class End:
    """No more will come."""

    utterance: int


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for the rest."""

    utterance: int


@dataclass(frozen=True)
class Send:
    """A text message for the client."""

    text: str


@dataclass(frozen=True)
class Close:
    """The end of the connection; reason: at most 123 bytes, nothing that a user said."""

    code: int = NORMAL
    reason: str = ""


def said(values: dict[str, Any]) -> Send:
    """A JSON object as a message. What a client named, and gets back, may hold half of a pair of surrogates, which no
    UTF-8 has: it becomes a question mark.
    """
    return Send(json.dumps(values, ensure_ascii=False).encode(errors="replace").decode())


MOST_DEPTH = 8
"""Of lists and objects in each other, in what a client says."""


def heard(message: str) -> Any:
    """What a client says in JSON. Raises ValueError for what is none, as NaN is, and for what is nested too deeply."""
    try:
        values = json.loads(message, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError("the message is not JSON") from error
    if _depth(values) > MOST_DEPTH:
        raise ValueError("the message is nested too deeply")
    return values


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _depth(value: object, so_far: int = 0) -> int:
    """How deeply lists and objects lie in each other; stops counting once it is too much."""
    if so_far > MOST_DEPTH or not isinstance(value, dict | list):
        return so_far
    inner = value.values() if isinstance(value, dict) else value
    return max((_depth(one, so_far + 1) for one in inner), default=so_far + 1)


Action = Open | Resume | HandOver | Keep | OpenFile | Feed | Append | End | Cancel | Send | Close


# -- what the engine tells -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speaking:
    """Somebody began to speak, so many seconds from the start."""

    start_s: float


@dataclass(frozen=True)
class Live:
    """Newly decided text, which will not change, and its tokens."""

    text: str
    tokens: tuple[Token, ...] = ()


LATE_S = 0.15
"""Live and in view of all of it, a token ends at most so far apart."""


def unheard(live: Live, heard_s: float) -> Live | None:
    """Of live text that which no sentence has told yet, when the last one ended at heard_s; None if that is nothing.

    Sentences overtake live text, which waits for the rest of its chunk. A token is known by its end: where a pause is
    before it, its start may be the end of the last one.
    """
    tokens = tuple(token for token in live.tokens if token.end_s > heard_s + LATE_S)
    if len(tokens) == len(live.tokens):
        return live
    return Live(readable(tokens), tokens) if tokens else None


@dataclass(frozen=True)
class Sentence:
    """What was said between two pauses, in view of all of it; end_s: where the pause begins."""

    segment: Segment


@dataclass(frozen=True)
class Kept:
    """The stream as it stands; None: it cannot be saved where it stands."""

    saved: Saved | None


@dataclass(frozen=True)
class Resumed:
    """The stream goes on; None: nothing is kept under that token, or nothing that this model can go on with."""

    saved: Saved | None


@dataclass(frozen=True)
class Done:
    """All is recognised. Of a live stream the transcript has only the duration: what was said has been told already."""

    transcript: Transcript


@dataclass(frozen=True)
class Failed:
    """No more will come of this utterance; the others go on."""

    error: ParaformerError


News = Speaking | Live | Sentence | Kept | Resumed | Done | Failed


class Conversation(Protocol):
    """One connection's protocol: a state machine that knows nothing of sockets."""

    @property
    def idle(self) -> bool:
        """Whether nothing is being recognised, so that a restart loses nothing."""

    def opened(self) -> Iterator[Action]:
        """The connection stands."""

    def text(self, message: str) -> Iterator[Action]:
        """A text message came."""

    def binary(self, message: bytes) -> Iterator[Action]:
        """A binary message came."""

    def news(self, utterance: int, news: News) -> Iterator[Action]:
        """The engine has something to tell."""

    def closing(self) -> Iterator[Action]:
        """The server is about to stop: what is open must end now, with a last word for each."""


class Pcm16:
    """Bytes of little-endian 16-bit samples, cut anywhere, to samples."""

    def __init__(self) -> None:
        self._odd = b""

    def samples(self, data: bytes) -> Packet:
        """The samples that are complete now."""
        data = self._odd + data
        whole = len(data) // 2 * 2
        self._odd = data[whole:]
        return np.frombuffer(data[:whole], "<i2")
