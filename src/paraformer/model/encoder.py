"""The SAN-M encoder: whole, in live steps, and in windows (all utterances' live steps at once, for training).

What goes in and comes out is a row for every window of 60 ms. Between, an encoder with a front has several rows to a
window, of which lengths, chunks and look-backs still count windows.

Whole recognition is one step without a past that sees every row. A live step sees `chunk.rows` rows; look-back keeps
keys and values of earlier steps. The windowed form runs every step of an utterance side by side: within a layer, the
keys a step looks back to come from other windows of the same layer, so all of them can be computed together, exactly.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.config import ChunkConfig, FrontConfig, FrontendConfig, SanmEncoderConfig, TrainingChunk, WindowsConfig
from paraformer.errors import ConfigError
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
        # Valid rows end at the right, next to the own ones: streams of any age lie in one batch.
        size = self.keys.shape[2]
        return torch.arange(size, device=self.lengths.device)[None, :] >= size - self.lengths[:, None]


class SanmBlock(nn.Module):
    """Pre-norm SAN-M block. Where it changes the width, there is no residual around attention (spec 2.2)."""

    def __init__(self, input_dim: int, config: SanmEncoderConfig) -> None:
        super().__init__()
        c = config
        self.attention = SanmAttention(input_dim, c.dim, c.heads, c.kernel, c.shift, c.attention_dropout)
        self.feed_forward = FeedForward(c.dim, c.ffn_dim, c.dropout, c.activation)
        self.norm1 = layer_norm(input_dim, c.norm_epsilon)
        self.norm2 = layer_norm(c.dim, c.norm_epsilon)
        self.dropout = nn.Dropout(c.dropout)
        self.residual = input_dim == c.dim

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """What follows attention: x (B, T, input), attended (B, T, D) -> (B, T, D)."""
        attended = self.dropout(attended)
        # The first block makes 560 stacked values into the model's width, and what it is given cannot be added to
        # that.
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


class Front(nn.Module):
    """Convolutions over the frames of windows, as FrontConfig describes them."""

    def __init__(self, config: FrontConfig, frontend: FrontendConfig, dim: int) -> None:
        super().__init__()
        self.frames, self.bands = frontend.lfr_n, frontend.mel_bins
        widths = [self.bands] + [dim] * (len(config.kernels) - 1)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, dim, kernel, stride)
            for width, kernel, stride in zip(widths, config.kernels, config.strides, strict=True)
        )

    def forward(self, windows: Tensor, mask: Tensor) -> Tensor:
        """windows (B, T, F) of which mask (B, T) exist -> rows (B, T * rows, dim), zero where none exist."""
        # Neighbouring windows share frames; the first lfr_n of each, side by side, are every frame once.
        x = windows[..., : self.frames * self.bands].reshape(windows.shape[0], -1, self.bands).transpose(1, 2)
        count = self.frames
        # Zero where no window is, before and after each layer: a bias would make something of nothing, and the next
        # layer would hear it.
        x = x * spread(mask, count)[:, None].to(x.dtype)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv1d)
            (kernel,), (stride,) = conv.kernel_size, conv.stride
            count = count // stride
            # One row too many, cut off again: a convolution refuses to give no row, and a step may have none.
            y = conv(F.pad(x, ((kernel - 1) // 2, kernel)))[:, :, : x.shape[2] // stride]
            x = F.gelu(y) * spread(mask, count)[:, None].to(y.dtype)
        return x.transpose(1, 2)


class Windows(nn.Module):
    """Windows of the rows in them, as WindowsConfig describes it."""

    def __init__(self, config: WindowsConfig, rows: int, encoder: SanmEncoderConfig) -> None:
        super().__init__()
        self.rows = rows
        c = dataclasses.replace(
            encoder,
            **{name: getattr(config, name) for name in ("dim", "heads", "ffn_dim", "layers", "kernel")},
            shift=0,
        )
        self.norm = layer_norm(rows * encoder.dim, c.norm_epsilon)
        self.merge = nn.Linear(rows * encoder.dim, c.dim)
        self.blocks = nn.ModuleList(SanmBlock(c.dim, c) for _ in range(c.layers))
        self.final = layer_norm(c.dim, c.norm_epsilon)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, T * rows, dim), mask (B, T) -> (B, T, window dim)."""
        x = self.merge(self.norm(x.reshape(x.shape[0], -1, self.rows * x.shape[2])))
        seen = None if mask is None else mask[:, None, :]
        for block in self.blocks:
            x, _, _ = block(x, seen, mask)
        y: Tensor = self.final(x)
        return y


