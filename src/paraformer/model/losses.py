"""The training objective as pure functions (spec 5.2). Padding in targets is -1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from paraformer.config import BLANK_ID

IGNORE_ID = -1


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float, *, per_token: bool) -> Tensor:
    """Kullback-Leibler divergence from the smoothed target distribution, entropy constant included.

    logits (B, L, V), targets (B, L). The smoothed target gives 1 - smoothing to the right item and shares the rest
    equally among the V - 1 others. Sum over tokens, divided by the number of tokens or of utterances. Scalar.
    """
    log_probs = logits.float().log_softmax(-1)
    vocab, present = logits.shape[-1], targets != IGNORE_ID
    picked = log_probs.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    low, high = smoothing / (vocab - 1), 1.0 - smoothing
    entropy = sum(weight * torch.log(torch.tensor(p)).item() for p, weight in ((high, high), (low, smoothing)) if p > 0)
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
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    loss = F.ctc_loss(
        log_probs, targets.clamp(min=0), lengths, target_lengths, BLANK_ID, reduction="sum", zero_infinity=True
    )
    return loss / logits.shape[0]


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of target tokens that have the highest score. Scalar."""
    present = targets != IGNORE_ID
    right = (logits.argmax(-1) == targets) & present
    return right.sum() / present.sum().clamp(min=1)
