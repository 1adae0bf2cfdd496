"""What FunASR takes for audio: files, lists of files, their bytes, arrays, tensors; one or many."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from paraformer import audio
from paraformer.errors import AudioError, DataError

LISTS = (".scp", ".txt", ".text", ".json", ".jsonl")
"""Files that hold the paths of others."""
_FILES = re.compile(
    rb"RIFF|RIFX|RF64|riff|FORM|fLaC|OggS|ID3|\.snd|caff|wvpk|....ftyp|\x1a\x45\xdf\xa3|#!AMR|\x30\x26\xb2\x75|FLV\x01",
    re.DOTALL,
)
"""First bytes of audio files: wav, aiff, flac, ogg, mp3, au, caf, wavpack, mp4, webm, amr, wma, flv."""


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
    given = [keys] if isinstance(keys, str) else list(keys)
    if len(given) != len(found):
        raise DataError(f"{len(given)} keys for {len(found)} inputs; give one each, or leave key out")
    return [Named(key, entry.item) for key, entry in zip(given, found, strict=True)]


def _flat(source: Any) -> Iterator[Named]:
    if isinstance(source, str | os.PathLike):
        yield from _path(os.fspath(source))
    elif isinstance(source, list | tuple) and not is_samples(source):
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
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, a list of audio files, cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _listed(line, Path(path), number)


def _listed(line: str, where: Path, number: int) -> Named:
    """An entry of a list: "key path", "path", or {"key", "source"}; paths as they are or from the list's folder."""
    if where.suffix.lower() in (".json", ".jsonl"):
        try:
            values = json.loads(line)
            key, path = values.get("key", ""), values["source"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f'{where}, line {number}: not an object with "source", the path of audio') from error
    else:
        *before, path = line.strip().split(maxsplit=1)
        key = before[0] if before else ""
    beside = where.parent / str(path)
    return Named(str(key) or _stem(str(path)), str(beside if beside.is_file() and not Path(path).is_file() else path))


def _stem(name: object) -> str:
    return Path(name).stem if isinstance(name, str | os.PathLike) else ""


def is_samples(item: object) -> bool:
    """Whether a list is one of numbers, which are samples."""
    return isinstance(item, list | tuple) and bool(item) and all(isinstance(value, Real) for value in item)


def is_file(item: object) -> bool:
    """Whether this is a file, complete by itself: its path, its bytes, or itself."""
    if isinstance(item, bytes | bytearray | memoryview):
        return _is_sound(bytes(item))
    return isinstance(item, str | os.PathLike) or hasattr(item, "read")


def readable(item: Any, rate: int = audio.SAMPLE_RATE) -> str | BinaryIO | np.ndarray:
    """One input as a recogniser takes it; rate: Hz, of what is no file. Raises AudioError for what is no audio."""
    return _file(item) if is_file(item) else samples(item, rate)


def samples(item: Any, rate: int = audio.SAMPLE_RATE, *, within_stream: bool = False) -> np.ndarray:
    """One input as samples, 16 kHz: a file whole, an array or raw PCM at `rate` Hz.

    within_stream: bytes are raw PCM, whatever they begin with.
    """
    if isinstance(item, bytes | bytearray | memoryview) and (within_stream or not is_file(item)):
        return audio.from_array(audio.from_pcm16(bytes(item)), rate)
    if is_file(item):
        return audio.read(_file(item))
    if hasattr(item, "detach"):
        item = item.detach().cpu().numpy()
    if isinstance(item, np.ndarray) or is_samples(item):
        return audio.from_array(_numbers(item), rate)
    raise AudioError(
        f"{type(item).__name__} is no audio: pass a path, an open file, bytes, an array or tensor, or a list of these"
    )


def _file(item: Any) -> str | BinaryIO:
    """A path, or an open file at its start, where FunASR reads it from."""
    if isinstance(item, str | os.PathLike):
        return os.fspath(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return io.BytesIO(item)
    if isinstance(item, io.TextIOBase):
        raise AudioError(f"{getattr(item, 'name', 'the file')} is open as text; open it with mode 'rb'")
    if getattr(item, "seekable", lambda: False)():
        item.seek(0)
    opened: BinaryIO = item
    return opened


def _numbers(item: np.ndarray | Sequence[float]) -> np.ndarray:
    """Samples as an array; whole numbers are of 16 bits."""
    if isinstance(item, np.ndarray):
        return item
    whole = all(isinstance(value, Integral) for value in item)
    return np.array(item, np.int16 if whole and max(map(abs, item)) < 1 << 15 else np.float64)


def _is_sound(data: bytes) -> bool:
    """Whether bytes are those of an audio file, and not raw PCM: by their first ones."""
    return _FILES.match(data) is not None or _is_mp3(data)


_MPEG1 = 3
_BITRATES = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits a second, of MPEG 1 and of MPEG 2 and 2.5."""
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def _is_mp3(data: bytes) -> bool:
    """Whether three frames of MPEG layer III follow one another; what only begins like one is PCM."""
    at = 0
    for _ in range(3):
        length = _frame_length(data[at : at + 4])
        if not length:
            return at > 0 and at >= len(data)
        at += length
    return True


def _frame_length(header: bytes) -> int:
    """Bytes of the frame of layer III that begins with these four (ISO 11172-3, 2.4.1.3); 0 where none does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, bitrate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return 0
    bytes_a_kilobit = 144_000 if version == _MPEG1 else 72_000
    return bytes_a_kilobit * _BITRATES[version == _MPEG1][bitrate - 1] // _RATES[version][rate] + (header[2] >> 1 & 1)
