"""The Conformer encoder of the AISHELL recipe, with FunASR's "legacy" relative positions (spec 2.7).

Shapes: B batch, T input frames (10 ms each), S rows after subsampling (40 ms each), D model width, H heads.

In the reference the shorter rows of a padded batch come out otherwise than alone: the length counts up to two rows
that see padding, the position of a key is counted from the end of the padding, and the convolution reads past the end
of the utterance. Here none of that happens: a row's result is what the reference gives for it alone.
`padding_leaks` brings the reference's batches back, for comparisons with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.config import ConformerEncoderConfig
from paraformer.model.layers import layer_norm, length_mask
from paraformer.model.transformer import Subsampling, interleaved_sinusoid

POSITION_TABLE = 5000
"""Rows of the reference's position table; longer utterances extend it."""


class SwishFeedForward(nn.Module):
    """Two linear layers with swish between; all with bias."""

    def __init__(self, config: ConformerEncoderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.dim, config.ffn_dim)
        self.down = nn.Linear(config.ffn_dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        y: Tensor = self.down(self.dropout(F.silu(self.up(x))))
        return y


def legacy_positions(size: int, dim: int, device: torch.device) -> Tensor:
    """The reference's position rows for `size` keys, (S, D): absolute positions, last of the table first."""
    # The last row of the table and not row 0: the reference reads its table from the end, and its weights have learnt
    # that.
    table = max(POSITION_TABLE, size)
    return interleaved_sinusoid(torch.arange(table - 1, table - 1 - size, -1, device=device), dim)


def relative_shift(scores: Tensor, lengths: Tensor) -> Tensor:
    """Scores of query i with position row r -> scores of query i with key j.

    scores (B, H, S, S), lengths (B,) -> (B, H, S, S), meaningful where i, j < length. Transformer-XL's shift as the
    reference does it, on a square of side L = length: a key j <= i takes row L - 1 - (i - j) of query i, the key after
    it takes zero, and later keys wrap around to row j - i - 2 of query i + 1.
    """
    size = scores.shape[-1]
    index = torch.arange(size, device=scores.device)
    distance = index[:, None] - index[None, :]
    # Gathered by index instead of padded, reshaped and cut, since each utterance of a batch has a square of its own
    # side.
    past_rows = (lengths[:, None, None] - 1 - distance).clamp(0, size - 1)[:, None]
    wrap_rows = (-distance - 2).clamp(min=0)
    past = scores.gather(-1, past_rows.expand_as(scores))
    # What the reference's reshape gives to keys after the query; its weights are trained with it.
    wrapped = scores.roll(-1, dims=-2).gather(-1, wrap_rows.expand_as(scores))
    later = torch.where(distance == -1, 0.0, wrapped)
    return torch.where(distance >= 0, past, later)


class RelativeAttention(nn.Module):
    """Multi-head self-attention with a learned view of relative positions (Transformer-XL)."""

    def __init__(self, config: ConformerEncoderConfig) -> None:
        super().__init__()
        dim, self.heads = config.dim, config.heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.bias_u = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.heads, dim // self.heads)))
        self.bias_v = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.heads, dim // self.heads)))
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """x (B, S, D), positions (S, D), mask (B, S), lengths (B,) that positions count from -> (B, S, D)."""
        query, key, value = (self._split(linear(x)) for linear in (self.q, self.k, self.v))
        place = self._split(self.position(positions)[None])
        # Two questions with a bias each: what a key says, and how far away it is.
        content = (query + self.bias_u[:, None]) @ key.transpose(-2, -1)
        position = (query + self.bias_v[:, None]) @ place.transpose(-2, -1)
        scores = (content + relative_shift(position, lengths)) * query.shape[-1] ** -0.5
        absent = ~mask[:, None, None]
        # The lowest finite number and not -inf: a row without any key would become NaN, and so would its gradient.
        weights = scores.masked_fill(absent, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(absent, 0.0)
        out: Tensor = self.out((self.dropout(weights) @ value).transpose(1, 2).flatten(-2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, H, S, D / H)."""
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads).transpose(1, 2)


class Convolution(nn.Module):
    """Gated pointwise, depthwise over rows, batch norm, swish, pointwise."""

    def __init__(self, config: ConformerEncoderConfig) -> None:
        super().__init__()
        dim, kernel = config.dim, config.conv_kernel
        self.pointwise1 = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=(kernel - 1) // 2, groups=dim)
        self.norm = nn.BatchNorm1d(dim)
        self.pointwise2 = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, S, D) -> (B, S, D); the depthwise filter reads zeros where mask (B, S) is false."""
        gated = F.glu(self.pointwise1(x.transpose(1, 2)), dim=1)
        # After the gate, whose bias would make something of the padding again, and before the filter, which would
        # reach into it.
        if mask is not None:
            gated = gated * mask[:, None]
        y: Tensor = self.pointwise2(F.silu(self.norm(self.depthwise(gated)))).transpose(1, 2)
        return y


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, each with a residual; then a norm."""

    def __init__(self, config: ConformerEncoderConfig) -> None:
        super().__init__()
        self.macaron = SwishFeedForward(config)
        self.attention = RelativeAttention(config)
        self.conv = Convolution(config)
        self.feed_forward = SwishFeedForward(config)
        self.norm_macaron = layer_norm(config.dim)
        self.norm_attention = layer_norm(config.dim)
        self.norm_conv = layer_norm(config.dim)
        self.norm_feed_forward = layer_norm(config.dim)
        self.norm = layer_norm(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor, lengths: Tensor, conv_mask: Tensor | None) -> Tensor:
        """x (B, S, D) -> (B, S, D); the other arguments as in `RelativeAttention` and `Convolution`."""
        # Half before and half after attention and convolution, the Macaron form, which the Conformer found better
        # than one.
        x = x + 0.5 * self.dropout(self.macaron(self.norm_macaron(x)))
        x = x + self.dropout(self.attention(self.norm_attention(x), positions, mask, lengths))
        x = x + self.dropout(self.conv(self.norm_conv(x), conv_mask))
        x = x + 0.5 * self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        y: Tensor = self.norm(x)
        return y


class ConformerEncoder(nn.Module):
    """Subsampling, legacy relative positions, Conformer blocks, final norm."""

    def __init__(self, config: ConformerEncoderConfig, input_dim: int) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(input_dim, config.dim)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.layers))
        self.norm = layer_norm(config.dim)
        self.dropout = nn.Dropout(config.positional_dropout)

    def forward(self, feats: Tensor, lengths: Tensor, *, padding_leaks: bool = False) -> tuple[Tensor, Tensor]:
        """feats (B, T, F), lengths (B,) -> hidden (B, S, D), zero past each length; lengths (B,) in rows.

        padding_leaks: let the shorter rows of a batch depend on its padding, as they do in the reference; rows past
        the length are then not zero.
        """
        x, rows = self.subsampling(feats, lengths)
        size = x.shape[1]
        if padding_leaks:
            # The reference takes every fourth frame's mask for the rows', two of which can be made of padding.
            rows = ((lengths + 3) // 4).clamp(max=size)
        mask = length_mask(rows, size)
        # Where positions are counted from: the end of the padding there, the own end here.
        origin = torch.full_like(rows, size) if padding_leaks else rows
        positions = self.dropout(legacy_positions(size, self.config.dim, x.device))
        x = self.dropout(x * self.config.dim**0.5)
        for block in self.blocks:
            x = block(x, positions, mask, origin, None if padding_leaks else mask)
        hidden: Tensor = self.norm(x)
        return hidden if padding_leaks else hidden * mask[..., None], rows
