"""FSMN-VAD in torch, the plain form of `paraformer.segment.fsmn.FsmnNetwork` (variants 5.2).

Modules have FunASR's names, which directories of ours keep for this model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.companions.detector import FsmnConfig


class Detector(nn.Module):
    """Rows of features to probabilities. What comes after a row changes nothing about it."""

    def __init__(self, config: FsmnConfig) -> None:
        super().__init__()
        c = self.config = config
        layers = [
            nn.ModuleDict(
                {
                    "linear": _named(nn.Linear(c.dim, c.memory_dim, bias=False)),
                    "fsmn_block": nn.ModuleDict(
                        {
                            "conv_left": nn.Conv2d(
                                c.memory_dim, c.memory_dim, (c.left, 1), groups=c.memory_dim, bias=False
                            )
                        }
                    ),
                    "affine": _named(nn.Linear(c.memory_dim, c.dim)),
                }
            )
            for _ in range(c.layers)
        ]
        self.encoder = nn.ModuleDict(
            {
                "in_linear1": _named(nn.Linear(c.input_dim, c.input_affine)),
                "in_linear2": _named(nn.Linear(c.input_affine, c.dim)),
                "fsmn": nn.ModuleList(layers),
                "out_linear1": _named(nn.Linear(c.dim, c.output_affine)),
                "out_linear2": _named(nn.Linear(c.output_affine, c.outputs)),
            }
        )

    def init_state(self, batch: int) -> list[Tensor]:
        """Of each layer the rows that its memory still sees, (B, (left - 1) * stride, D): none yet."""
        c = self.config
        return [torch.zeros(batch, (c.left - 1) * c.stride, c.memory_dim) for _ in range(c.layers)]

    def forward(self, feats: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """feats (B, T, F) -> probabilities (B, T, outputs) and the next past."""
        parts = self.encoder
        x = _apply(parts["in_linear2"], _apply(parts["in_linear1"], feats)).relu()
        following = []
        for layer, before in zip(parts["fsmn"].children(), past, strict=True):
            assert isinstance(layer, nn.ModuleDict)
            # The memory looks back alone, so the rows before these are all that a stream has to keep.
            rows = torch.cat([before, _apply(layer["linear"], x)], 1)
            following.append(rows[:, feats.shape[1] :])
            taps = layer["fsmn_block"].get_parameter("conv_left.weight")[:, :, :, 0]
            # Taps `stride` rows apart: the memory reaches far with few of them.
            seen = F.conv1d(rows.transpose(1, 2), taps, groups=len(taps), dilation=self.config.stride).transpose(1, 2)
            x = _apply(layer["affine"], seen + rows[:, rows.shape[1] - feats.shape[1] :]).relu()
        logits: Tensor = _apply(parts["out_linear2"], _apply(parts["out_linear1"], x))
        return logits.softmax(-1), following


def _named(linear: nn.Linear) -> nn.ModuleDict:
    # One level of names more, as published checkpoints have it.
    return nn.ModuleDict({"linear": linear})


def _apply(module: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(module, nn.ModuleDict)
    y: Tensor = module["linear"](x)
    return y
