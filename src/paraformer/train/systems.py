"""What the loop can train: a Paraformer, or the system that the paper compares it with."""

from __future__ import annotations

from typing import Literal

from paraformer.config import ModelConfig
from paraformer.model.autoregressive import Autoregressive
from paraformer.model.paraformer import Batch, Chunking, Paraformer

System = Literal["paraformer", "autoregressive"]
Model = Paraformer | Autoregressive


def build(system: System, config: ModelConfig) -> Model:
    """The model with new weights. Raises ConfigError where the settings are not those of the system."""
    return Autoregressive(config) if system == "autoregressive" else Paraformer(config)


def ids_of(model: Model, batch: Batch, chunk: Chunking = None, beams: int = 1) -> list[list[int]]:
    """The ids that a model in evaluation mode reads in each utterance.

    chunk: as live steps would decide; of a Paraformer. beams: of the search of an autoregressive model; 1 is greedy.
    """
    if isinstance(model, Autoregressive):
        return model.recognize(batch.feats, batch.lengths, beams)
    whole = model.recognize(batch.feats, batch.lengths, chunk)
    best, counts = whole.log_probs.argmax(-1).tolist(), whole.counts.tolist()
    return [ids[:count] for ids, count in zip(best, counts, strict=True)]
