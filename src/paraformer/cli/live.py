"""A live session fed piece by piece: what it decides, and when. Shared by `transcribe --stream` and `mic`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from paraformer.audio import SAMPLE_RATE
from paraformer.types import Revision, Segment, Token, Transcript

if TYPE_CHECKING:
    from paraformer.session import Session

PIECE = 9_600
"""Samples delivered at a time: 600 ms."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Text that became stable after `heard_s` seconds of the stream, and the tokens new since the last decision."""

    heard_s: float
    text: str
    tokens: tuple[Token, ...]
    revisions: tuple[Revision, ...] = ()
    """Sentences that were recognised again since."""

    def transcript(self) -> Transcript:
        """As a result of its own, in one segment."""
        times = [time for token in self.tokens for time in (token.start_s, token.end_s)] or [self.heard_s]
        return Transcript(self.text, self.heard_s, (Segment(self.text, times[0], times[-1], self.tokens),))


def decisions(
    session: Session, pieces: Iterable[Float32[np.ndarray, " _"]], rate: int = SAMPLE_RATE, *, second_pass: bool = False
) -> Iterator[Decision]:
    """Feed the pieces as they come, then finish; yield whatever new text each of them decides.

    rate: theirs, Hz. second_pass: yield the sentences that were recognised again, too.
    """
    samples = known = 0
    for piece in chain(pieces, [None]):
        samples += 0 if piece is None else len(piece)
        text = session.finish() if piece is None else session.accept(piece)
        revisions = tuple(session.take_revisions()) if second_pass else ()
        if text or revisions:
            yield Decision(samples / rate, text, tuple(session.tokens[known:]), revisions)
            known = len(session.tokens)
