"""The structures of the compiled code, field by field as kernels.h, model.h, beam.h and candidates.h have them."""

from __future__ import annotations

from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_void_p
from typing import Any

ABI = 10
"""PF_ABI of the sources that belong to this file."""
FLOAT32, BFLOAT16, INT8 = 0, 1, 2
"""Formats of rows and weights."""
FORMATS = 3
UNCHANGED, RELU, GELU = 0, 1, 2
"""Activations."""


class Linear(Structure):
    """A layer y = x W^T + bias."""

    _fields_ = (
        *((name, c_void_p) for name in ("words", "scale", "sum", "bias")),
        *((name, c_int32) for name in ("k", "n", "format", "slice", "pitch")),
    )


class Acts(Structure):
    """Rows made ready to be multiplied."""

    _fields_ = (
        *((name, c_void_p) for name in ("words", "scale", "zero", "begin")),
        *((name, c_int32) for name in ("format", "rows", "words_per_row", "slice", "pitch")),
    )


class Target(Structure):
    """What becomes of the sums of a product."""

    _fields_ = (
        ("out", c_void_p),
        ("out_stride", c_size_t),
        *((name, c_void_p) for name in ("add", "add2")),
        *((name, c_size_t) for name in ("add_stride", "add2_stride")),
        ("activation", c_int32),
    )


class Norm(Structure):
    """A layer norm."""

    _fields_ = (("gain", c_void_p), ("shift", c_void_p), ("k", c_int32), ("epsilon", c_float))


class Attended(Structure):
    """Keys or values of one head."""

    _fields_ = (
        *((name, c_void_p) for name in ("before", "x")),
        *((name, c_size_t) for name in ("before_stride", "stride")),
        *((name, c_int32) for name in ("past", "count")),
    )


class Filter(Structure):
    """An FSMN memory over rows."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "taps", "before", "y")),
        *((name, c_size_t) for name in ("stride", "before_stride", "y_stride")),
        *((name, c_int32) for name in ("rows", "dim", "kernel", "left")),
    )


class Fbank(Structure):
    """How frames are made of samples."""

    _fields_ = (
        *((name, c_void_p) for name in ("window", "turns", "weights", "starts", "first")),
        *((name, c_int32) for name in ("width", "size", "bands")),
        *((name, c_float) for name in ("scale", "pre_emphasis", "floor")),
    )


def _function(*arguments: Any) -> Any:
    return CFUNCTYPE(None, *arguments)


class Kernels(Structure):
    """What a family of processors computes in its own way."""

    _fields_ = (
        ("name", c_char_p),
        ("needs", c_int32 * FORMATS),
        ("fast", c_int32 * FORMATS),
        ("acts_fill", _function(POINTER(Acts), c_void_p, c_size_t, c_int, c_int)),
        ("layer_norm", _function(POINTER(Norm), c_void_p, c_size_t, c_int, c_void_p, c_size_t)),
        ("multiply", _function(POINTER(Acts), POINTER(Linear), POINTER(Target))),
        ("means", _function(POINTER(Attended), c_int, c_void_p)),
        ("ranges", _function(POINTER(Attended), c_int, c_void_p, c_void_p)),
        ("pack_columns", _function(c_int, POINTER(Attended), c_int, *[c_void_p] * 5)),
        ("pack_rows", _function(c_int, POINTER(Attended), c_int, *[c_void_p] * 5)),
        ("softmax", _function(POINTER(Acts), c_int, c_void_p, c_int, c_float)),
        ("filter", _function(POINTER(Filter), c_int, c_int)),
        ("fbank", _function(POINTER(Fbank), c_void_p, c_int, c_int, c_void_p, c_void_p)),
    )


class Memory(Structure):
    """Taps of an FSMN memory."""

    _fields_ = (("taps", c_void_p), ("kernel", c_int32), ("left", c_int32))


class EncoderBlock(Structure):
    """One layer of the encoder."""

    _fields_ = (
        *((name, Norm) for name in ("norm1", "norm2")),
        *((name, Linear) for name in ("qkv", "out", "up", "down")),
        ("memory", Memory),
        ("residual", c_int32),
    )


class Conv(Structure):
    """A convolution of the front."""

    _fields_ = (("layer", Linear), ("kernel", c_int32), ("stride", c_int32))


class Front(Structure):
    """Convolutions over frames."""

    _fields_ = (("convs", POINTER(Conv)), *((name, c_int32) for name in ("count", "frames", "bands")))


class Stack(Structure):
    """Blocks of one width, and the norm after the last."""

    _fields_ = (
        ("blocks", POINTER(EncoderBlock)),
        ("norm", Norm),
        *((name, c_int32) for name in ("layers", "dim", "input", "heads", "hidden", "activation")),
    )


class Encoder(Structure):
    """The encoder, and the predictor's weights."""

    _fields_ = (
        ("front", Front),
        *((name, Stack) for name in ("rows", "windows")),
        ("merge_norm", Norm),
        *((name, Linear) for name in ("merge", "conv")),
        ("filter", Memory),
        *((name, c_void_p) for name in ("filter_bias", "fire")),
        ("fire_bias", c_float),
        *((name, c_int32) for name in ("attention", "input", "rows_per_window", "conv_left", "conv_right")),
    )


