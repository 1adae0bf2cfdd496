"""Who speaks when: CAM++ voices, and turns made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from paraformer.audio import Samples
from paraformer.companions.voices import CamppConfig
from paraformer.recordings import Voice
from paraformer.speakers.campplus import VoiceEncoder, features
from paraformer.speakers.clusters import cluster
from paraformer.speakers.turns import Turn, speaker_of, turns, windows
from paraformer.types import Token


@dataclass(frozen=True)
class VoiceSpeakers:
    """Tells the speakers of a recording apart by their voices. count: how many there are, where that is known."""

    encoder: VoiceEncoder
    count: int | None = None

    def hear(self, start_s: float, samples: Samples) -> list[Voice]:
        """The voice of each window of a stretch of speech."""
        cut = list(windows(start_s, samples))
        vectors = self.encoder.embed([features(one.samples) for one in cut])
        return [(one.start_s, one.end_s, vector) for one, vector in zip(cut, vectors, strict=True)]

    def label(self, tokens: Sequence[Token], voices: Sequence[Voice]) -> list[Token]:
        """Each token with who says most of it; in a gap between turns, who speaks nearest to it.

        Numbers are those of the first appearance in tokens: voices that say none, as of noise, have none.
        """
        if not voices:
            return list(tokens)
        ordered = sorted(voices, key=lambda voice: voice[0])
        found = cluster(np.stack([vector for _, _, vector in ordered]), self.count)
        said = turns([(start, end) for start, end, _ in ordered], found.tolist())
        speakers = [_speaker(token, said) for token in tokens]
        numbers = {speaker: number for number, speaker in enumerate(dict.fromkeys(speakers))}
        return [replace(token, speaker=numbers[who]) for token, who in zip(tokens, speakers, strict=True)]


def _speaker(token: Token, said: Sequence[Turn]) -> int:
    if any(turn.start_s < token.end_s and token.start_s < turn.end_s for turn in said):
        return speaker_of(token.start_s, token.end_s, said)
    middle = (token.start_s + token.end_s) / 2
    return min(said, key=lambda turn: max(turn.start_s - middle, middle - turn.end_s)).speaker


__all__ = [
    "CamppConfig",
    "Turn",
    "VoiceEncoder",
    "VoiceSpeakers",
    "cluster",
    "speaker_of",
    "turns",
    "windows",
]
