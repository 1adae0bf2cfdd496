"""One line on standard error for each thing that went wrong."""

from __future__ import annotations

import sys


def complain(error: Exception | str, about: str = "") -> None:
    """Print `paraformer: ABOUT: ERROR` in one line; ABOUT is left out where the error names it already."""
    message = " ".join(str(error).split())
    named = not about or about in message
    print(f"paraformer: {message}" if named else f"paraformer: {about}: {message}", file=sys.stderr)
