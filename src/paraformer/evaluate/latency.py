"""How soon live text comes: sound arrives by the clock of its packets, computing takes what it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from paraformer.audio import SAMPLE_RATE, Samples
from paraformer.session import Session
from paraformer.types import Transcript

PACKET = SAMPLE_RATE * 60 // 1000
"""Samples delivered at a time: 60 ms, one window, so that no step waits longer than its setting says."""


@dataclass(frozen=True)
class Timing:
    """Delays of one utterance, seconds; a token is emitted when the step that decided it has been computed."""

    first_token_s: float | None
    """From the start of the first token's sound; None without tokens."""
    commit_s: tuple[float, ...]
    """From the end of each token's sound, as integrate-and-fire tells it."""


def transcribe_live(
    session: Session, samples: Samples, clock: Callable[[], float] = time.perf_counter
) -> tuple[Transcript, Timing]:
    """Recognise samples as if they were being spoken now, and tell how late each token came.

    Nothing waits for real: a packet is there when its last sample has been spoken, a step begins once its packet is
    there and the step before it is done, and takes what `clock` (seconds) measures. The end of the stream is known with
    its last sample.
    """
    emitted: list[float] = []
    free_s = 0.0
    for heard_s, step in _steps(session, samples):
        began = clock()
        step()
        free_s = max(free_s, heard_s) + clock() - began
        emitted += [free_s] * (len(session.tokens) - len(emitted))
    transcript = session.transcript()
    tokens = transcript.tokens
    first = emitted[0] - tokens[0].start_s if tokens else None
    return transcript, Timing(first, tuple(at - token.end_s for at, token in zip(emitted, tokens, strict=True)))


def _steps(session: Session, samples: Samples) -> Iterator[tuple[float, Callable[[], str]]]:
    """What is done with the session, each with the time at which it can be."""
    for start in range(0, len(samples), PACKET):
        packet = samples[start : start + PACKET]
        yield (start + len(packet)) / SAMPLE_RATE, partial(session.accept, packet)
    yield len(samples) / SAMPLE_RATE, session.finish
