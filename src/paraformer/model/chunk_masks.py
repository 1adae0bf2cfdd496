"""The chunk-masked form in which FunASR trains its streaming models (spec 2.4, 4.5).

An utterance is rewritten as overlapping segments, each a gap of zero rows and then `size` windows, the first of them
`stride` windows after the first of the segment before. With size 5, stride 3 and a gap of 2, twelve windows become

    segment 0        segment 1        segment 2         segment 3
    .  .  0 1 2 3 4  .  .  3 4 5 6 7  .  .  6 7 8 9 10  .  .  9 10 11
    gap   ----- ~~~  gap   ----- ~~~  gap   ----- ~~~~  gap   -------
          kept  ahead

Every window is kept once (-) and may be looked at once more, ahead of its time (~). The gap is as wide as the memory of
a layer reaches back, so that no memory passes from one segment to the next. Attention sees the own segment; the kept
rows also see the kept rows of `encoder_look_back` earlier segments. Tokens see the segment they fire in and the kept
rows of `decoder_look_back` earlier ones.

Shapes: B batch, T windows, R rows of the rewritten utterance, L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paraformer.config import TrainingChunk
from paraformer.model.layers import length_mask


@dataclass(frozen=True)
class ChunkLayout:
    """Where the windows of a batch of utterances stand after rewriting.

    source (R,): the window of each row, below 0 or from T on where there is none; of no meaning in gaps.
    home (T,): the row that keeps each window.
    filled, kept (R,): rows outside the gaps; rows that are some window's home.
    segments, offsets (R,): the segment of each row, and its place there counted from the end of the gap.
    lengths (B,): rows of each utterance.
    """

    chunk: TrainingChunk
    source: Tensor
    home: Tensor
    filled: Tensor
    kept: Tensor
    segments: Tensor
    offsets: Tensor
    lengths: Tensor

    def split(self, x: Tensor) -> Tensor:
        """Rewrite x (B, T, D) as (B, R, D)."""
        exists = self.filled & (self.source >= 0) & (self.source < x.shape[1])
        return x[:, self.source.clamp(0, x.shape[1] - 1)] * exists[:, None]

    def join(self, x: Tensor) -> Tensor:
        """The kept rows of x (B, R, D) in the order of their windows, (B, T, D)."""
        return x[:, self.home]

    def present(self) -> Tensor:
        """(B, R): rows within each utterance."""
        return length_mask(self.lengths, self.source.shape[0])

    def attention_mask(self) -> Tensor:
        """(R, R): which rows each row attends to, whatever the lengths. Gap rows see nothing."""
        age = self.segments[:, None] - self.segments[None, :]
        early = self.filled & (self.offsets < self.chunk.stride)
        earlier = (age > 0) & (age <= self.chunk.encoder_look_back) & early[:, None] & early[None, :]
        # Within a segment everything sees everything, the look-ahead included.
        own = (age == 0) & self.filled[:, None] & self.filled[None, :]
        return own | earlier


def chunk_layout(lengths: Tensor, chunk: TrainingChunk, gap: int) -> ChunkLayout:
    """The layout for utterances of lengths (B,) windows, at least one of which is above 0; gap in rows."""
    segment = gap + chunk.size
    # All utterances of a batch are rewritten alike, so one table of rows serves them all; lengths tell how much of it
    # counts.
    row_lengths = _rows(lengths, chunk, segment, gap)
    rows = torch.arange(int(row_lengths.max()), device=lengths.device)
    windows = torch.arange(int(lengths.max()), device=lengths.device)
    segments, offsets = rows // segment, rows % segment - gap
    return ChunkLayout(
        chunk=chunk,
        source=segments * chunk.stride - chunk.pad_left + offsets,
        home=windows // chunk.stride * segment + gap + chunk.pad_left + windows % chunk.stride,
        filled=offsets >= 0,
        kept=(offsets >= chunk.pad_left) & (offsets < chunk.pad_left + chunk.stride),
        segments=segments,
        offsets=offsets,
        lengths=row_lengths,
    )


def _rows(lengths: Tensor, chunk: TrainingChunk, segment: int, gap: int) -> Tensor:
    """Rows of utterances of lengths (B,): up to the home of the last window, so the last segment has nothing ahead."""
    # Whole segments before the one that keeps the last window.
    before = (lengths + chunk.stride - 1) // chunk.stride - 1
    rows = before * segment + gap + chunk.pad_left + lengths - before * chunk.stride
    return torch.where(lengths > 0, rows, 0)


def scama_mask(fired: Tensor, token_mask: Tensor, layout: ChunkLayout) -> Tensor:
    """Which rows each token may see: streaming chunk-aware multihead attention (spec 4.5).

    fired (B, L): the row in which each token fires; token_mask (B, L). Returns (B, L, R).
    """
    own = layout.segments[fired.clamp(max=layout.segments.shape[0] - 1)]
    age = own[..., None] - layout.segments
    seen = (age == 0) | ((age > 0) & (age <= layout.chunk.decoder_look_back) & layout.kept)
    return seen & (layout.filled & layout.present())[:, None] & token_mask[..., None]
