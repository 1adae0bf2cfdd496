"""From tensors to a model: every tensor in its place, none missing, none left over, all of the right shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from paraformer.config import ModelConfig
from paraformer.errors import CheckpointError
from paraformer.model.paraformer import Paraformer
from paraformer.weights import check_names

Model = TypeVar("Model", bound=nn.Module)
SHOWN = 5
"""Names that an error lists of each kind, before it only counts."""


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
    _check_fit(model, tensors, names, source)
    placed = {ours: tensors[names[ours]].to(tensor.dtype) for ours, tensor in expected.items()}
    model.load_state_dict(placed, assign=True)
    return model.eval()


class Converted(Mapping[str, np.ndarray]):
    """Weights by our names, each in float32 when it is asked for.

    So a model that is brought into another layout is never in memory twice.
    """

    def __init__(self, tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        self._tensors, self._names = tensors, names

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[self._names[name]]
        # An engine keeps rows as they are, and a row of a mapped file would keep that open; matrices it lays out anew.
        array: np.ndarray = tensor.to(torch.float32, copy=tensor.ndim == 1).numpy()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def converted(model: Paraformer, tensors: Mapping[str, Tensor], names: Mapping[str, str], source: str) -> Converted:
    """The tensors of a skeleton for an engine that is not torch; arguments and errors as those of `fill`."""
    _check_fit(model, tensors, names, source)
    return Converted(tensors, names)


def _check_fit(model: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, str], source: str) -> None:
    check({names[ours]: tensor.shape for ours, tensor in model.state_dict().items()}, tensors, source)
    broken = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if broken:
        raise CheckpointError(
            f"{source} holds numbers that are not finite in {_listed(broken)}; take an earlier checkpoint of the run"
        )


def _is_finite(tensor: Tensor) -> bool:
    """A sum is not finite if one number is not, and made ten times as fast as a look at each; but it may overflow."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def check(expected: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError unless `tensors` holds exactly the expected names and shapes."""
    check_names(expected, {name: tensor.shape for name, tensor in tensors.items()}, source, SHOWN)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
