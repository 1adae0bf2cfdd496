"""The CT-Transformer in torch, for training and as the plain form of `paraformer.punctuation.network`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paraformer.model.encoder import SanmBlock
from paraformer.model.layers import layer_norm, length_mask, sinusoid, unless_full
from paraformer.punctuation.config import PunctuationConfig


class PunctuationModel(nn.Module):
    """Words to scores of the mark that follows each."""

    def __init__(self, config: PunctuationConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(SanmBlock(config.dim, config.encoder) for _ in range(config.layers))
        self.norm = layer_norm(config.dim)
        self.output = nn.Linear(config.dim, len(config.marks))

    def forward(self, ids: Tensor, lengths: Tensor, heard: Tensor | None = None) -> Tensor:
        """ids (B, L), lengths (B,) -> scores (B, L, marks).

        heard (B,), of live models: how many of the words were there before the last ones came. In the last block those
        words see no later ones, except the last of them.
        """
        mask = length_mask(lengths, ids.shape[1])
        present = unless_full(mask)
        # Words count from 1, as in the reference; position 0 would be a row of zeros.
        positions = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        x = self.embed(ids) * self.config.dim**0.5 + sinusoid(positions, self.config.dim).to(self.embed.weight.dtype)
        for index, block in enumerate(self.blocks):
            x, _, _ = block(x, self._seen(mask, index, heard), present)
        scores: Tensor = self.output(self.norm(x))
        return scores

    def _seen(self, mask: Tensor, layer: int, heard: Tensor | None) -> Tensor | None:
        """Which words each word sees in a block: (B, 1 or L, L); None: all."""
        if self.config.attention == "whole":
            return unless_full(mask[:, None])
        place = torch.arange(mask.shape[1], device=mask.device)
        # Causal up to the last block: what they made of a word stays as it is when the next word comes.
        if layer == 0 or layer < self.config.layers - 1:
            return mask[:, None] & (place[:, None] >= place)
        if heard is None:
            return mask[:, None]
        # As the last block saw it when only those words were there, so that a mark that was set is not set anew.
        early = place[None, :, None] <= heard[:, None, None] - 2
        late = place[None, None, :] >= heard[:, None, None]
        within = (heard > 0) & (heard < mask.sum(1))
        return mask[:, None] & ~(early & late & within[:, None, None])
