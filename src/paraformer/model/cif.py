"""Continuous integrate-and-fire: how many tokens, and one acoustic vector for each (spec 3).

Seen as interval overlap: frame t covers [c(t-1), c(t)] of the running sum c of the weights, token k covers [k, k+1];
frame t goes into token k with the length of their overlap. No loop over frames, any batch, differentiable, and a stream
needs to carry only the weight and the vector that have not yet made a whole token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.config import PAUSE_WINDOWS, PredictorConfig
from paraformer.model.state import State
from paraformer.model.timing import Timing


@dataclass(frozen=True)
class CifState(State):
    """The unfinished token: weight (B,) below 1 and the mean of its frames (B, D)."""

    weight: Tensor
    vector: Tensor

    def without(self, ended: Tensor) -> CifState:
        """As at the beginning of a stream, for those that ended (B,)."""
        return CifState(self.weight * ~ended, self.vector * ~ended[:, None])


def running_sum(weights: Tensor) -> Tensor:
    """Cumulative sum over the last axis, summed in float64 and returned in float32 as the reference does (spec 3.2)."""
    # In float32 a sum of some hundred weights is off by 1e-5, enough to gain or lose a token at a whole number.
    return weights.double().cumsum(-1).float()


def token_counts(weights: Tensor) -> Tensor:
    """Whole tokens in weights (B, T): the floor of each row's sum, (B,) int64."""
    return running_sum(weights)[:, -1].floor().long()


def integrate(hidden: Tensor, weights: Tensor, tokens: int | Tensor) -> Tensor:
    """The first `tokens` acoustic vectors: hidden (B, T, D), weights (B, T) -> (B, tokens, D).

    tokens: a number; a scalar tensor where a graph is traced that must take any number.
    A token that the weights do not fill gets what there is: a sum that a rounding error left just below a whole number
    still gives its last vector, which the reference loses (spec 3.2). A frame whose weight smoothing raises above 1 can
    complete two tokens; the reference completes one and has zero vectors at the end for those it lacks.

    >>> hidden = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> integrate(hidden, torch.tensor([[0.5, 1.0, 0.5]]), 2).tolist()  # 0.5 * 1 + 0.5 * 2, then 0.5 * 2 + 0.5 * 3
    [[[1.5], [2.5]]]
    """
    ends = weights.double().cumsum(-1)
    # Frame t covers [starts, ends] of the running sum, token k covers [k, k + 1]: their overlap is the frame's share.
    starts = ends - weights
    index = torch.arange(tokens, device=weights.device)[None, :, None]  # type: ignore[arg-type]  # tensors will do
    overlap = torch.minimum(ends[:, None], index + 1) - torch.maximum(starts[:, None], index)
    # One product instead of a loop over frames, although most of the overlaps are 0.
    return overlap.clamp(min=0).to(hidden.dtype) @ hidden


def firing_frames(weights: Tensor, tokens: int) -> Tensor:
    """The frame in which each of the first `tokens` tokens completes, (B, tokens); the last frame if none does.

    >>> firing_frames(torch.tensor([[0.5, 1.0, 0.5]]), 2).tolist()
    [[1, 2]]
    """
    ends = running_sum(weights)
    index = torch.arange(1, tokens + 1, device=weights.device, dtype=ends.dtype)
    # Sums only grow, so the first frame whose sum reaches a token's number is found by bisection.
    frames = torch.searchsorted(ends, index.expand(weights.shape[0], tokens).contiguous())
    return frames.clamp(max=weights.shape[1] - 1)


def scale_to_targets(weights: Tensor, target_lengths: Tensor) -> Tensor:
    """Weights (B, T) scaled so that each row sums to its target length (B,): training only (spec 3.1).

    >>> scale_to_targets(torch.tensor([[0.25, 0.25]]), torch.tensor([2])).tolist()
    [[1.0, 1.0]]
    """
    total = weights.sum(-1, keepdim=True)
    return weights * (target_lengths[:, None] / total.clamp(min=1e-6))


