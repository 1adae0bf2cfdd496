"""Whisper's encoder as a start: three layouts, one result, and what it computes of our features."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file
from tiny import WINDOWS
from torch import Tensor

from paraformer.checkpoint import whisper
from paraformer.checkpoint.whisper_mel import log_mel
from paraformer.config import FrontConfig, ModelConfig, SanmDecoderConfig
from paraformer.errors import CheckpointError, ConfigError, ModelNotFound
from paraformer.frontend import Cmvn, Frontend
from paraformer.model.paraformer import Paraformer
from paraformer.train.speech import Setup, encoder_weights

DIM, LAYERS = 64, 2
HUGGING_FACE = {
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}
CTRANSLATE2 = {
    "attn.out": "self_attention/linear_1",
    "attn_ln": "self_attention/layer_norm",
    "mlp.0": "ffn/linear_0",
    "mlp.2": "ffn/linear_1",
    "mlp_ln": "ffn/layer_norm",
}


def openai() -> dict[str, Tensor]:
    """A small encoder by OpenAI's names, and a tensor of the decoder."""
    torch.manual_seed(3)
    shapes = {"conv1": (DIM, 80, 3), "conv2": (DIM, DIM, 3), "ln_post": (DIM,)}
    for index in range(LAYERS):
        at = f"blocks.{index}"
        shapes |= {f"{at}.attn.{name}": (DIM, DIM) for name in ("query", "key", "value", "out")}
        shapes |= {f"{at}.attn_ln": (DIM,), f"{at}.mlp_ln": (DIM,)}
        shapes |= {f"{at}.mlp.0": (4 * DIM, DIM), f"{at}.mlp.2": (DIM, 4 * DIM)}
    tensors = {"decoder.token_embedding.weight": torch.zeros(5, DIM)}
    tensors |= {"encoder.positional_embedding": torch.zeros(1500, DIM)}
    for name, shape in shapes.items():
        tensors[f"encoder.{name}.weight"] = torch.randn(shape) * 0.1 + (len(shape) == 1)
        if not name.endswith("key"):
            tensors[f"encoder.{name}.bias"] = torch.randn(shape[0]) * 0.1
    return tensors


def hugging_face() -> dict[str, Tensor]:
    """The same by Hugging Face's names."""
    renamed = {}
    for name, tensor in openai().items():
        for ours, theirs in HUGGING_FACE.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        name = name.replace("blocks.", "layers.").replace("ln_post", "layer_norm")
        renamed["model." + name.replace("positional_embedding", "embed_positions.weight")] = tensor
    return renamed


def ctranslate2() -> dict[str, Tensor]:
    """The same by CTranslate2's names, with query, key and value in one."""
    tensors, renamed = openai(), {}
    for name, tensor in tensors.items():
        if not name.startswith("encoder.") or name.endswith("positional_embedding"):
            continue
        module, leaf = name.removeprefix("encoder.").rsplit(".", 1)
        block, _, inner = module.removeprefix("blocks.").partition(".")
        if inner in ("attn.query", "attn.key", "attn.value"):
            continue
        if "ln" in module:
            leaf = {"weight": "gamma", "bias": "beta"}[leaf]
        place = f"layer_{block}/{CTRANSLATE2[inner]}" if inner else module.replace("ln_post", "layer_norm")
        renamed[f"encoder/{place}/{leaf}"] = tensor
    for index in range(LAYERS):
        at = f"encoder.blocks.{index}.attn"
        biases = (tensors[f"{at}.query.bias"], torch.zeros(DIM), tensors[f"{at}.value.bias"])
        joined = torch.cat([tensors[f"{at}.{name}.weight"] for name in ("query", "key", "value")])
        renamed[f"encoder/layer_{index}/self_attention/linear_0/weight"] = joined
        renamed[f"encoder/layer_{index}/self_attention/linear_0/bias"] = torch.cat(biases)
    return renamed


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def model_bin(tensors: dict[str, Tensor], kind: int = 0) -> bytes:
    """CTranslate2's file of some tensors."""
    parts = [struct.pack("<I", 6), text("WhisperSpec"), struct.pack("<II", 3, len(tensors) + 1)]
    parts += [text("encoder/num_heads"), struct.pack("<BBIh", 0, 2, 2, 1)]
    for name, tensor in tensors.items():
        values = tensor.numpy().tobytes()
        sizes = struct.pack(f"<B{tensor.dim()}IBI", tensor.dim(), *tensor.shape, kind, len(values))
        parts += [text(name), sizes, values]
    return b"".join(parts)


def written(layout: str, directory: Path) -> Path:
    """A directory with the encoder in that layout."""
    if layout == "ctranslate2":
        (directory / "model.bin").write_bytes(model_bin(ctranslate2()))
    else:
        save_file({"openai": openai, "hugging_face": hugging_face}[layout](), directory / "model.safetensors")
    return directory


def config(source: Path, **changes: object) -> ModelConfig:
    encoder = dataclasses.replace(whisper.settings(source), windows=WINDOWS, **changes)
    return ModelConfig(vocab_size=9, encoder=encoder, decoder=SanmDecoderConfig(heads=2, ffn_dim=24, layers=1))


