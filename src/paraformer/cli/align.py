"""`paraformer align`: when each token of a text that is known was spoken."""

from __future__ import annotations

import argparse
from pathlib import Path

import paraformer
from paraformer.cli import formats
from paraformer.cli.options import loading
from paraformer.errors import DataError
from paraformer.paths import is_file


def align(options: argparse.Namespace) -> int:
    """Print the times of a text in a recording. Returns 0."""
    text = _text(options.text)
    aligner = paraformer.load_aligner(options.model, **loading(options))
    found = aligner.align(options.audio, text)
    print(formats.render(found, options.format, name=str(options.audio), timestamps=True))
    return 0


def _text(given: str) -> str:
    """The text itself, or that of a file of this name."""
    path = Path(given)
    try:
        return path.read_text(encoding="utf-8-sig") if is_file(path) else given
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error
