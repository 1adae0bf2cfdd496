"""Building blocks of the SAN-M encoder and decoder (spec 2.2, 4.1).

Shapes: B batch, T rows (60 ms each), Q query rows, K key rows, L tokens, D model width, H heads.
Masks are boolean, true = present; None = all present, so that an unpadded batch pays nothing.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-12


def layer_norm(dim: int, epsilon: float = LAYER_NORM_EPS) -> nn.LayerNorm:
    """LayerNorm, unless told otherwise with the reference's epsilon."""
    return nn.LayerNorm(dim, eps=epsilon)


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """lengths (B,) -> (B, size), true where the index is below the length.

    >>> length_mask(torch.tensor([2, 0]), 3).tolist()
    [[True, True, False], [False, False, False]]
    """
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def unless_full(mask: Tensor) -> Tensor | None:
    """The mask, or None where it hides nothing and so need not be paid for.

    A graph that is traced keeps it: it must take every mask. So does a device of its own: its answer would have to be
    waited for, and its work could then not be captured.
    """
    return mask if torch.onnx.is_in_onnx_export() or mask.device.type != "cpu" or not bool(mask.all()) else None


def sinusoid(positions: Tensor, dim: int, first: int = 1) -> Tensor:
    """Sine half and cosine half side by side, not interleaved (spec 2.1).

    positions (...,): `first` for the first row; rows at positions below it are zero. Returns (..., dim), float32.
    """
    half = dim // 2
    # Counted in turns, of which whole ones change nothing: float32 alone would lose the angle after hours of a stream.
    # Not every device has float64.
    wide = positions.cpu() if positions.device.type == "mps" else positions
    # The rates themselves are float32's, with which published models have learnt, FunASR's and Whisper's.
    step = torch.full((), math.log(10000.0), device=wide.device) / (half - 1)
    exponents = torch.arange(half, device=wide.device, dtype=torch.float32) * -step
    rates = torch.exp(exponents.to(torch.float64)).to(torch.float32).to(torch.float64)
    turns = wide[..., None].to(torch.float64) * (rates / math.tau)
    angles = (turns - turns.round()).to(positions.device, torch.float32) * math.tau
    table = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return table * (positions >= first)[..., None]


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None, dropout: nn.Dropout) -> Tensor:
    """Scaled dot-product attention over several heads.

    query (B, Q, D), key and value (B, K, D), mask (B, 1 or Q, K). Returns (B, Q, D).
    A query with no key present gets a zero context, as in the reference (spec 2.2).
    """
    width = query.shape[-1] // heads
    q, k, v = (x.reshape(*x.shape[:-1], heads, width).transpose(1, 2) for x in (query, key, value))
    if q.dtype == torch.bfloat16:
        return _fused(q, k, v, mask, dropout)
    # Queries are scaled and not scores, which are more numbers.
    scores = (q * width**-0.5) @ k.transpose(-2, -1)
    if mask is None:
        weights = scores.softmax(-1)
    else:
        mask = mask[:, None]
        # The lowest finite number and not -inf, so that a query with nothing to see gets equal weights, made zero
        # after, and no NaN.
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~mask, 0.0)
    context: Tensor = dropout(weights) @ v
    return context.transpose(1, 2).flatten(-2)


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: nn.Dropout) -> Tensor:
    """`attend` for training in half precision, by the kernel that keeps no table of scores: a third less time.

    query (B, H, Q, W), key and value (B, H, K, W). Float32 stays with the plain form, whose bits the goldens know.
    """
    bias = None
    if mask is not None:
        bias = query.new_zeros(()).masked_fill(~mask[:, None], torch.finfo(query.dtype).min)
        bias = bias.expand(-1, -1, query.shape[2], -1)
    share = dropout.p if dropout.training else 0.0
    context = F.scaled_dot_product_attention(query, key, value, bias, share)
    if mask is not None:
        context = context * mask.any(-1)[:, None, :, None]
    return context.transpose(1, 2).flatten(-2)


