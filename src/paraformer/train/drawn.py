"""Hotwords for training and measuring a model that listens for them: stretches of what is said (variants 1.7)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator
from typing import TypeVar

from paraformer.data.check import spoken_words
from paraformer.model.objective import Batch
from paraformer.text import Vocabulary
from paraformer.train.config import DrawnConfig

SHORTEST, SECOND, LONG = 2, 0.1, 12
"""Items of the shortest stretch; the share of texts with more than LONG of them that give two."""
Item = TypeVar("Item", int, str)


def drawn(batch: Batch, config: DrawnConfig, *seed: object) -> Batch:
    """The batch with hotwords out of its targets; the same for the same seed."""
    texts = (row[row >= 0].tolist() for row in batch.targets)
    return dataclasses.replace(batch, hotwords=[list(word) for word in stretches(texts, config, *seed)])


def drawn_words(texts: Iterable[str], config: DrawnConfig, *seed: object) -> list[str]:
    """Hotwords out of transcripts, for recognition; the same for the same seed."""
    return [Vocabulary.join(list(word)) for word in stretches(map(spoken_words, texts), config, *seed)]


def stretches(texts: Iterable[list[Item]], config: DrawnConfig, *seed: object) -> list[tuple[Item, ...]]:
    """Stretches of some of the texts, each once, in the order in which they are said.

    Of a text of two items both; of a longer one a stretch that begins anywhere before its last item, now and then two.
    """
    # A text for a seed: hash() of anything else may be another in every process.
    generator = random.Random(" ".join(map(str, seed)))  # noqa: S311
    # A word of two utterances is one hotword.
    return list(dict.fromkeys(tuple(word) for text in texts for word in _of_text(text, config, generator)))


def _of_text(text: list[Item], config: DrawnConfig, generator: random.Random) -> Iterator[list[Item]]:
    if len(text) < SHORTEST or generator.random() < config.without:
        return
    count = 2 if len(text) > LONG and generator.random() < SECOND else 1
    for _ in range(count):
        start = generator.randint(0, len(text) - SHORTEST)
        # Two items at least, for the start leaves room for them; a stretch that would reach beyond the end is cut
        # there.
        yield text[start : start + generator.randint(SHORTEST, config.longest)]
