"""Tensors of a model as the structures that the package's own engine computes with: see native/layout.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from paraformer import native
from paraformer.backends.layers import FORMATS, Weights, beside
from paraformer.config import ContextualConfig, ModelConfig, SanmDecoderConfig, SanmEncoderConfig, SeacoConfig
from paraformer.native.layout import (
    Conv,
    Cross,
    Decoder,
    DecoderBlock,
    Encoder,
    EncoderBlock,
    Front,
    Linear,
    Stack,
)

_ACTIVATIONS = {"relu": native.layout.RELU, "gelu": native.layout.GELU}


@dataclass(frozen=True, eq=False)
class Timing:
    """The second integrate-and-fire: rows made finer, a recurrent layer or none, and what makes weights of rows."""

    up: Linear
    lstm: Any
    output: np.ndarray
    bias: float


@dataclass(frozen=True, eq=False)
class SecondDecoder:
    """SeACo's second decoder, over hotwords, and the layer that makes scores of what it makes of two kinds of rows.

    remembering: its blocks up to the last attention, which is left out; last: that attention, which tells a shortlist.
    """

    decoder: Decoder
    output: Linear
    remembering: Decoder
    last: Cross


@dataclass(frozen=True, eq=False)
class Listener:
    """What makes rows of hotwords, and SeACo's second decoder."""

    embed: np.ndarray
    lstm: list[Any]
    project: Linear | None
    second: SecondDecoder | None


@dataclass(frozen=True, eq=False)
class Model:
    """All structures of a model, whose arrays `kept` keeps alive."""

    encoder: Encoder
    decoder: Decoder
    timing: Timing | None
    listener: Listener | None
    kept: list[Any]

    @classmethod
    def of(cls, config: ModelConfig, weights: Weights) -> Model:
        """A model that `native.supports`."""
        return cls(
            _encoder(config, weights),
            _decoder(config, weights),
            _timing(config, weights),
            _listener(config, weights),
            weights.kept,
        )


def _encoder(config: ModelConfig, weights: Weights) -> Encoder:
    c, p, rows = config.encoder, config.predictor, config.rows_per_window
    assert isinstance(c, SanmEncoderConfig)
    dim, input_dim = c.output_dim, config.frontend.input_dim
    encoder = Encoder(
        front=_front(config, weights),
        rows=stack(weights, "encoder.", "norm", c, c.dim if c.front else input_dim),
        fire=weights.vector("predictor.output.weight", 1, dim),
        fire_bias=float(weights.tensor("predictor.output.bias", 1)[0]),
        attention=FORMATS[weights.precision],
        input=input_dim,
        rows_per_window=rows,
        conv_left=p.left,
        conv_right=p.right,
    )
    reach = p.left + p.right + 1
    if p.version == 1:
        encoder.filter = weights.memory("predictor.conv", dim, reach, p.left)
        encoder.filter_bias = weights.vector("predictor.conv.bias", dim)
    else:
        encoder.conv = weights.linear("predictor.conv", dim, dim, reach, precision=beside(weights.precision))
    if c.windows:
        at, sizes = "encoder.windows_of_rows", dataclasses.asdict(c.windows)
        # The memory of windows reaches as far on both sides, whatever that of rows does.
        encoder.windows = stack(weights, f"{at}.", "final", dataclasses.replace(c, **sizes, shift=0), dim)
        encoder.merge_norm = weights.norm(f"{at}.norm", rows * c.dim, c.norm_epsilon)
        encoder.merge = weights.linear(f"{at}.merge", dim, rows * c.dim)
    return encoder


def _front(config: ModelConfig, weights: Weights) -> Front:
    c, bands = config.encoder, config.frontend.mel_bins
    assert isinstance(c, SanmEncoderConfig)
    if c.front is None:
        return Front()
    convs = (Conv * len(c.front.kernels))()
    for i, (kernel, stride) in enumerate(zip(c.front.kernels, c.front.strides, strict=True)):
        # The first sees what no norm has brought to one size, and is small.
        precision = weights.precision if i else beside(weights.precision)
        layer = weights.linear(f"encoder.front.convs.{i}", c.dim, c.dim if i else bands, kernel, precision=precision)
        convs[i] = Conv(layer, kernel, stride)
    weights.kept.append(convs)
    return Front(convs=convs, count=len(convs), frames=config.frontend.lfr_n, bands=bands)


def stack(weights: Weights, at: str, norm: str, c: SanmEncoderConfig, width: int) -> Stack:
    """Blocks of c.dim, of which the first is given rows of another width. at: with what their names begin."""
    widths = [width] + [c.dim] * (c.layers - 1)
    blocks = (EncoderBlock * c.layers)(
        *(_encoder_block(weights, f"{at}blocks.{index}", c, width) for index, width in enumerate(widths[: c.layers]))
    )
    weights.kept.append(blocks)
    return Stack(
        blocks=blocks,
        norm=weights.norm(f"{at}{norm}", c.dim, c.norm_epsilon),
        layers=c.layers,
        dim=c.dim,
        input=width,
        heads=c.heads,
        hidden=c.ffn_dim,
        activation=_ACTIVATIONS[c.activation],
    )


def _encoder_block(weights: Weights, at: str, c: SanmEncoderConfig, width: int) -> EncoderBlock:
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


