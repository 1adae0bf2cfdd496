"""The second integrate-and-fire of BiCif-Paraformer: weights on a finer grid, which tell when tokens were spoken."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from paraformer.config import TimingConfig
from paraformer.model.layers import length_mask


class Timing(nn.Module):
    """Rows to `rate` times as many weights (variants 2.2); always computed in float32."""

    def __init__(self, config: TimingConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.up = nn.ConvTranspose1d(dim, dim, config.rate, config.rate)
        self.lstm = nn.LSTM(dim, dim, batch_first=True, bidirectional=True) if config.recurrent else None
        self.output = nn.Linear(2 * dim if config.recurrent else dim, 1)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """hidden (B, T, D) of which lengths (B,) rows are present -> weights (B, T * rate), zero in absent ones.

        What stands in absent rows has no influence: the LSTM that comes from behind begins at each utterance's own end.
        """
        c = self.config
        # Sums of hundreds of weights become times: in half precision they would be off by whole tokens.
        with torch.autocast(hidden.device.type, enabled=False):
            x = self.up(hidden.float().transpose(1, 2)).transpose(1, 2)
            if self.lstm is not None:
                x = self._recur(x, lengths * c.rate)
            weights: Tensor = self.output(x).squeeze(-1).sigmoid()
            weights = (weights * c.smooth_factor - c.noise_threshold).relu()
        return weights * length_mask(lengths * c.rate, hidden.shape[1] * c.rate)

    def _recur(self, x: Tensor, lengths: Tensor) -> Tensor:
        assert self.lstm is not None
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return y


def scaled(weights: Tensor, counts: Tensor) -> Tensor:
    """Weights (B, N) such that each row sums to its number of tokens (B,)."""
    # Where there is no weight at all nothing can be scaled, and zero is better than NaN.
    return weights * (counts[:, None] / weights.sum(-1, keepdim=True).clamp(min=1e-12))
