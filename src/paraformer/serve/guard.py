"""What must not come in: strangers without a key, other sites' pages, other names of this machine, endless requests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from time import monotonic, time
from typing import Any

from paraformer.errors import ConfigError
from paraformer.serve.config import LOOPBACK, ServeConfig

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY_PROTOCOL = "openai-insecure-api-key."
"""Browsers cannot send headers with a WebSocket: they name their key as a subprotocol, which is never answered."""
OPEN = ("/", "/page.js", "/worklet.js", "/page.css", "/health")
"""What is given to whoever asks: it holds nothing of anybody."""
OWNER = "paraformer.owner"
"""Where a scope says whose key was shown."""
_SECRET_S = 60
_BODY_S = 30.0
"""A body may rest for so long, and is not judged by its speed before."""


class Keys:
    """Who may come in. Only digests are kept; all are compared, in constant time."""

    def __init__(self, file: Path | None, secret: bytes | None = None) -> None:
        """file: keys or "sha256:HEX" of keys, one a line; None: everybody may. secret: signs keys that last a minute.

        Raises ConfigError for a file without a key.
        """
        self._file, self._secret = file, secret or secrets.token_bytes(32)
        self._used: dict[str, float] = {}
        self._digests: tuple[bytes, ...] = ()
        self.reload()

    def reload(self) -> None:
        """Read the file again; where it cannot be used, raises ConfigError and the old keys stay."""
        if self._file is None:
            return
        try:
            lines = self._file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the keys cannot be read from {self._file}: {error}") from error
        digests = tuple(_digest(line) for line in map(str.strip, lines) if line and not line.startswith("#"))
        if not digests:
            raise ConfigError(f"{self._file} holds no key; write one a line, e.g. from `openssl rand -hex 24`")
        self._digests = digests

    def owner(self, key: str) -> str | None:
        """Whose key this is, as a part of its digest; also where it was made for a minute and has not been used.

        None: nobody's. Where everybody may come in, all are one.
        """
        if self._file is None:
            return ""
        digest = hashlib.sha256(key.encode(errors="replace")).digest()
        found = [hmac.compare_digest(digest, one) for one in self._digests]
        if any(found):
            return digest.hex()[:16]
        return self._lent_by(key) if key.startswith("ek_") else None

    def lend(self, owner: str) -> tuple[str, int]:
        """A key for one use within a minute, counted as its owner's, and when it ends, in seconds of the epoch."""
        until = int(time()) + _SECRET_S
        body = f"{until}.{owner}.{secrets.token_hex(8)}"
        return f"ek_{body}.{self._signed(body)}", until

    def _lent_by(self, key: str) -> str | None:
        body, _, signature = key.removeprefix("ek_").rpartition(".")
        until, _, rest = body.partition(".")
        genuine = hmac.compare_digest(signature.encode(errors="replace"), self._signed(body).encode())
        now = time()
        if not genuine or not until.isdecimal() or int(until) < now or body in self._used:
            return None
        self._used = {one: end for one, end in self._used.items() if end >= now} | {body: float(until)}
        return rest.partition(".")[0]

    def _signed(self, body: str) -> str:
        digest = hmac.new(self._secret, body.encode(errors="replace"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _digest(line: str) -> bytes:
    """Of a key, or as it stands in the file."""
    kind, _, digest = line.partition(":")
    if kind != "sha256":
        return hashlib.sha256(line.encode()).digest()
    try:
        return bytes.fromhex(digest)
    except ValueError as error:
        raise ConfigError("a line of the keys begins with sha256: and no 64 hexadecimal digits follow") from error


class Refusal(Exception):
    """A request that goes no further, in OpenAI's words."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, *, ends: bool = False
    ) -> None:
        """ends: the connection with it, since what still comes on it is not wanted."""
        super().__init__(message)
        self.status, self.code, self.param, self._ends = status, code, param, ends

    @property
    def kind(self) -> str:
        """OpenAI's `type`."""
        return {429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )

    def body(self) -> bytes:
        """As OpenAI's clients read it."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=False).encode()

    def headers(self) -> dict[str, str]:
        """Beside the body's."""
        more = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}, 429: {"Retry-After": "1"}}
        end = {"Connection": "close"} if self._ends else {}
        return {"Content-Type": "application/json", **more.get(self.status, {}), **end}


