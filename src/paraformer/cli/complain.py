"""One line on standard error for each thing that went wrong."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from paraformer.cli.translation import chinese, translated


def complain(error: Exception | str, about: str = "") -> None:
    """Print `paraformer: ABOUT: ERROR` in one line; ABOUT is left out where the error names it already."""
    message = " ".join(_words(error).split())
    named = not about or about in message
    if chinese():
        message = translated(message)
    print(f"paraformer: {message}" if named else f"paraformer: {about}: {message}", file=sys.stderr)


def _words(error: Exception | str) -> str:
    """An error of the operating system without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


@contextmanager
def library_warnings() -> Iterator[list[str]]:
    """Print the library's warnings, such as a damaged file read only in part, and collect them, but for notes."""
    seen: list[str] = []

    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not hasattr(record, "note"):  # of which nothing is wrong
                seen.append(record.getMessage())
            complain(record.getMessage())

    log, handler = logging.getLogger("paraformer"), Printing(logging.WARNING)
    log.addHandler(handler)
    try:
        yield seen
    finally:
        log.removeHandler(handler)
