"""What FunASR's clients say in their text messages, and what of it this server understands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from paraformer.config import ChunkConfig
from paraformer.errors import ConfigError
from paraformer.serve.protocol import MOST_HOTWORDS, heard

Mode = Literal["offline", "online", "2pass"]
MODES: tuple[Mode, ...] = ("offline", "online", "2pass")
MOST_HOTWORD_BYTES, MOST_NAME = 10_000, 256
MOST_MESSAGE = 64 << 10


class Refused(Exception):
    """A known key whose value cannot be used."""


@dataclass(frozen=True)
class Dialect:
    """How this server speaks: mode of those who name none; what live text is called; settings that live streams may
    have, where not any.
    """

    default_mode: Mode = "2pass"
    online_name: str = "2pass-online"
    chunks: tuple[ChunkConfig, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What the client's messages say; each may change some of it."""

    mode: Mode
    name: str = "wav-default-id"
    pcm: bool = True
    rate: int = 16_000
    chunk: ChunkConfig | None = None
    hotwords: tuple[str, ...] = ()
    confidences: bool = False
    """Not FunASR's: sentences come with how sure each word is, as this server's page shows it."""
    resumable: bool = False
    """Not FunASR's: the client can go on elsewhere if the connection or the server ends."""


def parsed(message: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError with what is wrong: too long, too deep, no JSON, or no object."""
    if len(message) > MOST_MESSAGE:
        raise ValueError("the message is longer than 64 kB")
    if message.strip() == "START":
        raise ValueError("this is FunASR's WebSocket protocol, not funasr-realtime")
    values = heard(message)
    if not isinstance(values, dict):
        raise ValueError("the message is not a JSON object")  # noqa: TRY004  one kind of error for all that is wrong
    return values


def changed(settings: Settings, values: Mapping[str, Any], dialect: Dialect) -> Settings:
    """Settings after a message. Raises Refused for a value that cannot be used; keys that nobody knows are ignored."""
    readers: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
        "mode": ("mode", _mode),
        "wav_name": ("name", _name),
        "wav_format": ("pcm", _is_pcm),
        "audio_fs": ("rate", _rate),
        "hotwords": ("hotwords", hotwords),
        "confidences": ("confidences", lambda value: value is True),
        "resumable": ("resumable", lambda value: value is True),
    }
    for key in ("is_speaking", "is_finished", "is_end"):
        if not isinstance(values.get(key), bool | None):
            raise Refused(f"{key} must be true or false")
    changes = {name: read(values[key]) for key, (name, read) in readers.items() if values.get(key) is not None}
    if values.get("chunk_size") is not None:
        changes["chunk"] = _chunk(values, dialect)
    return replace(settings, **changes)


def resumed(values: Mapping[str, Any]) -> tuple[str, int] | None:
    """What a client wants to go on with, if that: a token, and the number of the last message that it has got."""
    token, heard = values.get("resume"), values.get("heard", 0)
    if token is None:
        return None
    if not isinstance(token, str) or type(heard) is not int:
        raise Refused("resume must be the text that came with kept, and heard the number of a message")
    return token, heard


def _mode(value: Any) -> Mode:
    """Unknown names are 2pass: one of FunASR's own clients says "office"."""
    if not isinstance(value, str):
        raise Refused("mode must be offline, online or 2pass")
    return next((mode for mode in MODES if mode == value), "2pass")


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("wav_name must be a text")
    return value[:MOST_NAME]


def _is_pcm(value: Any) -> bool:
    if not isinstance(value, str):
        raise Refused("wav_format must be a text such as pcm or wav")
    return value.lower() == "pcm"


def _rate(value: Any) -> int:
    """Hz; one of FunASR's clients sends it with a decimal point."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 4000 <= value <= 192_000 or value != int(value):
        raise Refused("audio_fs must be a rate from 4000 to 192000 Hz")
    return int(value)


def _chunk(values: Mapping[str, Any], dialect: Dialect) -> ChunkConfig | None:
    """[left, chunk, right], or their text "5,10,5"; None, the model's own setting, for those that are not offered."""
    sizes = values["chunk_size"]
    if isinstance(sizes, str):
        sizes = [int(part) if part.strip().isdecimal() and len(part) < 9 else part for part in sizes.split(",")]
    if not isinstance(sizes, list) or len(sizes) != 3 or not all(type(one) is int and 0 <= one <= 100 for one in sizes):
        raise Refused("chunk_size must be [left, chunk, right], whole numbers from 0 to 100")
    asked = tuple(sizes)
    known = [one for one in dialect.chunks if (one.left, one.chunk, one.right) == asked]
    if dialect.chunks:
        return known[0] if known else None
    try:
        return ChunkConfig(left=sizes[0], chunk=sizes[1], right=sizes[2])
    except ConfigError as error:
        raise Refused(f"chunk_size {sizes} cannot be: {error}"[:120]) from error


def hotwords(value: Any) -> tuple[str, ...]:
    """Words of a JSON object's text ({"word": weight}) or of plain text, between spaces or commas."""
    if not isinstance(value, str):
        raise Refused("hotwords must be a text")
    if len(value.encode(errors="replace")) > MOST_HOTWORD_BYTES:
        raise Refused("hotwords are longer than 10 kB")
    words = list(_weighted(value)) if value.lstrip().startswith(("{", "[")) else re.split(r"[\s,，]+", value)
    found = tuple(word for word in words if word)
    if len(found) > MOST_HOTWORDS:
        raise Refused(f"there are more than {MOST_HOTWORDS} hotwords")
    return found


def _weighted(value: str) -> Iterator[str]:
    """The words of {"word": weight}; a weight is a whole number or its digits."""
    try:
        words = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Refused("hotwords begin as JSON and are none") from error
    if not isinstance(words, dict):
        raise Refused('hotwords are {"word": weight} in a text, or words between spaces')
    for word, weight in words.items():
        if not (type(weight) is int or (isinstance(weight, str) and weight.isdecimal())):
            raise Refused("weights of hotwords must be whole numbers")
        yield word
