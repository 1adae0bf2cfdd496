"""What was begun and never ended: a file that kills its worker, or stops it for good, is known to the next one."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import posixpath
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pyarrow.fs import FileSystem, FileType, LocalFileSystem

MOST = 2
"""Tries of an input by itself."""
_EVERY_S = 1.0


class Tries:
    """Marks in a directory that all workers see: one is there while work goes on, and stays when its worker dies."""

    def __init__(self, system: FileSystem, directory: str, patience_s: float) -> None:
        """patience_s: without a sign of life for so long, the process ends itself."""
        self._system, self._directory, self._patience_s = system, directory, patience_s
        self._trace: BinaryIO | None = None
        self._seen = 0.0

    def deaths(self, work: str) -> list[str]:
        """How each worker that began this ended, as far as it could still say."""
        reasons: list[str] = []
        while self._system.get_file_info([self._mark(work, len(reasons))])[0].type == FileType.File:
            with self._system.open_input_file(self._mark(work, len(reasons))) as file:
                reasons.append(self._reason(file.read(200).decode("utf-8", "replace")))
        return reasons

    def _reason(self, trace: str) -> str:
        first = trace.partition("\n")[0]
        if first.startswith("Timeout"):
            return f"no progress for {self._patience_s:g} s"
        return first.removeprefix("Fatal Python error: ") or "killed, perhaps for its memory"

    @contextmanager
    def on(self, work: str) -> Iterator[None]:
        """Work that leaves its mark if this process does not survive it; no memory left is no survival."""
        mark = self._mark(work, len(self.deaths(work)))
        with self._made(mark) as trace:
            self._trace = trace
            faulthandler.enable(trace)
            self.alive()
            try:
                yield
            except MemoryError:
                os._exit(1)
            finally:
                faulthandler.cancel_dump_traceback_later()
                if sys.__stderr__ is not None:
                    faulthandler.enable(sys.__stderr__)
                self._trace, self._seen = None, 0.0
                self._system.delete_file(mark)

    def alive(self) -> None:
        """A sign of life."""
        if self._trace is not None and time.monotonic() - self._seen > min(_EVERY_S, self._patience_s / 10):
            self._seen = time.monotonic()
            faulthandler.dump_traceback_later(self._patience_s, exit=True, file=self._trace)

    def _made(self, mark: str) -> BinaryIO:
        """A new mark, and where this process can write, as it dies, why: into it, if it is on a disk."""
        if isinstance(self._system, LocalFileSystem):
            return Path(mark).open("wb")
        self._system.open_output_stream(mark).close()
        return Path(os.devnull).open("wb")

    def _mark(self, work: str, number: int) -> str:
        name = hashlib.sha256(work.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return posixpath.join(self._directory, f"{name}.{number}")
