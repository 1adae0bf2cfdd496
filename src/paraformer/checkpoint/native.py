"""Our own bundles: `model.safetensors` under our parameter names beside `config.json`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from paraformer import weights
from paraformer.bundle import Bundle, replacing
from paraformer.checkpoint import strict
from paraformer.contract import WEIGHTS
from paraformer.errors import CheckpointError, ConfigError
from paraformer.model.paraformer import Paraformer
from paraformer.weights import SCALE, Storage


def load(directory: str | Path) -> tuple[Bundle, Paraformer]:
    """Open a bundle and its model, on the CPU and ready for recognition; `model.train()` makes it ready for training.

    Raises what `Bundle.open` raises, and CheckpointError where the tensors do not fit the settings.
    """
    bundle = Bundle.open(directory)
    path = Path(directory) / WEIGHTS
    if not path.is_file():
        raise CheckpointError(
            f"{directory} holds int8 weights only, for recognition by the package's own engine; "
            "take the model that it was exported from"
        )
    model = strict.skeleton(bundle.config)
    return bundle, strict.fill(model, read(path), {name: name for name in model.state_dict()}, str(path))


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; matrices in 8 bits as the float32 that they stand for.

    Raises CheckpointError for a damaged file.
    """
    found = weights.places(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}; get the model again") from error
    for name in weights.in_8_bits(found):
        scale = tensors.pop(name + SCALE)
        weights.check_scale(name, scale.numpy())
        tensors[name] = tensors[name] * scale
    return tensors


def save(bundle: Bundle, model: Paraformer, directory: str | Path, *, stored: Storage = "float32") -> None:
    """Write weights and config.json, each atomically.

    stored: how the weights are kept; every backend opens each as float32. In 8 bits what is no matrix stays in float32.
    Raises ConfigError if the bundle describes another model, ModelError for 8 bits of weights that are not finite.
    """
    if bundle.config != model.config:
        raise ConfigError("the bundle's settings are not those of the model; save both of the same model")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / WEIGHTS) as temporary:
        save_file(_kept(model, stored), temporary, metadata={"format": "pt"})
    bundle.save(directory)


def _kept(model: Paraformer, stored: Storage) -> dict[str, Tensor]:
    """The tensors of the file."""
    dtype = torch.float16 if stored == "float16" else torch.float32
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    if stored != "int8":
        return tensors
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        weights.check_finite(name, tensor.numpy())
        pair = weights.quantised(tensor.numpy())
        if pair is None:
            kept[name] = tensor
        else:
            kept[name], kept[name + SCALE] = map(torch.from_numpy, pair)
    return kept
