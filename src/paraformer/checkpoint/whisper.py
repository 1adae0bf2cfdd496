"""Whisper's encoder as the start of ours: from CTranslate2's model.bin, OpenAI's names or Hugging Face's.

A SAN-M block without memory and with GELU is a Whisper block, and its convolutions are a front. What differs is the
features, for which the first convolution takes in `whisper_mel`'s map: the settings say so by its kernel, which is 4,
Whisper's 3 over one frame made of two of ours.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from paraformer.checkpoint import strict
from paraformer.checkpoint.whisper_mel import BANDS, mel_map
from paraformer.config import FrontConfig, ModelConfig, SanmEncoderConfig
from paraformer.errors import CheckpointError, ModelNotFound
from paraformer.frontend import Cmvn

HEAD = 64
"""Width of an attention head in every Whisper."""
KERNEL = 3
"""Of its convolutions."""
_OUTSIDE = {"conv1": "front.convs.0", "conv2": "front.convs.1", "layer_norm": "norm", "ln_post": "norm"}
_INSIDE = {
    "self_attn.out_proj": "attention.out",
    "attn.out": "attention.out",
    "self_attention/linear_1": "attention.out",
    "fc1": "feed_forward.up",
    "mlp.0": "feed_forward.up",
    "ffn/linear_0": "feed_forward.up",
    "fc2": "feed_forward.down",
    "mlp.2": "feed_forward.down",
    "ffn/linear_1": "feed_forward.down",
    "self_attn_layer_norm": "norm1",
    "attn_ln": "norm1",
    "self_attention/layer_norm": "norm1",
    "final_layer_norm": "norm2",
    "mlp_ln": "norm2",
    "ffn/layer_norm": "norm2",
    "self_attention/linear_0": "attention.qkv",
}
"""Inside a block: Hugging Face's names, OpenAI's and CTranslate2's."""
_QUERY_KEY_VALUE = {
    **{f"self_attn.{part}_proj": part for part in "qkv"},
    **{f"attn.{name}": name[0] for name in ("query", "key", "value")},
}
_NAME = re.compile(
    r"(?:model\.)?encoder[./](?:(?:layers\.|blocks\.|layer_)(?P<block>\d+)[./])?"
    r"(?P<module>.+)[./](?P<leaf>weight|bias|gamma|beta)"
)
_TYPES: Mapping[int, np.dtype[Any]] = {0: np.dtype("<f4"), 4: np.dtype("<f2")}
_LEAVES = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}


def settings(source: str | Path) -> SanmEncoderConfig:
    """Those of an encoder that begins as the one in `source`, but for `windows`, which are the recipe's to choose.

    Raises ModelNotFound, or CheckpointError for what is no Whisper.
    """
    weights = _read(Path(source))
    dim, ffn = weights["norm.weight"].shape[0], weights["blocks.0.feed_forward.up.weight"].shape[0]
    return SanmEncoderConfig(
        dim=dim,
        heads=dim // HEAD,
        ffn_dim=ffn,
        layers=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
        kernel=0,
        activation="gelu",
        norm_epsilon=1e-5,
        front=FrontConfig(kernels=(KERNEL + 1, KERNEL), strides=(1, 2)),
        attention_dropout=0.0,
    )


def encoder_weights(source: str | Path, config: ModelConfig, cmvn: Cmvn | None) -> dict[str, Tensor]:
    """Weights of the model's encoder by our names, as `source` has them; those of `windows` are not among them.

    source: a directory with model.bin (CTranslate2) or model.safetensors (either layout), or such a file. cmvn: of the
    rows that the encoder will take. Raises ModelNotFound, or CheckpointError where the sizes are others.
    """
    weights = _read(Path(source))
    encoder = config.encoder
    if not isinstance(encoder, SanmEncoderConfig) or encoder.front is None or encoder.front.kernels[0] < KERNEL:
        raise CheckpointError("Whisper's encoder needs one with a front; take the settings that whisper.settings gives")
    weights |= _first_convolution(weights, config, encoder.front.kernels[0] - KERNEL + 1, cmvn)
    weights |= _no_memory(encoder)
    named = {f"encoder.{name}": tensor for name, tensor in weights.items()}
    shapes = {
        name: tensor.shape
        for name, tensor in strict.skeleton(config).state_dict().items()
        if name.startswith("encoder.") and not name.startswith("encoder.windows_of_rows.")
    }
    strict.check(shapes, named, str(source))
    return named