@pytest.mark.parametrize("layout", ["openai", "hugging_face", "ctranslate2"])
def test_every_layout_gives_whisper_s_encoder(layout: str, tmp_path: Path) -> None:
    """But for the first convolution, every tensor is in its place: of Whisper's features it makes Whisper's rows."""
    source = written(layout, tmp_path)
    made = whisper.settings(source)
    assert (made.dim, made.heads, made.ffn_dim, made.layers, made.kernel) == (DIM, 1, 4 * DIM, LAYERS, 0)
    weights = whisper.encoder_weights(source, config(source), None)
    model = Paraformer(config(source)).eval()
    missing, extra = model.load_state_dict(weights, strict=False)
    assert not extra
    assert all(name.startswith(("encoder.windows_of_rows.", "predictor.", "decoder.")) for name in missing)
    tensors = openai()
    key = weights["encoder.blocks.1.attention.qkv.weight"][DIM : 2 * DIM]
    torch.testing.assert_close(key, tensors["encoder.blocks.1.attn.key.weight"])
    assert not weights["encoder.blocks.1.attention.qkv.bias"][DIM : 2 * DIM].any()
    torch.testing.assert_close(weights["encoder.norm.weight"], tensors["encoder.ln_post.weight"])
    torch.testing.assert_close(weights["encoder.front.convs.1.weight"], tensors["encoder.conv2.weight"])


@pytest.mark.parametrize("normalised", [False, True])
@torch.no_grad()
def test_the_front_makes_of_our_features_what_whisper_makes_of_its_own(normalised: bool, tmp_path: Path) -> None:
    """Away from the ends, where the frames differ, first rows correlate with those of Whisper's log-mel frames."""
    source, samples = written("openai", tmp_path), tiny.signal(32000, seed=5)
    rng = np.random.default_rng(0)
    rows = rng.uniform(-9, -7, 80).astype(np.float32), rng.uniform(0.2, 0.4, 80).astype(np.float32)
    cmvn = Cmvn(np.tile(rows[0], 7), np.tile(rows[1], 7)) if normalised else None
    model = Paraformer(config(source)).eval()
    model.load_state_dict(whisper.encoder_weights(source, model.config, cmvn), strict=False)
    feats = torch.tensor(Frontend(model.config.frontend, cmvn).whole(samples))[None]
    ours = model.encoder.front(feats, torch.ones(1, feats.shape[1], dtype=torch.bool))[0]
    # Three copies of the first frame stand before it, and a frame of Whisper's lies in the middle of two of ours.
    frames = torch.from_numpy(log_mel(samples[80:]).astype(np.float32))
    plain = Paraformer(dataclasses.replace(model.config, encoder=config(source, front=FrontConfig()).encoder)).eval()
    plain.encoder.front.load_state_dict(
        {
            f"convs.{index}.{leaf}": openai()[f"encoder.conv{index + 1}.{leaf}"]
            for index in (0, 1)
            for leaf in ("weight", "bias")
        }
    )
    padded = torch.cat([frames[:1].repeat(3, 1), frames])
    padded = padded[: len(padded) // 6 * 6].reshape(1, -1, 480)
    padded = torch.nn.functional.pad(padded, (0, 80))
    theirs = plain.encoder.front(padded, torch.ones(1, padded.shape[1], dtype=torch.bool))[0]
    inside = slice(6, min(len(ours), len(theirs)) - 6)
    error = (ours[inside] - theirs[inside]).square().mean().sqrt() / theirs[inside].std()
    assert error < 0.25


@torch.no_grad()
def test_a_memory_begins_as_none(tmp_path: Path) -> None:
    source = written("hugging_face", tmp_path)
    rows = []
    for kernel in (0, 5):
        model = Paraformer(config(source, kernel=kernel)).eval()
        model.load_state_dict(whisper.encoder_weights(source, model.config, None), strict=False)
        rows.append(
            model.encoder.run(model.encoder.embed(torch.randn(1, 9, 560, generator=torch.Generator().manual_seed(1))))[
                0
            ]
        )
    torch.testing.assert_close(rows[0], rows[1], rtol=0, atol=1e-5)


def test_what_is_no_whisper(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"neither model\.bin"):
        whisper.settings(tmp_path)
    with pytest.raises(ModelNotFound, match="no file of a Whisper"):
        whisper.settings(tmp_path / "nothing.bin")
    bin_ = tmp_path / "model.bin"
    whole = model_bin(ctranslate2())
    for content, message in (
        (b"", "not a whole model.bin"),
        (whole[:-7], "ends within a tensor"),
        (struct.pack("<I", 99) + whole[4:], "version 99"),
        (model_bin({name: tensor.to(torch.int8) for name, tensor in ctranslate2().items()}, kind=1), "quantised"),
        (model_bin({"decoder/x/weight": torch.zeros(2)}), "no Whisper encoder"),
    ):
        bin_.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            whisper.settings(tmp_path)


def test_sizes_and_features_that_do_not_fit(tmp_path: Path) -> None:
    source = written("openai", tmp_path)
    with pytest.raises(CheckpointError, match=r"missing: encoder\.blocks\.2"):
        whisper.encoder_weights(source, config(source, layers=3), None)
    with pytest.raises(CheckpointError, match="with a front"):
        whisper.encoder_weights(source, tiny.config(), None)
    other = config(source)
    other = dataclasses.replace(other, frontend=dataclasses.replace(other.frontend, shift_ms=12.5))
    with pytest.raises(ConfigError, match="every 10 ms at 16 kHz"):
        whisper.encoder_weights(source, other, None)


def test_a_run_starts_from_it(tmp_path: Path) -> None:
    source = written("openai", tmp_path)
    model, cmvn = config(source), Cmvn(np.zeros(560, np.float32), np.ones(560, np.float32))
    setup = Setup(model, tuple("abcdefghi"), {}, cmvn)
    weights = encoder_weights(f"whisper:{source}", setup)
    assert set(weights) == set(whisper.encoder_weights(source, model, cmvn))
