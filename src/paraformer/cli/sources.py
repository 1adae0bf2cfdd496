"""What is to be recognised: files, patterns that the shell left alone, standard input, headerless PCM."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from paraformer import audio
from paraformer.audio import Samples
from paraformer.cli.live import PIECE
from paraformer.errors import AudioError
from paraformer.paths import is_file

if TYPE_CHECKING:
    from typing_extensions import Buffer


OnRead = Callable[[int], object]

STDIN = "-"
HEADERLESS = (".pcm", ".raw")
"""What the library knows by its name alone."""


def expand(patterns: Sequence[str]) -> list[str]:
    """File names of the patterns, in order and each once; one that matches nothing stays, to be reported as missing."""
    once: dict[str | object, str] = {}
    for name in (name for pattern in patterns for name in _matches(pattern)):
        place = object() if name == STDIN else os.path.abspath(name)  # noqa: PTH100  links are kept apart
        once.setdefault(place, name)
    return list(once.values())


def _matches(pattern: str) -> list[str]:
    if not has_magic(pattern) or Path(pattern).exists():
        return [pattern]
    return sorted(glob(pattern, recursive=True)) or [pattern]


def size(name: str) -> int:
    """Bytes of an input; 0 where that is not known."""
    return Path(name).stat().st_size if is_file(Path(name)) else 0


@contextmanager
def opened(name: str, on_read: OnRead | None) -> Iterator[Path | BinaryIO]:
    """What the library reads for one input; on_read is told how many bytes further the reading has come."""
    if name == STDIN:
        if sys.stdin is None:
            raise AudioError("standard input is closed; name a file, or send the audio to it")
        # Not through a buffer, whose lock a thread that waits for more would hold when the process ends.
        yield getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    elif not name:
        raise AudioError("an empty name names no file")
    elif on_read is None or Path(name).suffix.lower() in HEADERLESS:
        yield Path(name)
    else:
        with _Watched(name, on_read) as file:
            yield file


class _Watched(io.FileIO):
    """A file that tells how far it has been read."""

    def __init__(self, name: str, on_read: OnRead) -> None:
        super().__init__(name, "rb")
        self._on_read = on_read
        self._furthest = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._tell()
        return data

    def readinto(self, buffer: Buffer) -> int:
        count = super().readinto(buffer)
        self._tell()
        return count

    def _tell(self) -> None:
        place = self.tell()
        if place > self._furthest:
            self._on_read(place - self._furthest)
            self._furthest = place


def whole(source: Path | BinaryIO, raw_rate: int | None) -> Path | BinaryIO | Samples:
    """What a recogniser takes for one input."""
    return source if raw_rate is None else np.concatenate([np.zeros(0, np.float32), *pieces(source, raw_rate)])


def pieces(source: Path | BinaryIO, raw_rate: int | None, channel: audio.Channel = "mix") -> Iterator[Samples]:
    """One input as a live source delivers it, 600 ms at a time, each as soon as it has come."""
    if raw_rate is None:
        yield from audio.read_blocks(source, PIECE / audio.SAMPLE_RATE, channel=channel)
        return
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        yield from audio.pcm16_blocks(file, raw_rate, block_s=PIECE / audio.SAMPLE_RATE)
