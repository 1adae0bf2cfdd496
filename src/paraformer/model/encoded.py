"""The rows of an encoder and their CIF weights, in the three forms in which whole utterances are computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paraformer.config import (
    ChunkConfig,
    TrainingChunk,
)
from paraformer.model import cif
from paraformer.model.chunk_masks import ChunkLayout
from paraformer.model.layers import length_mask

Chunking = ChunkConfig | TrainingChunk | None
"""The form in which whole utterances are computed: a ChunkConfig gives exactly what live steps give, a TrainingChunk
FunASR's chunk-masked form of its streaming models, None every row in view of every other."""


@dataclass(frozen=True)
class Encoded:
    """Encoder rows and their CIF weights.

    hidden (B, T, D), weights (B, T). In the windowed form the rows of all windows stand one after another, rows
    (B, W, R) tells which exist, and only committed rows have weight. lengths (B,) counts rows (up to the last committed
    one).
    In FunASR's chunk-masked form, layout tells where the rows stand.
    middle (B, T, D): rows of the encoder's middle block, of whole utterances in training where the objective uses them.
    hotwords (N, D): of a decoder that itself attends to them, in training.
    """

    hidden: Tensor
    weights: Tensor
    lengths: Tensor
    rows: Tensor | None = None
    layout: ChunkLayout | None = None
    middle: Tensor | None = None
    hotwords: Tensor | None = None

    def memory_mask(self) -> Tensor:
        """(B, 1, T): rows that the decoder may see, for whole utterances."""
        return length_mask(self.lengths, self.hidden.shape[1])[:, None, :]

    def windows_of(self, weights: Tensor, tokens: int) -> Tensor:
        """The window in which each of the first `tokens` tokens fires, (B, tokens), in the windowed form."""
        assert self.rows is not None
        return torch.minimum(cif.firing_frames(weights, tokens), self.lengths[:, None]) // self.rows.shape[2]

    def committed_rows(self, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """The committed rows of all windows in time order, (B, n, D) and their numbers (B,)."""
        places, counts = self.committed_places(lengths, chunk)
        return self.hidden.gather(1, places[..., None].expand(-1, -1, self.hidden.shape[2])), counts

    def committed_places(self, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """Where they stand in hidden, (B, n), and their numbers (B,)."""
        assert self.rows is not None
        keep = (self.rows & committed_mask(self.rows, lengths, chunk)).flatten(1)
        counts = keep.sum(-1)
        # A stable sort by "left out or not" brings the rows that count to the front and keeps them in order.
        return (~keep).to(torch.int8).argsort(dim=1, stable=True)[:, : int(counts.max())], counts


def committed_mask(rows: Tensor, lengths: Tensor, chunk: ChunkConfig) -> Tensor:
    """(B, W, R): the rows each window commits: its chunk, and everything after the left ones in an utterance's last."""
    steps, size = rows.shape[1:]
    row = torch.arange(size, device=rows.device)
    # In the last window nothing is ahead any more: all that is there is committed.
    last = torch.arange(steps, device=rows.device)[None] == (lengths // chunk.chunk)[:, None]
    return (row >= chunk.left) & ((row < chunk.left + chunk.chunk) | last[..., None])
