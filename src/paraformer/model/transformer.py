"""The plain Transformer's parts, its encoder, and the 4x convolutional subsampling it shares with the Conformer.

Shapes: B batch, T input frames (10 ms each), S rows after subsampling (40 ms each), D model width, H heads.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.config import TransformerEncoderConfig
from paraformer.model.layers import FeedForward, attend, layer_norm, length_mask

SUBSAMPLING_REACH = 7
"""Input frames that one subsampled row sees."""


def interleaved_sinusoid(positions: Tensor, dim: int) -> Tensor:
    """Sine and cosine in turns, as in "Attention is all you need": positions (...,) from 0 -> (..., dim), float32."""
    rates = torch.exp(torch.arange(0, dim, 2, device=positions.device) * (-math.log(10000.0) / dim))
    angles = positions[..., None].to(rates.dtype) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :dim]


class Attention(nn.Module):
    """Multi-head attention with separate projections, for self- and cross-attention."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """From x (B, Q, D) to memory (B, K, D); mask (B, 1 or Q, K). Returns (B, Q, D)."""
        # Three projections and not one of three times the width, since queries may come of other rows than keys.
        context = attend(self.q(x), self.k(memory), self.v(memory), self.heads, mask, self.dropout)
        out: Tensor = self.out(context)
        return out


class Subsampling(nn.Module):
    """Two unpadded 3x3 convolutions of stride 2, then a linear layer: a quarter of the frames (spec 2.7)."""

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, dim, 3, stride=2)
        self.conv2 = nn.Conv2d(dim, dim, 3, stride=2)
        self.out = nn.Linear(dim * subsampled(input_dim), dim)

    def forward(self, feats: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """feats (B, T, F), lengths (B,) -> rows (B, S, D) and their lengths (B,); under 7 frames give no row.

        Row s sees frames 4 s to 4 s + 6, all inside the utterance.
        """
        # A convolution refuses input that is shorter than it reaches; what the padding gives is cut off by the
        # length.
        feats = F.pad(feats, (0, 0, 0, max(SUBSAMPLING_REACH - feats.shape[1], 0)))
        x = self.conv2(self.conv1(feats[:, None]).relu()).relu()
        rows: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return rows, subsampled(lengths).clamp(min=0)


Size = TypeVar("Size", int, Tensor)


def subsampled(size: Size) -> Size:
    """Rows (or mel bins) left of `size` frames after two unpadded convolutions of width 3 and stride 2."""
    once = (size - 1) // 2
    return (once - 1) // 2


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, config: TransformerEncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config.dim, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(config.dim, config.ffn_dim, config.dropout)
        self.norm1 = layer_norm(config.dim)
        self.norm2 = layer_norm(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, S, D), mask (B, 1, S) -> (B, S, D)."""
        normed = self.norm1(x)
        x = x + self.dropout(self.attention(normed, normed, mask))
        y: Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
        return y


class TransformerEncoder(nn.Module):
    """Subsampling, absolute positions, Transformer blocks, final norm."""

    def __init__(self, config: TransformerEncoderConfig, input_dim: int) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(input_dim, config.dim)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.layers))
        self.norm = layer_norm(config.dim)
        self.dropout = nn.Dropout(config.positional_dropout)

    def forward(self, feats: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """feats (B, T, F), lengths (B,) -> hidden (B, S, D), zero past each length; lengths (B,) in rows."""
        x, lengths = self.subsampling(feats, lengths)
        mask = length_mask(lengths, x.shape[1])
        positions = torch.arange(x.shape[1], device=x.device)
        # Scaled up, so that positions, which have a root mean square of 0.7, do not drown what was heard.
        x = self.dropout(x * self.config.dim**0.5 + interleaved_sinusoid(positions, self.config.dim))
        for block in self.blocks:
            x = block(x, mask[:, None])
        return self.norm(x) * mask[..., None], lengths
