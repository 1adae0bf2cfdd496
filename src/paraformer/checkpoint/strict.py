"""From tensors to a model: every tensor in its place, none missing, none left over, all of the right shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from paraformer.config import ModelConfig
from paraformer.model.paraformer import Paraformer
from paraformer.weights import check_all_finite, check_names

Model = TypeVar("Model", bound=nn.Module)


def skeleton(config: ModelConfig) -> Paraformer:
    """The model without memory for its parameters ("meta" device): shapes and names only."""
    with torch.device("meta"):
        return Paraformer(config)


def fill(model: Model, tensors: Mapping[str, Tensor], names: Mapping[str, str], source: str) -> Model:
    """Give a skeleton these tensors as its parameters, uncopied unless the precision differs; ready for recognition.

    names: our parameter name -> its name in `tensors`, for every parameter. source: what to call the file in errors.
    Raises CheckpointError that names the tensors which do not fit or are not finite, as they are called in the file.
    """
    expected = model.state_dict()
    check({names[ours]: tensor.shape for ours, tensor in expected.items()}, tensors, source)
    check_all_finite(((name, tensor.float().numpy()) for name, tensor in tensors.items()), source)
    placed = {ours: tensors[names[ours]].to(tensor.dtype) for ours, tensor in expected.items()}
    model.load_state_dict(placed, assign=True)
    return model.eval()


def check(expected: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError unless `tensors` holds exactly the expected names and shapes."""
    check_names(expected, {name: tensor.shape for name, tensor in tensors.items()}, source)
