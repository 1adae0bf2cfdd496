"""Average the weights of several checkpoints: a cheap and reliable gain over the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from paraformer.errors import CheckpointError


def average(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each tensor, computed in float64. Raises CheckpointError where names or shapes differ."""
    if not weights:
        raise CheckpointError("nothing to average: there is no checkpoint")
    shapes = {name: tensor.shape for name, tensor in weights[0].items()}
    for other in weights[1:]:
        if {name: tensor.shape for name, tensor in other.items()} != shapes:
            raise CheckpointError("the checkpoints to average are of different models")
    return {
        name: (sum(w[name].double() for w in weights) / len(weights)).to(weights[0][name].dtype)  # type: ignore[union-attr]
        for name in shapes
    }