class Cross(Structure):
    """Attention to rows of another kind."""

    _fields_ = (("norm", Norm), *((name, Linear) for name in ("q", "kv", "out")))


class DecoderBlock(Structure):
    """One layer of the decoder."""

    _fields_ = (
        *((name, Norm) for name in ("norm1", "norm2", "ffn_norm")),
        *((name, Linear) for name in ("up", "down")),
        ("memory", Memory),
        ("cross", Cross),
    )


class Decoder(Structure):
    """The decoder."""

    _fields_ = (
        ("blocks", POINTER(DecoderBlock)),
        ("last", DecoderBlock),
        *((name, Norm) for name in ("norm", "units_norm")),
        ("hint", Cross),
        *((name, Linear) for name in ("both", "output", "units", "back")),
        *((name, c_int32) for name in ("attention", "layers", "heard", "hinted", "dim", "heads", "hidden")),
    )


class Lstm(Structure):
    """One direction of an LSTM's layer."""

    _fields_ = tuple((name, Linear) for name in ("input", "hidden"))


class Ngrams(Structure):
    """The tables of a language model."""

    _fields_ = tuple(
        (name, c_void_p)
        for name in (
            *("unigram", "unigram_backoff", "pairs", "triples"),
            *("pair_word", "pair", "pair_backoff", "triple_word", "triple"),
        )
    )


class Beam(Structure):
    """One search for the best text."""

    _fields_ = (
        ("model", POINTER(Ngrams)),
        *((name, c_void_p) for name in ("ids", "log_probs", "silent")),
        *((name, c_int64) for name in ("tokens", "candidates", "width", "older", "newer")),
        ("weight", c_float),
    )


class Lexicon(Structure):
    """The readings of items."""

    _fields_ = (
        *((name, c_void_p) for name in ("items", "unit", "begins", "share")),
        ("count", c_int64),
        *((name, c_float) for name in ("by_units", "least")),
    )


class Scored(Structure):
    """Scores of items, and of units, that candidates are chosen by."""

    _fields_ = (
        ("lexicon", POINTER(Lexicon)),
        *((name, c_void_p) for name in ("scores", "units")),
        *((name, c_int64) for name in ("tokens", "size", "heard", "candidates")),
    )


STRUCTURES = (
    *(Linear, Acts, Target, Norm, Attended, Filter, Fbank, Kernels),
    *(EncoderBlock, Conv, Stack, Encoder, DecoderBlock, Decoder, Lstm),
    *(Ngrams, Beam, Lexicon, Scored),
)
"""In the order in which pf_layout tells their sizes."""
