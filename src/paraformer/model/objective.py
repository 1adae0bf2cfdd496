"""What training minimises: the glancing sampler between two passes of the decoder, and the sum of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.config import (
    EOS_ID,
    ChunkConfig,
    ContextualConfig,
    ModelConfig,
)
from paraformer.model import cif, losses, sampler
from paraformer.model.encoded import Chunking, Encoded
from paraformer.model.hotwords import Seaco, hotword_labels
from paraformer.model.layers import length_mask

if TYPE_CHECKING:
    from paraformer.model.paraformer import Paraformer

FINE_WEIGHT = 0.5
"""Of the second predictor's sum, beside the first one's as 1 (variants 2.4)."""


@dataclass(frozen=True)
class Batch:
    """Training data: feats (B, T, F), lengths (B,), targets (B, L) padded with -1, target_lengths (B,).

    ctc_targets (B, U) and ctc_target_lengths (B,): for a CTC layer with units of its own, such as syllables.
    hotwords: as ids, what a model that listens for hotwords is told of for all of the batch; None: of none.
    """

    feats: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    ctc_targets: Tensor | None = None
    ctc_target_lengths: Tensor | None = None
    hotwords: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True)
class Losses:
    """The objective and its parts, scalars; accuracy is the first pass's.

    per_token: what of the total is a mean over target tokens; the rest is a mean over utterances. Batches that together
    stand for a larger one are weighted by it.
    """

    total: Tensor
    cross_entropy: Tensor
    quantity: Tensor
    ctc: Tensor
    mwer: Tensor
    accuracy: Tensor
    per_token: Tensor


class Trainable(nn.Module):
    """What the training loop asks of a model: all that a model of another kind must have to be trained by it.

    encoder, decoder: modules whose `blocks` are sharded one by one where processes divide a model among them.
    """

    config: ModelConfig
    encoder: Any
    decoder: Any

    def forward(self, batch: Batch, chunk: Chunking = None) -> Losses:
        """The training objective on a batch, in the form that chunk asks for."""
        raise NotImplementedError

    def read(self, batch: Batch, chunk: Chunking = None) -> list[list[int]]:
        """The ids that are heard in each utterance, targets unseen. Called in evaluation mode."""
        raise NotImplementedError


def losses_of(
    model: Paraformer, encoded: Encoded, batch: Batch, chunk: Chunking, generator: torch.Generator | None
) -> Losses:
    """The objective given the encoder's rows; of a SeACo-Paraformer where the batch has hotwords, theirs."""
    if batch.hotwords is None or not isinstance(model.hotwords, Seaco):
        return _own_losses(model, encoded, batch, chunk, generator)
    hotwords = model.hotwords.config
    cross_entropy, accuracy = _hotword_losses(model, encoded, batch)
    zero, total = torch.zeros_like(cross_entropy), cross_entropy
    own = None
    if hotwords.trains_decoder:
        own = _own_losses(model, encoded, batch, chunk, generator)
        total = total + hotwords.objective_weight * own.cross_entropy
    per_token = total if hotwords.length_normalized else zero
    return Losses(total, cross_entropy, zero if own is None else own.quantity, zero, zero, accuracy, per_token)


