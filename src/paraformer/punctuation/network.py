"""The CT-Transformer in NumPy: one text at a time, without torch and without a graph.

`paraformer.model.punctuation` is its plain form. Rows of the embedding are read when they are needed, so that a table
of half a million words may stay in its file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Int64

from paraformer.punctuation.config import PunctuationConfig
from paraformer.sanm import Blocks, block_shapes, positions
from paraformer.weights import check_names


def shapes(config: PunctuationConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors."""
    d = config.dim
    block = block_shapes(d, d, config.ffn_dim, config.kernel)
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
        self, weights: Mapping[str, np.ndarray], config: PunctuationConfig, source: str = "the punctuation model"
    ) -> None:
        """Raises CheckpointError, naming `source`, unless there are exactly the tensors of the settings."""
        expected = shapes(config)
        arrays = {name: weights[name] for name in weights}
        check_names(expected, {name: array.shape for name, array in arrays.items()}, source)
        self.config = config
        self._embed = arrays.pop("embed.weight")
        kept = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        self._blocks = Blocks(kept, config.heads, config.shift)

    def scores(self, ids: Int64[np.ndarray, " words"], heard: int | None = None) -> Float32[np.ndarray, "words marks"]:
        """Before softmax; ids: of the words of one text. heard: see `PunctuationModel.forward`."""
        config, blocks = self.config, self._blocks
        x = self._embed[ids].astype(np.float32) * np.float32(config.dim**0.5)
        x += positions(len(ids), config.dim)
        for layer in range(config.layers):
            x = blocks.block(x, f"blocks.{layer}", self._seen(len(ids), layer, heard))
        return blocks.linear(blocks.norm(x, "norm"), "output")

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