class Fsmn(nn.Conv1d):
    """Feed-forward sequential memory: a depthwise filter over rows, plus its input.

    The filter sees `left` rows before and `right` rows after: (kernel - 1) / 2 each, moved into the past by `shift`.
    """

    def __init__(self, dim: int, kernel: int, shift: int, dropout: float) -> None:
        super().__init__(dim, dim, kernel, groups=dim, bias=False)
        self.left = (kernel - 1) // 2 + shift
        self.right = kernel - 1 - self.left
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, T): absent rows are zero, before and after. Returns (B, T, D)."""
        return self.step(x, x.new_zeros(x.shape[0], self.left, x.shape[2]), mask)

    def step(self, x: Tensor, past: Tensor, mask: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
        """As forward, with the `left` rows before x given: past (B, left, D).

        steps (B, T): of each row the step it belongs to, where rows see no later ones but of their own step.
        """
        if mask is not None:
            x = x * mask[..., None].to(x.dtype)
        # One row too many, cut off again: a convolution refuses to give no row, and a step may have no token.
        rows = F.pad(torch.cat([past, x], 1), (0, 0, 0, self.right + 1)).transpose(1, 2)
        if steps is None or self.right == 0 or x.shape[1] == 0:
            filtered = F.conv1d(rows, self.weight, groups=self.groups).transpose(1, 2)[:, : x.shape[1]]
        else:
            filtered = self._within_steps(rows[:, :, : rows.shape[2] - 1], steps)
        # The filter's own input is added here and not by the block, whose residual is around attention and memory
        # together.
        y: Tensor = self.dropout(filtered + x)
        return y if mask is None else y * mask[..., None].to(y.dtype)

    def _within_steps(self, rows: Tensor, steps: Tensor) -> Tensor:
        """The filter over rows (B, D, left + T + right), blind to rows of later steps (B, T). Returns (B, T, D)."""
        reach = self.left + 1 + self.right
        later = F.pad(steps, (0, self.right), value=-1).unfold(1, self.right + 1, 1)
        seen = F.pad(later == steps[..., None], (self.left, 0), value=True)
        return torch.einsum("bdtk,btk,dk->btd", rows.unfold(2, reach, 1), seen.to(rows.dtype), self.weight[:, 0])


class SanmAttention(nn.Module):
    """Self-attention whose values also pass through an FSMN memory, added after the output projection.

    kernel: of the memory; with 0 there is none, and this is attention alone.
    """

    def __init__(self, input_dim: int, dim: int, heads: int, kernel: int, shift: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(input_dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.memory = Fsmn(dim, kernel, shift, dropout) if kernel else None
        self.dropout = nn.Dropout(dropout)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, input) -> query, key, value, each (B, T, D)."""
        # One product of three times the width is faster than three.
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return query, key, value

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past: tuple[Tensor, Tensor] | None,
        attention_mask: Tensor | None,
        row_mask: Tensor | None,
    ) -> Tensor:
        """Attend from query (B, T, D) to past keys and values (B, P, D) and then the own ones (B, T, D).

        attention_mask (B, 1 or T, P + T); row_mask (B, T) masks the memory. Returns (B, T, D).
        """
        keys, values = key, value
        if past is not None:
            keys, values = torch.cat([past[0], key], 1), torch.cat([past[1], value], 1)
        context = attend(query, keys, values, self.heads, attention_mask, self.dropout)
        out: Tensor = self.out(context)
        return out if self.memory is None else out + self.memory(value, row_mask)


class FeedForward(nn.Module):
    """Two linear layers with ReLU or GELU between; all with bias."""

    def __init__(self, dim: int, hidden: int, dropout: float, activation: Literal["relu", "gelu"] = "relu") -> None:
        super().__init__()
        self.activation = F.gelu if activation == "gelu" else F.relu
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        y: Tensor = self.down(self.dropout(self.activation(self.up(x))))
        return y


class NormedFeedForward(nn.Module):
    """The decoder's: LayerNorm on the hidden layer and no bias on the way down."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.norm = layer_norm(hidden)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        y: Tensor = self.down(self.norm(self.dropout(self.up(x).relu())))
        return y


class CrossAttention(nn.Module):
    """From tokens to encoder rows."""

    def __init__(self, dim: int, memory_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(memory_dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, L, D), memory (B or 1, K, D'), mask (B, 1 or L, K). Returns (B, L, D)."""
        # Keys and values of one product, since both come of the same rows.
        key, value = self.kv(memory).chunk(2, dim=-1)
        out: Tensor = self.out(attend(self.q(x), key, value, self.heads, mask, self.dropout))
        return out

    def shares(self, x: Tensor, memory: Tensor) -> Tensor:
        """How much each row attends to each of the memory: x (B, L, D), memory (B or 1, K, D') -> (B, heads, L, K)."""
        key, _ = self.kv(memory).chunk(2, dim=-1)
        width = x.shape[-1] // self.heads
        q, k = (y.unflatten(-1, (self.heads, width)).transpose(1, 2) for y in (self.q(x), key))
        scores: Tensor = (q * width**-0.5) @ k.transpose(-2, -1)
        return scores.softmax(-1)
