"""The graphs that sherpa-onnx and funasr-onnx run (spec 8.1, 8.4), made so that our text comes out.

Both runtimes read inputs and outputs by position or under these names. Whole utterances need one graph with
integrate-and-fire inside; live ones two, around the integrate-and-fire of the runtime, which also embeds the rows,
keeps the overlap, and knows no look-back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from paraformer.certificate.foreign import row_scale
from paraformer.config import EOS_ID, SILENT_IDS, ModelConfig, SanmDecoderConfig
from paraformer.contract import Graph, Port
from paraformer.model import cif
from paraformer.model.encoder import spread
from paraformer.model.layers import length_mask
from paraformer.model.paraformer import Paraformer

NEVER = -1e4
"""A log-probability that no other falls below."""

_TURNS = 128
"""Of the fastest cosine that is read: ten hours of a stream."""


class WholeGraph(nn.Module):
    """Normalised rows of whole utterances to log-probabilities of their tokens."""

    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """speech (B, T, F), speech_lengths (B,) -> log-probabilities (B, L, V) and token numbers (B,), int32."""
        model, lengths = self.model, speech_lengths.long()
        hidden, _ = model.encoder(speech, lengths)
        mask = length_mask(lengths, speech.shape[1])
        rows, weights, counts = model.predictor.complete(hidden, model.predictor(hidden, mask), lengths)
        embeds = cif.integrate(rows, weights, counts.max().clamp(min=1))  # a graph cannot decode no token at all
        present = length_mask(counts, embeds.shape[1])
        embeds = embeds * present[..., None]
        scores = model.decoder(hidden, mask[:, None, :], embeds, present).log_softmax(-1)
        return spoken_first(scores, present), counts.int()


def spoken_first(scores: Tensor, present: Tensor) -> Tensor:
    """Tokens that stand for text first, in order; every other row of the (B, L, V) log-probabilities is a sure </s>.

    present (B, L) tells tokens from padding. For sherpa-onnx ends at the first </s> and would write <blank>, <s> and
    padding before it as text, and funasr-onnx counts padding among the tokens.
    """
    silent = ~present
    ids = scores.argmax(-1)
    for index in SILENT_IDS:
        silent = silent | (ids == index)
    size = scores.shape[1]
    # Places as well, since a sort in a graph does not promise to keep the order of equal ones.
    order = (silent.long() * size + torch.arange(size)).argsort(-1)
    sure = torch.full_like(scores[:1, :1], NEVER).index_fill(2, torch.tensor([EOS_ID]), 0.0)
    kept = scores.gather(1, order[..., None].expand(-1, -1, scores.shape[2]))
    return torch.where(silent.gather(1, order)[..., None], sure, kept)


class LiveEncoderGraph(nn.Module):
    """Embedded rows of one live step to hidden rows and CIF weights."""

    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """speech (B, T, F) with scale and positions, speech_lengths (B,) -> enc (B, T, D), enc_len, alphas (B, T).

        An encoder with a front embeds for itself: the scale is taken back, and the step's place is read from the
        positions that the runtime added (see row_scale).
        """
        encoder, mask = self.model.encoder, length_mask(speech_lengths, speech.shape[1])
        if encoder.front is None:
            rows = encoder.run(speech, mask[:, None, :], mask)[0]
        else:
            c = self.model.config
            used, half = c.frontend.lfr_n * c.frontend.mel_bins, c.frontend.input_dim // 2
            scale = torch.from_numpy(row_scale(c)).reciprocal() * c.encoder.output_dim**-0.5
            start = first_place(speech[..., max(used, half) :], half)
            feats = speech * torch.where(torch.arange(len(scale)) < used, scale, 0.0)
            present = spread(mask, encoder.rows)
            rows = encoder.run(encoder.embed(feats, start, mask), present[:, None, :], present)[0]
        hidden = encoder.merge(rows, mask) * mask[..., None]
        # + 0: a graph's output must be made in it.
        return hidden, speech_lengths + 0, self.model.predictor(hidden, mask)


def first_place(marks: Tensor, half: int) -> Tensor:
    """The position of the first row of marks (B, T, S), cosines of positions at the slowest of `half` rates (spec 2.1).

    Rows of zeros stand before the audio, or after it. Returns (B,) positions, below 1 where zeros come first; of
    nothing but zeros so far below that no row is at 1.
    """
    rates = torch.exp(torch.arange(half - marks.shape[2], half) * (-math.log(10000.0) / (half - 1)))
    there = marks.abs().amax(2) > 0
    first = there.long().argmax(1)
    mark = marks.gather(1, first[:, None, None].expand(-1, -1, marks.shape[2]))
    # One cosine has two positions a turn, and rounding moves them; the others tell which of these it is.
    # Clamped, since a rounded cosine may lie beyond 1.
    angle, turns = mark[:, :, 0].clamp(-1, 1).acos(), torch.arange(_TURNS) * math.tau
    near = (torch.cat([turns + angle, turns - angle], 1) / rates[0]).round()
    # And their neighbours: near 0 and half a turn a cosine hardly changes from one position to the next.
    places = torch.cat([near - 1, near, near + 1], 1)
    misfit = (mark - (places[:, :, None] * rates).cos()).square().sum(2)
    place = places.gather(1, misfit.argmin(1, keepdim=True))[:, 0].long()
    # Back from the row that was read to the first one.
    return torch.where(there.any(1), place - first, -marks.shape[1])


class LiveDecoderGraph(nn.Module):
    """Acoustic vectors of one live step to scores; the memory of each layer goes in and out."""

    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, enc: Tensor, enc_len: Tensor, acoustic_embeds: Tensor, acoustic_embeds_len: Tensor, *caches: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits (B, L, V), the best ids (B, L) with 0 for what is no text, and the next caches (B, D, kernel - 1).

        sherpa-onnx takes the ids, of which it leaves out 0 alone; funasr-onnx takes the logits.
        """
        memory_mask = length_mask(enc_len, enc.shape[1])[:, None, :]
        fsmn = torch.stack([cache.transpose(1, 2) for cache in caches], 1)
        counts = acoustic_embeds_len.long()
        logits, _, following = self.model.decoder.step_tokens(enc, memory_mask, acoustic_embeds, counts, fsmn)
        ids = logits.argmax(-1)
        ids = ids * (ids > max(SILENT_IDS))
        return logits, ids, *(following[:, index].transpose(1, 2) for index in range(len(caches)))


