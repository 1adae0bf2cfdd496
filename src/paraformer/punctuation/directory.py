"""What a punctuation model is made of, and its directory of our own. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paraformer.companions import Companion, save_directory
from paraformer.errors import ModelError
from paraformer.kinds import PUNCTUATION
from paraformer.punctuation.config import PunctuationConfig
from paraformer.weights import Storage


@dataclass(frozen=True, eq=False)
class PunctuationBundle:
    """What a punctuation model is: settings, words in the order of their ids, weights by name.

    dictionary: words for jieba, in its format, where texts are cut by it and not at each character; None: not.
    """

    config: PunctuationConfig
    words: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    card: Mapping[str, Any] = field(default_factory=dict)
    dictionary: str | None = None
    digest: str = ""
    """Tells these weights from others; empty: not known."""

    def __post_init__(self) -> None:
        if len(self.words) != self.config.vocab_size:
            raise ModelError(f"{len(self.words)} words, but the model's vocabulary is {self.config.vocab_size}")

    @classmethod
    def of(cls, opened: Companion) -> PunctuationBundle:
        """From plain values. Raises ConfigError for settings that cannot be."""
        config, extras = opened.parsed(PunctuationConfig.from_dict), opened.extras
        return cls(
            config, tuple(extras["words"]), opened.weights, opened.card, extras["dictionary"], digest=opened.digest
        )

    def companion(self) -> Companion:
        """As plain values."""
        extras = {"words": list(self.words), "dictionary": self.dictionary}
        return Companion(PUNCTUATION, self.config.to_dict(), self.weights, extras, self.card, self.digest)


def save_bundle(bundle: PunctuationBundle, directory: Path, *, stored: Storage = "float32") -> None:
    """Write it, each file atomically. stored: how the weights are kept."""
    save_directory(bundle.companion(), directory, stored=stored)


def digest_of(words: Sequence[str], config: PunctuationConfig, weights: str) -> str:
    """Tells a model from any other."""
    described = json.dumps([list(words), config.to_dict(), weights], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]
