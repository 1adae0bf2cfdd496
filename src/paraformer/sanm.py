"""SAN-M blocks in NumPy, over the rows of one text or utterance: without torch and without a graph.

`paraformer.model.encoder.SanmBlock` is their plain form (spec: paraformer 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32

from paraformer.config import SanmEncoderConfig
from paraformer.products import product

Rows = Float32[np.ndarray, "rows _"]
Seen = Bool[np.ndarray, "rows rows"] | None


Stack = Callable[[Rows], Rows]
"""Rows of one text or utterance through blocks and the norm after the last."""
MakesStack = Callable[[Mapping[str, np.ndarray], SanmEncoderConfig, int, str], Stack]
"""As `Blocks` is made."""


def shapes(config: SanmEncoderConfig, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a stack whose first block is given rows of so many numbers."""
    d, found = config.dim, dict[str, tuple[int, ...]]()
    for index in range(config.layers):
        block = _block_shapes(d if index else width, d, config.ffn_dim, config.kernel)
        found |= {f"blocks.{index}.{name}": shape for name, shape in block.items()}
    return found | {"norm.weight": (d,), "norm.bias": (d,)}


def _block_shapes(inner: int, dim: int, ffn_dim: int, kernel: int) -> dict[str, tuple[int, ...]]:
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
    """A stack in NumPy."""

    def __init__(self, weights: Mapping[str, np.ndarray], config: SanmEncoderConfig, width: int, at: str) -> None:
        """Weights by name, those of the stack begin with `at`; config: a plain one; width: see `shapes`."""
        self._weights = {name: np.asarray(weights[at + name], np.float32) for name in shapes(config, width)}
        self._config = config

    def __call__(self, x: Rows, seen: Sequence[Seen] | None = None) -> Rows:
        """Rows through all blocks, and the norm; seen: in each block, which rows (columns) each row sees, None: all."""
        for index in range(self._config.layers):
            x = self._block(x, f"blocks.{index}", None if seen is None else seen[index])
        return self._norm(x, "norm")

    def _block(self, x: Rows, name: str, seen: Seen) -> Rows:
        query, key, value = np.split(self._linear(self._norm(x, f"{name}.norm1"), f"{name}.attention.qkv"), 3, axis=1)
        attended = self._linear(self._attend(query, key, value, seen), f"{name}.attention.out")
        attended = attended + self._memory(value, f"{name}.attention.memory")
        x = x + attended if x.shape == attended.shape else attended  # as the first block, which changes the width
        inner = np.maximum(self._linear(self._norm(x, f"{name}.norm2"), f"{name}.feed_forward.up"), 0)
        rows: np.ndarray = x + self._linear(inner, f"{name}.feed_forward.down")
        return rows

    def _linear(self, x: Rows, name: str) -> Rows:
        return linear(x, self._weights, name)

    def _norm(self, x: Rows, name: str) -> Rows:
        centred = x - x.mean(axis=1, keepdims=True)
        epsilon = np.float32(self._config.norm_epsilon)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + epsilon)
        rows: np.ndarray = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return rows

    def _attend(self, query: Rows, key: Rows, value: Rows, seen: Seen) -> Rows:
        heads = self._config.heads
        width = query.shape[1] // heads
        q, k, v = (rows.reshape(-1, heads, width).transpose(1, 0, 2) for rows in (query, key, value))
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
        taps = self._weights[f"{name}.weight"][:, 0].T
        left = (len(taps) - 1) // 2 + self._config.shift
        padded = np.pad(value, ((left, len(taps) - 1 - left), (0, 0)))
        out = value.copy()
        for place, tap in enumerate(taps):
            out += padded[place : place + len(value)] * tap
        return out


def linear(x: Rows, weights: Mapping[str, np.ndarray], name: str) -> Rows:
    """A linear layer."""
    rows: np.ndarray = product(x, weights[f"{name}.weight"].T) + weights[f"{name}.bias"]
    return rows


def positions(count: int, dim: int) -> Float32[np.ndarray, "rows dim"]:
    """Of rows 1, 2, ...: sine half and cosine half side by side (spec: paraformer 2.1)."""
    half = dim // 2
    step = np.float32(math.log(10000.0)) / np.float32(half - 1)  # rates as those that published models have learnt with
    rates = np.exp((np.arange(half, dtype=np.float32) * -step).astype(np.float64)).astype(np.float32)
    angles = (np.arange(1, count + 1)[:, None] * rates.astype(np.float64)).astype(np.float32)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
