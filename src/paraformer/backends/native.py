"""The package's own engine: products of 8-bit integers, bfloat16 or float32, and no graph.

It computes what the graphs of `paraformer.contract` compute, from the same `model.safetensors`. Weights are brought
into the engine's layout when a model is opened: panels of 64 columns in which the numbers that one instruction takes
lie side by side. The C sources are in `paraformer/native`; where they were not built, or the processor lacks what they
need, `available` says so and ONNX Runtime does the work.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from ctypes import byref, c_int, c_int32, c_void_p
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import ArrayLike

from paraformer import contract, native
from paraformer.backends.base import OfOneProcess
from paraformer.backends.layers import FORMATS, Asked, Weights
from paraformer.backends.panels import PANEL, Precision
from paraformer.backends.structures import Model, SecondDecoder
from paraformer.config import ModelConfig, SanmDecoderConfig, SanmEncoderConfig
from paraformer.errors import UnsupportedModel
from paraformer.native.layout import RELU, UNCHANGED, Decoder, Linear
from paraformer.products import product

LEAST_ROWS = 6
"""Of one thread: with fewer, the products would use less of the processor."""
MOST_ROWS_BY_COLUMNS = 48
"""With more, reading weights is no longer what takes time, and meeting after every layer costs as much."""


def available(precision: Precision) -> bool:
    """Whether the engine was built and can compute in a precision here, at whatever speed."""
    return native.family(FORMATS[precision]) is not None


def fast(precision: Precision) -> bool:
    """Whether this processor has instructions that make the engine the fastest one in a precision."""
    return native.fast(FORMATS[precision])


def kernels(precision: Precision) -> str:
    """The family of processors whose kernels compute in a precision here, "none" where there is no engine."""
    return native.kernels_for(FORMATS[precision])


def supports(config: ModelConfig) -> bool:
    """Whether the engine knows this kind of model: SAN-M encoder and decoder, with all that may stand beside them."""
    encoder, decoder, predictor = config.encoder, config.decoder, config.predictor
    if not (isinstance(encoder, SanmEncoderConfig) and isinstance(decoder, SanmDecoderConfig)):
        return False
    if predictor.version == 1 and predictor.timing is not None and predictor.timing.from_conv:
        return False  # nobody has made one
    return decoder.text is None or decoder.text.units > 0


def _check(config: ModelConfig) -> None:
    if not supports(config):
        raise UnsupportedModel(
            "the package's own engine is for models with SAN-M encoders and decoders; leave backend and precision out"
        )


def packed(tensors: Mapping[str, ArrayLike], config: ModelConfig) -> dict[str, np.ndarray]:
    """All that the engine needs of a model to compute in int8, for `panels.save`. Raises as NativeEngine."""
    _check(config)
    weights = Weights(tensors, "int8")
    Model.of(config, weights)
    return weights.used


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Of all tensors that a model has, by name: the engine's, and training's. Raises UnsupportedModel."""
    _check(config)
    asked = Asked()
    Model.of(config, asked)
    dim, units = config.encoder.output_dim, config.ctc_vocab_size
    trained = {"ctc.weight": (units, dim), "ctc.bias": (units,)} if units else {}
    return {**asked.shapes, **trained, "decoder.embed.weight": (config.vocab_size, dim)}


