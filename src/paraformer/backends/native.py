"""The package's own engine: products of 8-bit integers, bfloat16 or float32, and no graph.

It computes what the graphs of `paraformer.contract` compute, from the same `model.safetensors`. Weights are brought
into the engine's layout when a model is opened: panels of 64 columns in which the numbers that one instruction takes
lie side by side. The C sources are in `paraformer/native`; where they were not built, or the processor lacks what they
need, `available` says so and ONNX Runtime does the work.
"""

from __future__ import annotations

import dataclasses
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
from paraformer.backends import panels
from paraformer.backends.panels import Precision
from paraformer.config import ModelConfig, SanmDecoderConfig, SanmEncoderConfig
from paraformer.errors import ModelError, UnsupportedModel
from paraformer.native import BFLOAT16, FLOAT32, INT8
from paraformer.native.layout import (
    Conv,
    Decoder,
    DecoderBlock,
    Encoder,
    EncoderBlock,
    Front,
    Linear,
    Memory,
    Norm,
    Stack,
)
from paraformer.weights import Stored, check_finite, check_shape

_FORMATS: dict[Precision, int] = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}
_ACTIVATIONS = {"relu": native.layout.RELU, "gelu": native.layout.GELU}
_EPSILON = 1e-12
"""Of norms in the decoder, as in paraformer.model.layers."""
LEAST_ROWS = 6
"""Of one thread: with fewer, the products would use less of the processor."""


def available(precision: Precision) -> bool:
    """Whether the engine was built and can compute in a precision here, at whatever speed."""
    return native.family(_FORMATS[precision]) is not None


def fast(precision: Precision) -> bool:
    """Whether this processor has instructions that make the engine the fastest one in a precision."""
    return native.fast(_FORMATS[precision])


def kernels(precision: Precision) -> str:
    """The family of processors whose kernels compute in a precision here, "none" where there is no engine."""
    return native.kernels_for(_FORMATS[precision])


def supports(config: ModelConfig) -> bool:
    """Whether the engine knows this kind of model: SAN-M, with the second kind of predictor and nothing beside it."""
    encoder, decoder = config.encoder, config.decoder
    if not (isinstance(encoder, SanmEncoderConfig) and isinstance(decoder, SanmDecoderConfig)):
        return False
    if config.hotwords is not None or config.predictor.timing is not None:
        return False
    return config.predictor.version == 2 and (decoder.text is None or decoder.text.units > 0)


def _check(config: ModelConfig, precision: Precision) -> None:
    if not supports(config):
        raise UnsupportedModel(
            f"{precision} is for SAN-M models with the second kind of predictor and nothing beside it; use 'float32'"
        )


def packed(tensors: Mapping[str, ArrayLike], config: ModelConfig) -> dict[str, np.ndarray]:
    """All that the engine needs of a model to compute in int8, for `panels.save`. Raises as NativeEngine."""
    _check(config, "int8")
    weights = _Weights(tensors, "int8")
    _encoder(config, weights)
    _decoder(config, weights)
    return weights.used


