"""The glancing sampler (spec 5.1): while training, some acoustic vectors are replaced by target embeddings.

It has no parameters. The more positions the first pass got wrong, the more targets the second pass is shown.
"""

from __future__ import annotations

import torch
from torch import Tensor


def choose_positions(
    predicted: Tensor, targets: Tensor, lengths: Tensor, ratio: float, generator: torch.Generator | None
) -> Tensor:
    """Positions whose acoustic vector is replaced: floor(ratio * errors) of each utterance, uniformly.

    predicted, targets (B, L), lengths (B,). Draws `randperm` per utterance on the CPU, in batch order and only where
    something is replaced, so that a seeded run repeats the reference's. Returns (B, L) bool.
    """
    mask = torch.zeros_like(targets, dtype=torch.bool)
    counts, right = lengths.tolist(), (predicted == targets)
    for row, length in enumerate(counts):
        errors = length - int(right[row, :length].sum())
        # Rounded through float32, as the reference rounds: in float64 some products fall on the other side of a whole
        # number.
        chosen = int(torch.tensor(errors * ratio, dtype=torch.float32).item())
        if chosen > 0:
            # Among all positions, right ones too, as the paper and the reference draw them.
            mask[row, torch.randperm(length, generator=generator)[:chosen].to(mask.device)] = True
    return mask


def mix(acoustic: Tensor, embedded: Tensor, replace: Tensor, token_mask: Tensor) -> Tensor:
    """Semantic vectors: acoustic (B, L, D) where not replaced, embedded targets where replaced; zero in padding.

    >>> one, zero = torch.ones(1, 2, 1), torch.zeros(1, 2, 1)
    >>> mix(one, zero, torch.tensor([[False, True]]), torch.tensor([[True, True]])).tolist()
    [[[1.0], [0.0]]]
    """
    mixed = torch.where(replace[..., None], embedded.to(acoustic.dtype), acoustic)
    return mixed * token_mask[..., None]