class Guard:
    """Stands before the doors: HTTP requests and WebSocket handshakes pass, or get their refusal before any work."""

    def __init__(
        self,
        app: App,
        config: ServeConfig,
        keys: Keys,
        ask: Callable[[str], None],
        refused: Callable[[str], None],
    ) -> None:
        """ask: is told whose request comes, and may raise Refusal; refused: of each refusal's reason, a word."""
        self._app, self._config, self._keys, self._ask, self._refused = app, config, keys, ask, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then let in."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
            bounded = _Bounded(self._config, receive) if scope["type"] == "http" else receive
            await self._app(scope, bounded, send)
        except Refusal as refusal:
            self._refused(refusal.code or str(refusal.status))
            await refuse(scope, send, refusal)

    def _check(self, scope: Scope) -> None:
        headers = _headers(scope)
        host = _name(headers.get("host", ""))
        if self._config.loopback and host not in (*LOOPBACK, "[::1]", *self._config.hosts):
            raise Refusal(421, "this server is not called by that name; see --allow-host", "misdirected")
        origin = headers.get("origin")
        if origin is not None and not self._same(origin, headers.get("host", "")):
            raise Refusal(403, "pages of this origin may not connect; see --allow-origin", "origin")
        if scope["type"] == "http" and scope["path"] in OPEN:
            return
        owners = (self._keys.owner(key) for key in _offered(scope, headers))
        owner = next((one for one in owners if one is not None), None)
        if owner is None:
            raise Refusal(401, "a key is needed, and this is none; send it as Authorization: Bearer", "invalid_api_key")
        self._ask(owner)
        scope[OWNER] = owner

    def _same(self, origin: str, host: str) -> bool:
        return (host != "" and origin.partition("://")[2] == host) or origin in self._config.origins


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and ":" in host else host


def _offered(scope: Scope, headers: dict[str, str]) -> Iterator[str]:
    """The keys that a request shows; an empty one where it shows none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower().rstrip(";") == "bearer":
        yield key.strip()
    if "api-key" in headers:
        yield headers["api-key"]
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith(KEY_PROTOCOL):
            yield protocol.removeprefix(KEY_PROTOCOL)
    yield ""


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer a request, or a handshake that was not accepted, with a refusal."""
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers().items()]
    body = refusal.body()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": [*headers, length]})
    await send({"type": f"{kind}.body", "body": body})


class _Bounded:
    """A body that is counted while it comes: too large, or too slow, and the request is refused."""

    def __init__(self, config: ServeConfig, receive: Receive) -> None:
        self._limits, self._receive = config.limits, receive
        self._size, self._began = 0, monotonic()

    async def __call__(self) -> Message:
        import asyncio

        try:
            message = await asyncio.wait_for(self._receive(), _BODY_S if self._size >= 0 else None)
        except TimeoutError as error:
            raise Refusal(408, "the request's body does not come", "timeout", ends=True) from error
        if message["type"] != "http.request":
            return message
        self._size += len(message.get("body", b""))
        if self._size > self._limits.upload + (64 << 10):
            raise Refusal(
                413, f"the request is larger than {self._limits.upload} bytes", "too_large", "file", ends=True
            )
        took = monotonic() - self._began
        if message.get("more_body") and took > _BODY_S and self._size < took * self._limits.slowest:
            raise Refusal(408, "the request's body comes too slowly", "timeout", ends=True)
        if not message.get("more_body"):
            self._size = -(1 << 62)  # all has come: from here on only the client's leaving is waited for
        return message
