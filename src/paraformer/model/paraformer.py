"""The whole model: encoder, predictor, sampler, decoder (Gao et al., 2022, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.config import (
    EOS_ID,
    SHORTLIST,
    ChunkConfig,
    ConformerEncoderConfig,
    ContextualConfig,
    ModelConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
    SeacoConfig,
    TrainingChunk,
    TransformerEncoderConfig,
)
from paraformer.model import cif, losses, sampler, timing
from paraformer.model.chunk_masks import ChunkLayout, scama_mask
from paraformer.model.cif import CifState, Predictor
from paraformer.model.decoder import DecoderState, SanmDecoder, window_memory_mask
from paraformer.model.encoder import EncoderState, SanmEncoder
from paraformer.model.hotwords import HotwordEncoder, Seaco, hotword_labels, merge, padded_ids, shortlist
from paraformer.model.layers import length_mask
from paraformer.model.state import State

FINE_WEIGHT = 0.5
"""Of the second predictor's sum, beside the first one's as 1 (variants 2.4)."""
Chunking = ChunkConfig | TrainingChunk | None
"""The form in which whole utterances are computed: a ChunkConfig gives exactly what live steps give, a TrainingChunk
FunASR's chunk-masked form of its streaming models, None every row in view of every other."""


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


@dataclass(frozen=True)
class Encoded:
    """Encoder rows and their CIF weights.

    hidden (B, T, D), weights (B, T). In the windowed form the rows of all windows stand one after another, rows
    (B, W, R) tells which exist, and only committed rows have weight. lengths (B,) counts rows (up to the last committed
    one).
    In FunASR's chunk-masked form, layout tells where the rows stand.
    middle (B, T, D): rows of the encoder's middle block, of whole utterances in training where the objective uses them.
    hotwords (N, D): of a decoder that itself attends to them, in training.
    """

    hidden: Tensor
    weights: Tensor
    lengths: Tensor
    rows: Tensor | None = None
    layout: ChunkLayout | None = None
    middle: Tensor | None = None
    hotwords: Tensor | None = None

    def memory_mask(self) -> Tensor:
        """(B, 1, T): rows that the decoder may see, for whole utterances."""
        return length_mask(self.lengths, self.hidden.shape[1])[:, None, :]


@dataclass(frozen=True)
class Whole:
    """Everything recognition of whole utterances computes.

    hidden (B, T, D) of which lengths (B,) rows are present, weights (B, T + 1) with the tail, embeds (B, L, D),
    counts (B,), log_probs (B, L, V). fine (B, T * rate): weights that tell when tokens were spoken, each row's sum its
    count, of a model with a second integrate-and-fire.
    """

    hidden: Tensor
    lengths: Tensor
    weights: Tensor
    embeds: Tensor
    counts: Tensor
    log_probs: Tensor
    fine: Tensor | None = None


@dataclass(frozen=True)
class ParaformerState(State):
    """The state of live streams; see EncoderState, CifState and DecoderState for the shapes."""

    overlap: Tensor
    position: Tensor
    keys: Tensor
    values: Tensor
    past_lengths: Tensor
    weight: Tensor
    vector: Tensor
    fsmn: Tensor
    memory: Tensor
    memory_lengths: Tensor

    @classmethod
    def join(cls, encoder: EncoderState, carry: CifState, decoder: DecoderState) -> ParaformerState:
        """One state of the three parts."""
        return cls.from_tensors(encoder.tensors() | carry.tensors() | decoder.tensors())

    def split(self) -> tuple[EncoderState, CifState, DecoderState]:
        """The parts."""
        tensors = self.tensors()
        return EncoderState.from_tensors(tensors), CifState.from_tensors(tensors), DecoderState.from_tensors(tensors)


@dataclass(frozen=True)
class StepOutput:
    """One live step: encoder rows hidden (B, R, D), their raw weights (B, R) and the committed ones (B, R).

    Also embeds (B, L, D), counts (B,) and logits (B, L, V); L is the largest count and may be 0.
    """

    hidden: Tensor
    raw_weights: Tensor
    weights: Tensor
    embeds: Tensor
    counts: Tensor
    logits: Tensor


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


