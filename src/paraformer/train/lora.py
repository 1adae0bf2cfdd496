"""Low-rank adaptation (Hu et al., 2021, "LoRA"): of every linear layer only a product of two thin matrices is trained.

torch.nn.utils.parametrize computes W + SCALE * U D wherever a layer reads its weight, so that no layer knows of it, and
`merged` turns the result into ordinary weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from paraformer.model.paraformer import Paraformer

SCALE = 2.0
"""Of the product: alpha / rank in the paper's words."""
_MARK = ".parametrizations.weight."


class LowRank(nn.Module):
    """weight (outputs, inputs) -> weight + SCALE * up (outputs, rank) @ down (rank, inputs); at first up is zero."""

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.down = nn.Parameter(torch.empty(rank, inputs))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return adapted(weight, self.up, self.down)


def adapted(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """weight (outputs, inputs), up (outputs, rank), down (rank, inputs) -> (outputs, inputs)."""
    return weight + SCALE * (up @ down)


def adapt(model: Paraformer, rank: int, *, whole_rows: bool) -> None:
    """Freeze the model and let each linear layer of encoder and decoder learn a change of the given rank.

    whole_rows: what has a row for each token (embedding, output, CTC) is trained as it is, which new tokens need.
    """
    by_token = [model.decoder.embed, model.decoder.output, *([model.ctc] if model.ctc is not None else [])]
    model.requires_grad_(requires_grad=False)
    for part in (model.encoder, model.decoder):
        for layer in [module for module in part.modules() if isinstance(module, nn.Linear) and module not in by_token]:
            parametrize.register_parametrization(layer, "weight", LowRank(layer.out_features, layer.in_features, rank))
    for module in by_token if whole_rows else ():
        module.requires_grad_(requires_grad=True)


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ordinary weights of a model that may be adapted; what was not adapted keeps its bits."""
    ordinary = {}
    for name, tensor in weights.items():
        layer, mark, part = name.partition(_MARK)
        if not mark:
            ordinary[name] = tensor
        elif part == "original":
            up, down = (weights[f"{layer}{_MARK}0.{factor}"] for factor in ("up", "down"))
            ordinary[f"{layer}.weight"] = adapted(tensor, up, down)
    return ordinary
