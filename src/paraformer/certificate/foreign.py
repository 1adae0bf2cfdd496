"""The graphs of other runtimes as a backend of ours, which does what their hosts do: to check and to measure them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paraformer.backends import cif
from paraformer.backends.base import Decoded, LiveState, committed, pad_rows, stack_states
from paraformer.backends.onnx import OnnxGraph
from paraformer.certificate.record import Form
from paraformer.config import ChunkConfig, ModelConfig, SanmDecoderConfig, SanmEncoderConfig
from paraformer.errors import UnsupportedModel

_LOUD = np.float32(2**20)
_SILENT = np.float32(1e-30)


def row_scale(config: ModelConfig) -> np.ndarray:
    """What a live export has its runtime scale normalised rows (F,) by, since the runtime then adds positions to them.

    An encoder with a front adds its own: what it looks at is made so loud that the runtime's are lost beside it, and
    the frames that it does not look at, which the next window repeats, so quiet that nothing else is left of them.
    From these the graph reads where it is.
    """
    c = config.frontend
    if not isinstance(config.encoder, SanmEncoderConfig) or config.encoder.front is None:
        return np.ones(c.input_dim, np.float32)
    return np.where(np.arange(c.input_dim) < c.lfr_n * c.mel_bins, _LOUD, _SILENT)


class ForeignBackend:
    """Runs an export for sherpa-onnx or funasr-onnx: whole utterances or live steps, whichever it holds.

    A graph of whole utterances keeps its CIF weights to itself: their tokens are said to be spread evenly.
    """

    device = "cpu"

    def __init__(self, directory: Path, form: Form, config: ModelConfig, threads: int) -> None:
        """threads: of one run. Raises ModelError for graphs that ONNX Runtime cannot run."""
        self.name = f"{form.runtime} {form.precision}"
        self._config = config
        self._live = form.live
        self._graphs = [OnnxGraph(directory / name, threads) for name in form.graphs]

    @property
    def config(self) -> ModelConfig:
        """Settings of the model."""
        return self._config

    def whole(self, feats: Sequence[np.ndarray]) -> list[Decoded]:
        """See Backend.whole. Raises UnsupportedModel for an export of live steps."""
        if self._live:
            raise UnsupportedModel("this export is for live recognition only")
        padded, lengths = pad_rows(feats)
        inputs = {"speech": padded, "speech_lengths": lengths.astype(np.int32)}
        scores, counts = self._graphs[0].run(["logits", "token_num"], inputs)
        return [
            Decoded.of(row[:count], np.full(len(rows), count / len(rows), np.float32))
            for row, count, rows in zip(scores, counts, feats, strict=True)
        ]

    def init_state(self, chunk: ChunkConfig) -> LiveState:
        """See Backend.init_state. Raises UnsupportedModel for look-backs and for an export of whole utterances."""
        c = self._config
        if not self._live or chunk.encoder_look_back or chunk.decoder_look_back:
            raise UnsupportedModel("this export runs live steps without look-back, if any")
        assert isinstance(c.decoder, SanmDecoderConfig)
        return {
            "overlap": np.zeros((chunk.context, c.frontend.input_dim), np.float32),
            "position": np.zeros((), np.int64),
            "weight": np.zeros((), np.float32),
            "vector": np.zeros(c.encoder.output_dim, np.float32),
            "fsmn": np.zeros((c.decoder.memories, c.encoder.output_dim, c.decoder.kernel - 1), np.float32),
        }

    def step(
        self, frames: Sequence[np.ndarray], final: Sequence[bool], states: Sequence[LiveState], chunk: ChunkConfig
    ) -> tuple[list[Decoded], list[LiveState]]:
        """See Backend.step; what each stream commits, it commits in one pass."""
        new, counts = pad_rows(frames)
        state, ends = stack_states(states), counts + chunk.context
        rows = np.concatenate([state["overlap"], self._embed(new, state["position"])], 1)
        lengths = ends.astype(np.int32)
        hidden, raw = self._graphs[0].run(["enc", "alphas"], {"speech": rows, "speech_lengths": lengths})
        weights = np.zeros_like(raw)
        spans = [committed(chunk, count, last) for count, last in zip(counts.tolist(), final, strict=True)]
        for index, span in enumerate(spans):
            weights[index, span] = raw[index, span]
        padded, summed = cif.add_tail(self._config.predictor, hidden, weights, ends, np.array(final))
        embeds, tokens, weight, vector = cif.step(padded, summed, state["weight"], state["vector"])
        logits, fsmn = self._decode(hidden, lengths, embeds, tokens, state["fsmn"])
        following = {
            "overlap": rows[:, rows.shape[1] - chunk.context :],
            "position": state["position"] + counts,
            "weight": weight,
            "vector": vector,
            "fsmn": fsmn,
        }
        decoded = [Decoded.of(logits[index, : tokens[index]], weights[index, span]) for index, span in enumerate(spans)]
        return decoded, [{name: array[index] for name, array in following.items()} for index in range(len(frames))]

    def _embed(self, rows: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Scale rows (B, n, F) and add their positions, counted from 1 (spec 2.1)."""
        half = rows.shape[2] // 2
        rates = np.exp(np.arange(half) * (-np.log(10000.0) / (half - 1)))
        angles = (position[:, None, None] + np.arange(1, rows.shape[1] + 1)[:, None]) * rates
        scale = self._config.encoder.output_dim**0.5 * row_scale(self._config)
        embedded = rows * scale + np.concatenate([np.sin(angles), np.cos(angles)], 2)
        rounded: np.ndarray = embedded.astype(np.float32)
        return rounded

    def _decode(
        self, hidden: np.ndarray, lengths: np.ndarray, embeds: np.ndarray, tokens: np.ndarray, fsmn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B, L, V) and the next memories (B, layers, D, kernel - 1); no token at all asks no graph."""
        if embeds.shape[1] == 0:
            return np.zeros((len(embeds), 0, self._config.vocab_size), np.float32), fsmn
        inputs = {"enc": hidden, "enc_len": lengths, "acoustic_embeds": embeds}
        inputs |= {"acoustic_embeds_len": tokens.astype(np.int32)}
        inputs |= {f"in_cache_{layer}": np.ascontiguousarray(fsmn[:, layer]) for layer in range(fsmn.shape[1])}
        names = ["logits", *(f"out_cache_{layer}" for layer in range(fsmn.shape[1]))]
        logits, *caches = self._graphs[1].run(names, inputs)
        return logits, np.stack(caches, 1)
