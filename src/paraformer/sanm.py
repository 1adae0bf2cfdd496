"""SAN-M blocks in NumPy, over the rows of one text or utterance: without torch and without a graph.

`paraformer.model.encoder.SanmBlock` is their plain form (spec: paraformer 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32

from paraformer.products import product

Rows = Float32[np.ndarray, "rows _"]
Seen = Bool[np.ndarray, "rows rows"] | None


def block_shapes(inner: int, dim: int, ffn_dim: int, kernel: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a block that makes rows `dim` wide of rows `inner` wide."""
    return {
        "attention.qkv.weight": (3 * dim, inner),
        "attention.qkv.bias": (3 * dim,),
        "attention.out.weight": (dim, dim),
        "attention.out.bias": (dim,),
        "attention.memory.weight": (dim, 1, kernel),
        "feed_forward.up.weight": (ffn_dim, dim),
        "feed_forward.up.bias": (ffn_dim,),
        "feed_forward.down.weight": (dim, ffn_dim),
        "feed_forward.down.bias": (dim,),
        **{f"norm1.{leaf}": (inner,) for leaf in ("weight", "bias")},
        **{f"norm2.{leaf}": (dim,) for leaf in ("weight", "bias")},
    }


class Blocks:
    """Blocks by the names of their tensors. heads, shift: of SanmEncoderConfig."""

    def __init__(self, weights: Mapping[str, np.ndarray], heads: int, shift: int, epsilon: float = 1e-12) -> None:
        self.weights, self.heads, self.shift, self.epsilon = weights, heads, shift, np.float32(epsilon)

    def block(self, x: Rows, name: str, seen: Seen = None) -> Rows:
        """Rows through one block; seen: which rows (columns) each row sees, None: all."""
        query, key, value = np.split(self.linear(self.norm(x, f"{name}.norm1"), f"{name}.attention.qkv"), 3, axis=1)
        attended = self.linear(self._attend(query, key, value, seen), f"{name}.attention.out")
        attended = attended + self._memory(value, f"{name}.attention.memory")
        x = x + attended if x.shape == attended.shape else attended  # as the first block, which changes the width
        inner = np.maximum(self.linear(self.norm(x, f"{name}.norm2"), f"{name}.feed_forward.up"), 0)
        rows: np.ndarray = x + self.linear(inner, f"{name}.feed_forward.down")
        return rows

    def linear(self, x: Rows, name: str) -> Rows:
        """A linear layer."""
        rows: np.ndarray = product(x, self.weights[f"{name}.weight"].T) + self.weights[f"{name}.bias"]
        return rows

    def norm(self, x: Rows, name: str) -> Rows:
        """A layer norm."""
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + self.epsilon)
        rows: np.ndarray = scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return rows

    def _attend(self, query: Rows, key: Rows, value: Rows, seen: Seen) -> Rows:
        width = query.shape[1] // self.heads
        q, k, v = (rows.reshape(-1, self.heads, width).transpose(1, 0, 2) for rows in (query, key, value))
        # Queries are fewer numbers than scores are.
        scores = product(q * np.float32(width**-0.5), k.transpose(0, 2, 1))
        if seen is not None:
            # Not minus infinity, of which a row that sees nothing would make NaN.
            scores = np.where(seen, scores, np.finfo(np.float32).min)
        # Without changing what comes out: powers of large scores overflow.
        scores -= scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores)
        weights /= weights.sum(axis=-1, keepdims=True)
        context: np.ndarray = product(weights, v).transpose(1, 0, 2).reshape(len(query), -1)
        return context

    def _memory(self, value: Rows, name: str) -> Rows:
        """The filter over rows and its input."""
        taps = self.weights[f"{name}.weight"][:, 0].T
        left = (len(taps) - 1) // 2 + self.shift
        padded = np.pad(value, ((left, len(taps) - 1 - left), (0, 0)))
        out = value.copy()
        for place, tap in enumerate(taps):
            out += padded[place : place + len(value)] * tap
        return out


def positions(count: int, dim: int) -> Float32[np.ndarray, "rows dim"]:
    """Of rows 1, 2, ...: sine half and cosine half side by side (spec: paraformer 2.1)."""
    half = dim // 2
    step = np.float32(math.log(10000.0)) / np.float32(half - 1)  # rates as those that published models have learnt with
    rates = np.exp((np.arange(half, dtype=np.float32) * -step).astype(np.float64)).astype(np.float32)
    angles = (np.arange(1, count + 1)[:, None] * rates.astype(np.float64)).astype(np.float32)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
