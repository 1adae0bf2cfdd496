"""Error rates of a model in training and after it: what it reads in batches of a dev set, beside the transcripts."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from lhotse import CutSet

from paraformer.config import SILENT_IDS, ChunkConfig
from paraformer.data.dataset import SpeechDataset, measuring_batches
from paraformer.data.prepare import load_cuts
from paraformer.evaluate.cer import ErrorCounts, total_errors
from paraformer.model.objective import Batch, Trainable
from paraformer.text import Vocabulary
from paraformer.train import parallel
from paraformer.train.batches import on_device
from paraformer.train.config import TrainConfig
from paraformer.train.drawn import drawn
from paraformer.train.speech import Setup, Speech

Texts = Sequence[tuple[Batch, Sequence[str]]]
"""Batches to decode, with their transcripts, because targets lose what the vocabulary lacks."""


def dev_batches(config: TrainConfig, setup: Setup, data: Path, speech: Speech) -> dict[str, Texts]:
    """This process's part of what is measured during training: the first of dev_set, and the held-out training ones."""
    dataset = SpeechDataset(setup.symbols, setup.model.frontend, setup.cmvn)
    order = random.Random(config.seed)  # noqa: S311
    # The same utterances each time, or rates of different steps would differ by what is said in them.
    dev = load_cuts(data, config.dev_set).shuffle(order).subset(first=config.dev_utterances)
    sets = {config.dev_set: dev, "held_out": speech.held_out}
    # Every size()-th batch, not one stretch of them: they come by length, and all processes should be done together.
    return {
        name: list(islice(told(config, setup, cuts, dataset), parallel.rank(), None, parallel.size()))
        for name, cuts in sets.items()
        if len(cuts)
    }


def told(
    config: TrainConfig, setup: Setup, cuts: CutSet, dataset: SpeechDataset
) -> Iterator[tuple[Batch, Sequence[str]]]:
    """What to measure with; a model that listens for hotwords is told some of each batch's, always the same."""
    for number, (batch, references) in enumerate(measuring_batches(cuts, dataset)):
        listens = setup.model.hotwords is not None
        yield drawn(batch, config.hotwords, config.seed, number) if listens else batch, references


def measure(model: Trainable, batches: Texts, vocabulary: Vocabulary, chunk: ChunkConfig | None = None) -> ErrorCounts:
    """Errors on whole utterances, those of all processes together; chunk: as live steps would decide."""
    counts = total_errors(decode_batches(model, batches, vocabulary, chunk))
    # Errors and tokens are added up before they are divided: a mean of rates would weigh short texts like long ones.
    return ErrorCounts(*map(int, parallel.total(dataclasses.astuple(counts))))


@torch.no_grad()
def decode_batches(
    model: Trainable,
    batches: Iterable[tuple[Batch, Sequence[str]]],
    vocabulary: Vocabulary,
    chunk: ChunkConfig | None = None,
) -> list[tuple[str, str]]:
    """(reference, hypothesis) of every utterance, in the order of the batches; chunk: as live steps would decide.

    The model is in evaluation mode afterwards.
    """
    model.eval()
    pairs = []
    for loaded, references in batches:
        batch = on_device(loaded)
        for reference, ids in zip(references, model.read(batch, chunk), strict=True):
            # <blank>, <s> and </s> are heard like tokens and stand for no text.
            kept = [i for i in ids if i not in SILENT_IDS]
            pairs.append((reference, vocabulary.decode(kept)))
    return pairs
