"""When each token of a text that is known was spoken: FunASR's fa-zh."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from paraformer.audio import SAMPLE_RATE, blocks_of
from paraformer.backends.companions import on_torch, opened_companion
from paraformer.backends.stacks import stacks
from paraformer.bundle import Bundle, cmvn_from_json
from paraformer.companions.aligner import AlignerNetwork, config_of
from paraformer.errors import DataError, ModelError
from paraformer.frontend import Frontend
from paraformer.kinds import ALIGNER
from paraformer.recognizer import Audio
from paraformer.text import UNKNOWN, Vocabulary
from paraformer.timestamps import WINDOW_S, fine_times
from paraformer.types import Segment, Token, Transcript

LONGEST_S = 300.0
"""Of a recording: it is taken in one piece, and in NumPy memory grows with the square of that, to 1 GB for so much."""


class Weighing(Protocol):
    """What computes an aligner: `AlignerNetwork`, or its plain form on torch."""

    def weights(self, feats: Sequence[np.ndarray], tokens: Sequence[int]) -> list[np.ndarray]:
        """See AlignerNetwork.weights."""
        ...


class Aligner:
    """One loaded aligner; read-only. Made by `paraformer.load_aligner`."""

    def __init__(self, bundle: Bundle, backend: Weighing) -> None:
        self.bundle, self._backend = bundle, backend
        self._frontend = Frontend(bundle.config.frontend, bundle.cmvn)
        self._vocabulary = Vocabulary(bundle.tokens, bundle.words)

    def align(self, audio: Audio, text: str) -> Transcript:
        """The text as a transcript of one recording, each character or piece of a word with its time.

        Raises AudioError for audio that cannot be used, DataError for a text without anything to align and a recording
        of more than LONGEST_S or too short to hold it.
        """
        return self.align_all([audio], [text])[0]

    def align_all(self, audios: Sequence[Audio], texts: Sequence[str]) -> list[Transcript]:
        """As align, several in one batch, which changes nothing."""
        pieces = [self._pieces(text) for text in texts]
        waves = [np.concatenate([np.zeros(0, np.float32), *blocks_of(audio)]) for audio in audios]
        if (longest_s := max(map(len, waves), default=0) / SAMPLE_RATE) > LONGEST_S:
            raise DataError(
                f"{longest_s:.1f} s of audio are more than the {LONGEST_S:.0f} s that are aligned at a time; "
                "cut it at a pause, and its text there"
            )
        feats = [self._frontend.whole(wave) for wave in waves]
        timing = self.bundle.config.predictor.timing
        assert timing is not None, "an aligner has a second predictor"
        for rows, tokens in zip(feats, pieces, strict=True):
            if len(rows) * timing.rate <= len(tokens):
                raise DataError(f"{len(rows) * WINDOW_S:.2f} s of audio cannot hold a text of {len(tokens)} tokens")
        found = self._backend.weights(feats, [len(tokens) for tokens in pieces])
        return [
            self._transcript(tokens, fine_times(weights, [False] * len(tokens), rate=timing.rate), len(wave))
            for tokens, weights, wave in zip(pieces, found, waves, strict=True)
        ]

    def _pieces(self, text: str) -> list[str]:
        if not isinstance(text, str):
            raise DataError(f"what is said must be a text, not {text!r:.60}")
        tokens = [piece for piece in self._vocabulary.pieces(text) if piece != UNKNOWN]
        if not tokens:
            raise DataError(f"there is nothing to align in the text {text!r:.60}")
        return tokens

    def _transcript(self, pieces: list[str], spans: list[tuple[float, float]], samples: int) -> Transcript:
        tokens = tuple(Token(piece, start, end, 1.0) for piece, (start, end) in zip(pieces, spans, strict=True))
        text, duration_s = Vocabulary.join(pieces), samples / SAMPLE_RATE
        return Transcript(text, duration_s, (Segment(text, tokens[0].start_s, tokens[-1].end_s, tokens),))


def open_aligner(directory: Path, device: str | None = None) -> Aligner:
    """An aligner from a directory of ours or of FunASR's. device: compute on it by torch; None: without torch.

    Raises what opening a model raises: see `opened_companion`.
    """
    opened = opened_companion(directory, ALIGNER)
    config, extras = opened.parsed(config_of), opened.extras
    cmvn = cmvn_from_json(extras["cmvn"], opened.source)
    bundle = Bundle(directory, config, tuple(extras["tokens"]), cmvn, extras["pieces"], opened.card)
    with opened.naming(ModelError):
        if device is None:
            return Aligner(bundle, AlignerNetwork(config, opened.weights, stacks("float32")))
        return Aligner(bundle, on_torch(ALIGNER, config, opened.weights, device))
