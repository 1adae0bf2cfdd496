"""The training objective as pure functions (spec 5.2, 5.4). Padding in targets is -1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from paraformer.config import BLANK_ID
from paraformer.model.layers import length_mask

IGNORE_ID = -1


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the last axis, in float32 or, for float64, in that."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float, *, per_token: bool) -> Tensor:
    """Kullback-Leibler divergence from the smoothed target distribution, entropy constant included.

    logits (B, L, V), targets (B, L). The smoothed target gives 1 - smoothing to the right item and shares the rest
    equally among the V - 1 others. Sum over tokens, divided by the number of tokens or of utterances. Scalar.
    """
    log_probs = log_probabilities(logits)
    vocab, present = logits.shape[-1], targets != IGNORE_ID
    # Padding points at item 0 only so that there is something to gather; `present` takes it out below.
    picked = log_probs.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    low, high = smoothing / (vocab - 1), 1.0 - smoothing
    entropy = sum(weight * torch.log(torch.tensor(p)).item() for p, weight in ((high, high), (low, smoothing)) if p > 0)
    # high * right + low * all others, written so that no smoothed distribution of the vocabulary's size is made.
    cross = -(high - low) * picked - low * log_probs.sum(-1)
    total = ((cross + entropy) * present).sum()
    return total / (present.sum().clamp(min=1) if per_token else targets.shape[0])


def quantity(predicted: Tensor, target_lengths: Tensor, *, per_token: bool) -> Tensor:
    """Mean absolute error of the token counts: predicted (B,) sums of CIF weights, target_lengths (B,). Scalar."""
    error = (predicted - target_lengths).abs().sum()
    return error / (target_lengths.sum().clamp(min=1) if per_token else target_lengths.shape[0])


def ctc(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """CTC loss summed and divided by the batch: logits (B, T, V), lengths (B,), targets (B, U), target_lengths (B,).

    An utterance with more targets than rows cannot be aligned; its loss and gradient are zero. Scalar.
    """
    log_probs = log_probabilities(logits).transpose(0, 1)
    loss = F.ctc_loss(
        log_probs, targets.clamp(min=0), lengths, target_lengths, BLANK_ID, reduction="sum", zero_infinity=True
    )
    return loss / logits.shape[0]


def draw_negatives(samples: int, token_mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Positions at which each sample takes the second best item, each with probability 1/2.

    token_mask (B, L) gives the shape and the device. Returns (samples, B, L) bool; the draw is made on the CPU.
    """
    # A generator of a device would draw other numbers on each kind of it.
    return (torch.rand(samples, *token_mask.shape, generator=generator) < 0.5).to(token_mask.device)


def mwer(logits: Tensor, targets: Tensor, lengths: Tensor, negatives: Tensor) -> Tensor:
    """Expected number of wrong tokens among the samples, relative to their mean: one loss per utterance, (B,).

    logits (B, L, V), targets (B, L) and lengths (B,) in tokens; negatives (N, B, L) bool, see `draw_negatives`.
    sum over samples y of P(y) (W(y) - mean W), with P(y) the share of y in the probability of all samples and W the
    number of positions that differ from the target: hypotheses are as long as targets, so nothing can be inserted or
    lost. The gradient flows through P. Zero where all samples are equally wrong.
    """
    # A hypothesis is the best item everywhere but at the drawn positions, which take the second best.
    best, items = log_probabilities(logits).topk(2, dim=-1)
    mask = length_mask(lengths, targets.shape[1])
    log_probs = torch.where(negatives, best[..., 1], best[..., 0]) * mask
    wrong = (torch.where(negatives, items[..., 1], items[..., 0]) != targets) & mask
    # Softmax of log-probabilities: each hypothesis's share of what all samples together have.
    share = log_probs.sum(-1).softmax(0)
    errors = wrong.sum(-1).to(share.dtype)
    # Less the mean: shares sum to 1, so this changes the value alone and no gradient.
    return (share * (errors - errors.mean(0))).sum(0)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of target tokens that have the highest score. Scalar."""
    present = targets != IGNORE_ID
    right = (logits.argmax(-1) == targets) & present
    return right.sum() / present.sum().clamp(min=1)
