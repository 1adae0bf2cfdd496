"""What the paper compares itself with: the same encoder, and a Transformer decoder that writes one token after another.

It is here for that comparison, so it is made to be a fair one: keys and values are kept from step to step, and the
beams of a whole batch advance together. It also shows what the training loop asks of a model that is not the package's:
`system="recipes.autoregressive:Autoregressive"` in a recipe trains it.
Shapes: B batch, T encoder rows, L tokens, K beams, V items, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paraformer.config import EOS_ID, SOS_ID, ModelConfig, TransformerDecoderConfig
from paraformer.errors import ConfigError
from paraformer.model import losses
from paraformer.model.encoded import Chunking
from paraformer.model.layers import attend, length_mask
from paraformer.model.objective import Batch, Losses, Trainable, append_eos
from paraformer.model.paraformer import build_encoder
from paraformer.model.transformer_decoder import TransformerDecoder, TransformerDecoderBlock

Pair = tuple[Tensor, Tensor]
"""Keys and values of one layer."""


@dataclass
class _Beams:
    """Hypotheses in progress: ids (B * K, L), their scores (B, K), which have ended (B, K), and the kept layers."""

    ids: Tensor
    scores: Tensor
    ended: Tensor
    kept: list[Pair]


class Autoregressive(Trainable):
    """Encoder, causal Transformer decoder, optional CTC layer for training.

    beams: of the search by which it reads; 1 is greedy, which measurements during training are content with.
    """

    beams = 1

    def __init__(self, config: ModelConfig) -> None:
        """Raises ConfigError unless config.decoder is a Transformer's and the objective one that there is here."""
        super().__init__()
        if not isinstance(config.decoder, TransformerDecoderConfig):
            raise ConfigError("the autoregressive model needs a decoder of kind 'transformer'")
        c = config.objective
        if c.mwer_weight > 0 or c.middle_ctc_weight > 0 or not c.predict_eos:
            raise ConfigError(
                "the autoregressive model learns by cross-entropy, </s> included, and CTC at the end alone"
            )
        self.config = config
        self.encoder = build_encoder(config)
        self.decoder = TransformerDecoder(config.decoder, config.vocab_size, config.encoder.output_dim)
        self.ctc = nn.Linear(config.encoder.output_dim, config.ctc_vocab_size) if config.ctc_vocab_size else None

    def forward(self, batch: Batch, chunk: Chunking = None) -> Losses:
        """Cross-entropy of every token given those before it, and CTC. The parts that it lacks are zero.

        Raises ConfigError for live steps: it sees whole utterances only.
        """
        _refuse(chunk)
        c = self.config.objective
        hidden, lengths = self.encoder(batch.feats, batch.lengths)
        targets = append_eos(batch.targets, batch.target_lengths)
        said = nn.functional.pad(batch.targets.clamp(min=0), (1, 0), value=SOS_ID)
        causal = torch.ones(said.shape[1], said.shape[1], dtype=torch.bool, device=said.device).tril()
        seen = causal[None] & length_mask(batch.target_lengths + 1, said.shape[1])[:, None]
        memory_mask = length_mask(lengths, hidden.shape[1])[:, None]
        logits = self.decoder(hidden, memory_mask, self.decoder.embed_tokens(said), seen)
        cross_entropy = losses.smoothed_cross_entropy(logits, targets, c.label_smoothing, per_token=c.length_normalized)
        zero = hidden.new_zeros(())
        ctc = zero
        if self.ctc is not None:
            units = (batch.targets, batch.target_lengths)
            if batch.ctc_targets is not None and batch.ctc_target_lengths is not None:
                units = (batch.ctc_targets, batch.ctc_target_lengths)
            ctc = losses.ctc(self.ctc(hidden), lengths, *units)
        total = (1 - c.ctc_weight) * cross_entropy + c.ctc_weight * ctc
        per_token = (1 - c.ctc_weight) * cross_entropy if c.length_normalized else zero
        return Losses(total, cross_entropy, zero, ctc, zero, losses.accuracy(logits, targets), per_token)

    def read(self, batch: Batch, chunk: Chunking = None) -> list[list[int]]:
        """The best hypotheses of a search with `self.beams`; see `Trainable.read`."""
        _refuse(chunk)
        return self.recognize(batch.feats, batch.lengths, self.beams)

    @torch.no_grad()
    def recognize(self, feats: Tensor, lengths: Tensor, beams: int = 10, longest: int = 60) -> list[list[int]]:
        """Beam search: feats (B, T, F), lengths (B,) -> the ids of each utterance's best hypothesis.

        Scores are sums of log-probabilities divided by the number of tokens, </s> included; a hypothesis that has not
        ended after `longest` tokens is taken only where none has. beams 1 is greedy search.
        """
        hidden, lengths = self.encoder(feats, lengths)
        batch = hidden.shape[0]
        mask = length_mask(lengths, hidden.shape[1])[:, None].repeat_interleave(beams, 0)
        memory = [
            (block.cross.k(hidden).repeat_interleave(beams, 0), block.cross.v(hidden).repeat_interleave(beams, 0))
            for block in self._blocks()
        ]
        empty = hidden.new_zeros(batch * beams, 0, hidden.shape[2])
        state = _Beams(
            ids=torch.full((batch * beams, 1), SOS_ID, device=feats.device),
            scores=torch.tensor([0.0] + [-torch.inf] * (beams - 1), device=feats.device).repeat(batch, 1),
            ended=torch.zeros(batch, beams, dtype=torch.bool, device=feats.device),
            kept=[(empty, empty) for _ in memory],
        )
        for _ in range(longest):
            state = _extend(state, self._next(state, memory, mask))
            if state.ended.all():
                break
        return _best(state)

    def _blocks(self) -> list[TransformerDecoderBlock]:
        return [block for block in self.decoder.blocks if isinstance(block, TransformerDecoderBlock)]

    def _next(self, state: _Beams, memory: list[Pair], mask: Tensor) -> Tensor:
        """Log-probabilities (B * K, V) of the next item; the last token's keys and values are added to state.kept."""
        position = state.ids.shape[1] - 1
        x = self.decoder.embed_tokens(state.ids)[:, position:]
        for index, block in enumerate(self._blocks()):
            own, cross, normed = block.attention, block.cross, block.norm1(x)
            keys, values = (
                torch.cat([past, project(normed)], 1)
                for past, project in zip(state.kept[index], (own.k, own.v), strict=True)
            )
            state.kept[index] = (keys, values)
            x = x + own.out(attend(own.q(normed), keys, values, own.heads, None, own.dropout))
            asked = cross.q(block.norm2(x))
            x = x + cross.out(attend(asked, *memory[index], cross.heads, mask, cross.dropout))
            x = x + block.feed_forward(block.norm3(x))
        return losses.log_probabilities(self.decoder.output(self.decoder.norm(x))[:, 0])


