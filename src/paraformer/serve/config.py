"""Settings of a server: one frozen dataclass, from flags, environment and a TOML file."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from paraformer.errors import ConfigError
from paraformer.settings import check_choice, from_mapping

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PREFIX = "PARAFORMER_"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server takes; what is above is refused with the reason. Bytes, seconds, counts."""

    streams: int = 0
    """Live streams at a time; 0: as many as this machine was measured to carry."""
    jobs: int = 64
    """Files that are recognised or wait; more are refused with 503."""
    wait_s: float = 30.0
    """A file waits no longer than this for its turn."""
    upload: int = 512 << 20
    audio_s: float = 6 * 3600.0
    decode_s: float = 600.0
    """Processor time of the process that decodes one upload."""
    decode_bytes: int = 2 << 30
    """Its memory."""
    message: int = 20 << 20
    messages_per_s: float = 400.0
    backlog_s: float = 30.0
    """Audio of a live stream that has come and is not recognised: then its socket is read no more for a while."""
    pause_s: float = 10.0
    """How long, before the connection is closed."""
    unsent: int = 1 << 20
    """Bytes that a client leaves unread before it is dropped."""
    session_s: float = 2 * 3600.0
    idle_s: float = 60.0
    first_s: float = 10.0
    """Until a request's headers are complete, or a WebSocket's first message has come."""
    kept: int = 1 << 30
    """Bytes of streams that wait to be taken up; the oldest make room."""
    key_streams: int = 0
    """Of one key at a time, in each worker; 0 here and below: as many as there is room for."""
    key_requests: int = 0
    """Of one key, handshakes included, within a minute."""
    key_audio_h: float = 0.0
    """Of one key, within a day."""
    slowest: int = 1024
    """Bytes a second of a body, over half a minute."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """How a server listens, what it lets in, and what it recognises with."""

    host: str = "127.0.0.1"
    port: int = 10095
    admin_host: str = "127.0.0.1"
    admin_port: int = 10096
    wyoming_port: int = 0
    """0: no Wyoming door."""
    model: str = ""
    threads: int = 1
    workers: int = 1
    keys: str = ""
    """File of keys, or of their SHA-256, one a line."""
    certfile: str = ""
    keyfile: str = ""
    origins: tuple[str, ...] = ()
    """Whose pages may connect, beside this server's own."""
    hosts: tuple[str, ...] = ()
    """Names by which this server may be called on loopback, beside localhost."""
    mode: str = "2pass"
    """Of FunASR's clients that name none."""
    online_name: str = "2pass-online"
    aliases: tuple[str, ...] = (
        "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe", "gpt-4o-transcribe-diarize",
    )  # fmt: skip
    """Names of OpenAI's models that stand for this server's."""
    drain_s: float = 60.0
    resume_s: float = 60.0
    """How long a stream that was cut off can be taken up again."""
    keep_s: float = 10.0
    """Of audio, after which a stream whose client could take it up elsewhere is saved again."""
    state: str = ""
    """Directory of streams that wait to be taken up, which other servers may share; empty: one of this server's own,
    gone with it.
    """
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_choice(self.mode, ("offline", "online", "2pass"), "serve.mode")
        for name in ("port", "admin_port", "wyoming_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ConfigError(f"serve.{name} must be from 0 to 65535, not {getattr(self, name)}")
        if self.workers < 1:
            raise ConfigError(f"serve.workers must be at least 1, not {self.workers}")
        if bool(self.certfile) != bool(self.keyfile):
            raise ConfigError("TLS needs both a certificate and its key: --certfile FILE --keyfile FILE")
        if not self.loopback and not self.keys:
            raise ConfigError(
                f"on {self.host} others can reach this server, so it needs keys: --keys FILE, a key a line; "
                "without keys it listens on 127.0.0.1 only"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK


def read_config(
    flags: Mapping[str, Any], file: Path | None = None, environment: Mapping[str, str] = os.environ
) -> ServeConfig:
    """Settings from a TOML file, over them PARAFORMER_* of the environment, over these what flags say.

    Limits are in a table [limits] and in PARAFORMER_LIMITS_*. Raises ConfigError for what is unknown or impossible.
    """
    values: dict[str, Any] = _toml(file) if file is not None else {}
    limits = dict(values.pop("limits", {}))
    limits |= _from_environment(Limits, PREFIX + "LIMITS_", environment) | dict(flags.get("limits", {}))
    values |= _from_environment(ServeConfig, PREFIX, environment)
    values |= {name: value for name, value in flags.items() if name != "limits"}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return from_mapping(ServeConfig, {**values, "limits": from_mapping(Limits, limits, "serve.limits")}, "serve")


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error


def _from_environment(cls: type, prefix: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a dataclass that the environment names, as their types."""
    hints = get_type_hints(cls)
    names = {prefix + field.name.upper(): field.name for field in dataclasses.fields(cls) if field.name != "limits"}
    return {names[key]: _typed(value, hints[names[key]], key) for key, value in environment.items() if key in names}


def _typed(text: str, hint: Any, name: str) -> Any:
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError as error:
            raise ConfigError(f"{name} must be a number, not {text!r:.60}") from error
    return text if hint is str else tuple(part.strip() for part in text.split(",") if part.strip())
