"""Decode batches with a model and set the texts beside their references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from paraformer.config import SILENT_IDS, ChunkConfig
from paraformer.model.paraformer import Batch, Paraformer
from paraformer.text import Vocabulary
from paraformer.train.batches import on_device


@torch.no_grad()
def decode_batches(
    model: Paraformer,
    batches: Iterable[tuple[Batch, Sequence[str]]],
    vocabulary: Vocabulary,
    chunk: ChunkConfig | None = None,
) -> list[tuple[str, str]]:
    """(reference, hypothesis) of every utterance, in the order of the batches; chunk: as live steps would decide.

    batches come with their transcripts, because targets lose what the vocabulary lacks. The model is in evaluation mode
    afterwards.
    """
    model.eval()
    pairs = []
    for loaded, references in batches:
        batch = on_device(loaded)
        whole = model.recognize(batch.feats, batch.lengths, chunk)
        best = whole.log_probs.argmax(-1)
        for reference, ids, count in zip(references, best, whole.counts, strict=True):
            kept = [i for i in ids[:count].tolist() if i not in SILENT_IDS]
            pairs.append((reference, vocabulary.decode(kept)))
    return pairs
