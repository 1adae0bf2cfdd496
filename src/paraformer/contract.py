"""The exported graphs: one table of names, types and axes for the exporter, the backends and the tests.

A bundle holds up to three graphs, all of whose weights lie in its `model.safetensors`:

encoder  rows in, hidden rows and CIF weights out: whole utterances, and live steps without look-back
look_back  the same with keys and values of earlier steps (streaming models)
decoder  acoustic vectors in, token scores out; of a streaming model also the memory rows of the next live step

Integrate-and-fire stands between them, outside any graph, because how many tokens there are depends on the data.
Axes: B streams, T windows, R rows inside the encoder (where a window has several), P looked-back ones of them, K memory
rows, L tokens; numbers are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paraformer.config import ModelConfig, SanmDecoderConfig

OPSET = 18
WEIGHTS = "model.safetensors"
PACKED = "model.int8.safetensors"
"""Weights of a directory that is for recognition in int8 alone, as the package's own engine maps them into memory."""
LM = "lm.safetensors"
"""A language model over the same vocabulary."""
ENCODER = "encoder.onnx"

DType = Literal["float32", "int32", "int64", "bool"]
Axis = str | int


@dataclass(frozen=True)
class Port:
    """One input or output of a graph; a string axis varies, an integer one is fixed."""

    name: str
    dtype: DType
    axes: tuple[Axis, ...]

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """Position -> name of the axes that vary."""
        return {index: axis for index, axis in enumerate(self.axes) if isinstance(axis, str)}


@dataclass(frozen=True)
class Graph:
    """One exported graph."""

    file: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def encoder(config: ModelConfig) -> Graph:
    """Rows to hidden rows and weights. lengths: rows present; start: position of the first row, 1 for whole audio."""
    dim, width = config.encoder.output_dim, config.frontend.input_dim
    return Graph(
        ENCODER,
        (
            Port("feats", "float32", ("B", "T", width)),
            Port("lengths", "int64", ("B",)),
            Port("start", "int64", ("B",)),
        ),
        (Port("hidden", "float32", ("B", "T", dim)), Port("weights", "float32", ("B", "T"))),
    )


def look_back(config: ModelConfig) -> Graph:
    """As `encoder`, with past keys and values (the last past_lengths of them valid), and this step's to keep."""
    plain, dim, layers = encoder(config), config.encoder.dim, config.encoder.layers
    rows = "T" if config.rows_per_window == 1 else "R"
    return Graph(
        "look_back.onnx",
        (
            *plain.inputs,
            Port("past_keys", "float32", ("B", layers, "P", dim)),
            Port("past_values", "float32", ("B", layers, "P", dim)),
            Port("past_lengths", "int64", ("B",)),
        ),
        (
            *plain.outputs,
            Port("keys", "float32", ("B", layers, rows, dim)),
            Port("values", "float32", ("B", layers, rows, dim)),
        ),
    )


def decoder(config: ModelConfig) -> Graph:
    """Vectors to scores (before softmax). memory_mask: rows to attend to; counts: tokens present."""
    dim = config.encoder.output_dim
    inputs = [
        Port("memory", "float32", ("B", "K", dim)),
        Port("memory_mask", "bool", ("B", "K")),
        Port("embeds", "float32", ("B", "L", dim)),
        Port("counts", "int64", ("B",)),
    ]
    outputs = [Port("logits", "float32", ("B", "L", config.vocab_size))]
    if config.streaming and isinstance(config.decoder, SanmDecoderConfig):
        rows = (config.decoder.memories, config.decoder.kernel - 1, dim)
        inputs.append(Port("fsmn", "float32", ("B", *rows)))
        outputs.append(Port("next_fsmn", "float32", ("B", *rows)))
    return Graph("decoder.onnx", tuple(inputs), tuple(outputs))


def graphs(config: ModelConfig) -> tuple[Graph, ...]:
    """All graphs of a model of this configuration."""
    plain = (encoder(config), decoder(config))
    return (*plain, look_back(config)) if config.streaming else plain
