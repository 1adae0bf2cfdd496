"""The bytes of what is to be decoded: files, open files, and streams that come but once."""

from __future__ import annotations

import io
import os
import re
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from paraformer.errors import AudioError, AudioNotFound

Source = str | os.PathLike[str] | BinaryIO
"""A path, or an open binary file: seekable or not (standard input)."""

_IN_MEMORY = 32 << 20
"""Bytes of an unseekable stream kept in memory; what exceeds them goes to a temporary file."""
_FAR = 1 << 62
"""Where a stream pretends to end while it has not."""


def name_of(source: object) -> str:
    """The source, for messages."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else "the audio stream"


def opened(source: Source, stack: ExitStack) -> ByteSource:
    """The bytes of a source, from where an open file stands; the stack closes what was opened. Raises AudioError."""
    name = name_of(source)
    if isinstance(source, str | os.PathLike):
        file: Any = stack.enter_context(_open_path(source))
    else:
        file = source
        _check_open(file, name)
    if _seekable(file):
        return Seekable(file, name)
    return OneWay(file, name, stack)


def _check_open(file: Any, name: str) -> None:
    """Raises AudioError for open files that do not give bytes."""
    if getattr(file, "closed", False):
        raise AudioError(f"{name} is closed; pass it open, or its path")
    if isinstance(file, io.TextIOBase):
        raise AudioError(f"{name} is open as text; open it with mode 'rb'")
    if isinstance(file, io.IOBase) and not file.readable():
        raise AudioError(f"{name} is open for writing only; open it with mode 'rb'")


def _open_path(name: str | os.PathLike[str]) -> BinaryIO:
    if not os.fspath(name):
        raise AudioError("an empty name names no file")
    path = Path(name)
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(name)):  # a Path has lost one of the slashes
            raise AudioNotFound(f"{name} is an address and not a file; download it, and name the file") from error
        raise AudioNotFound(f"there is no file {path}; check the name") from error
    except IsADirectoryError as error:
        raise AudioError(f"{path} is a directory; name the audio files in it") from error
    except (OSError, ValueError) as error:
        raise AudioError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _seekable(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except AttributeError:
        return False


class ByteSource(ABC):
    """What decoders written in C read: no call of theirs ever fails. What failed is raised by `check`.

    An exception in a callback would be printed and forgotten there, a KeyboardInterrupt too.
    """

    start = 0
    """Where the source stood when it was passed, bytes from the front of an open file."""

    def __init__(self, file: Any, name: str) -> None:
        self.name = name
        self._file = file
        self._place = 0
        self._failure: BaseException | None = None
        self._mended: tuple[int, bytes] | None = None

    @abstractmethod
    def read(self, size: int) -> bytes:
        """size bytes, fewer only at the end."""

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes; returns how many."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    @abstractmethod
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, at earliest the start; returns it."""

    @abstractmethod
    def seekable(self) -> bool:
        """Whether its end is known, so that one can go there."""

    def check(self) -> None:
        """Raise what failed on the way: as AudioError, unless it is no fault of the source."""
        failure, self._failure = self._failure, None
        if failure is None:
            return
        if not isinstance(failure, Exception) or isinstance(failure, MemoryError | AudioError):
            raise failure
        reason = getattr(failure, "strerror", None) or str(failure).split("\n")[0] or type(failure).__name__
        raise AudioError(f"{self.name} cannot be read: {reason}") from failure

    @property
    def emptiness(self) -> str:
        """What to say where there is nothing to read."""
        return "is empty (0 bytes)"

    def tell(self) -> int:
        """Bytes from the start to where the next read begins."""
        return self._place

    def mend(self, place: int, data: bytes) -> None:
        """Let these bytes be read at a place, instead of those that are there."""
        self._mended = place, data

    def _as_mended(self, place: int, data: bytes) -> bytes:
        """What has been read from a place on, with what is mended of it."""
        if self._mended is None or place >= self._mended[0] + len(self._mended[1]):
            return data
        changed = bytearray(data)
        for at, value in enumerate(self._mended[1], self._mended[0] - place):
            if 0 <= at < len(data):
                changed[at] = value
        return bytes(changed)

    def _get(self, size: int, *, some: bool = False) -> bytes:
        """size bytes of the file, fewer at its end; some: as few as there are at once."""
        if self._failure is not None:
            return b""
        read = getattr(self._file, "read1", self._file.read) if some else self._file.read
        data = b""
        try:
            data = self._bytes(read(size))
            while not some and data and len(data) < size and (more := self._bytes(read(size - len(data)))):
                data += more
        except BaseException as error:  # noqa: BLE001  `check` raises it
            self._failure = error
        return data

    def _bytes(self, part: object) -> bytes:
        if isinstance(part, bytes):
            return part
        if isinstance(part, bytearray | memoryview):
            return bytes(part)
        raise AudioError(
            f"{self.name} gives {type(part).__name__} and not bytes; pass a file that is open with mode 'rb' and waits "
            "for its data"
        )


