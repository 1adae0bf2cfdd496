"""Minimum word error rate training with negative sampling (spec 5.4; Gao et al., 2022, section 2.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from paraformer.model.layers import length_mask


def draw_negatives(samples: int, shape: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """Positions at which each sample takes the second best item, each with probability 1/2.

    shape (B, L) -> (samples, B, L) bool, on the CPU.
    """
    return torch.rand(samples, *shape, generator=generator) < 0.5


def mwer(logits: Tensor, targets: Tensor, lengths: Tensor, negatives: Tensor) -> Tensor:
    """Expected number of wrong tokens among the samples, relative to their mean: one loss per utterance, (B,).

    logits (B, L, V), targets (B, L) and lengths (B,) in tokens; negatives (N, B, L) bool, see `draw_negatives`.
    sum over samples y of P(y) (W(y) - mean W), with P(y) the share of y in the probability of all samples and W the
    number of positions that differ from the target: hypotheses are as long as targets, so nothing can be inserted or
    lost. The gradient flows through P. Zero where all samples are equally wrong.
    """
    best, items = logits.float().log_softmax(-1).topk(2, dim=-1)
    mask = length_mask(lengths, targets.shape[1])
    log_probs = torch.where(negatives, best[..., 1], best[..., 0]) * mask
    wrong = (torch.where(negatives, items[..., 1], items[..., 0]) != targets) & mask
    share = log_probs.sum(-1).softmax(0)
    errors = wrong.sum(-1).to(share.dtype)
    return (share * (errors - errors.mean(0))).sum(0)
