"""From tensors to a model: every tensor in its place, none missing, none left over, all of the right shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from paraformer.config import ModelConfig
from paraformer.errors import CheckpointError
from paraformer.model.paraformer import Paraformer

SHOWN = 5
"""Names that an error lists of each kind, before it only counts."""


def skeleton(config: ModelConfig) -> Paraformer:
    """The model without memory for its parameters ("meta" device): shapes and names only."""
    with torch.device("meta"):
        return Paraformer(config)


def fill(model: Paraformer, tensors: Mapping[str, Tensor], names: Mapping[str, str], source: str) -> Paraformer:
    """Give a skeleton these tensors as its parameters, uncopied unless the precision differs; ready for recognition.

    names: our parameter name -> its name in `tensors`, for every parameter. source: what to call the file in errors.
    Raises CheckpointError that names the tensors which do not fit, as they are called in the file.
    """
    expected = model.state_dict()
    check({names[ours]: tensor.shape for ours, tensor in expected.items()}, tensors, source)
    placed = {ours: tensors[names[ours]].to(tensor.dtype) for ours, tensor in expected.items()}
    model.load_state_dict(placed, assign=True)
    return model.eval()


def check(expected: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError unless `tensors` holds exactly the expected names and shapes."""
    missing = sorted(set(expected) - set(tensors))
    extra = sorted(set(tensors) - set(expected))
    misshapen = [
        f"{name} is {_shape(tensors[name].shape)}, not {_shape(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    parts = (("missing", missing), ("unexpected", extra), ("of the wrong shape", misshapen))
    faults = [f"{len(names)} {fault}: {_listed(names)}" for fault, names in parts if names]
    if faults:
        raise CheckpointError(f"{source} does not hold the tensors of its configuration; {'; '.join(faults)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"
