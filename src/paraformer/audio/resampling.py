"""Any rate to 16 kHz: of whole recordings by soxr, of live streams by a filter whose state is a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import soxr

from paraformer.audio.signal import Samples

SAMPLE_RATE = 16000
"""Hz, of everything that is recognised."""


def at_16k(runs: Iterable[tuple[int, Samples]]) -> Iterator[Samples]:
    """Blocks with their rates, Hz, at 16 kHz; one resampler runs through neighbours of one rate."""
    for rate, blocks in groupby(runs, key=lambda run: run[0]):
        yield from resampled((samples for _, samples in blocks), rate)


def resampled(blocks: Iterable[Samples], rate: int) -> Iterator[Samples]:
    """Blocks at 16 kHz: one resampler runs through all of them, so their sizes do not show in the result."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
