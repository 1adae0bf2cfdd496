"""One line on standard error for each thing that went wrong."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from paraformer.cli.translation import chinese, translated

ADVICE = {
    errno.ENOSPC: "make room, and give the command again",
    errno.EDQUOT: "make room, and give the command again",
    errno.EROFS: "name a place that can be written to",
    errno.EACCES: "name another, or have it opened to you",
}
"""What to do about some errors of the operating system, which says itself only what is wrong."""


def complain(error: Exception | str, about: str = "") -> None:
    """Print `paraformer: ABOUT: ERROR` in one line; ABOUT is left out where the error names it already."""
    words, advice = " ".join(_words(error).split()), ADVICE.get(getattr(error, "errno", None) or 0, "")
    place = str(error.filename) if isinstance(error, OSError) and error.filename else ""
    between = "; "
    if chinese():
        words, advice, between = translated(words), translated(advice), "；"
    message = (f"{place}: " if place else "") + words + (between + advice if advice else "")
    named = not about or about in message
    print(f"paraformer: {message}" if named else f"paraformer: {about}: {message}", file=sys.stderr)


def _words(error: Exception | str) -> str:
    """An error of the operating system without its number and the file."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


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
