"""Settings of OpenAI's Realtime sessions, in the spelling of today and in the beta's flat one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from paraformer.serve.protocol import MOST_HOTWORDS, Packet

RATES = (8000, 16_000, 24_000, 48_000)
_TURNS = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
_FLAT_FORMATS = {"pcm16": ("audio/pcm", 24_000), "g711_ulaw": ("audio/pcmu", 8000), "g711_alaw": ("audio/pcma", 8000)}
_FLAT_NAMES = {
    "input_audio_transcription": "transcription",
    "turn_detection": "turn_detection",
    "input_audio_noise_reduction": "noise_reduction",
}


class Refused(Exception):
    """What a client's event asks for and cannot have."""

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


@dataclass
class Session:
    """What the client may set."""

    encoding: str = "audio/pcm"
    rate: int = 24_000
    transcription: dict[str, Any] | None = None
    turns: dict[str, Any] | None = field(default_factory=lambda: dict(_TURNS))
    noise_reduction: Any = None
    include: list[str] | None = None

    @property
    def hotwords(self) -> tuple[str, ...]:
        """What may be said."""
        words = (self.transcription or {}).get("keywords") or []
        return tuple(word for word in words if isinstance(word, str))[:MOST_HOTWORDS] if isinstance(words, list) else ()

    @property
    def pause_s(self) -> float:
        """Silence that ends a turn."""
        silence = (self.turns or _TURNS).get("silence_duration_ms", 500)
        return min(5000, max(100, silence)) / 1000 if isinstance(silence, int | float) else 0.5

    def update(self, values: Any) -> None:
        """Change what is named, in either spelling. Raises Refused, and nothing changes, for what cannot be."""
        if not isinstance(values, dict):
            raise Refused("session must be an object", param="session")
        named = _named(values)
        encoding = _format(named["format"]) if "format" in named else _flat_format(values.get("input_audio_format"))
        turns = _turns(named["turn_detection"]) if "turn_detection" in named else self.turns
        transcription = named.get("transcription", self.transcription)
        if not isinstance(transcription, dict | None):
            raise Refused("transcription must be an object", param="session.audio.input.transcription")
        include = values.get("include", self.include)
        self.turns, self.transcription = turns, transcription
        self.noise_reduction = named.get("noise_reduction", self.noise_reduction)
        self.include = include if isinstance(include, list) else None
        if encoding is not None:
            self.encoding, self.rate = encoding

    def flat(self) -> dict[str, Any]:
        """As the beta spells it."""
        return {
            "input_audio_format": {new[0]: old for old, new in _FLAT_FORMATS.items()}[self.encoding],
            "input_audio_transcription": self.transcription,
            "turn_detection": self.turns,
            "input_audio_noise_reduction": self.noise_reduction,
            "include": self.include,
        }

    def nested(self) -> dict[str, Any]:
        """As it is spelled now."""
        form = {"type": self.encoding} | ({"rate": self.rate} if self.encoding == "audio/pcm" else {})
        heard = {
            "format": form,
            "transcription": self.transcription,
            "noise_reduction": self.noise_reduction,
            "turn_detection": self.turns,
        }
        return {"type": "transcription", "audio": {"input": heard}, "include": self.include}


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """What an update names, in the names of today."""
    heard = values.get("audio", {})
    heard = heard.get("input", {}) if isinstance(heard, dict) else None
    if not isinstance(heard, dict):
        raise Refused("session.audio.input must be an object", param="session.audio")
    if values.get("type") == "realtime" and not heard:
        raise Refused("this server transcribes: the session's type is transcription", param="session.type")
    return {new: values[old] for old, new in _FLAT_NAMES.items() if old in values} | dict(heard)


def _format(value: Any) -> tuple[str, int]:
    """{"type": "audio/pcm", "rate": 24000} and the like."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("audio/pcmu", "audio/pcma"):
        return kind, 8000
    rate = value.get("rate", 24_000) if isinstance(value, dict) else None
    if kind != "audio/pcm" or rate not in RATES:
        known = ", ".join(map(str, RATES))
        raise Refused(
            f"format must be audio/pcm at {known} Hz, audio/pcmu or audio/pcma", param="session.audio.input.format"
        )
    return kind, int(rate)


def _flat_format(value: Any) -> tuple[str, int] | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in _FLAT_FORMATS:
        raise Refused("input_audio_format must be pcm16, g711_ulaw or g711_alaw", param="session.input_audio_format")
    return _FLAT_FORMATS[value]


def _turns(value: Any) -> dict[str, Any] | None:
    """Who decides where a turn ends: None, the client; semantic_vad is as server_vad here."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("type") not in ("server_vad", "semantic_vad"):
        raise Refused("turn_detection must be null or server_vad", param="session.audio.input.turn_detection")
    return {**_TURNS, **value, "type": "server_vad"}


def g711(encoding: str, data: bytes) -> Packet:
    """Samples of bytes in mu-law or A-law."""
    return _table(encoding)[np.frombuffer(data, np.uint8)]


@cache
def _table(encoding: str) -> np.ndarray:
    """The 256 samples of G.711: mu-law or A-law (ITU-T G.711, tables 2a and 1a)."""
    code = np.arange(256)
    if encoding == "audio/pcmu":
        code = ~code & 0xFF
        exponent, mantissa = code >> 4 & 7, code & 15
        size = ((mantissa << 3) + 0x84 << exponent) - 0x84
        return np.where(code & 0x80, -size, size).astype(np.int16)
    code = code ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    size = np.where(exponent == 0, (mantissa << 4) + 8, (mantissa << 4) + 0x108 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, size, -size).astype(np.int16)