def _refuse(chunk: Chunking) -> None:
    if chunk is not None:
        raise ConfigError("the autoregressive model sees whole utterances only; set live to None")


def _extend(state: _Beams, log_probs: Tensor) -> _Beams:
    """The best K continuations of each utterance's K hypotheses; one that has ended goes on unchanged as </s>."""
    batch, beams = state.scores.shape
    vocab = log_probs.shape[-1]
    log_probs = log_probs.reshape(batch, beams, vocab)
    only_eos = torch.full((vocab,), -torch.inf, device=log_probs.device)
    only_eos[EOS_ID] = 0.0
    log_probs = torch.where(state.ended[..., None], only_eos, log_probs)
    scores, best = (state.scores[..., None] + log_probs).flatten(1).topk(beams, dim=1)
    parent, item = best // vocab, best % vocab
    rows = (parent + beams * torch.arange(batch, device=parent.device)[:, None]).flatten()
    ids = torch.cat([state.ids[rows], item.flatten()[:, None]], 1)
    kept = [(keys[rows], values[rows]) for keys, values in state.kept]
    return _Beams(ids, scores, item == EOS_ID, kept)


def _best(state: _Beams) -> list[list[int]]:
    ids = state.ids[:, 1:].reshape(*state.scores.shape, -1)
    sizes = (ids != EOS_ID).sum(-1) + 1
    unfinished = torch.where(state.ended, 0.0, -1e6)
    winners = (state.scores / sizes + unfinished).argmax(1).tolist()
    return [[i for i in ids[row, winner].tolist() if i != EOS_ID] for row, winner in enumerate(winners)]
