"""Tiny streaming models with random weights, their graphs, and signals to feed them: for the tests of recognition."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file

from paraformer.backends.base import Backend
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.native import NativeEngine, available
from paraformer.backends.onnx import OnnxRunner
from paraformer.backends.torch import TorchBackend
from paraformer.config import (
    ChunkConfig,
    FrontConfig,
    ModelConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
    TextConfig,
    WindowsConfig,
)
from paraformer.export import export
from paraformer.frontend import Cmvn, Frontend
from paraformer.model.paraformer import Paraformer

TOKENS = ("<blank>", "<s>", "</s>", *(chr(0x4E00 + i) for i in range(20)), "hel@@", "lo", "a", "b", "<unk>")

EXACT = ("onnx", "torch", *(["native"] if available("float32") else []))
"""Engines that compute in float32."""
ENGINES = (*EXACT, *(name for name in ("bfloat16", "int8") if available(name)))

Kind = Literal["published", "whisper"]
KINDS: tuple[Kind, ...] = ("published", "whisper")
"""Of models: as FunASR publishes them, or with an encoder that begins as Whisper's."""

CHUNKS = (
    ChunkConfig(),
    ChunkConfig(left=8, chunk=8, right=4),
    ChunkConfig(left=0, chunk=10, right=5, encoder_look_back=4, decoder_look_back=1),
    ChunkConfig(left=5, chunk=10, right=5, encoder_look_back=1, decoder_look_back=2),
    ChunkConfig(left=2, chunk=3, right=0, encoder_look_back=-1, decoder_look_back=1),
)


def config(kind: Kind = "published") -> ModelConfig:
    """A streaming SAN-M model of a few thousand parameters."""
    return ModelConfig(
        vocab_size=len(TOKENS),
        encoder=_ENCODER if kind == "published" else _HEARD,
        predictor=PredictorConfig(dropout=0.0),
        decoder=_DECODER if kind == "published" else _READ,
        live=ChunkConfig(),
    )


_ENCODER = SanmEncoderConfig(dim=16, heads=2, ffn_dim=24, layers=2, kernel=5, dropout=0.0, attention_dropout=0.0)
_DECODER = SanmDecoderConfig(
    heads=2, ffn_dim=24, layers=2, attention_layers=2, kernel=5, shift=2, dropout=0.0, attention_dropout=0.0
)
WINDOWS = WindowsConfig(dim=12, heads=2, ffn_dim=20, layers=1, kernel=3)
_HEARD = replace(
    _ENCODER,
    ffn_dim=132,
    kernel=0,
    activation="gelu",
    norm_epsilon=1e-5,
    front=FrontConfig(kernels=(4, 3), strides=(1, 2), period=50),
    windows=WINDOWS,
)
"""Three rows of width 16 to a window of width 12; its feed-forward layers have two slices in int8."""
_READ = replace(_DECODER, shift=0, look_ahead=True, text=TextConfig(units=7, layers=1, ffn_dim=20))


@cache
def model(kind: Kind = "published") -> Paraformer:
    """The model; its predictor is spread out so that weights vary with the signal."""
    torch.manual_seed(1)
    tiny = Paraformer(config(kind)).eval()
    with torch.no_grad():
        tiny.predictor.output.weight.mul_(4.0)
        tiny.decoder.output.weight.mul_(6.0)
    return tiny


@cache
def directory(kind: Kind = "published") -> Path:
    """A directory with the model's weights and graphs."""
    path = Path(mkdtemp(prefix="paraformer-tiny-"))
    save_file(model(kind).state_dict(), path / "model.safetensors")
    export(model(kind), path)
    return path


@cache
def backend(name: str, kind: Kind = "published") -> TorchBackend | GraphBackend:
    """The model on an engine: "torch", "onnx", the native one in float32 ("native") or in another precision."""
    if name == "torch":
        return TorchBackend(model(kind))
    if name == "onnx":
        return GraphBackend(OnnxRunner(directory(kind), config(kind)), config(kind))
    precision = "float32" if name == "native" else name
    return GraphBackend(NativeEngine(model(kind).state_dict(), config(kind), precision), config(kind))


@cache
def engine(name: str = "onnx", kind: Kind = "published"):
    """What sessions need."""
    from paraformer.speech_model import SpeechModel
    from paraformer.text import Vocabulary

    dim = config(kind).frontend.input_dim
    cmvn = Cmvn(np.full(dim, -8.0, np.float32), np.full(dim, 0.25, np.float32))
    return SpeechModel(backend(name, kind), Frontend(config(kind).frontend, cmvn), Vocabulary(TOKENS, None))


def signal(samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose loudness and colour change every 50 to 250 ms, float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    pieces = [np.zeros(0)]
    while sum(map(len, pieces)) < samples:
        count = int(rng.integers(800, 4000))
        tone = np.sin(np.arange(count) * rng.uniform(0.02, 1.5)) + 0.3 * rng.standard_normal(count)
        pieces.append(tone * 10 ** rng.uniform(-3, -0.5))
    return np.clip(np.concatenate(pieces)[:samples], -1, 1).astype(np.float32)


def rounding(backend: Backend, feats: np.ndarray) -> float:
    """How far scores of an utterance move where its features change by their own rounding: no engine can be nearer to
    another. Of few utterances it is more than 1e-4."""
    scores = backend.whole([feats])[0].scores
    found = [0.0]
    for seed in range(5):
        change = np.random.default_rng(seed).uniform(-6e-8, 6e-8, feats.shape)
        moved = backend.whole([(feats * (1 + change)).astype(np.float32)])[0].scores
        if moved.shape == scores.shape:
            found.append(float(np.abs(moved - scores).max()))
    return max(found)
