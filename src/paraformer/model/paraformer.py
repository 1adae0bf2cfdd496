"""The whole model: encoder, predictor, sampler, decoder (Gao et al., 2022, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.config import (
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
from paraformer.model import cif, timing
from paraformer.model.chunk_masks import scama_mask
from paraformer.model.cif import CifState, Predictor
from paraformer.model.decoder import DecoderState, SanmDecoder, window_memory_mask
from paraformer.model.encoded import Chunking, Encoded, committed_mask
from paraformer.model.encoder import EncoderState, SanmEncoder
from paraformer.model.hotwords import HotwordEncoder, Seaco, merge, padded_ids, shortlist
from paraformer.model.layers import length_mask
from paraformer.model.objective import Batch, Losses, Trainable, losses_of
from paraformer.model.state import State


@dataclass(frozen=True)
class Heard:
    """Whole utterances up to the number of their tokens: rows and weights to integrate, counts (B,)."""

    encoded: Encoded
    hidden: Tensor
    weights: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Whole:
    """Everything recognition of whole utterances computes.

    hidden (B, T, D) of which lengths (B,) rows are present, weights (B, T + 1) with the tail, embeds (B, L, D),
    counts (B,), log_probs (B, L, V). fine (B, T * rate): weights that tell when tokens were spoken, each row's sum its
    count, of a model with a second integrate-and-fire. units (B, L, units): scores, of a decoder with a text part.
    """

    hidden: Tensor
    lengths: Tensor
    weights: Tensor
    embeds: Tensor
    counts: Tensor
    log_probs: Tensor
    fine: Tensor | None = None
    units: Tensor | None = None


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

    Also embeds (B, L, D), counts (B,), logits (B, L, V) and, where the decoder has a text part, units (B, L, units);
    L is the largest count and may be 0.
    """

    hidden: Tensor
    raw_weights: Tensor
    weights: Tensor
    embeds: Tensor
    counts: Tensor
    logits: Tensor
    units: Tensor | None


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
        committed = rows & committed_mask(rows, lengths, chunk)
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
            none = embeds.new_zeros(embeds.shape[0], 0, self.config.vocab_size)
            return none, embeds.new_zeros(embeds.shape[0], 0, self.config.units) if self.config.units else None
        mask = self._seen(encoded, weights, token_mask, chunk)
        decoder: Any = self.decoder
        if encoded.hotwords is not None:
            return decoder.output(decoder.rows(encoded.hidden, mask, embeds, token_mask, encoded.hotwords[None])), None
        # Only a SAN-M decoder has memories that steps could divide.
        if isinstance(decoder, SanmDecoder):
            steps = encoded.windows_of(weights, embeds.shape[1]) if isinstance(chunk, ChunkConfig) else None
            return decoder.scores(encoded.hidden, mask, embeds, token_mask, steps)
        logits: Tensor = decoder(encoded.hidden, mask, embeds, token_mask)
        return logits, None

    def _seen(self, encoded: Encoded, weights: Tensor, token_mask: Tensor, chunk: Chunking) -> Tensor:
        """Which encoder rows each token sees, (B, 1 or L, T)."""
        if chunk is None:
            return encoded.memory_mask()
        if encoded.layout is not None:
            fired = cif.firing_frames(weights, token_mask.shape[1])
            # A token that the tail completes fires behind the last row and sees what that row sees.
            last = (encoded.lengths[:, None] - 1).clamp(min=0)
            return scama_mask(torch.minimum(fired, last), token_mask, encoded.layout)
        assert encoded.rows is not None
        assert isinstance(chunk, ChunkConfig)
        window = encoded.windows_of(weights, token_mask.shape[1])
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
        heard = self.hear(feats, lengths, chunk)
        return self.spell(heard, int(heard.counts.max()), chunk, hotwords, hotword_weight)

    def hear(self, feats: Tensor, lengths: Tensor, chunk: Chunking = None) -> Heard:
        """The first part of `recognize`, after which it is known how many tokens there are."""
        encoded = self.encode(feats, lengths, chunk)
        if chunk is None:
            completed = self.predictor.complete(encoded.hidden, encoded.weights, encoded.lengths)
            return Heard(encoded, *completed)
        hidden, weights = self.predictor.add_tail(encoded.hidden, encoded.weights, encoded.lengths)
        return Heard(encoded, hidden, weights, cif.token_counts(weights))

    def spell(
        self,
        heard: Heard,
        tokens: int,
        chunk: Chunking = None,
        hotwords: Tensor | None = None,
        hotword_weight: float = 1.0,
    ) -> Whole:
        """The rest of `recognize`, for so many tokens, at least as many as any utterance has."""
        encoded, weights, counts = heard.encoded, heard.weights, heard.counts
        embeds = cif.integrate(heard.hidden, weights, tokens)
        token_mask = length_mask(counts, embeds.shape[1])
        # Behind an utterance's last token stands what it has begun of another, which is no token.
        embeds = embeds * token_mask[..., None]
        units = None
        if self.hotwords is None or not embeds.shape[1]:
            logits, units = self.scores(encoded, weights, embeds, token_mask, chunk)
            log_probs = logits.log_softmax(-1)
        else:
            log_probs = self._listen(encoded, embeds, token_mask, hotwords, hotword_weight)
        fine = None
        if self.predictor.timing is not None and chunk is None:
            fine = timing.scaled(self.predictor.fine(encoded.hidden, encoded.lengths), counts)
        return Whole(encoded.hidden, encoded.lengths, weights, embeds, counts, log_probs, fine, units)

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
            # Attention to very many hotwords is spread thin, so a first look at all says which few to choose from.
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
        return losses_of(self, self.encode(batch.feats, batch.lengths, chunk), batch, chunk, generator)

    # -- live streams -------------------------------------------------------------------------------------------------

    def init_state(self, batch: int, chunk: ChunkConfig, device: torch.device | None = None) -> ParaformerState:
        """The state of `batch` streams before their first step. The model must be a streaming one."""
        dim = self.config.encoder.output_dim
        carry = CifState(torch.zeros(batch, device=device), torch.zeros(batch, dim, device=device))
        decoder = self.decoder.init_state(batch, dim, chunk.decoder_look_back * chunk.chunk, device)
        return ParaformerState.join(self.encoder.init_state(batch, chunk, device), carry, decoder)

    def step(
        self,
        frames: Tensor,
        counts: Tensor,
        final: Tensor,
        state: ParaformerState,
        chunk: ChunkConfig,
        tokens: int | None = None,
    ) -> tuple[StepOutput, ParaformerState]:
        """One step of several streams (spec 2.5, 3.3, 4.3).

        frames (B, n, F) of which counts (B,) are present, n <= chunk.chunk: all of them unless the stream ends with
        this step, final (B,) bool. The next state of a finished stream is meaningless. tokens: see `cif.step`.
        """
        encoder, carry, decoder = state.split()
        hidden, mask, encoder = self.encoder.step(frames, counts, encoder, chunk)
        raw = self.predictor(hidden, mask)
        # Rows before the chunk were committed by the step before, rows after it will be by the next, if there is one.
        row = torch.arange(raw.shape[1], device=raw.device)[None]
        committed = (row >= chunk.left) & ((row < chunk.left + chunk.chunk) | final[:, None])
        weights = raw * committed
        rows, summed = self.predictor.add_tail(hidden, weights, mask.sum(-1))
        # The tail is for an end alone: in every step it would add up to tokens that nobody said.
        paused = self.predictor.paused(weights, chunk.chunk, carry) & ~final
        ends = (paused | final)[:, None]
        summed = torch.where(ends, summed, F.pad(weights, (0, summed.shape[1] - weights.shape[1])))
        embeds, fired, carry = cif.step(rows, summed, carry, tokens)
        carry = carry.without(paused)
        logits, units, decoder = self.decoder.step(hidden, mask, embeds, fired, decoder)
        output = StepOutput(hidden, raw, weights, embeds, fired, logits, units)
        return output, ParaformerState.join(encoder, carry, decoder)


def build_encoder(config: ModelConfig) -> Any:
    """The encoder that config.encoder describes."""
    input_dim = config.frontend.input_dim
    match config.encoder:
        case SanmEncoderConfig():
            return SanmEncoder(config.encoder, config.frontend, config.rows_per_window)
        case ConformerEncoderConfig():
            # Loaded only where needed: the published models are made of SAN-M throughout.
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