def _first_convolution(
    weights: Mapping[str, Tensor], config: ModelConfig, frames: int, cmvn: Cmvn | None
) -> dict[str, Tensor]:
    """Whisper's first convolution after the map of `frames` of ours, which normalisation has shifted and scaled."""
    kernel = weights["front.convs.0.weight"].double()
    if kernel.shape[1:] != (BANDS, KERNEL):
        raise CheckpointError(f"a first convolution of {tuple(kernel.shape)} is not that of a Whisper with 80 bands")
    found, frontend = mel_map(config.frontend, frames), config.frontend
    shift, scale = np.zeros(frontend.mel_bins), np.ones(frontend.mel_bins)
    if cmvn is not None:
        size = frontend.lfr_n * frontend.mel_bins
        shift, scale = (row[:size].reshape(-1, frontend.mel_bins).mean(0) for row in (cmvn.shift, cmvn.scale))
    mixed = torch.from_numpy(found.weights / scale[:, None])
    constant = torch.from_numpy(found.bias - np.einsum("m,fmb->b", shift, found.weights))
    taps = torch.zeros(kernel.shape[0], frontend.mel_bins, KERNEL + frames - 1, dtype=torch.float64)
    for tap in range(KERNEL):
        taps[:, :, tap : tap + frames] += torch.einsum("db,fmb->dmf", kernel[:, :, tap], mixed)
    bias = weights["front.convs.0.bias"].double() + kernel.sum(-1) @ constant
    return {"front.convs.0.weight": taps.float(), "front.convs.0.bias": bias.float()}


def _no_memory(encoder: SanmEncoderConfig) -> dict[str, Tensor]:
    """Taps that take away what a memory adds, where the settings ask for one."""
    if not encoder.kernel:
        return {}
    taps = torch.zeros(encoder.dim, 1, encoder.kernel)
    taps[:, :, (encoder.kernel - 1) // 2 + encoder.shift] = -1
    return {f"blocks.{index}.attention.memory.weight": taps for index in range(encoder.layers)}


def _read(source: Path) -> dict[str, Tensor]:
    """The encoder's tensors in float32 by our names."""
    if source.is_dir():
        files = [source / name for name in ("model.bin", "model.safetensors") if (source / name).is_file()]
        if not files:
            raise ModelNotFound(f"{source} holds neither model.bin (CTranslate2) nor model.safetensors")
        source = files[0]
    if not source.is_file():
        raise ModelNotFound(f"{source} is no file of a Whisper model")
    tensors = _safetensors(source) if source.suffix == ".safetensors" else _ctranslate2(source)
    try:
        return _renamed(tensors)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{source} holds no Whisper encoder that is known here: {error}") from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors of any of the layouts, in ours. Raises KeyError for a name that none of them has."""
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None or match["module"] == "embed_positions":
            continue
        block, module, leaf = match["block"], match["module"], _LEAVES[match["leaf"]]
        if block is None:
            found[f"{_OUTSIDE[module]}.{leaf}"] = tensor.float()
        elif module in _QUERY_KEY_VALUE:
            parts.setdefault(f"blocks.{block}.attention.qkv.{leaf}", {})[_QUERY_KEY_VALUE[module]] = tensor.float()
        else:
            found[f"blocks.{block}.{_INSIDE[module]}.{leaf}"] = tensor.float()
    for name, three in parts.items():
        # Keys have no bias: it would add the same to every score of a query.
        key = three["k"] if "k" in three else torch.zeros_like(three["q"])
        found[name] = torch.cat([three["q"], key, three["v"]])
    if "norm.weight" not in found or "blocks.0.feed_forward.up.weight" not in found:
        raise KeyError("neither a norm at the end nor a first block")
    return found


def _ctranslate2(path: Path) -> dict[str, Tensor]:
    """All tensors of a model.bin of CTranslate2 in floating point. Raises CheckpointError for anything else."""
    try:
        with path.open("rb") as file:
            return dict(_variables(file))
    except (struct.error, UnicodeDecodeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} is not a whole model.bin of CTranslate2: {error}") from error


def _variables(file: BinaryIO) -> Iterator[tuple[str, Tensor]]:
    """Version, what the model is, its revision, the number of variables; of each name, shape, type, size, values."""
    (version,) = _take(file, "I")
    if not 1 <= version <= 6:
        raise ValueError(f"version {version} is not known")
    _text(file)
    _, count = _take(file, "II")
    for _ in range(count):
        name, (rank,) = _text(file), _take(file, "B")
        shape, (kind, size) = _take(file, f"{rank}I"), _take(file, "BI")
        values = file.read(size)
        if len(values) < size:
            raise ValueError("it ends within a tensor")
        if name.startswith("encoder/") and kind not in _TYPES and rank:
            raise ValueError(f"{name} is quantised; take a model converted to float32 or float16")
        if kind in _TYPES:
            yield name, torch.from_numpy(np.frombuffer(values, _TYPES[kind]).reshape(shape).copy())


def _take(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def _text(file: BinaryIO) -> str:
    (size,) = _take(file, "H")
    return file.read(size).rstrip(b"\0").decode()
