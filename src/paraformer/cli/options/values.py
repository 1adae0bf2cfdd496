"""How the values of options are read; what cannot be is told with what can."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from paraformer.config import ChunkConfig
from paraformer.errors import ConfigError
from paraformer.paths import at_home, is_file


def port(text: str) -> int:
    """A TCP port; 0: a free one."""
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is from 0 to 65535, not {text!r:.60}")
    return int(text)


def look_back(text: str) -> tuple[int, int]:
    """Chunks that encoder and decoder look back, "4/1"."""
    try:
        encoder, decoder = map(int, text.split("/"))
        ChunkConfig(encoder_look_back=encoder, decoder_look_back=decoder)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 4/1") from error
    return encoder, decoder


def chunk(text: str) -> ChunkConfig:
    """A live setting, "5,10,5" or "5,10,5,4,1"."""
    try:
        sizes = [int(part) for part in text.strip("[]").split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (3, 5):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 5,10,5 or 5,10,5,4,1")
    left, chunk, right, *look_back = sizes
    encoder, decoder = look_back or (0, 0)
    try:
        return ChunkConfig(left=left, chunk=chunk, right=right, encoder_look_back=encoder, decoder_look_back=decoder)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def channel(text: str) -> int | str:
    """A channel from 1, or "mix"."""
    from paraformer.audio import chosen  # numpy, which help does without

    try:
        return chosen(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def channel_or_each(text: str) -> int | str:
    """A channel from 1, "mix" or "each"."""
    return text if text == "each" else channel(text)


def count(text: str) -> int:
    """A number of threads or streams, 0 leaving it to the machine."""
    return _whole(text, 0, 1024)


def hotwords(text: str) -> Path | list[str]:
    """A file of hotwords, or the words themselves."""
    file = at_home(text)
    if file.suffix and not is_file(file) and len(text.split()) == 1:
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return file if is_file(file) else text.split()


def path(text: str) -> Path:
    """A path; of one that begins with ~ no shell has made the home, where it stands behind an equals sign."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name names nothing")
    return at_home(text)


def place(text: str) -> Path | str:
    """A path, or a URL as it is."""
    return text if "://" in text else path(text)


def alternatives(text: str) -> int:
    """How many others are told of each token."""
    return _whole(text, 1, 23)


def steps(text: str) -> int:
    """A number of which there is at least one."""
    return _whole(text, 1, 1_000_000_000)


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def rate(text: str) -> int:
    """A sampling rate, Hz."""
    return _whole(text, 1000, 384_000)


def _whole(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)