def spread(mask: Tensor, rows: int) -> Tensor:
    """mask (B, T) of windows -> (B, T * rows), of the rows in them."""
    return mask if rows == 1 else mask[:, :, None].expand(-1, -1, rows).flatten(1)


class SanmEncoder(nn.Module):
    """A front or the windows themselves, sinusoidal positions, SAN-M blocks, final norm, windows made of rows."""

    def __init__(self, config: SanmEncoderConfig, frontend: FrontendConfig, rows: int) -> None:
        """rows: to a window, between front and windows."""
        super().__init__()
        self.config = config
        self.input_dim = frontend.input_dim
        self.rows = rows
        self.front = Front(config.front, frontend, config.dim) if config.front else None
        widths = [config.dim if config.front else self.input_dim] + [config.dim] * (config.layers - 1)
        self.blocks = nn.ModuleList(SanmBlock(width, config) for width in widths)
        self.norm = layer_norm(config.dim, config.norm_epsilon)
        self.windows_of_rows = Windows(config.windows, rows, config) if config.windows else None

    def embed(self, feats: Tensor, start: Tensor | int = 1, mask: Tensor | None = None) -> Tensor:
        """Rows of feats (B, T, F), the first at position `start`, (B,) or a number, with their positions added.

        Positions are 1, 2, ... Rows below 1 stand before the audio: they are zero in feats and stay so (spec 2.5).
        mask (B, T): windows that exist, for a front, which sees several of them.
        """
        offsets = torch.arange(feats.shape[1], device=feats.device)
        positions = start[:, None] + offsets if isinstance(start, Tensor) else (start + offsets)[None]
        if self.front is None:
            scale: float = self.config.dim**0.5
            # Positions are added to the stacked frames themselves: the projection to the model's width is the first
            # block's.
            return feats * scale + sinusoid(positions, self.input_dim)
        return self._from_front(feats, positions.expand(feats.shape[:2]), mask)

    def _from_front(self, feats: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """As Whisper embeds: nothing scaled, rows counted from 0."""
        assert self.front is not None
        assert self.config.front is not None
        present = positions > 0 if mask is None else mask & (positions > 0)
        within = torch.arange(self.rows, device=feats.device)
        # A window at position p has rows (p - 1) * rows and on; before the audio they are below 0 and get no position.
        places = ((positions[:, :, None] - 1) * self.rows + within).flatten(1)
        if self.config.front.period:
            places = torch.where(places < 0, places, places % self.config.front.period)
        rows: Tensor = self.front(feats, present)
        return rows + sinusoid(places, self.config.dim, first=0)

    def merge(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Rows (B, T * rows, D) after the norm -> windows (B, T, output_dim), of which mask (B, T) exist."""
        if self.windows_of_rows is None:
            return rows
        windows: Tensor = self.windows_of_rows(rows, mask)
        return windows

    def run(
        self, x: Tensor, attention_mask: Tensor | None = None, row_mask: Tensor | None = None, past: Past | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All blocks and the norm on embedded rows x (B, T, F): rows (B, T, D), keys and values (B, layers, T, D).

        Masks and past as those of a block.
        """
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
        rows = spread(mask, self.rows)
        middle = x = self.embed(feats, start, mask)
        # Not `run`, which would keep keys and values of every layer for a past that nobody asks for.
        for index, block in enumerate(self.blocks):
            x, _, _ = block(x, rows[:, None, :], rows)
            if index == len(self.blocks) // 2:
                middle = x
        return self.merge(self.norm(x), mask) * mask[..., None], middle

    def chunk_masked(self, feats: Tensor, lengths: Tensor, chunk: TrainingChunk) -> tuple[Tensor, ChunkLayout]:
        """Whole utterances as FunASR trains a streaming model on them (spec 2.4).

        feats (B, T, F), lengths (B,) -> hidden (B, R, D), zero in gaps and past each length; where the rows stand.
        """
        if self.front or self.windows_of_rows:
            raise ConfigError("an encoder with a front or windows cannot learn from training chunks; use live chunks")
        # A gap as wide as the memory reaches back, so that none passes from one segment to the next.
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
        past = torch.zeros(batch, c.layers, chunk.past_rows * self.rows, c.dim, device=device)
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
        # The context of a step is given to it again as input, not as state of the layers: it may be looked at anew.
        rows = torch.cat([state.overlap, frames], 1)
        mask = length_mask(counts + chunk.context, rows.shape[1])
        past = Past(state.keys, state.values, state.past_lengths) if state.keys.shape[2] else None
        hidden, keys, values = self.look_back(rows, mask, state.position - chunk.context + 1, past)
        # Rows ahead of their time are heard again in the next step, better, so they do not enter the past.
        kept = (rows.shape[1] - chunk.right) * self.rows
        drop = kept if chunk.encoder_look_back >= 0 else 0
        next_state = EncoderState(
            # Cloned, since a view would keep the whole step's rows alive in every saved stream.
            overlap=rows[:, rows.shape[1] - chunk.context :].clone(),
            position=state.position + counts,
            keys=torch.cat([state.keys, keys[:, :, :kept]], 2)[:, :, drop:].clone(),
            values=torch.cat([state.values, values[:, :, :kept]], 2)[:, :, drop:].clone(),
            past_lengths=next_past_lengths(state.past_lengths, chunk, self.rows),
        )
        return hidden, mask, next_state

    def look_back(self, feats: Tensor, mask: Tensor, start: Tensor, past: Past | None) -> tuple[Tensor, Tensor, Tensor]:
        """Windows feats (B, T, F), of which mask (B, T) exist, the first at position start (B,), after a past.

        Returns hidden (B, T, output_dim), zero where masked, and keys and values (B, layers, T * rows, D).
        """
        present = spread(mask, self.rows)
        seen = (present if past is None else torch.cat([past.mask(), present], 1))[:, None, :]
        rows, keys, values = self.run(self.embed(feats, start, mask), unless_full(seen), unless_full(present), past)
        return self.merge(rows, unless_full(mask)) * mask[..., None], keys, values

    def windows(self, feats: Tensor, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """Every live step of whole utterances at once: the exact equal of `step`, for training and evaluation.

        feats (B, T, F), lengths (B,) -> hidden (B, W, R, D) and row mask (B, W, R), W = T // chunk + 1 steps of
        R = left + chunk + right rows. An utterance of n rows has n // chunk + 1 steps.
        """
        batch, _, width = feats.shape
        steps = feats.shape[1] // chunk.chunk + 1
        mask = window_mask(lengths, steps, chunk)
        # Zeros in front are what the first step has on its left, zeros behind what the last one lacks.
        padded = F.pad(feats, (0, 0, chunk.context, steps * chunk.chunk - feats.shape[1]))
        rows = padded.unfold(1, chunk.rows, chunk.chunk).transpose(2, 3).reshape(batch * steps, chunk.rows, width)
        # Below 1 before the audio, where no position is added.
        starts = torch.arange(steps, device=feats.device) * chunk.chunk - chunk.context + 1
        row_mask = mask.flatten(0, 1)
        x, present = self.embed(rows, starts.repeat(batch), row_mask), spread(row_mask, self.rows)
        past_mask = self._window_past_mask(batch, steps, chunk, feats.device)
        seen = torch.cat([past_mask, present], 1)[:, None, :]
        for block in self.blocks:
            assert isinstance(block, SanmBlock)
            # The block taken apart: what a window looks back to are keys of the same layer, of other windows of this
            # batch.
            query, key, value = block.attention.project(block.norm1(x))
            past = (_look_back(key, batch, chunk, self.rows), _look_back(value, batch, chunk, self.rows))
            x = block.finish(x, block.attention(query, key, value, past, seen, present))
        hidden = self.merge(self.norm(x), row_mask) * row_mask[..., None]
        return hidden.reshape(batch, steps, *hidden.shape[1:]), mask

    def _window_past_mask(self, batch: int, steps: int, chunk: ChunkConfig, device: torch.device) -> Tensor:
        """(batch * steps, P): which looked-back rows exist at each step."""
        # The same for every utterance: all steps before one that is taken were full.
        lengths = [torch.zeros(1, dtype=torch.int64, device=device)]
        for _ in range(steps - 1):
            lengths.append(next_past_lengths(lengths[-1], chunk, self.rows))
        size = window_past_rows(chunk, steps) * self.rows
        valid = torch.arange(size, device=device)[None, :] >= size - torch.cat(lengths)[:, None]
        return valid.repeat(batch, 1)


def window_past_rows(chunk: ChunkConfig, steps: int) -> int:
    """Past windows that each of `steps` steps may look back to; unlimited, all that the last one can see."""
    if chunk.encoder_look_back < 0:
        return (chunk.left + chunk.chunk) * max(steps - 1, 0)
    return chunk.past_rows


def next_past_lengths(lengths: Tensor, chunk: ChunkConfig, rows: int) -> Tensor:
    """Valid look-back rows after one more step, given those before, both (B,); rows: to a window.

    A step adds its left and committed windows (so the left ones are there twice: spec 2.5), and all but the first
    step's addition is cut to look_back * chunk windows.
    """
    if chunk.encoder_look_back == 0:
        return lengths
    grown = lengths + (chunk.left + chunk.chunk) * rows
    if chunk.encoder_look_back < 0:
        return grown
    return torch.where(lengths > 0, grown.clamp(max=chunk.encoder_look_back * chunk.chunk * rows), grown)


def window_mask(lengths: Tensor, steps: int, chunk: ChunkConfig) -> Tensor:
    """(B, steps, rows): which rows of each window exist, for utterances of lengths (B,) rows."""
    first = torch.arange(steps, device=lengths.device)[:, None] * chunk.chunk
    index = first + torch.arange(chunk.rows, device=lengths.device)
    exists = index[None] < (lengths + chunk.context)[:, None, None]
    # A step is taken while rows are left, and once more right at the end, for what was ahead until then.
    return exists & (first[None] <= lengths[:, None, None])


def _look_back(x: Tensor, batch: int, chunk: ChunkConfig, rows: int) -> Tensor:
    """Keys or values x (batch * W, R * rows, D) of all windows -> those each looks back to, (batch * W, P, D)."""
    steps = x.shape[0] // batch
    size = window_past_rows(chunk, steps) * rows
    if size == 0:
        return x[:, :0]
    per_step = (chunk.left + chunk.chunk) * rows
    # The last window is nobody's past, and what was ahead in the others is heard again by the next.
    kept = x.reshape(batch, steps, *x.shape[1:])[:, : steps - 1, :per_step].flatten(1, 2)
    # Zeros for what the first steps have no past for; the mask hides them.
    padded = F.pad(kept, (0, 0, size, 0))
    return padded.unfold(1, size, per_step).transpose(2, 3).flatten(0, 1)
