"""The CT-Transformer in NumPy: one text at a time, without torch and without a graph.

`paraformer.model.punctuation` is its plain form. Rows of the embedding are read when they are needed, so that a table
of half a million words may stay in its file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Int64

from paraformer.errors import CheckpointError
from paraformer.punctuation.config import PunctuationConfig
from paraformer.weights import check_shape

Rows = Float32[np.ndarray, "words dim"]
_EPSILON = np.float32(1e-12)


def shapes(config: PunctuationConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors."""
    d, f = config.dim, config.ffn_dim
    block = {
        "attention.qkv.weight": (3 * d, d),
        "attention.qkv.bias": (3 * d,),
        "attention.out.weight": (d, d),
        "attention.out.bias": (d,),
        "attention.memory.weight": (d, 1, config.kernel),
        "feed_forward.up.weight": (f, d),
        "feed_forward.up.bias": (f,),
        "feed_forward.down.weight": (d, f),
        "feed_forward.down.bias": (d,),
        **{f"{norm}.{leaf}": (d,) for norm in ("norm1", "norm2") for leaf in ("weight", "bias")},
    }
    return {
        "embed.weight": (config.vocab_size, d),
        **{f"blocks.{i}.{name}": shape for i in range(config.layers) for name, shape in block.items()},
        "norm.weight": (d,),
        "norm.bias": (d,),
        "output.weight": (len(config.marks), d),
        "output.bias": (len(config.marks),),
    }


class Network:
    """Scores of the mark after each word."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], config: PunctuationConfig, source: str = "the weights"
    ) -> None:
        """Raises CheckpointError, naming `source`, unless there are exactly the tensors of the settings."""
        expected = shapes(config)
        if wrong := sorted(set(expected) ^ set(weights)):
            raise CheckpointError(
                f"{source} do not hold the tensors of their settings; missing or unexpected: {', '.join(wrong[:5])}"
            )
        self.config = config
        self._weights = {"embed.weight": weights["embed.weight"]}
        self._weights |= {name: np.asarray(weights[name], np.float32) for name in expected if name != "embed.weight"}
        for name, shape in expected.items():
            check_shape(name, self._weights[name].shape, shape)

    def scores(self, ids: Int64[np.ndarray, " words"], heard: int | None = None) -> Float32[np.ndarray, "words marks"]:
        """Before softmax; ids: of the words of one text. heard: see `PunctuationModel.forward`."""
        config = self.config
        x = self._weights["embed.weight"][ids].astype(np.float32) * np.float32(config.dim**0.5)
        x += positions(len(ids), config.dim)
        for layer in range(config.layers):
            x = self._block(x, f"blocks.{layer}", self._seen(len(ids), layer, heard))
        return self._linear(self._norm(x, "norm"), "output")

    def _block(self, x: Rows, name: str, seen: Bool[np.ndarray, "words words"] | None) -> Rows:
        query, key, value = np.split(self._linear(self._norm(x, f"{name}.norm1"), f"{name}.attention.qkv"), 3, axis=1)
        attended = self._linear(self._attend(query, key, value, seen), f"{name}.attention.out")
        x = x + attended + self._memory(value, f"{name}.attention.memory")
        inner = np.maximum(self._linear(self._norm(x, f"{name}.norm2"), f"{name}.feed_forward.up"), 0)
        rows: np.ndarray = x + self._linear(inner, f"{name}.feed_forward.down")
        return rows

    def _attend(self, query: Rows, key: Rows, value: Rows, seen: Bool[np.ndarray, "words words"] | None) -> Rows:
        heads, width = self.config.heads, self.config.dim // self.config.heads
        q, k, v = (rows.reshape(-1, heads, width).transpose(1, 0, 2) for rows in (query, key, value))
        scores = (q * np.float32(width**-0.5)) @ k.transpose(0, 2, 1)
        if seen is not None:
            scores = np.where(seen, scores, np.finfo(np.float32).min)
        scores -= scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores)
        weights /= weights.sum(axis=-1, keepdims=True)
        context: np.ndarray = (weights @ v).transpose(1, 0, 2).reshape(len(query), -1)
        return context

    def _memory(self, value: Rows, name: str) -> Rows:
        """The filter over words and its input."""
        taps = self._weights[f"{name}.weight"][:, 0].T
        left = (len(taps) - 1) // 2 + self.config.shift
        padded = np.pad(value, ((left, len(taps) - 1 - left), (0, 0)))
        out = value.copy()
        for place, tap in enumerate(taps):
            out += padded[place : place + len(value)] * tap
        return out

    def _linear(self, x: Rows, name: str) -> Float32[np.ndarray, "words width"]:
        rows: np.ndarray = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return rows

    def _norm(self, x: Rows, name: str) -> Rows:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + _EPSILON)
        rows: np.ndarray = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return rows

    def _seen(self, count: int, layer: int, heard: int | None) -> Bool[np.ndarray, "words words"] | None:
        """Which words (columns) each word (row) sees; None: all."""
        if self.config.attention == "whole":
            return None
        place = np.arange(count)
        if layer == 0 or layer < self.config.layers - 1:
            return place[:, None] >= place
        if heard is None or not 0 < heard < count:
            return None
        return ~((place[:, None] <= heard - 2) & (place >= heard))


def positions(count: int, dim: int) -> Float32[np.ndarray, "words dim"]:
    """Of words 1, 2, ...: sine half and cosine half side by side (spec: paraformer 2.1)."""
    half = dim // 2
    step = np.float32(math.log(10000.0)) / np.float32(half - 1)  # rates as those that published models have learnt with
    rates = np.exp((np.arange(half, dtype=np.float32) * -step).astype(np.float64)).astype(np.float32)
    angles = (np.arange(1, count + 1)[:, None] * rates.astype(np.float64)).astype(np.float32)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
