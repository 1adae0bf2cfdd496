"""The CT-Transformer: one text at a time, without torch and without a graph.

`paraformer.model.punctuation` is its plain form. Rows of the embedding are read when they are needed, so that a table
of half a million words may stay in its file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Int64

from paraformer.punctuation.config import PunctuationConfig
from paraformer.sanm import Blocks, MakesStack, Stack, linear, positions
from paraformer.sanm import shapes as stack_shapes
from paraformer.weights import check_names


def shapes(config: PunctuationConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors."""
    d = config.dim
    return {
        "embed.weight": (config.vocab_size, d),
        **stack_shapes(config.encoder, d),
        "output.weight": (len(config.marks), d),
        "output.bias": (len(config.marks),),
    }


class Network:
    """Scores of the mark after each word."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], config: PunctuationConfig, stack: MakesStack = Blocks
    ) -> None:
        """stack: what makes the blocks; those of a live model, with what they see, are made in NumPy.

        Raises CheckpointError unless there are exactly the tensors of the settings.
        """
        arrays = {name: weights[name] for name in weights}  # once, since a large table may be in 8 bits
        check_names(shapes(config), {name: array.shape for name, array in arrays.items()}, "the punctuation model")
        self.config = config
        self._embed = arrays["embed.weight"]
        self._output = {name: np.asarray(arrays[name], np.float32) for name in ("output.weight", "output.bias")}
        make = stack if config.attention == "whole" else Blocks
        self._stack: Stack = make(weights, config.encoder, config.dim, "")

    def scores(self, ids: Int64[np.ndarray, " words"], heard: int | None = None) -> Float32[np.ndarray, "words marks"]:
        """Before softmax; ids: of the words of one text. heard: see `PunctuationModel.forward`."""
        config, stack = self.config, self._stack
        x = self._embed[ids].astype(np.float32) * np.float32(config.dim**0.5)
        x += positions(len(ids), config.dim)
        if isinstance(stack, Blocks):
            x = stack(x, [self._seen(len(ids), layer, heard) for layer in range(config.layers)])
        else:
            x = stack(x)
        return linear(x, self._output, "output")

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
