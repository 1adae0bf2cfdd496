"""The kinds of models that there are, and what to say where one is given in place of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paraformer.errors import UnsupportedModel


@dataclass(frozen=True)
class Kind:
    """name: the key of config.json that holds the settings of such a model, in a directory of our own."""

    name: str
    what: str
    use: str
    """Where it belongs."""


RECOGNISER = Kind("model", "a recogniser", "give it as the model")
PUNCTUATION = Kind("punctuation", "a punctuation model", "give it as punctuation, beside a recogniser")
DETECTOR = Kind("detector", "a detector of speech", "give it as vad, beside a recogniser")
VOICES = Kind("voices", "a model of voices", "give it as speakers, beside a recogniser")
ALIGNER = Kind("aligner", "an aligner", "use `paraformer align`")
COMPANIONS: Mapping[str, Kind] = {kind.name: kind for kind in (PUNCTUATION, DETECTOR, VOICES, ALIGNER)}
"""Those that stand beside a recogniser, by name."""


def mixed_up(where: object, found: Kind, wanted: Kind) -> UnsupportedModel:
    """The error for a model of another kind than was asked for.

    >>> str(mixed_up("ct-punc", PUNCTUATION, RECOGNISER))
    'ct-punc is a punctuation model and not a recogniser; give it as punctuation, beside a recogniser'
    """
    return UnsupportedModel(f"{where} is {found.what} and not {wanted.what}; {found.use}")