def step(
    hidden: Tensor, weights: Tensor, state: CifState, tokens: int | None = None
) -> tuple[Tensor, Tensor, CifState]:
    """Integrate one more stretch of frames.

    hidden (B, T, D), weights (B, T) with zeros for frames that do not count.
    Returns vectors (B, L, D), counts (B,), and the next state; L is the largest count, or `tokens`, which must be no
    less, where a result of that shape is wanted whatever the counts are.
    """
    # The unfinished token goes in as one more frame in front, with the weight that it has gathered.
    hidden = torch.cat([state.vector[:, None], hidden], 1)
    weights = torch.cat([state.weight[:, None], weights], 1)
    counts = token_counts(weights)
    # One token more than any row completes: behind each row's last whole token stands what it has begun.
    vectors = integrate(hidden, weights, (int(counts.max()) if tokens is None else tokens) + 1)
    rest = (weights.double().sum(-1) - counts).clamp(min=0).to(weights.dtype)
    partial = vectors.gather(1, counts[:, None, None].expand(-1, 1, vectors.shape[2])).squeeze(1)
    # Kept as the mean of its frames, because the next step weights it again by what it has gathered.
    vector = torch.where(rest[:, None] > 0, partial / rest[:, None].clamp(min=1e-12), partial)
    return vectors[:, :-1], counts, CifState(weight=rest, vector=vector)


class Predictor(nn.Module):
    """One weight between 0 and 1 per encoder row (spec 3.1); always computed in float32."""

    def __init__(self, config: PredictorConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        # The first version filters every dimension by itself, the second mixes them.
        groups = dim if config.version == 1 else 1
        self.conv = nn.Conv1d(dim, dim, config.left + config.right + 1, groups=groups)
        self.output = nn.Linear(dim, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.timing = Timing(config.timing, dim) if config.timing else None

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """hidden (B, T, D), zero in absent rows; mask (B, T) -> weights (B, T), zero in absent rows."""
        c = self.config
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.float()
            x = self._filter(hidden)
            if c.version == 1:
                x = self.dropout(x + hidden)
            weights: Tensor = self.output(x.relu()).squeeze(-1).sigmoid()
            # Below the threshold a weight becomes exactly zero; the factor makes up for what the others lose by it.
            weights = (weights * c.smooth_factor - c.noise_threshold).relu()
        return weights if mask is None else weights * mask

    def fine(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """The weights that tell when tokens were spoken: hidden (B, T, D), lengths (B,) -> (B, T * rate).

        hidden is zero in absent rows.
        """
        assert self.timing is not None, "this predictor has no second integrate-and-fire"
        if self.timing.config.from_conv:
            with torch.autocast(hidden.device.type, enabled=False):
                # What the first integrate-and-fire heard, before it became one number a row.
                hidden = self._filter(hidden.float()).relu()
        weights: Tensor = self.timing(hidden, lengths)
        return weights

    def _filter(self, hidden: Tensor) -> Tensor:
        """The convolution, rows as before."""
        c = self.config
        # One row too many, cut off again: a convolution refuses to give no row, and the last step may have none.
        x: Tensor = self.conv(F.pad(hidden.transpose(1, 2), (c.left, c.right + 1)))
        return x.transpose(1, 2)[:, : hidden.shape[1]]

    def complete(self, hidden: Tensor, weights: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What whole utterances integrate: hidden (B, T, D), weights (B, T) of which lengths (B,) count.

        Returns rows (B, T or T + 1, D), their weights and the number of tokens (B,). With the dynamic threshold the
        weights are divided by it, so that every token takes a weight of 1 here too and none is left over.
        """
        if self.config.threshold == "dynamic":
            # Halves up, where torch.round takes them to the even number; summed in float64, so that a half is one.
            counts = (weights.double().sum(-1) + 0.5).floor().long()
            return hidden, scale_to_targets(weights, counts), counts
        hidden, weights = self.add_tail(hidden, weights, lengths)
        return hidden, weights, token_counts(weights)

    def paused(self, weights: Tensor, windows: int, state: CifState) -> Tensor:
        """(B,): whether a live step that commits so many windows, of weights (B, T), is a pause that ends a token."""
        said = weights.sum(-1)
        begun = state.weight + said
        quiet = said < (self.config.pause_weight if windows >= PAUSE_WINDOWS else 0.0)
        return quiet & (begun < 1) & (begun + self.config.tail_threshold >= 1)

    def add_tail(self, hidden: Tensor, weights: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Append the tail weight after each row's end, so that a nearly finished last token fires (spec 3.1).

        hidden (B, T, D), weights (B, T), lengths (B,) -> (B, T + 1, D) with a zero vector there, (B, T + 1).
        """
        if self.config.tail_threshold <= 0:
            return hidden, weights
        weights = F.pad(weights, (0, 1))
        tail = torch.full_like(weights[:, :1], self.config.tail_threshold)
        # Added at each utterance's own end, which in a batch is not the last column.
        return F.pad(hidden, (0, 0, 0, 1)), weights.scatter_add(1, lengths[:, None], tail)
