"""The aligner: an encoder, and the finer integrate-and-fire that tells when the tokens of a known text were spoken.

FunASR's MonotonicAligner (variants 2.5).
"""

from __future__ import annotations

from torch import Tensor, nn

from paraformer.config import ModelConfig
from paraformer.model import losses
from paraformer.model.cif import Predictor
from paraformer.model.paraformer import build_encoder
from paraformer.model.timing import scaled


class Aligner(nn.Module):
    """Of the settings, what is about a decoder says nothing here: there is none."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config)
        self.predictor = Predictor(config.predictor, config.encoder.output_dim)

    def forward(self, feats: Tensor, lengths: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """feats (B, T, F) of which lengths (B,) rows are present, counts (B,) of tokens, one for the end included.

        Returns weights (B, T * rate) whose sums are the counts, and the lengths of their rows (B,).
        """
        hidden, lengths = self.encoder(feats, lengths)
        # Scaled whatever they add up to: of a text that is known, so is the number of tokens.
        return scaled(self.predictor.fine(hidden, lengths), counts), lengths

    def loss(self, feats: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
        """How far the sums are from the counts (B,) before they are scaled: the mean over utterances, a scalar."""
        hidden, lengths = self.encoder(feats, lengths)
        return losses.quantity(self.predictor.fine(hidden, lengths).sum(-1), counts, per_token=False)
