"""The SAN-M encoder: whole, in live steps, and in windows (all utterances' live steps at once, for training).

Whole recognition is one step without a past that sees every row. A live step sees `chunk.rows` rows; look-back keeps
keys and values of earlier steps. The windowed form runs every step of an utterance side by side: within a layer, the
keys a step looks back to come from other windows of the same layer, so all of them can be computed together, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.config import ChunkConfig, SanmEncoderConfig, TrainingChunk
from paraformer.model.chunk_masks import ChunkLayout, chunk_layout
from paraformer.model.layers import FeedForward, SanmAttention, layer_norm, length_mask, sinusoid, unless_full
from paraformer.model.state import State


@dataclass(frozen=True)
class EncoderState(State):
    """What an encoder step takes from the steps before it.

    overlap (B, left + right, F): input rows seen before. position (B,): input rows consumed so far.
    keys, values (B, layers, P, D): of earlier steps, right-aligned. past_lengths (B,): valid ones among the P.
    """

    overlap: Tensor
    position: Tensor
    keys: Tensor
    values: Tensor
    past_lengths: Tensor


@dataclass(frozen=True)
class Past:
    """Keys and values (B, layers, P, D) that a batch may look back to; of each row the last lengths (B,) are valid."""

    keys: Tensor
    values: Tensor
    lengths: Tensor

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values (B, P, D) of one layer."""
        return self.keys[:, index], self.values[:, index]

    def mask(self) -> Tensor:
        """(B, P), true for valid rows."""
        size = self.keys.shape[2]
        return torch.arange(size, device=self.lengths.device)[None, :] >= size - self.lengths[:, None]


