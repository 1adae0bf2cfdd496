"""Short recordings, cut from the package's samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

import paraformer
from paraformer import audio


def write(directory: Path, count: int, seed: int = 0) -> list[str]:
    """So many FLAC files of half a second to two in a new directory; returns their names."""
    samples = [audio.read(path) for path in sorted((Path(paraformer.__file__).parent / "samples").glob("*.flac"))]
    random = np.random.default_rng(seed)
    directory.mkdir()
    names = []
    for number in range(count):
        sound = samples[number % len(samples)]
        length = random.integers(8_000, 32_000)
        start = random.integers(len(sound) - length)
        names.append(str(directory / f"{number:05d}.flac"))
        soundfile.write(names[-1], sound[start : start + length], 16_000, subtype="PCM_16")
    return names