def _hotword_losses(model: Paraformer, encoded: Encoded, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy and accuracy of what the second decoder says of each target token (variants 1.7)."""
    assert isinstance(model.hotwords, Seaco)
    assert batch.hotwords is not None
    config = model.hotwords.config
    *_, embeds, token_mask = _aligned(model, encoded, batch)
    embeds = embeds * token_mask[..., None]
    rows = model.decoder.rows(encoded.hidden, encoded.memory_mask(), embeds, token_mask)
    named = model.encode_hotwords(batch.hotwords)[None]
    # Of tokens that were said: the end of a sentence is in no hotword.
    logits = model.hotwords.scores(embeds, rows, named, token_mask)[:, : batch.targets.shape[1]]
    labels = hotword_labels(batch.targets, batch.hotwords, config.no_bias_id)
    smoothed = losses.smoothed_cross_entropy(logits, labels, config.label_smoothing, per_token=config.length_normalized)
    return smoothed, losses.accuracy(logits, labels)


def _aligned(model: Paraformer, encoded: Encoded, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A vector for each target token: targets (B, L), lengths (B,), weights, embeds (B, L, D), token mask (B, L).

    Weights are scaled, so that there are as many vectors as target tokens and each has its own; the count is learnt
    by `quantity`.
    """
    targets, lengths = batch.targets, batch.target_lengths
    if model.config.objective.predict_eos:
        targets, lengths = append_eos(targets, lengths), lengths + 1
    weights = cif.scale_to_targets(encoded.weights, lengths)
    embeds = cif.integrate(encoded.hidden, weights, targets.shape[1])
    return targets, lengths, weights, embeds, length_mask(lengths, targets.shape[1])


def _own_losses(
    model: Paraformer, encoded: Encoded, batch: Batch, chunk: Chunking, generator: torch.Generator | None
) -> Losses:
    """Predictor, two decoder passes with the sampler between, losses."""
    c = model.config.objective
    if isinstance(model.config.hotwords, ContextualConfig):
        # Even where there is none: the decoder then attends to "none of them", as it will in recognition.
        encoded = replace(encoded, hotwords=model.encode_hotwords(batch.hotwords or ()))
    targets, lengths, weights, embeds, token_mask = _aligned(model, encoded, batch)
    first, embeds = _glance(model, encoded, weights, embeds, targets, token_mask, chunk, generator)
    logits, units = model.scores(encoded, weights, embeds, token_mask, chunk)
    cross_entropy = losses.smoothed_cross_entropy(logits, targets, c.label_smoothing, per_token=c.length_normalized)
    quantity = losses.quantity(encoded.weights.sum(-1), lengths, per_token=c.length_normalized)
    ctc = _ctc(model, encoded, batch, chunk)
    counted = (1 - c.ctc_weight) * c.cross_entropy_weight * cross_entropy + c.quantity_weight * quantity
    if model.predictor.timing is not None and chunk is None:
        fine = model.predictor.fine(encoded.hidden, encoded.lengths).sum(-1)
        counted = counted + FINE_WEIGHT * c.quantity_weight * losses.quantity(
            fine, lengths, per_token=c.length_normalized
        )
    if units is not None:
        sounds = unit_targets(batch, targets.shape[1])
        counted = counted + c.units_weight * losses.smoothed_cross_entropy(
            units, sounds, c.label_smoothing, per_token=c.length_normalized
        )
    total = counted + c.ctc_weight * ctc
    if encoded.middle is not None:
        total = total + c.middle_ctc_weight * ctc_of(model, encoded.middle, encoded.lengths, batch)
    mwer = logits.new_zeros(())
    if c.mwer_weight > 0:
        negatives = losses.draw_negatives(c.mwer_samples, token_mask, generator)
        mwer = losses.mwer(logits, targets, lengths, negatives).mean()
        total = total + c.mwer_weight * mwer
    # The first pass was shown nothing of the answer, so its accuracy is the one that recognition will have.
    accuracy = losses.accuracy(logits if first is None else first, targets)
    # CTC is a mean over utterances whatever the others are, so the loop must weight the two apart.
    per_token = counted if c.length_normalized else torch.zeros_like(total)
    return Losses(total, cross_entropy, quantity, ctc, mwer, accuracy, per_token)


def _glance(
    model: Paraformer,
    encoded: Encoded,
    weights: Tensor,
    embeds: Tensor,
    targets: Tensor,
    token_mask: Tensor,
    chunk: Chunking,
    generator: torch.Generator | None,
) -> tuple[Tensor | None, Tensor]:
    """The first pass, without gradient, and the mixed vectors for the second; no pass when nothing is sampled."""
    ratio = model.config.objective.sampling_ratio
    if ratio == 0:
        return None, embeds * token_mask[..., None]
    with torch.no_grad():
        first = model.decode(encoded, weights, embeds, token_mask, chunk)
    # What the model would say now decides how much of the answer it is shown in the second pass.
    predicted, lengths = first.argmax(-1), token_mask.sum(-1)
    replace = sampler.choose_positions(predicted, targets, lengths, ratio, generator)
    known = model.decoder.embed_tokens(targets.clamp(min=0))
    return first, sampler.mix(embeds, known, replace, token_mask)


def _ctc(model: Paraformer, encoded: Encoded, batch: Batch, chunk: Chunking) -> Tensor:
    """CTC on the committed rows of the encoder; zero where the model has no CTC layer."""
    if model.ctc is None:
        return encoded.hidden.new_zeros(())
    hidden, lengths = encoded.hidden, encoded.lengths
    if encoded.layout is not None:
        hidden, lengths = encoded.layout.join(hidden), batch.lengths
    elif isinstance(chunk, ChunkConfig):
        # CTC reads rows in the order of time, each once; in windows most stand more than once.
        hidden, lengths = encoded.committed_rows(batch.lengths, chunk)
    return ctc_of(model, hidden, lengths, batch)


def ctc_of(model: Paraformer, hidden: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
    """CTC of the batch's units on rows hidden (B, T, D), of which lengths (B,) count."""
    assert model.ctc is not None
    targets, target_lengths = batch.targets, batch.target_lengths
    if batch.ctc_targets is not None and batch.ctc_target_lengths is not None:
        targets, target_lengths = batch.ctc_targets, batch.ctc_target_lengths
    return losses.ctc(model.ctc(hidden), lengths, targets, target_lengths)


def unit_targets(batch: Batch, tokens: int) -> Tensor:
    """The unit of each token (B, tokens), -1 where there is none: of utterances with a unit for every token."""
    if batch.ctc_targets is None or batch.ctc_target_lengths is None:
        return torch.full((len(batch.lengths), tokens), losses.IGNORE_ID, device=batch.lengths.device)
    units = F.pad(batch.ctc_targets, (0, max(0, tokens - batch.ctc_targets.shape[1])), value=losses.IGNORE_ID)
    # Only where units and tokens are as many is it known which belongs to which.
    alike = batch.ctc_target_lengths == batch.target_lengths
    present = length_mask(batch.ctc_target_lengths, tokens) & alike[:, None]
    return units[:, :tokens].masked_fill(~present, losses.IGNORE_ID)


def append_eos(targets: Tensor, lengths: Tensor) -> Tensor:
    """targets (B, L) padded with -1 -> (B, L + 1) with </s> after each row's last token.

    >>> append_eos(torch.tensor([[7, 8], [9, -1]]), torch.tensor([2, 1])).tolist()
    [[7, 8, 2], [9, 2, -1]]
    """
    return F.pad(targets, (0, 1), value=losses.IGNORE_ID).scatter(1, lengths[:, None], EOS_ID)