class NativeEngine:
    """The functions that `paraformer.contract` lists, of one model; see backends.graphs.Runner."""

    def __init__(
        self, weights: Mapping[str, ArrayLike], config: ModelConfig, precision: Precision, threads: int = 1
    ) -> None:
        """weights: by their names in a bundle, or what `packed` made of them.

        threads: that share the rows of a batch, 0 for one per core; while they do, other callers compute alone.

        Raises UnsupportedModel where the engine cannot run here, or not this model; ModelError for a weight that
        is missing or not finite, CheckpointError for one of another shape than the settings say.
        """
        library, kernels = native.library(), native.family(_FORMATS[precision])
        if library is None or kernels is None:
            raise UnsupportedModel(
                f"the package's own engine was not built here and cannot compute in {precision}; "
                "install a wheel or a C compiler, or use precision='float32' with a directory that has graphs"
            )
        _check(config, precision)
        self.name = f"native {precision}"
        self._c, self._kernels, self._config = library, kernels, config
        packed = _Weights(weights, precision)
        self._kept = packed.kept  # what the structures below point to
        self._encoder, self._decoder = _encoder(config, packed), _decoder(config, packed)
        self._threads, self._lent_to = threads or _cores(), c_int32(0)

    def run(self, graph: contract.Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Compute what `graph` computes: its outputs in its order."""
        compute = self._decode if graph.file == contract.decoder(self._config).file else self._encode
        return compute({name: np.ascontiguousarray(array) for name, array in inputs.items()})

    def _encode(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        c, rows, lengths = self._config.encoder, self._config.rows_per_window, inputs["lengths"]
        assert isinstance(c, SanmEncoderConfig)
        feats, places = inputs["feats"], None
        batch, size = feats.shape[:2]
        if c.front:
            places = _places(inputs["start"], size, self._config)
        else:
            feats = _embed(feats, inputs["start"], c.dim)
        hidden, weights = np.zeros((batch, size, c.output_dim), np.float32), np.zeros((batch, size), np.float32)
        outputs, past_size = [hidden, weights], 0
        past: list[np.ndarray | None] = [None, None, None]
        if "past_keys" in inputs:
            past_size = inputs["past_keys"].shape[2]
            past = [inputs["past_keys"], inputs["past_values"], inputs["past_lengths"]]
            outputs += [np.zeros((batch, c.layers, size * rows, c.dim), np.float32) for _ in range(2)]
        kept = [*outputs[2:], None, None][:2]
        arrays = [feats, lengths, inputs["start"], places, *past, past_size, *outputs[:2], *kept]
        self._compute("pf_encode", self._encoder, int(lengths.sum()) * rows, batch, size, *arrays)
        p = self._config.predictor
        np.maximum(weights * np.float32(p.smooth_factor) - np.float32(p.noise_threshold), 0, out=weights)
        weights[np.arange(size)[None] >= lengths[:, None]] = 0
        return outputs

    def _decode(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        memory, embeds = inputs["memory"], inputs["embeds"]
        batch, longest = embeds.shape[:2]
        logits = np.zeros((batch, longest, self._config.vocab_size), np.float32)
        past = inputs.get("fsmn")
        outputs = [logits] if past is None else [logits, np.zeros_like(past)]
        following = None if past is None else outputs[1]
        mask = inputs["memory_mask"].view(np.uint8)
        arrays = [memory, mask, longest, embeds, inputs["counts"], past, logits, following]
        self._compute("pf_decode", self._decoder, int(mask.sum()), batch, memory.shape[1], *arrays)
        return outputs

    def _compute(self, function: str, model: Any, rows: int, *arguments: Any) -> None:
        """Call one of the functions of encoder.c and decoder.c; until it is back no signal reaches Python."""
        parts = parts_of(self._threads, rows)
        given = map(_argument, arguments)
        if getattr(self._c, function)(byref(self._kernels), byref(model), parts, byref(self._lent_to), *given):
            raise MemoryError("not enough memory for this batch")


def parts_of(threads: int, rows: int) -> int:
    """How many threads share so many rows."""
    return max(1, min(threads, rows // LEAST_ROWS))


def _cores() -> int:
    """Of this process; macOS does not say which."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _argument(value: Any) -> Any:
    return c_int(value) if isinstance(value, int) else _pointer(value)


def _pointer(array: np.ndarray | None) -> c_void_p:
    if array is None:
        return c_void_p(None)
    assert array.flags.c_contiguous
    return array.ctypes.data_as(c_void_p)


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
    exponents = np.arange(half, dtype=np.float32) * -(np.float32(math.log(10000.0)) / np.float32(half - 1))
    rates = np.exp(exponents.astype(np.float64)).astype(np.float32).astype(np.float64)
    turns = positions[..., None] * (rates / math.tau)
    angles = (turns - np.rint(turns)).astype(np.float32) * np.float32(math.tau)
    table: np.ndarray = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    return table * (positions >= first)[..., None]


class _Weights:
    """Tensors of a model in the engine's layout.

    kept: every array that a structure points to. used: what a file of int8 must hold to make the same structures.
    """

    def __init__(self, tensors: Mapping[str, ArrayLike], precision: Precision) -> None:
        self.precision = precision
        self.kept: list[Any] = []
        self.used: dict[str, np.ndarray] = {}
        self._tensors = tensors
        self._room = panels.Room()

    def tensor(self, name: str, *shape: int) -> np.ndarray:
        """A tensor as float32. What is compiled takes its size on trust, so it is the one that the settings say."""
        if name not in self._tensors:
            raise ModelError(f"the weights lack {name}; get the model again")
        tensor = self._tensors[name]
        check_shape(name, np.shape(tensor), shape)
        self.used[name] = np.ascontiguousarray(tensor, np.float32)
        check_finite(name, self.used[name])
        return self.used[name]

    def keep(self, array: np.ndarray) -> int:
        """The address of an array that stays alive with the model."""
        self.kept.append(array)
        return int(array.ctypes.data)

    def vector(self, name: str, *shape: int) -> int:
        """The address of a tensor."""
        return self.keep(self.tensor(name, *shape))

    def norm(self, name: str, size: int, epsilon: float = _EPSILON) -> Norm:
        """A layer norm."""
        return Norm(self.vector(f"{name}.weight", size), self.vector(f"{name}.bias", size), size, epsilon)

    def memory(self, name: str, dim: int, kernel: int, left: int) -> Memory:
        """An FSMN memory: (dim, 1, kernel) to (kernel, dim). With a kernel of 0 there is none."""
        if not kernel:
            return Memory()
        taps = np.ascontiguousarray(self.tensor(f"{name}.weight", dim, 1, kernel)[:, 0].T)
        return Memory(self.keep(taps), kernel, left)

    def linear(
        self, name: str, *shape: int, bias: bool = True, precision: Precision | None = None, sliced: bool = False
    ) -> Linear:
        """A linear layer (n, k), or a convolution (n, channels, width) as one over its width side by side.

        sliced: in int8 a few numbers of a row have a scale of their own, where others may be much larger.
        """
        precision, at = precision or self.precision, f"{name}.weight"
        n, k = shape[0], math.prod(shape[1:])
        slice_ = panels.SLICE if sliced and precision == "int8" and k > panels.SLICE else 0
        matrix = panels.Panels.from_arrays(self._tensors, at, n, k, slice_) if precision == "int8" else None
        if matrix is None:
            matrix = self._packed(at, shape, precision, slice_)
        if self.precision != "int8" or precision == "int8":
            self.used.pop(at, None)
        if precision == "int8":
            self.used |= matrix.to_arrays(at)
        shift = self.keep(_whole_panels(self.tensor(f"{name}.bias", n))) if bias else None
        scale = None if matrix.scale is None else self.keep(matrix.scale)
        total = None if matrix.sum is None else self.keep(matrix.sum)
        return Linear(self.keep(matrix.words), scale, total, shift, k, n, _FORMATS[precision], slice_)

    def _packed(self, name: str, shape: tuple[int, ...], precision: Precision, slice_: int) -> panels.Panels:
        """A matrix in panels; what is in 8 bits on disk keeps its whole numbers in int8."""
        pair = self._tensors.in_8_bits(name) if isinstance(self._tensors, Stored) and precision == "int8" else None
        if pair is None:
            return panels.pack(_as_matrix(self.tensor(name, *shape)), precision, self._room, slice_)
        whole, scale = pair
        check_shape(name, whole.shape, shape)
        return panels.pack_whole(_as_matrix(whole), scale.reshape(1, -1), self._room, slice_)


def _as_matrix(weight: np.ndarray) -> np.ndarray:
    """Of a convolution (n, channels, width), one over its width side by side."""
    return weight if weight.ndim == 2 else np.ascontiguousarray(weight.transpose(0, 2, 1).reshape(len(weight), -1))


def _whole_panels(row: np.ndarray) -> np.ndarray:
    return np.pad(row, (0, -len(row) % panels.PANEL))


def _encoder(config: ModelConfig, weights: _Weights) -> Encoder:
    c, p, rows = config.encoder, config.predictor, config.rows_per_window
    assert isinstance(c, SanmEncoderConfig)
    dim, input_dim = c.output_dim, config.frontend.input_dim
    encoder = Encoder(
        front=_front(config, weights),
        rows=_stack(weights, "encoder", "norm", c, c.dim if c.front else input_dim),
        conv=weights.linear("predictor.conv", dim, dim, p.left + p.right + 1, precision=_beside(weights.precision)),
        fire=weights.vector("predictor.output.weight", 1, dim),
        fire_bias=float(weights.tensor("predictor.output.bias", 1)[0]),
        attention=_FORMATS[weights.precision],
        input=input_dim,
        rows_per_window=rows,
        conv_left=p.left,
        conv_right=p.right,
    )
    if c.windows:
        at, sizes = "encoder.windows_of_rows", dataclasses.asdict(c.windows)
        encoder.windows = _stack(weights, at, "final", dataclasses.replace(c, **sizes, shift=0), dim)
        encoder.merge_norm = weights.norm(f"{at}.norm", rows * c.dim, c.norm_epsilon)
        encoder.merge = weights.linear(f"{at}.merge", dim, rows * c.dim)
    return encoder


def _front(config: ModelConfig, weights: _Weights) -> Front:
    c, bands = config.encoder, config.frontend.mel_bins
    assert isinstance(c, SanmEncoderConfig)
    if c.front is None:
        return Front()
    convs = (Conv * len(c.front.kernels))()
    for i, (kernel, stride) in enumerate(zip(c.front.kernels, c.front.strides, strict=True)):
        # The first sees what no norm has brought to one size, and is small.
        precision = weights.precision if i else _beside(weights.precision)
        layer = weights.linear(f"encoder.front.convs.{i}", c.dim, c.dim if i else bands, kernel, precision=precision)
        convs[i] = Conv(layer, kernel, stride)
    weights.kept.append(convs)
    return Front(convs=convs, count=len(convs), frames=config.frontend.lfr_n, bands=bands)


def _stack(weights: _Weights, at: str, norm: str, c: SanmEncoderConfig, width: int) -> Stack:
    """Blocks of c.dim, of which the first is given rows of another width."""
    widths = [width] + [c.dim] * (c.layers - 1)
    blocks = (EncoderBlock * c.layers)(
        *(_encoder_block(weights, f"{at}.blocks.{index}", c, width) for index, width in enumerate(widths[: c.layers]))
    )
    weights.kept.append(blocks)
    return Stack(
        blocks=blocks,
        norm=weights.norm(f"{at}.{norm}", c.dim, c.norm_epsilon),
        layers=c.layers,
        dim=c.dim,
        input=width,
        heads=c.heads,
        hidden=c.ffn_dim,
        activation=_ACTIVATIONS[c.activation],
    )


def _beside(precision: Precision) -> Precision:
    """What is computed beside 8-bit products: a front's first layer, integrate-and-fire, units and the output layer."""
    return precision if precision != "int8" else "bfloat16" if fast("bfloat16") else "float32"


def _encoder_block(weights: _Weights, at: str, c: SanmEncoderConfig, width: int) -> EncoderBlock:
    return EncoderBlock(
        norm1=weights.norm(f"{at}.norm1", width, c.norm_epsilon),
        norm2=weights.norm(f"{at}.norm2", c.dim, c.norm_epsilon),
        qkv=weights.linear(f"{at}.attention.qkv", 3 * c.dim, width),
        out=weights.linear(f"{at}.attention.out", c.dim, c.dim),
        up=weights.linear(f"{at}.feed_forward.up", c.ffn_dim, c.dim),
        # Of what GELU leaves few numbers are large, and they are not the same in every row.
        down=weights.linear(f"{at}.feed_forward.down", c.dim, c.ffn_dim, sliced=c.activation == "gelu"),
        memory=weights.memory(f"{at}.attention.memory", c.dim, c.kernel, (c.kernel - 1) // 2 + c.shift),
        residual=width == c.dim,
    )


def _decoder(config: ModelConfig, weights: _Weights) -> Decoder:
    c, dim, beside = config.decoder, config.encoder.output_dim, _beside(weights.precision)
    assert isinstance(c, SanmDecoderConfig)
    made = [
        _decoder_block(c, dim, weights, f"decoder.blocks.{index}", cross=index < c.attention_layers)
        for index in range(c.layers)
    ]
    last = c
    if c.text:
        last = dataclasses.replace(c, ffn_dim=c.text.ffn_dim)
        made += [
            _decoder_block(last, dim, weights, f"decoder.text.blocks.{index}", cross=False)
            for index in range(c.text.layers)
        ]
    blocks = (DecoderBlock * len(made))(*made)
    weights.kept.append(blocks)
    decoder = Decoder(
        blocks=blocks,
        last=_feed_forward(weights, "decoder.final", dim, last.ffn_dim),
        norm=weights.norm("decoder.norm", dim),
        output=weights.linear("decoder.output", config.vocab_size, dim, precision=beside),
        layers=len(made),
        heard=c.layers,
        dim=dim,
        heads=c.heads,
        hidden=max(c.ffn_dim, last.ffn_dim),
        attention=_FORMATS[weights.precision],
    )
    if c.text:
        decoder.units_norm = weights.norm("decoder.text.norm", dim)
        decoder.units = weights.linear("decoder.text.units", c.text.units, dim, precision=beside)
        decoder.back = weights.linear("decoder.text.back", dim, c.text.units, precision=beside)
    return decoder


def _decoder_block(c: SanmDecoderConfig, dim: int, weights: _Weights, at: str, *, cross: bool) -> DecoderBlock:
    block = _feed_forward(weights, at, dim, c.ffn_dim)
    block.norm2 = weights.norm(f"{at}.norm2", dim)
    block.memory = weights.memory(f"{at}.memory", dim, c.kernel, (c.kernel - 1) // 2 + (c.shift if cross else 0))
    block.cross = cross
    if cross:
        block.norm3 = weights.norm(f"{at}.norm3", dim)
        block.q = weights.linear(f"{at}.cross.q", dim, dim)
        block.kv = weights.linear(f"{at}.cross.kv", 2 * dim, dim)
        block.out = weights.linear(f"{at}.cross.out", dim, dim)
    return block


def _feed_forward(weights: _Weights, at: str, dim: int, hidden: int) -> DecoderBlock:
    return DecoderBlock(
        norm1=weights.norm(f"{at}.norm1", dim),
        ffn_norm=weights.norm(f"{at}.feed_forward.norm", hidden),
        up=weights.linear(f"{at}.feed_forward.up", hidden, dim),
        down=weights.linear(f"{at}.feed_forward.down", dim, hidden, bias=False),
    )