def whole(config: ModelConfig) -> Graph:
    """The table of WholeGraph; the first output is called as in FunASR, though it holds log-probabilities."""
    return Graph(
        "model.onnx",
        (Port("speech", "float32", ("B", "T", config.frontend.input_dim)), Port("speech_lengths", "int32", ("B",))),
        (Port("logits", "float32", ("B", "L", config.vocab_size)), Port("token_num", "int32", ("B",))),
    )


def live_encoder(config: ModelConfig) -> Graph:
    """The table of LiveEncoderGraph."""
    dim = config.encoder.output_dim
    return Graph(
        "encoder.onnx",
        (Port("speech", "float32", ("B", "T", config.frontend.input_dim)), Port("speech_lengths", "int32", ("B",))),
        (
            Port("enc", "float32", ("B", "T", dim)),
            Port("enc_len", "int32", ("B",)),
            Port("alphas", "float32", ("B", "T")),
        ),
    )


def live_decoder(config: ModelConfig) -> Graph:
    """The table of LiveDecoderGraph."""
    assert isinstance(config.decoder, SanmDecoderConfig)
    dim, layers, rows = config.encoder.output_dim, config.decoder.memories, config.decoder.kernel - 1
    caches = [(f"cache_{index}", ("B", dim, rows)) for index in range(layers)]
    return Graph(
        "decoder.onnx",
        (
            Port("enc", "float32", ("B", "T", dim)),
            Port("enc_len", "int32", ("B",)),
            Port("acoustic_embeds", "float32", ("B", "L", dim)),
            Port("acoustic_embeds_len", "int32", ("B",)),
            *(Port(f"in_{name}", "float32", axes) for name, axes in caches),
        ),
        (
            Port("logits", "float32", ("B", "L", config.vocab_size)),
            Port("sample_ids", "int64", ("B", "L")),
            *(Port(f"out_{name}", "float32", axes) for name, axes in caches),
        ),
    )
