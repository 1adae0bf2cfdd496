"""What FunASR takes for audio: files, lists of files, their bytes, arrays, tensors; one or many."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from paraformer import audio
from paraformer.errors import AudioError, DataError
from paraformer.manifests import lines
from paraformer.paths import is_file

LISTS = (".scp", ".txt", ".text", ".json", ".jsonl")
"""Files that hold the paths of others."""


class Tensor(Protocol):
    """As torch's, which this package need not have."""

    def detach(self) -> Any:
        """The same without its history."""


Input = str | os.PathLike[str] | bytes | BinaryIO | np.ndarray | Tensor | Sequence[float]
"""One input: a path, the bytes of a file or of 16-bit PCM, an open binary file, or samples in [-1, 1] or of 16 bits."""


@dataclass(frozen=True)
class Named:
    """One input and what its result is called."""

    key: str
    item: Any


def named(source: Any, keys: str | Sequence[str] | None = None) -> list[Named]:
    """All inputs that `source` means: one, a list of them, lists within it in order, or those that a file lists.

    Raises AudioError for an address, DataError for a list that cannot be read.
    """
    found = [Named(entry.key or f"audio{n}", entry.item) for n, entry in enumerate(_flat(source))]
    if keys is None:
        return found
    given = [keys] if isinstance(keys, str) else keys
    if not isinstance(given, list | tuple) or not all(isinstance(key, str) for key in given):
        raise DataError(f"key must be the name of a result or a list of such, not {keys!r:.60}")
    if len(given) != len(found):
        raise DataError(f"{len(given)} keys for {len(found)} inputs; give one each, or leave key out")
    return [Named(key, entry.item) for key, entry in zip(given, found, strict=True)]


def _flat(source: Any) -> Iterator[Named]:
    if isinstance(source, str | os.PathLike):
        yield from _path(os.fspath(source))
    elif isinstance(source, list | tuple) and not audio.is_samples(source):
        for item in source:
            yield from _flat(item)
    else:
        yield Named(_stem(getattr(source, "name", "")), source)


def _path(path: str) -> Iterator[Named]:
    if path.startswith(("http://", "https://")):
        raise AudioError(f"{path} is an address; nothing is fetched from the network: download it, and pass the file")
    if Path(path).suffix.lower() not in LISTS:
        yield Named(_stem(path), path)
        return
    for number, line in lines(Path(path)):
        yield _listed(line, Path(path), number)


def _listed(line: str, where: Path, number: int) -> Named:
    """An entry of a list: "key path", "path", or {"key", "source"}; paths as they are or from the list's folder."""
    if where.suffix.lower() in (".json", ".jsonl"):
        try:
            values = json.loads(line)
            key, path = values.get("key"), values["source"]
            if not isinstance(path, str) or not path.strip():
                raise TypeError("no path")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f'{where}, line {number}: not an object with "source", the path of audio') from error
    else:
        *before, path = line.strip().split(maxsplit=1)
        key = before[0] if before else ""
    beside = where.parent / path
    return Named(str(key or "") or _stem(path), str(beside if is_file(beside) and not is_file(Path(path)) else path))


def _stem(name: object) -> str:
    return Path(name).stem if isinstance(name, str | os.PathLike) else ""


def is_complete_file(item: object) -> bool:
    """Whether this is a file, complete by itself: its path, its bytes, or itself."""
    if audio.is_bytes(item):
        return audio.is_file_content(bytes(item))
    return isinstance(item, str | os.PathLike) or hasattr(item, "read")


def readable(item: Any, rate: int = audio.SAMPLE_RATE) -> str | BinaryIO | np.ndarray:
    """One input as a recogniser takes it; rate: Hz, of what is no file. Raises AudioError for what is no audio."""
    return _file(item) if is_complete_file(item) else samples(item, rate)


def samples(item: Any, rate: int = audio.SAMPLE_RATE, *, within_stream: bool = False) -> np.ndarray:
    """One input as samples, 16 kHz: a file whole, an array or raw PCM at `rate` Hz.

    within_stream: bytes are raw PCM, whatever they begin with.
    """
    if audio.is_bytes(item) and (within_stream or not is_complete_file(item)):
        return audio.from_array(audio.from_pcm16(bytes(item)), rate)
    if is_complete_file(item):
        return audio.read(_file(item))
    return audio.from_array(*audio.with_rate(item, rate))


def _file(item: Any) -> str | BinaryIO:
    """A path, or an open file at its start, where FunASR reads it from."""
    if isinstance(item, str | os.PathLike):
        return os.fspath(item)
    if audio.is_bytes(item):
        return io.BytesIO(item)
    if isinstance(item, io.TextIOBase):
        raise AudioError(f"{getattr(item, 'name', 'the file')} is open as text; open it with mode 'rb'")
    if getattr(item, "closed", False):
        raise AudioError(f"{getattr(item, 'name', 'the file')} is closed; pass it open, or its path")
    if getattr(item, "seekable", lambda: False)():
        item.seek(0)
    opened: BinaryIO = item
    return opened
