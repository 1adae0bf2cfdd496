"""What one key may have of this process: streams at a time, requests a minute, hours of audio a day."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from time import time

from paraformer.serve.config import Limits
from paraformer.serve.guard import Refusal

_DAY_S = 86_400


class Quotas:
    """Counts by key; 0 of a limit is no limit."""

    def __init__(self, limits: Limits, now: Callable[[], float] = time) -> None:
        self._limits, self._now = limits, now
        self._streams: Counter[str] = Counter()
        self._asked: dict[str, deque[float]] = {}
        self._heard_s: defaultdict[str, float] = defaultdict(float)
        self._day = 0

    def ask(self, key: str) -> None:
        """A request, or a handshake. Raises Refusal where the key has had all that it may have."""
        limits, now = self._limits, self._now()
        if limits.key_requests:
            recent = self._asked.setdefault(key, deque())
            while recent and recent[0] <= now - 60:
                recent.popleft()
            if len(recent) >= limits.key_requests:
                raise _refusal(f"this key has made {limits.key_requests} requests within a minute")
            recent.append(now)
        if limits.key_audio_h and self._today(key) >= 3600 * limits.key_audio_h:
            raise _refusal(f"this key has had its {limits.key_audio_h:g} hours of audio today")

    def sit(self, key: str) -> None:
        """A stream begins. Raises Refusal if the key has as many as it may have."""
        if self._limits.key_streams and self._streams[key] >= self._limits.key_streams:
            raise _refusal(f"this key has {self._limits.key_streams} streams open")
        self._streams[key] += 1

    def leave(self, key: str) -> None:
        """A stream is over."""
        self._streams[key] -= 1
        if not self._streams[key]:
            del self._streams[key]

    def hear(self, key: str, seconds: float) -> None:
        """So much audio was taken in."""
        self._today(key)
        self._heard_s[key] += seconds

    def _today(self, key: str) -> float:
        day = int(self._now() // _DAY_S)
        if day != self._day:
            self._day = day
            self._heard_s.clear()
        return self._heard_s[key]


def _refusal(message: str) -> Refusal:
    return Refusal(429, f"{message}; come back later", "rate_limit_exceeded")
