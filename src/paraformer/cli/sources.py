"""What is to be recognised: files, patterns that the shell left alone, standard input, headerless PCM."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from glob import glob, has_magic
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32

from paraformer import audio
from paraformer.cli.live import PIECE

Samples = Float32[np.ndarray, " samples"]

STDIN = "-"


def expand(patterns: Sequence[str]) -> list[str]:
    """File names of the patterns, in order; a pattern that matches nothing stays, to be reported as missing."""
    return [name for pattern in patterns for name in _matches(pattern)]


def _matches(pattern: str) -> list[str]:
    if not has_magic(pattern) or Path(pattern).exists():
        return [pattern]
    return sorted(glob(pattern, recursive=True)) or [pattern]


def whole(name: str, raw_rate: int | None) -> Path | BinaryIO | Samples:
    """What a recogniser takes for one input."""
    if raw_rate is not None:
        return np.concatenate([np.zeros(0, np.float32), *pieces(name, raw_rate)])
    return sys.stdin.buffer if name == STDIN else Path(name)


def pieces(name: str, raw_rate: int | None) -> Iterator[Samples]:
    """One input as a live source delivers it, 600 ms at a time; headerless PCM as soon as it has come."""
    if raw_rate is not None:
        with nullcontext(sys.stdin.buffer) if name == STDIN else Path(name).open("rb") as file:
            yield from audio.pcm16_blocks(file, raw_rate, block_s=PIECE / audio.SAMPLE_RATE)
        return
    for block in audio.read_blocks(sys.stdin.buffer if name == STDIN else Path(name)):
        for start in range(0, len(block), PIECE):
            yield block[start : start + PIECE]