class SanmBlock(nn.Module):
    """Pre-norm SAN-M block. The first block changes the width and so has no residual around attention (spec 2.2)."""

    def __init__(self, input_dim: int, config: SanmEncoderConfig) -> None:
        super().__init__()
        c = config
        self.attention = SanmAttention(input_dim, c.dim, c.heads, c.kernel, c.shift, c.attention_dropout)
        self.feed_forward = FeedForward(c.dim, c.ffn_dim, c.dropout)
        self.norm1 = layer_norm(input_dim)
        self.norm2 = layer_norm(c.dim)
        self.dropout = nn.Dropout(c.dropout)
        self.residual = input_dim == c.dim

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """What follows attention: x (B, T, input), attended (B, T, D) -> (B, T, D)."""
        attended = self.dropout(attended)
        x = x + attended if self.residual else attended
        y: Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
        return y

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        row_mask: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, input) -> rows (B, T, D) and the keys and values (B, T, D) that later steps may look back to.

        attention_mask (B, 1 or T, P + T), row_mask (B, T), past keys and values (B, P, D).
        """
        query, key, value = self.attention.project(self.norm1(x))
        attended = self.attention(query, key, value, past, attention_mask, row_mask)
        return self.finish(x, attended), key, value


class SanmEncoder(nn.Module):
    """Sinusoidal positions, SAN-M blocks, final norm."""

    def __init__(self, config: SanmEncoderConfig, input_dim: int) -> None:
        super().__init__()
        self.config = config
        self.input_dim = input_dim
        widths = [input_dim] + [config.dim] * (config.layers - 1)
        self.blocks = nn.ModuleList(SanmBlock(width, config) for width in widths)
        self.norm = layer_norm(config.dim)

    def embed(self, feats: Tensor, start: Tensor | int = 1) -> Tensor:
        """Scale feats (B, T, F) by sqrt(dim) and add positions start, start + 1, ...; start (B,) or a number.

        Rows at positions below 1 stand before the audio: they are zero in feats and stay so (spec 2.5).
        """
        offsets = torch.arange(feats.shape[1], device=feats.device)
        positions = start[:, None] + offsets if isinstance(start, Tensor) else (start + offsets)[None]
        scale: float = self.config.dim**0.5
        return feats * scale + sinusoid(positions, self.input_dim)

    def run(
        self, x: Tensor, attention_mask: Tensor | None = None, row_mask: Tensor | None = None, past: Past | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All blocks on embedded rows x (B, T, F): hidden (B, T, D), keys and values (B, layers, T, D)."""
        keys, values = [], []
        for index, block in enumerate(self.blocks):
            layer_past = past.layer(index) if past is not None else None
            x, key, value = block(x, attention_mask, row_mask, layer_past)
            keys.append(key)
            values.append(value)
        return self.norm(x), torch.stack(keys, 1), torch.stack(values, 1)

    def forward(self, feats: Tensor, lengths: Tensor, start: Tensor | int = 1) -> tuple[Tensor, Tensor]:
        """Rows that look back to nothing: feats (B, T, F), lengths (B,) -> hidden (B, T, D), zero past each length.

        start: position of the first row, (B,) or a number; 1 for whole utterances. Also returns lengths.
        """
        hidden, _ = self.with_middle(feats, lengths, start)
        return hidden, lengths

    def with_middle(self, feats: Tensor, lengths: Tensor, start: Tensor | int = 1) -> tuple[Tensor, Tensor]:
        """As forward: the last block's rows (B, T, D), and those of the block in the middle, before the norm."""
        mask = length_mask(lengths, feats.shape[1])
        middle = x = self.embed(feats, start)
        for index, block in enumerate(self.blocks):
            x, _, _ = block(x, mask[:, None, :], mask)
            if index == len(self.blocks) // 2:
                middle = x
        return self.norm(x) * mask[..., None], middle

    def chunk_masked(self, feats: Tensor, lengths: Tensor, chunk: TrainingChunk) -> tuple[Tensor, ChunkLayout]:
        """Whole utterances as FunASR trains a streaming model on them (spec 2.4).

        feats (B, T, F), lengths (B,) -> hidden (B, R, D), zero in gaps and past each length; where the rows stand.
        """
        layout = chunk_layout(lengths, chunk, (self.config.kernel - 1) // 2)
        rows = layout.filled & layout.present()
        seen = layout.attention_mask() & layout.present()[:, None, :]
        x = layout.split(self.embed(feats) * length_mask(lengths, feats.shape[1])[..., None])
        for block in self.blocks:
            x, _, _ = block(x, seen, rows)
        return self.norm(x) * rows[..., None], layout

    def init_state(self, batch: int, chunk: ChunkConfig, device: torch.device | None = None) -> EncoderState:
        """The state before the first step of `batch` streams."""
        c = self.config
        past = torch.zeros(batch, c.layers, chunk.past_rows, c.dim, device=device)
        count = torch.zeros(batch, dtype=torch.int64, device=device)
        overlap = torch.zeros(batch, chunk.context, self.input_dim, device=device)
        return EncoderState(overlap=overlap, position=count, keys=past, values=past, past_lengths=count)

    def step(
        self, frames: Tensor, counts: Tensor, state: EncoderState, chunk: ChunkConfig
    ) -> tuple[Tensor, Tensor, EncoderState]:
        """One live step of several streams (spec 2.5).

        frames (B, n, F): new input rows, of which counts (B,) are present: chunk.chunk, fewer only at the end.
        Returns hidden (B, left + right + n, D), its row mask, and the next state (meaningless after a final step).
        """
        rows = torch.cat([state.overlap, frames], 1)
        mask = length_mask(counts + chunk.context, rows.shape[1])
        past = Past(state.keys, state.values, state.past_lengths) if state.keys.shape[2] else None
        seen = (mask if past is None else torch.cat([past.mask(), mask], 1))[:, None, :]
        x = self.embed(rows, state.position - chunk.context + 1)
        hidden, keys, values = self.run(x, unless_full(seen), unless_full(mask), past)
        kept = rows.shape[1] - chunk.right
        drop = kept if chunk.encoder_look_back >= 0 else 0
        next_state = EncoderState(
            overlap=rows[:, rows.shape[1] - chunk.context :].clone(),
            position=state.position + counts,
            keys=torch.cat([state.keys, keys[:, :, :kept]], 2)[:, :, drop:].clone(),
            values=torch.cat([state.values, values[:, :, :kept]], 2)[:, :, drop:].clone(),
            past_lengths=next_past_lengths(state.past_lengths, chunk),
        )
        return hidden * mask[..., None], mask, next_state

    def windows(self, feats: Tensor, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """Every live step of whole utterances at once: the exact equal of `step`, for training and evaluation.

        feats (B, T, F), lengths (B,) -> hidden (B, W, R, D) and row mask (B, W, R), W = T // chunk + 1 steps of
        R = left + chunk + right rows. An utterance of n rows has n // chunk + 1 steps.
        """
        batch, _, width = feats.shape
        steps = feats.shape[1] // chunk.chunk + 1
        mask = window_mask(lengths, steps, chunk)
        padded = F.pad(feats, (0, 0, chunk.context, steps * chunk.chunk - feats.shape[1]))
        rows = padded.unfold(1, chunk.rows, chunk.chunk).transpose(2, 3).reshape(batch * steps, chunk.rows, width)
        starts = torch.arange(steps, device=feats.device) * chunk.chunk - chunk.context + 1
        x = self.embed(rows, starts.repeat(batch))
        row_mask = mask.flatten(0, 1)
        past_mask = self._window_past_mask(batch, steps, chunk, feats.device)
        seen = torch.cat([past_mask, row_mask], 1)[:, None, :]
        for block in self.blocks:
            assert isinstance(block, SanmBlock)
            query, key, value = block.attention.project(block.norm1(x))
            past = (_look_back(key, batch, chunk), _look_back(value, batch, chunk))
            x = block.finish(x, block.attention(query, key, value, past, seen, row_mask))
        hidden = self.norm(x) * row_mask[..., None]
        return hidden.unflatten(0, (batch, steps)), mask

    def _window_past_mask(self, batch: int, steps: int, chunk: ChunkConfig, device: torch.device) -> Tensor:
        """(batch * steps, P): which looked-back rows exist at each step."""
        lengths = [torch.zeros(1, dtype=torch.int64, device=device)]
        for _ in range(steps - 1):
            lengths.append(next_past_lengths(lengths[-1], chunk))
        size = window_past_rows(chunk, steps)
        valid = torch.arange(size, device=device)[None, :] >= size - torch.cat(lengths)[:, None]
        return valid.repeat(batch, 1)


def window_past_rows(chunk: ChunkConfig, steps: int) -> int:
    """Rows that each of `steps` windows may look back to; with unlimited look-back, all that the last one can see."""
    if chunk.encoder_look_back < 0:
        return (chunk.left + chunk.chunk) * max(steps - 1, 0)
    return chunk.past_rows


def next_past_lengths(lengths: Tensor, chunk: ChunkConfig) -> Tensor:
    """Valid look-back rows after one more step, given those before, both (B,).

    A step adds its left and committed rows (so the left ones are there twice: spec 2.5), and all but the first step's
    addition is cut to look_back * chunk rows.
    """
    if chunk.encoder_look_back == 0:
        return lengths
    grown = lengths + chunk.left + chunk.chunk
    if chunk.encoder_look_back < 0:
        return grown
    return torch.where(lengths > 0, grown.clamp(max=chunk.encoder_look_back * chunk.chunk), grown)


def window_mask(lengths: Tensor, steps: int, chunk: ChunkConfig) -> Tensor:
    """(B, steps, rows): which rows of each window exist, for utterances of lengths (B,) rows."""
    first = torch.arange(steps, device=lengths.device)[:, None] * chunk.chunk
    index = first + torch.arange(chunk.rows, device=lengths.device)
    exists = index[None] < (lengths + chunk.context)[:, None, None]
    return exists & (first[None] <= lengths[:, None, None])


def _look_back(x: Tensor, batch: int, chunk: ChunkConfig) -> Tensor:
    """Keys or values x (batch * W, R, D) of all windows -> those each looks back to, (batch * W, P, D)."""
    steps = x.shape[0] // batch
    size = window_past_rows(chunk, steps)
    if size == 0:
        return x[:, :0]
    per_step = chunk.left + chunk.chunk
    kept = x.reshape(batch, steps, *x.shape[1:])[:, : steps - 1, :per_step].flatten(1, 2)
    padded = F.pad(kept, (0, 0, size, 0))
    return padded.unfold(1, size, per_step).transpose(2, 3).flatten(0, 1)
