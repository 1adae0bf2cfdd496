"""Decode batches with a model and set the texts beside their references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from paraformer.config import SILENT_IDS, ChunkConfig
from paraformer.model.paraformer import Batch
from paraformer.text import Vocabulary
from paraformer.train.batches import on_device
from paraformer.train.systems import Model, ids_of


@torch.no_grad()
def decode_batches(
    model: Model,
    batches: Iterable[tuple[Batch, Sequence[str]]],
    vocabulary: Vocabulary,
    chunk: ChunkConfig | None = None,
    beams: int = 1,
) -> list[tuple[str, str]]:
    """(reference, hypothesis) of every utterance, in the order of the batches; chunk and beams: see `ids_of`.

    batches come with their transcripts, because targets lose what the vocabulary lacks. The model is in evaluation mode
    afterwards.
    """
    model.eval()
    pairs = []
    for loaded, references in batches:
        for reference, ids in zip(references, ids_of(model, on_device(loaded), chunk, beams), strict=True):
            kept = [i for i in ids if i not in SILENT_IDS]
            pairs.append((reference, vocabulary.decode(kept)))
    return pairs
