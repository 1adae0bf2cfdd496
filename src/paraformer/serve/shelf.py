"""Streams that wait to be taken up again, for a while, as files that other processes see too."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from pathlib import Path
from time import time

from paraformer.errors import SessionError
from paraformer.serve.protocol import Saved, StreamOptions


class Shelf:
    """A private directory. Its methods may be called in any thread, and take as long as the disk does."""

    def __init__(self, directory: Path, keep_s: float, most: int) -> None:
        """keep_s: how long a stream is kept after it was last saved; most: bytes, above which the oldest make room."""
        self._directory, self._keep_s, self._most = directory, keep_s, most
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @staticmethod
    def token() -> str:
        """A new name that nobody can guess."""
        return secrets.token_hex(24)

    def put(self, token: str, saved: Saved) -> None:
        """Keep a stream, in the place of what was kept under this name. Raises OSError where there is no room."""
        head = {
            "samples": saved.samples,
            "notes": saved.notes,
            "options": {**asdict(saved.options), "chunk": None},
        }
        described = json.dumps(head).encode()
        self._make_room(len(saved.session))
        part = self._directory / f"{token}.{secrets.token_hex(4)}.part"
        try:
            part.touch(mode=0o600)
            part.write_bytes(len(described).to_bytes(4, "little") + described + saved.session)
            part.replace(self._directory / f"{token}.stream")
        finally:
            part.unlink(missing_ok=True)

    def find(self, token: str) -> Saved | None:
        """What is kept under this name, None if there is nothing any more. Raises SessionError if it is damaged."""
        if not is_token(token):
            return None
        file = self._directory / f"{token}.stream"
        try:
            if file.stat().st_mtime < time() - self._keep_s:
                return None
            data = file.read_bytes()
        except OSError:
            return None
        size = 4 + int.from_bytes(data[:4], "little")
        try:
            head = json.loads(data[4:size])
            options = StreamOptions(**{**head["options"], "hotwords": tuple(head["options"]["hotwords"])})
            return Saved(data[size:], head["samples"], options, head["notes"])
        except (ValueError, KeyError, TypeError) as error:
            raise SessionError("the stream that was kept is damaged; begin a new one") from error

    def _make_room(self, size: int) -> None:
        """Forget what has been kept for too long, and the oldest where there would be too much."""
        known = []
        for file in self._directory.iterdir():
            try:
                state = file.stat()
            except OSError:
                continue
            known.append((state.st_mtime, state.st_size, file))
        oldest = time() - self._keep_s
        for changed, length, file in sorted(known, reverse=True):
            size += length
            if changed < oldest or size > self._most:
                file.unlink(missing_ok=True)


def is_token(text: str) -> bool:
    """Whether this may be a name of what is kept: nothing else ever becomes a part of a path."""
    return len(text) == 48 and set(text) <= set("0123456789abcdef")
