"""What is to be recognised: files, patterns that the shell left alone, standard input, headerless PCM."""

from __future__ import annotations

import io
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from paraformer import audio

STDIN = "-"
PIECE_S = 0.6
"""What `--stream` delivers at a time, as a live source would."""


def expand(patterns: Sequence[str]) -> list[str]:
    """File names of the patterns, in order; a pattern that matches nothing stays, to be reported as missing."""
    return [name for pattern in patterns for name in _matches(pattern)]


def _matches(pattern: str) -> list[str]:
    if not has_magic(pattern) or Path(pattern).exists():
        return [pattern]
    return sorted(glob(pattern, recursive=True)) or [pattern]


def whole(name: str, raw_rate: int | None) -> Path | Float32[np.ndarray, " samples"]:
    """What a recogniser takes for one input: the path of a file, or the samples of anything else."""
    if raw_rate is not None:
        return audio.from_array(np.frombuffer(_bytes(name), dtype="<i2"), raw_rate)
    return Path(name) if name != STDIN else audio.read(io.BytesIO(_bytes(name)))
