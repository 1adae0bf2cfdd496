"""The exported graphs: one table of names, types and axes for the exporter, the backends and the tests.

The weights of all graphs of a bundle lie in its `model.safetensors`:

encoder  rows in, hidden rows and CIF weights out: whole utterances, and live steps without look-back
look_back  the same with keys and values of earlier steps (streaming models)
decoder  acoustic vectors in, token scores out; of a streaming model also the memory rows of the next live step, and of
    one whose decoder hears units, such as syllables, before it writes characters, the scores of those
timing  hidden rows in, weights out that tell when tokens were spoken (models with a second predictor)
hotwords  ids in, a row for each hotword out (models that listen for hotwords)
hotword_attention, hotword_decoder  from the decoder's rows to what SeACo-Paraformer makes of hotwords

Integrate-and-fire stands between them, outside any graph, because how many tokens there are depends on the data.
Axes: B streams, T windows, R rows inside the encoder (where a window has several), P looked-back ones of them, K memory
rows, L tokens, S steps of the second predictor, N hotwords of M tokens; numbers are the model's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from paraformer.config import ContextualConfig, ModelConfig, SanmDecoderConfig, SeacoConfig

OPSET = 18
WEIGHTS = "model.safetensors"
PACKED = "model.int8.safetensors"
"""Weights of a directory that is for recognition in int8 alone, as the package's own engine maps them into memory."""
LM = "lm.safetensors"
"""A language model over the same vocabulary."""
ENCODER = "encoder.onnx"
GRAPHS = (
    ENCODER,
    "look_back.onnx",
    "decoder.onnx",
    "timing.onnx",
    "hotwords.onnx",
    "hotword_attention.onnx",
    "hotword_decoder.onnx",
)
"""Files of all graphs that a bundle may hold."""

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
    if config.units:
        outputs.append(Port("units", "float32", ("B", "L", config.units)))
    if isinstance(config.hotwords, ContextualConfig):
        inputs.append(Port("hotwords", "float32", ("N", dim)))
    if isinstance(config.hotwords, SeacoConfig):
        outputs.append(Port("rows", "float32", ("B", "L", dim)))
    return Graph("decoder.onnx", tuple(inputs), tuple(outputs))


def timing(config: ModelConfig) -> Graph:
    """The encoder's rows to the weights of the second integrate-and-fire. lengths: rows present."""
    return Graph(
        "timing.onnx",
        (Port("hidden", "float32", ("B", "T", config.encoder.output_dim)), Port("lengths", "int64", ("B",))),
        (Port("weights", "float32", ("B", "S")),),
    )


def hotwords(config: ModelConfig) -> Graph:
    """Ids of hotwords to a row for each. lengths: ids present, at least one."""
    return Graph(
        "hotwords.onnx",
        (Port("ids", "int64", ("N", "M")), Port("lengths", "int64", ("N",))),
        (Port("rows", "float32", ("N", config.encoder.output_dim)),),
    )


def attention(config: ModelConfig) -> Graph:
    """How much an utterance's tokens attend to each hotword, of which SeACo then takes some."""
    dim = config.encoder.output_dim
    return Graph(
        "hotword_attention.onnx",
        (
            Port("rows", "float32", ("B", "L", dim)),
            Port("counts", "int64", ("B",)),
            Port("hotwords", "float32", ("N", dim)),
        ),
        (Port("attention", "float32", ("B", "N")),),
    )


def second_decoder(config: ModelConfig) -> Graph:
    """Vectors, rows of the decoder and each utterance's hotwords to the scores of SeACo's second decoder."""
    dim = config.encoder.output_dim
    return Graph(
        "hotword_decoder.onnx",
        (
            Port("embeds", "float32", ("B", "L", dim)),
            Port("rows", "float32", ("B", "L", dim)),
            Port("counts", "int64", ("B",)),
            Port("hotwords", "float32", ("B", "N", dim)),
        ),
        (Port("logits", "float32", ("B", "L", config.vocab_size)),),
    )


def graphs(config: ModelConfig) -> tuple[Graph, ...]:
    """All graphs of a model of this configuration."""
    made = [encoder(config), decoder(config)]
    if config.streaming:
        made.append(look_back(config))
    if config.predictor.timing is not None:
        made.append(timing(config))
    if config.hotwords is not None:
        made.append(hotwords(config))
    if isinstance(config.hotwords, SeacoConfig):
        made += [attention(config), second_decoder(config)]
    return tuple(made)


SETTINGS = "settings"
"""Where a graph's metadata hold `settings`, as JSON."""
_BESIDE = frozenset(
    {
        *("dropout", "attention_dropout", "label_smoothing", "length_normalized", "objective_weight"),
        *("trains_decoder", "threshold", "tail_threshold", "no_bias_id"),
    }
)
"""Settings that no graph computes with: those of training, and of what stands between the graphs."""


def settings(config: ModelConfig) -> dict[str, Any]:
    """What graphs are traced with, by name as "encoder.heads".

    Many settings, such as the number of heads, change no shape: a graph of others would run, and compute other numbers.
    """
    parts = {name: getattr(config, name) for name in ("encoder", "predictor", "decoder", "hotwords")}
    return {
        name: value for part, held in parts.items() if held is not None for name, value in _flat(part, asdict(held))
    }


def _flat(at: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{at}.{name}", value)
        elif name not in _BESIDE:
            yield f"{at}.{name}", list(value) if isinstance(value, tuple) else value