class Paraformer(Trainable):
    """A Paraformer of any published kind; `config` says which."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.encoder.output_dim
        self.encoder = build_encoder(config)
        self.predictor = Predictor(config.predictor, dim)
        self.decoder = build_decoder(config)
        self.ctc = nn.Linear(dim, config.ctc_vocab_size) if config.ctc_vocab_size else None
        self.hotwords = build_hotwords(config)

    # -- whole utterances ---------------------------------------------------------------------------------------------

    def encode(self, feats: Tensor, lengths: Tensor, chunk: Chunking = None) -> Encoded:
        """feats (B, T, F), lengths (B,) -> rows and CIF weights, in the form that chunk asks for."""
        if chunk is None:
            middle = None
            if self.training and self.config.objective.middle_ctc_weight > 0:
                hidden, middle = self.encoder.with_middle(feats, lengths)
                middle = self.encoder.norm(middle)
            else:
                hidden, lengths = self.encoder(feats, lengths)
            weights = self.predictor(hidden, length_mask(lengths, hidden.shape[1]))
            return Encoded(hidden, weights, lengths, middle=middle)
        if isinstance(chunk, TrainingChunk):
            hidden, layout = self.encoder.chunk_masked(feats, lengths, chunk)
            weights = self.predictor(hidden, layout.kept & layout.present())
            return Encoded(hidden, weights, layout.lengths, layout=layout)
        hidden, rows = self.encoder.windows(feats, lengths, chunk)
        committed = rows & _committed(rows, lengths, chunk)
        weights = self.predictor(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]) * committed
        # The tail comes after the last existing row: of the final window, which starts at row (n // chunk) * rows.
        # Even of an exact number of chunks: a final step without new rows still commits what was ahead.
        ends = (lengths // chunk.chunk) * chunk.rows + lengths % chunk.chunk + chunk.context
        return Encoded(hidden.flatten(1, 2), weights.flatten(1), ends, rows)

    def decode(self, encoded: Encoded, weights: Tensor, embeds: Tensor, token_mask: Tensor, chunk: Chunking) -> Tensor:
        """Scores (B, L, V) of embeds (B, L, D); weights (B, T or T + 1) tell the chunked forms where tokens fire."""
        return self.scores(encoded, weights, embeds, token_mask, chunk)[0]

    def scores(
        self, encoded: Encoded, weights: Tensor, embeds: Tensor, token_mask: Tensor, chunk: Chunking
    ) -> tuple[Tensor, Tensor | None]:
        """As decode, and scores (B, L, units) of the decoder's units where it has a text part."""
        if embeds.shape[1] == 0:
            return embeds.new_zeros(embeds.shape[0], 0, self.config.vocab_size), None
        mask = self._seen(encoded, weights, token_mask, chunk)
        decoder: Any = self.decoder
        if encoded.hotwords is not None:
            return decoder.output(decoder.rows(encoded.hidden, mask, embeds, token_mask, encoded.hotwords[None])), None
        if isinstance(decoder, SanmDecoder):
            steps = _windows_of(encoded, weights, embeds.shape[1]) if isinstance(chunk, ChunkConfig) else None
            return decoder.scores(encoded.hidden, mask, embeds, token_mask, steps)
        logits: Tensor = decoder(encoded.hidden, mask, embeds, token_mask)
        return logits, None

    def _seen(self, encoded: Encoded, weights: Tensor, token_mask: Tensor, chunk: Chunking) -> Tensor:
        """Which encoder rows each token sees, (B, 1 or L, T)."""
        if chunk is None:
            return encoded.memory_mask()
        if encoded.layout is not None:
            fired = cif.firing_frames(weights, token_mask.shape[1])
            last = (encoded.lengths[:, None] - 1).clamp(min=0)
            return scama_mask(torch.minimum(fired, last), token_mask, encoded.layout)
        assert encoded.rows is not None
        assert isinstance(chunk, ChunkConfig)
        window = _windows_of(encoded, weights, token_mask.shape[1])
        return window_memory_mask(window, token_mask, encoded.rows, chunk.decoder_look_back * chunk.chunk)

    def recognize(
        self,
        feats: Tensor,
        lengths: Tensor,
        chunk: Chunking = None,
        hotwords: Tensor | None = None,
        hotword_weight: float = 1.0,
    ) -> Whole:
        """Whole utterances at once: feats (B, T, F), lengths (B,), in the form that chunk asks for.

        hotwords (N, D): what `encode_hotwords` gives, for a model that listens for them; None: nobody named any.
        hotword_weight: FunASR's seaco_weight or clas_scale.
        """
        encoded = self.encode(feats, lengths, chunk)
        if chunk is None:
            hidden, weights, counts = self.predictor.complete(encoded.hidden, encoded.weights, encoded.lengths)
        else:
            hidden, weights = self.predictor.add_tail(encoded.hidden, encoded.weights, encoded.lengths)
            counts = cif.token_counts(weights)
        embeds = cif.integrate(hidden, weights, int(counts.max()))
        token_mask = length_mask(counts, embeds.shape[1])
        embeds = embeds * token_mask[..., None]
        if self.hotwords is None or not embeds.shape[1]:
            log_probs = self.decode(encoded, weights, embeds, token_mask, chunk).log_softmax(-1)
        else:
            log_probs = self._listen(encoded, embeds, token_mask, hotwords, hotword_weight)
        fine = None
        if self.predictor.timing is not None and chunk is None:
            fine = timing.scaled(self.predictor.fine(encoded.hidden, encoded.lengths), counts)
        return Whole(encoded.hidden, encoded.lengths, weights, embeds, counts, log_probs, fine)

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> Tensor:
        """A row (N, D) for each hotword, given as the ids of its tokens, and one for "none of them" at the end."""
        assert self.hotwords is not None, "this model does not listen for hotwords"
        ids, lengths = padded_ids(words)
        return self.hotword_rows(ids.to(self.decoder.embed.weight.device), lengths)

    def hotword_rows(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids (N, M) of which lengths (N,) count -> (N, D)."""
        embed = self.decoder.embed if self.hotwords.embed is None else self.hotwords.embed
        rows: Tensor = self.hotwords(embed(ids), lengths)
        return rows

    def _listen(
        self, encoded: Encoded, embeds: Tensor, token_mask: Tensor, hotwords: Tensor | None, weight: float
    ) -> Tensor:
        """Log-probabilities (B, L, V) of a model that listens for hotwords (N, D)."""
        assert encoded.rows is None and encoded.layout is None, "such models recognise whole utterances"
        heard = (encoded.hidden, encoded.memory_mask(), embeds, token_mask)
        if not isinstance(self.hotwords, Seaco):
            # Trained with hotwords throughout: where nobody named any, "none of them" is all there is.
            hotwords = self.encode_hotwords([]) if hotwords is None else hotwords
            logits: Tensor = self.decoder.output(self.decoder.rows(*heard, hotwords[None], weight))
            return logits.log_softmax(-1)
        rows = self.decoder.rows(*heard)
        plain: Tensor = self.decoder.output(rows).log_softmax(-1)
        if hotwords is None:
            return plain
        choice = hotwords[None]
        if len(hotwords) > SHORTLIST:
            choice = shortlist(hotwords, self.hotwords.attention(rows, choice, token_mask))
        biased = self.hotwords.scores(embeds, rows, choice, token_mask).log_softmax(-1)
        return merge(plain, biased, self.hotwords.config.no_bias_id, weight)

    def read(self, batch: Batch, chunk: Chunking = None) -> list[list[int]]:
        """The best id of each token; see `Trainable.read`."""
        named = None if batch.hotwords is None else self.encode_hotwords(batch.hotwords)
        whole = self.recognize(batch.feats, batch.lengths, chunk, hotwords=named)
        best, counts = whole.log_probs.argmax(-1).tolist(), whole.counts.tolist()
        return [ids[:count] for ids, count in zip(best, counts, strict=True)]

    # -- training -----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, chunk: Chunking = None, generator: torch.Generator | None = None) -> Losses:
        """The training objective on a batch, in the form that chunk asks for. generator drives the sampler."""
        return self.losses_of(self.encode(batch.feats, batch.lengths, chunk), batch, chunk, generator)

    def losses_of(self, encoded: Encoded, batch: Batch, chunk: Chunking, generator: torch.Generator | None) -> Losses:
        """The objective given the encoder's rows; of a SeACo-Paraformer where the batch has hotwords, theirs."""
        if batch.hotwords is None or not isinstance(self.hotwords, Seaco):
            return self._own_losses(encoded, batch, chunk, generator)
        hotwords = self.hotwords.config
        cross_entropy, accuracy = self._hotword_losses(encoded, batch)
        zero, total = torch.zeros_like(cross_entropy), cross_entropy
        own = None
        if hotwords.trains_decoder:
            own = self._own_losses(encoded, batch, chunk, generator)
            total = total + hotwords.objective_weight * own.cross_entropy
        per_token = total if hotwords.length_normalized else zero
        return Losses(total, cross_entropy, zero if own is None else own.quantity, zero, zero, accuracy, per_token)

    def _hotword_losses(self, encoded: Encoded, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy and accuracy of what the second decoder says of each target token (variants 1.7)."""
        assert isinstance(self.hotwords, Seaco)
        assert batch.hotwords is not None
        config = self.hotwords.config
        *_, embeds, token_mask = self._aligned(encoded, batch)
        embeds = embeds * token_mask[..., None]
        rows = self.decoder.rows(encoded.hidden, encoded.memory_mask(), embeds, token_mask)
        named = self.encode_hotwords(batch.hotwords)[None]
        # Of tokens that were said: the end of a sentence is in no hotword.
        logits = self.hotwords.scores(embeds, rows, named, token_mask)[:, : batch.targets.shape[1]]
        labels = hotword_labels(batch.targets, batch.hotwords, config.no_bias_id)
        smoothed = losses.smoothed_cross_entropy(
            logits, labels, config.label_smoothing, per_token=config.length_normalized
        )
        return smoothed, losses.accuracy(logits, labels)

    def _aligned(self, encoded: Encoded, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """A vector for each target token: targets (B, L), lengths (B,), weights, embeds (B, L, D), token mask (B, L).

        Weights are scaled, so that there are as many vectors as target tokens and each has its own; the count is learnt
        by `quantity`.
        """
        targets, lengths = batch.targets, batch.target_lengths
        if self.config.objective.predict_eos:
            targets, lengths = append_eos(targets, lengths), lengths + 1
        weights = cif.scale_to_targets(encoded.weights, lengths)
        embeds = cif.integrate(encoded.hidden, weights, targets.shape[1])
        return targets, lengths, weights, embeds, length_mask(lengths, targets.shape[1])

    def _own_losses(self, encoded: Encoded, batch: Batch, chunk: Chunking, generator: torch.Generator | None) -> Losses:
        """Predictor, two decoder passes with the sampler between, losses."""
        c = self.config.objective
        if isinstance(self.config.hotwords, ContextualConfig):
            encoded = replace(encoded, hotwords=self.encode_hotwords(batch.hotwords or ()))
        targets, lengths, weights, embeds, token_mask = self._aligned(encoded, batch)
        first, embeds = self._glance(encoded, weights, embeds, targets, token_mask, chunk, generator)
        logits, units = self.scores(encoded, weights, embeds, token_mask, chunk)
        cross_entropy = losses.smoothed_cross_entropy(logits, targets, c.label_smoothing, per_token=c.length_normalized)
        quantity = losses.quantity(encoded.weights.sum(-1), lengths, per_token=c.length_normalized)
        ctc = self._ctc(encoded, batch, chunk)
        counted = (1 - c.ctc_weight) * c.cross_entropy_weight * cross_entropy + c.quantity_weight * quantity
        if self.predictor.timing is not None and chunk is None:
            fine = self.predictor.fine(encoded.hidden, encoded.lengths).sum(-1)
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
            total = total + c.middle_ctc_weight * self._ctc_of(encoded.middle, encoded.lengths, batch)
        mwer = logits.new_zeros(())
        if c.mwer_weight > 0:
            negatives = losses.draw_negatives(c.mwer_samples, token_mask, generator)
            mwer = losses.mwer(logits, targets, lengths, negatives).mean()
            total = total + c.mwer_weight * mwer
        accuracy = losses.accuracy(logits if first is None else first, targets)
        # CTC is a mean over utterances whatever the others are, so the loop must weight the two apart.
        per_token = counted if c.length_normalized else torch.zeros_like(total)
        return Losses(total, cross_entropy, quantity, ctc, mwer, accuracy, per_token)

    def _glance(
        self,
        encoded: Encoded,
        weights: Tensor,
        embeds: Tensor,
        targets: Tensor,
        token_mask: Tensor,
        chunk: Chunking,
        generator: torch.Generator | None,
    ) -> tuple[Tensor | None, Tensor]:
        """The first pass, without gradient, and the mixed vectors for the second; no pass when nothing is sampled."""
        ratio = self.config.objective.sampling_ratio
        if ratio == 0:
            return None, embeds * token_mask[..., None]
        with torch.no_grad():
            first = self.decode(encoded, weights, embeds, token_mask, chunk)
        # What the model would say now decides how much of the answer it is shown in the second pass.
        predicted, lengths = first.argmax(-1), token_mask.sum(-1)
        replace = sampler.choose_positions(predicted, targets, lengths, ratio, generator)
        known = self.decoder.embed_tokens(targets.clamp(min=0))
        return first, sampler.mix(embeds, known, replace, token_mask)

    def _ctc(self, encoded: Encoded, batch: Batch, chunk: Chunking) -> Tensor:
        """CTC on the committed rows of the encoder; zero where the model has no CTC layer."""
        if self.ctc is None:
            return encoded.hidden.new_zeros(())
        hidden, lengths = encoded.hidden, encoded.lengths
        if encoded.layout is not None:
            hidden, lengths = encoded.layout.join(hidden), batch.lengths
        elif isinstance(chunk, ChunkConfig):
            hidden, lengths = _committed_rows(encoded, batch, chunk)
        return self._ctc_of(hidden, lengths, batch)

    def _ctc_of(self, hidden: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """CTC of the batch's units on rows hidden (B, T, D), of which lengths (B,) count."""
        assert self.ctc is not None
        targets, target_lengths = batch.targets, batch.target_lengths
        if batch.ctc_targets is not None and batch.ctc_target_lengths is not None:
            targets, target_lengths = batch.ctc_targets, batch.ctc_target_lengths
        return losses.ctc(self.ctc(hidden), lengths, targets, target_lengths)

    # -- live streams -------------------------------------------------------------------------------------------------

    def init_state(self, batch: int, chunk: ChunkConfig, device: torch.device | None = None) -> ParaformerState:
        """The state of `batch` streams before their first step. The model must be a streaming one."""
        dim = self.config.encoder.output_dim
        carry = CifState(torch.zeros(batch, device=device), torch.zeros(batch, dim, device=device))
        decoder = self.decoder.init_state(batch, dim, chunk.decoder_look_back * chunk.chunk, device)
        return ParaformerState.join(self.encoder.init_state(batch, chunk, device), carry, decoder)

    def step(
        self, frames: Tensor, counts: Tensor, final: Tensor, state: ParaformerState, chunk: ChunkConfig
    ) -> tuple[StepOutput, ParaformerState]:
        """One step of several streams (spec 2.5, 3.3, 4.3).

        frames (B, n, F) of which counts (B,) are present, n <= chunk.chunk: all of them unless the stream ends with
        this step, final (B,) bool. The next state of a finished stream is meaningless.
        """
        encoder, carry, decoder = state.split()
        hidden, mask, encoder = self.encoder.step(frames, counts, encoder, chunk)
        raw = self.predictor(hidden, mask)
        # Rows before the chunk were committed by the step before, rows after it will be by the next, if there is one.
        row = torch.arange(raw.shape[1], device=raw.device)[None]
        committed = (row >= chunk.left) & ((row < chunk.left + chunk.chunk) | final[:, None])
        weights = raw * committed
        rows, summed = self.predictor.add_tail(hidden, weights, mask.sum(-1))
        summed = torch.where(final[:, None], summed, F.pad(weights, (0, summed.shape[1] - weights.shape[1])))
        embeds, tokens, carry = cif.step(rows, summed, carry)
        logits, decoder = self.decoder.step(hidden, mask, embeds, tokens, decoder)
        output = StepOutput(hidden, raw, weights, embeds, tokens, logits)
        return output, ParaformerState.join(encoder, carry, decoder)


def build_encoder(config: ModelConfig) -> Any:
    """The encoder that config.encoder describes."""
    input_dim = config.frontend.input_dim
    match config.encoder:
        case SanmEncoderConfig():
            return SanmEncoder(config.encoder, config.frontend, config.rows_per_window)
        case ConformerEncoderConfig():
            from paraformer.model.conformer import ConformerEncoder

            return ConformerEncoder(config.encoder, input_dim)
        case TransformerEncoderConfig():
            from paraformer.model.transformer import TransformerEncoder

            return TransformerEncoder(config.encoder, input_dim)


def build_decoder(config: ModelConfig) -> Any:
    """The decoder that config.decoder describes."""
    dim = config.encoder.output_dim
    if isinstance(config.decoder, SanmDecoderConfig):
        contextual = isinstance(config.hotwords, ContextualConfig)
        return SanmDecoder(config.decoder, config.vocab_size, dim, contextual=contextual)
    from paraformer.model.transformer_decoder import TransformerDecoder

    return TransformerDecoder(config.decoder, config.vocab_size, dim)


def build_hotwords(config: ModelConfig) -> Any:
    """What listens for hotwords as config.hotwords describes it; None where nothing does."""
    dim = config.encoder.output_dim
    if config.hotwords is None:
        return None
    kind = Seaco if isinstance(config.hotwords, SeacoConfig) else HotwordEncoder
    return kind(config.hotwords, config.vocab_size, dim)  # type: ignore[arg-type]  # each its own settings


def unit_targets(batch: Batch, tokens: int) -> Tensor:
    """The unit of each token (B, tokens), -1 where there is none: of utterances with a unit for every token."""
    if batch.ctc_targets is None or batch.ctc_target_lengths is None:
        return torch.full((len(batch.lengths), tokens), losses.IGNORE_ID, device=batch.lengths.device)
    units = F.pad(batch.ctc_targets, (0, max(0, tokens - batch.ctc_targets.shape[1])), value=losses.IGNORE_ID)
    alike = batch.ctc_target_lengths == batch.target_lengths
    present = length_mask(batch.ctc_target_lengths, tokens) & alike[:, None]
    return units[:, :tokens].masked_fill(~present, losses.IGNORE_ID)


def append_eos(targets: Tensor, lengths: Tensor) -> Tensor:
    """targets (B, L) padded with -1 -> (B, L + 1) with </s> after each row's last token.

    >>> append_eos(torch.tensor([[7, 8], [9, -1]]), torch.tensor([2, 1])).tolist()
    [[7, 8, 2], [9, 2, -1]]
    """
    return F.pad(targets, (0, 1), value=losses.IGNORE_ID).scatter(1, lengths[:, None], EOS_ID)


def _windows_of(encoded: Encoded, weights: Tensor, tokens: int) -> Tensor:
    """The window in which each of the first `tokens` tokens fires, (B, tokens), in the windowed form."""
    assert encoded.rows is not None
    return torch.minimum(cif.firing_frames(weights, tokens), encoded.lengths[:, None]) // encoded.rows.shape[2]


def _committed(rows: Tensor, lengths: Tensor, chunk: ChunkConfig) -> Tensor:
    """(B, W, R): the rows each window commits: its chunk, and everything after the left ones in an utterance's last."""
    steps, size = rows.shape[1:]
    row = torch.arange(size, device=rows.device)
    last = torch.arange(steps, device=rows.device)[None] == (lengths // chunk.chunk)[:, None]
    return (row >= chunk.left) & ((row < chunk.left + chunk.chunk) | last[..., None])


def _committed_rows(encoded: Encoded, batch: Batch, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
    """The committed rows of all windows in time order, (B, n, D) and their numbers (B,)."""
    assert encoded.rows is not None
    keep = (encoded.rows & _committed(encoded.rows, batch.lengths, chunk)).flatten(1)
    lengths = keep.sum(-1)
    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)[:, : int(lengths.max())]
    return encoded.hidden.gather(1, order[..., None].expand(-1, -1, encoded.hidden.shape[2])), lengths