class NativeEngine(OfOneProcess):
    """The functions that `paraformer.contract` lists, of one model; see backends.graphs.Runner."""

    def __init__(
        self, weights: Mapping[str, ArrayLike], config: ModelConfig, precision: Precision, threads: int = 1
    ) -> None:
        """weights: by their names in a bundle, or what `packed` made of them.

        threads: that share a batch, 0 for one per core; while they do, other callers compute alone.

        Raises UnsupportedModel where the engine cannot run here, or not this model; ModelError for a weight that
        is missing or not finite, CheckpointError for one of another shape than the settings say.
        """
        library, kernels = native.library(), native.family(FORMATS[precision])
        if library is None or kernels is None:
            raise UnsupportedModel(
                f"the package's own engine was not built here, or {native.SWITCH} turns it off, and cannot compute in "
                f"{precision}; install a wheel for this platform or, with a C compiler, the package again, or leave "
                "backend and precision out, which needs pip install 'paraformer[onnx]'"
            )
        _check(config)
        self.name = f"native {precision}"
        self._c, self._kernels, self._config = library, kernels, config
        self._model = Model.of(config, Weights(weights, precision))
        self._threads, self._lent_to = threads or _cores(), c_int32(0)
        self._functions = {
            contract.ENCODER: self._encode,
            "look_back.onnx": self._encode,
            "decoder.onnx": self._decode,
            "timing.onnx": self._time,
            "hotwords.onnx": self._encode_hotwords,
            "hotword_attention.onnx": self._attend_to_hotwords,
            "hotword_decoder.onnx": self._decode_hotwords,
        }

    def run(self, graph: contract.Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Compute what `graph` computes: its outputs in its order."""
        return self._functions[graph.file]({name: np.ascontiguousarray(array) for name, array in inputs.items()})

    def _encode(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        c, rows, lengths = self._config.encoder, self._config.rows_per_window, inputs["lengths"]
        assert isinstance(c, SanmEncoderConfig)
        feats, places = inputs["feats"], None
        batch, size = feats.shape[:2]
        # Convolutions come before positions, so the engine adds these itself.
        if c.front:
            places = _places(inputs["start"], size, self._config)
        else:
            feats = _embed(feats, inputs["start"], c.dim)
        room = _room(lengths, size)
        hidden, weights = room((batch, size, c.output_dim), np.float32), room((batch, size), np.float32)
        outputs, past_size = [hidden, weights], 0
        past: list[np.ndarray | None] = [None, None, None]
        if "past_keys" in inputs:
            past_size = inputs["past_keys"].shape[2]
            past = [inputs["past_keys"], inputs["past_values"], inputs["past_lengths"]]
            outputs += [room((batch, c.layers, size * rows, c.dim), np.float32) for _ in range(2)]
        # Keys and values, or the addresses of nothing.
        kept = [*outputs[2:], None, None][:2]
        arrays = [feats, lengths, inputs["start"], places, *past, past_size, *outputs[:2], *kept]
        how = self._division(int(lengths.sum()) * rows)
        self._call("pf_encode", byref(self._model.encoder), *how, self._lent, batch, size, *arrays)
        p = self._config.predictor
        np.maximum(weights * np.float32(p.smooth_factor) - np.float32(p.noise_threshold), 0, out=weights)
        weights[np.arange(size)[None] >= lengths[:, None]] = 0
        return outputs

    def _decode(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        batch, longest = inputs["embeds"].shape[:2]
        room = _room(inputs["counts"], longest)
        logits = room((batch, longest, self._config.vocab_size), np.float32)
        past, units = inputs.get("fsmn"), self._config.units
        # Of a stream without tokens it stays zero: GraphBackend lets that stream keep its own.
        following = None if past is None else np.zeros_like(past)
        scored = room((batch, longest, units), np.float32) if units else None
        rows = np.zeros_like(inputs["embeds"]) if self._model.listener and self._model.listener.second else None
        self._through(self._model.decoder, inputs, past, logits, scored, rows, following)
        return [output for output in (logits, following, scored, rows) if output is not None]

    def _through(self, decoder: Decoder, inputs: Mapping[str, np.ndarray], *outputs: np.ndarray | None) -> None:
        """Tokens through a decoder; outputs: past, logits, units, rows and the next past; some may be None."""
        memory, embeds, counts = inputs["memory"], inputs["embeds"], inputs["counts"]
        # Truth values are bytes already.
        mask, hotwords = inputs["memory_mask"].view(np.uint8), inputs.get("hotwords")
        sizes = [len(embeds), memory.shape[1]]
        hints = 0 if hotwords is None else len(hotwords)
        arrays = [memory, mask, embeds.shape[1], embeds, counts, hints, hotwords, *outputs]
        self._call("pf_decode", byref(decoder), *self._division(int(counts.sum())), self._lent, *sizes, *arrays)

    # -- beside the decoder -------------------------------------------------------------------------------------------

    def _time(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Weights of the second integrate-and-fire, as paraformer.model.timing."""
        c, timing = self._config.predictor.timing, self._model.timing
        assert c is not None and timing is not None
        hidden, lengths = inputs["hidden"], inputs["lengths"]
        batch, size, dim = hidden.shape
        present = np.arange(size)[None] < lengths[:, None]
        # Only present rows are multiplied; their places are filled again below.
        rows = hidden[present]
        if c.from_conv:
            rows = self._linear(self._model.encoder.conv, self._neighbours(hidden)[present], RELU)
        x = np.zeros((batch, size, c.rate * dim), np.float32)
        x[present] = self._linear(timing.up, rows)
        # The finer rows of a row lie side by side, so they follow one another in memory.
        x = x.reshape(batch, size * c.rate, dim)
        if timing.lstm is not None:
            x = self._recur(timing.lstm, x, lengths * c.rate)
        weights = 1 / (1 + np.exp(-((x * timing.output).sum(-1) + np.float32(timing.bias))))
        weights = np.maximum(weights * np.float32(c.smooth_factor) - np.float32(c.noise_threshold), 0)
        return [weights * np.repeat(present, c.rate, 1)]

    def _neighbours(self, hidden: np.ndarray) -> np.ndarray:
        """Rows (B, T, D) with those beside them, as the predictor's convolution sees them: (B, T, width * D)."""
        p, size = self._config.predictor, hidden.shape[1]
        padded = np.pad(hidden, ((0, 0), (p.left, p.right), (0, 0)))
        return np.concatenate([padded[:, j : j + size] for j in range(p.left + p.right + 1)], -1)

    def _encode_hotwords(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        listener, lengths = self._model.listener, inputs["lengths"]
        assert listener is not None
        x = listener.embed[inputs["ids"]]
        for layer in listener.lstm:
            x = self._recur(layer, x, lengths)
        rows = x[np.arange(len(x)), lengths - 1]
        return [rows if listener.project is None else self._linear(listener.project, rows)]

    def _attend_to_hotwords(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """How much tokens attend to each hotword, as paraformer.model.hotwords.Seaco.attention."""
        second, hotwords, counts = self._second, inputs["hotwords"], inputs["counts"]
        rows = self._over(second.remembering, inputs["rows"], counts, np.repeat(hotwords[None], len(counts), 0))
        normed = np.concatenate([row[:count] for row, count in zip(rows, counts, strict=True)])
        dim, heads = normed.shape[1], second.decoder.heads
        self._kernels.layer_norm(byref(second.last.norm), _pointer(normed), dim, len(normed), _pointer(normed), dim)
        # Keys alone: values would only tell what is made of attention, which nobody asks here.
        queries, keys = self._linear(second.last.q, normed), self._linear(second.last.kv, hotwords)[:, :dim]
        query, key = (x.reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (queries, keys))
        scores = product(query, key.transpose(0, 2, 1)) * np.float32((dim // heads) ** -0.5)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares = (shares / shares.sum(-1, keepdims=True)).sum(0)
        return [np.stack([part.sum(0) for part in np.split(shares, np.cumsum(counts)[:-1])])]

    def _decode_hotwords(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Scores of SeACo's second decoder: acoustic vectors and the first one's rows each ask for hotwords."""
        counts, hotwords = inputs["counts"], inputs["hotwords"]
        asking = [self._over(self._second.decoder, inputs[name], counts, hotwords) for name in ("embeds", "rows")]
        present = np.arange(asking[0].shape[1])[None] < counts[:, None]
        logits = np.zeros((*present.shape, self._config.vocab_size), np.float32)
        logits[present] = self._linear(self._second.output, (asking[0] + asking[1])[present])
        return [logits]

    @property
    def _second(self) -> SecondDecoder:
        assert self._model.listener is not None and self._model.listener.second is not None
        return self._model.listener.second

    def _over(self, decoder: Decoder, x: np.ndarray, counts: np.ndarray, hotwords: np.ndarray) -> np.ndarray:
        """Rows x (B, L, D), of which counts (B,) are tokens, through a decoder over hotwords (B, N, D)."""
        rows, mask = np.zeros_like(x), np.ones(hotwords.shape[:2], bool)
        inputs = {"memory": np.ascontiguousarray(hotwords), "memory_mask": mask, "embeds": x, "counts": counts}
        self._through(decoder, inputs, None, None, None, rows, None)
        return rows

    # -- calls --------------------------------------------------------------------------------------------------------

    def _linear(self, layer: Linear, x: np.ndarray, activation: int = UNCHANGED) -> np.ndarray:
        """Rows (R, k) through a layer: (R, n)."""
        y = np.zeros((len(x), layer.n), np.float32)
        parts = max(1, min(self._threads, len(x) // LEAST_ROWS))
        self._call("pf_linear", byref(layer), parts, self._lent, len(x), np.ascontiguousarray(x), activation, y)
        return y

    def _recur(self, ways: Any, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Sequences x (B, T, k) of these lengths through a layer of an LSTM: (B, T, directions * D)."""
        batch, size, _ = x.shape
        y = np.zeros((batch, size, len(ways) * ways[0].hidden.k), np.float32)
        self._call("pf_lstm", ways, self._threads, self._lent, len(ways), batch, size, x, lengths, y)
        return y

    def _division(self, rows: int) -> tuple[int, bool]:
        return division(self._threads, rows, self._config.encoder.output_dim)

    @property
    def _lent(self) -> Any:
        return byref(self._lent_to)

    def _call(self, function: str, *arguments: Any) -> None:
        """Call a compiled function; until it is back no signal reaches Python."""
        given = [byref(self._kernels), *map(_argument, arguments)]
        if getattr(self._c, function)(*given):
            raise MemoryError("not enough memory for this batch")


def division(threads: int, rows: int, dim: int) -> tuple[int, bool]:
    """How many threads share so many rows, and whether they divide the columns of layers, the narrowest of width `dim`.

    >>> division(2, 20, 512), division(2, 20, 64), division(2, 200, 512)
    ((2, True), (1, True), (2, False))
    """
    if rows <= MOST_ROWS_BY_COLUMNS:
        return max(1, min(threads, dim // PANEL)), True
    return max(1, min(threads, rows // LEAST_ROWS)), False


def _cores() -> int:
    """Of this process; macOS does not say which."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _room(counts: np.ndarray, size: int) -> Any:
    """What makes an array of `size` rows each for the engine to fill: of zeros, unless it fills all of them."""
    return np.empty if int(counts.min()) == size else np.zeros


def _argument(value: Any) -> Any:
    if isinstance(value, int):
        return c_int(value)
    return _pointer(value) if value is None or isinstance(value, np.ndarray) else value


def _pointer(array: np.ndarray | None) -> c_void_p:
    if array is None:
        return c_void_p(None)
    assert array.flags.c_contiguous
    return c_void_p(array.ctypes.data)


def _embed(
    feats: Float32[np.ndarray, "batch rows input"], start: np.ndarray, dim: int
) -> Float32[np.ndarray, "batch rows input"]:
    """Rows times sqrt(dim) plus sinusoids of their positions, zero below position 1 (spec 2.1)."""
    positions = start[:, None] + np.arange(feats.shape[1])
    table = _added(positions, feats.shape[2], 1, _NEAR)
    return np.ascontiguousarray(feats * np.float32(dim**0.5) + table)


def _places(start: np.ndarray, windows: int, config: ModelConfig) -> Float32[np.ndarray, "batch rows dim"]:
    """Sinusoids of the rows of windows after a front, which count from 0, zero before the audio."""
    c, rows = config.encoder, config.rows_per_window
    assert isinstance(c, SanmEncoderConfig) and c.front
    places = (start[:, None] - 1) * rows + np.arange(windows * rows)
    if c.front.period:
        places = np.where(places < 0, places, places % c.front.period)
    return _added(places, c.dim, 0, _NEAR * rows)


_NEAR = 512
"""Windows, those of 30 seconds, of whose positions a table is kept; a stream's later ones are computed each time."""


def _added(
    positions: Int64[np.ndarray, "batch rows"], width: int, first: int, near: int
) -> Float32[np.ndarray, "batch rows width"]:
    """Sinusoids of positions from `first` on, zero below; of those up to `near` from a table."""
    kept = np.maximum(positions, first - 1)
    if kept.max() >= first - 1 + near:
        return _sinusoids(kept, width, first)
    found: np.ndarray = _near_sinusoids(width, first, near)[kept - (first - 1)]
    return found


@cache
def _near_sinusoids(width: int, first: int, count: int) -> Float32[np.ndarray, "positions width"]:
    return _sinusoids(np.arange(count) + first - 1, width, first)


def _sinusoids(positions: Int64[np.ndarray, "*rows"], width: int, first: int = 1) -> Float32[np.ndarray, "*rows width"]:
    """The twin of paraformer.model.layers.sinusoid: angles in turns, so that hours of a stream cost no precision."""
    half = width // 2
    # Rates rounded as those that published models have learnt with.
    exponents = np.arange(half, dtype=np.float32) * -(np.float32(math.log(10000.0)) / np.float32(half - 1))
    rates = np.exp(exponents.astype(np.float64)).astype(np.float32).astype(np.float64)
    turns = positions[..., None] * (rates / math.tau)
    angles = (turns - np.rint(turns)).astype(np.float32) * np.float32(math.tau)
    table: np.ndarray = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    return table * (positions >= first)[..., None]