def _decoder(config: ModelConfig, weights: Weights) -> Decoder:
    c, dim, side = config.decoder, config.encoder.output_dim, beside(weights.precision)
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
    decoder = _blocks(weights, made, c, dim)
    decoder.last = _feed_forward(weights, "decoder.final", dim, last.ffn_dim)
    decoder.norm = weights.norm("decoder.norm", dim)
    decoder.output = weights.linear("decoder.output", config.vocab_size, dim, precision=side)
    # hidden: the widest of all, which work space is made for.
    decoder.heard, decoder.hidden = c.layers, max(c.ffn_dim, last.ffn_dim)
    if c.text:
        decoder.units_norm = weights.norm("decoder.text.norm", dim)
        decoder.units = weights.linear("decoder.text.units", c.text.units, dim, precision=side)
        decoder.back = weights.linear("decoder.text.back", dim, c.text.units, precision=side)
    if isinstance(config.hotwords, ContextualConfig):
        decoder.hinted = c.attention_layers - 1
        decoder.hint = _cross(weights, "decoder.hotwords", "norm", dim)
        decoder.both = weights.linear("decoder.hotwords.output", dim, 2 * dim, 1, bias=False)
    return decoder


def _blocks(weights: Weights, made: list[DecoderBlock], c: SanmDecoderConfig | SeacoConfig, dim: int) -> Decoder:
    """A decoder of blocks, and nothing after them."""
    blocks = (DecoderBlock * len(made))(*made)
    weights.kept.append(blocks)
    return Decoder(
        blocks=blocks,
        layers=len(made),
        heard=len(made),
        dim=dim,
        heads=c.heads,
        hidden=c.ffn_dim,
        attention=FORMATS[weights.precision],
    )


def _decoder_block(
    c: SanmDecoderConfig | SeacoConfig, dim: int, weights: Weights, at: str, *, cross: bool
) -> DecoderBlock:
    block = _feed_forward(weights, at, dim, c.ffn_dim)
    block.norm2 = weights.norm(f"{at}.norm2", dim)
    # As in the reference, where the memory of layers without attention is centred.
    block.memory = weights.memory(f"{at}.memory", dim, c.kernel, (c.kernel - 1) // 2 + (c.shift if cross else 0))
    if cross:
        block.cross = _cross(weights, at, "norm3", dim)
    return block


def _cross(weights: Weights, at: str, norm: str, dim: int) -> Cross:
    return Cross(
        norm=weights.norm(f"{at}.{norm}", dim),
        q=weights.linear(f"{at}.cross.q", dim, dim),
        kv=weights.linear(f"{at}.cross.kv", 2 * dim, dim),
        out=weights.linear(f"{at}.cross.out", dim, dim),
    )


def _feed_forward(weights: Weights, at: str, dim: int, hidden: int) -> DecoderBlock:
    return DecoderBlock(
        norm1=weights.norm(f"{at}.norm1", dim),
        ffn_norm=weights.norm(f"{at}.feed_forward.norm", hidden),
        up=weights.linear(f"{at}.feed_forward.up", hidden, dim),
        down=weights.linear(f"{at}.feed_forward.down", dim, hidden, bias=False),
    )


def _timing(config: ModelConfig, weights: Weights) -> Timing | None:
    c, dim = config.predictor.timing, config.encoder.output_dim
    if c is None:
        return None
    at = "predictor.timing"
    return Timing(
        up=weights.upsampling(f"{at}.up", dim, c.rate),
        lstm=weights.lstm(f"{at}.lstm", dim, dim, 1, both=True)[0] if c.recurrent else None,
        output=weights.tensor(f"{at}.output.weight", 1, 2 * dim if c.recurrent else dim)[0],
        bias=float(weights.tensor(f"{at}.output.bias", 1)[0]),
    )


def _listener(config: ModelConfig, weights: Weights) -> Listener | None:
    c, dim = config.hotwords, config.encoder.output_dim
    if c is None:
        return None
    both = isinstance(c, SeacoConfig) and c.bidirectional
    embed = "hotwords.embed" if isinstance(c, ContextualConfig) and c.own_embedding else "decoder.embed"
    return Listener(
        embed=weights.tensor(f"{embed}.weight", config.vocab_size, dim),
        lstm=weights.lstm("hotwords.lstm", dim, dim, c.recurrent_layers, both=both),
        project=weights.linear("hotwords.project", dim, 2 * dim) if both else None,
        second=_second(c, config.vocab_size, dim, weights) if isinstance(c, SeacoConfig) else None,
    )


def _second(c: SeacoConfig, vocab_size: int, dim: int, weights: Weights) -> SecondDecoder:
    made = [
        _decoder_block(c, dim, weights, f"hotwords.blocks.{index}", cross=index < c.attention_layers)
        for index in range(c.layers)
    ]
    decoder, remembering = _blocks(weights, made, c, dim), _blocks(weights, made[: c.attention_layers], c, dim)
    decoder.last = _feed_forward(weights, "hotwords.final", dim, c.ffn_dim)
    decoder.norm = weights.norm("hotwords.norm", dim)
    last = made[c.attention_layers - 1].cross
    # `remembering` has its own copies of the blocks, and so the decoder keeps its attention.
    remembering.blocks[c.attention_layers - 1].cross = Cross()
    output = weights.linear("hotwords.output", vocab_size, dim, precision=beside(weights.precision))
    return SecondDecoder(decoder, output, remembering, last)