class Seekable(ByteSource):
    """An open file; places count from where it stood when it was passed."""

    def __init__(self, file: Any, name: str) -> None:
        super().__init__(file, name)
        try:
            self.start = int(file.tell())
        except AudioError:  # of a file that knows what is wrong with it
            raise
        except (OSError, ValueError) as error:
            raise AudioError(f"{name} cannot be read: {error}") from error

    @property
    def emptiness(self) -> str:
        """What to say where there is nothing to read: perhaps only from here on."""
        return "has been read to its end: seek(0) before passing it" if self.start else super().emptiness

    def seekable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int) -> bytes:
        """size bytes, fewer only at the end."""
        data = self._as_mended(self._place, self._get(size))
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, at earliest the start."""
        try:
            here = {os.SEEK_SET: self.start, os.SEEK_CUR: self.start + self._place}
            end = self._file.seek(0, os.SEEK_END) if whence == os.SEEK_END else here[whence]
            self._place = max(0, end + offset - self.start)
            self._file.seek(self.start + self._place)
        except BaseException as error:  # noqa: BLE001  `check` raises it
            self._failure = self._failure or error
        return self._place


class OneWay(ByteSource):
    """A stream that comes but once, as standard input does, decoded while it comes.

    What has come is kept until `let_go`, and can be read again. Beyond it nothing is waited for: whoever seeks there,
    as for what may follow the sound, finds the end of the file.
    """

    def __init__(self, file: Any, name: str, stack: ExitStack) -> None:
        super().__init__(file, name)
        self._kept = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115
        self._keeping = True
        self._kept_to = self._come = 0
        self._over = False

    def seekable(self) -> bool:
        """Whether all of it has come."""
        return self._over and self._keeping

    def read(self, size: int) -> bytes:
        """size bytes, fewer only at the end."""
        return self._read(size, some=False)

    def some(self, size: int) -> bytes:
        """At most size bytes, as soon as there are any; none at the end."""
        return self._read(size, some=True)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; the end is far away until it has come."""
        end = self._come if self._over else _FAR
        here = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: end}
        self._place = max(0, here[whence] + offset)
        return self._place

    def take_all(self) -> None:
        """Wait for all of it, and go to its start."""
        self._place = self._come
        while self.read(1 << 16):
            pass
        self._place = 0

    def copied(self) -> BinaryIO:
        """All of it in memory, which outlives the stack."""
        self.take_all()
        self.check()
        return io.BytesIO(self.read(self._come))

    def let_go(self) -> None:
        """Keep no more: from here on, reading goes forward only."""
        self._keeping = False

    def _read(self, size: int, *, some: bool) -> bytes:
        place = self._place
        return self._as_mended(place, self._next(size, some=some))

    def _next(self, size: int, *, some: bool) -> bytes:
        """As it comes."""
        old = self._again(size)
        if len(old) == size or (some and old) or self._place != self._come or self._over:
            return old
        new = self._get(size - len(old), some=some)
        self._over = not new if some else len(old) + len(new) < size
        self._come += len(new)
        self._place += len(new)
        if self._keeping:
            self._kept.seek(self._kept_to)
            self._kept.write(new)
            self._kept_to = self._come
        return old + new

    def _again(self, size: int) -> bytes:
        """What is kept of the next size bytes."""
        if self._place >= self._kept_to:
            return b""
        self._kept.seek(self._place)
        data = self._kept.read(min(size, self._kept_to - self._place))
        self._place += len(data)
        return data
