"""Our own bundles: `model.safetensors` under our parameter names beside `config.json`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from paraformer.bundle import Bundle, replacing
from paraformer.checkpoint import strict
from paraformer.contract import WEIGHTS
from paraformer.errors import CheckpointError, ConfigError
from paraformer.model.paraformer import Paraformer


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
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}; get the model again") from error
    model = strict.skeleton(bundle.config)
    return bundle, strict.fill(model, tensors, {name: name for name in model.state_dict()}, str(path))


def save(bundle: Bundle, model: Paraformer, directory: str | Path, *, half: bool = False) -> None:
    """Write weights and config.json, each atomically. Raises ConfigError if the bundle describes another model.

    half: weights in float16, which every engine turns back into float32 when it opens them.
    """
    if bundle.config != model.config:
        raise ConfigError("the bundle's settings are not those of the model; save both of the same model")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    with replacing(directory / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    bundle.save(directory)


def is_half(directory: str | Path) -> bool:
    """Whether the weights of a bundle are kept in float16."""
    with safe_open(Path(directory) / WEIGHTS, "pt") as file:
        return all(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118 (no mapping)
