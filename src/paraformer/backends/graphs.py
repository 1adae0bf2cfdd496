"""Backends that run the functions of `paraformer.contract`, which know no state.

Keys, values and memory rows go in and out; what a stream keeps is decided here, and integrate-and-fire is done here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Float32

from paraformer import contract
from paraformer.backends import cif
from paraformer.backends.base import (
    Decoded,
    LiveState,
    check_streaming,
    committed,
    fine_rows,
    pad_rows,
    split_state,
    stack_states,
    unit_rows,
)
from paraformer.config import SHORTLIST, SOS_ID, ChunkConfig, ModelConfig, SanmDecoderConfig, SeacoConfig


class Runner(Protocol):
    """What computes the functions of `paraformer.contract` for one model. Several threads may call it at once."""

    @property
    def name(self) -> str:
        """See backends.base.Backend."""
        ...

    def run(self, graph: contract.Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of `graph` in its order, given its inputs by name."""
        ...


class GraphBackend:
    """Runs a model whose encoder and decoder are functions of arrays, with all that lies between them on arrays too."""

    def __init__(self, runner: Runner, config: ModelConfig) -> None:
        self._runner = runner
        self._config = config

    @property
    def config(self) -> ModelConfig:
        """Settings of the model."""
        return self._config

    @property
    def name(self) -> str:
        """See Backend.name."""
        return self._runner.name

    @property
    def device(self) -> str:
        """See Backend.device."""
        return "cpu"

    @cached_property
    def _decoder(self) -> contract.Graph:
        return contract.decoder(self.config)

    @cached_property
    def _look_back(self) -> contract.Graph:
        return contract.look_back(self.config)

    def whole(self, feats: Sequence[np.ndarray], hotwords: np.ndarray | None = None) -> list[Decoded]:
        """See ListeningBackend.whole."""
        padded, lengths = pad_rows(feats)
        # Positions count from 1 (spec 2.1).
        inputs = {"feats": padded, "lengths": lengths, "start": np.ones_like(lengths)}
        hidden, weights = self._runner.run(contract.encoder(self.config), inputs)
        rows, summed, counts = cif.complete(self.config.predictor, hidden, weights, lengths)
        embeds = cif.integrate(rows, summed, int(counts.max()))
        mask = np.arange(hidden.shape[1])[None] < lengths[:, None]
        units = None
        if self.config.hotwords is None or not embeds.shape[1]:
            scores, units, _ = self._decode(hidden, mask, embeds, counts, self._no_memory(len(feats)))
        else:
            scores = self._listen(hidden, mask, embeds, counts, hotwords)
        fine, spoken = self._fine(hidden, lengths, counts), unit_rows(units, counts.tolist())
        return [
            Decoded.of(scores[i, : counts[i]], summed[i, : lengths[i]], fine[i], spoken[i]) for i in range(len(feats))
        ]

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> np.ndarray:
        """See ListeningBackend.encode_hotwords."""
        ids, lengths = pad_rows([np.array(word, np.int64) for word in (*words, [SOS_ID])])
        (rows,) = self._runner.run(contract.hotwords(self.config), {"ids": ids, "lengths": lengths})
        return rows

    def _listen(
        self, hidden: np.ndarray, mask: np.ndarray, embeds: np.ndarray, counts: np.ndarray, named: np.ndarray | None
    ) -> np.ndarray:
        """Scores of a model that listens for hotwords; as Paraformer._listen."""
        c, inputs = self.config, {"memory": hidden, "memory_mask": mask, "embeds": embeds, "counts": counts}
        if not isinstance(c.hotwords, SeacoConfig):
            words = self.encode_hotwords([]) if named is None else named  # trained with "none of them" at least
            (scores,) = self._runner.run(self._decoder, inputs | {"hotwords": words})
            return scores
        logits, rows = self._runner.run(self._decoder, inputs)
        if named is None:
            return logits
        heard = {"rows": rows, "counts": counts}
        choice = np.repeat(named[None], len(rows), 0)
        if len(named) > SHORTLIST:
            (attention,) = self._runner.run(contract.attention(c), heard | {"hotwords": named})
            choice = shortlist(named, attention)
        (biased,) = self._runner.run(contract.second_decoder(c), heard | {"embeds": embeds, "hotwords": choice})
        # Only a token for which the second decoder names a hotword is its own.
        none = biased.argmax(-1)[..., None] == c.hotwords.no_bias_id
        return np.where(none, logits, biased)

    def _fine(self, hidden: np.ndarray, lengths: np.ndarray, counts: np.ndarray) -> Sequence[np.ndarray | None]:
        """Weights of the second integrate-and-fire, of each utterance with a sum of its count; as timing.scaled."""
        if self.config.predictor.timing is None:
            return [None] * len(hidden)
        (weights,) = self._runner.run(contract.timing(self.config), {"hidden": hidden, "lengths": lengths})
        factors = counts / np.maximum(weights.sum(-1), 1e-12)
        return fine_rows(weights * factors[:, None].astype(np.float32), lengths.tolist(), self.config)

    def init_state(self, chunk: ChunkConfig) -> LiveState:
        """See Backend.init_state. Raises UnsupportedModel if the model was not made for live recognition."""
        c = self.config
        check_streaming(c)
        assert isinstance(c.decoder, SanmDecoderConfig), "as that of every streaming model is"
        keys = np.zeros((c.encoder.layers, chunk.past_rows * c.rows_per_window, c.encoder.dim), np.float32)
        count = np.zeros((), np.int64)
        return {
            "overlap": np.zeros((chunk.context, c.frontend.input_dim), np.float32),
            "position": count,
            "keys": keys,
            "values": keys,
            "past_lengths": count,
            "weight": np.zeros((), np.float32),
            "vector": np.zeros(c.encoder.output_dim, np.float32),
            "fsmn": np.zeros((c.decoder.memories, c.decoder.kernel - 1, c.encoder.output_dim), np.float32),
            "memory": np.zeros((chunk.decoder_look_back * chunk.chunk, c.encoder.output_dim), np.float32),
            "memory_lengths": count,
        }

    def step(
        self, frames: Sequence[np.ndarray], final: Sequence[bool], states: Sequence[LiveState], chunk: ChunkConfig
    ) -> tuple[list[Decoded], list[LiveState]]:
        """See Backend.step."""
        new, counts = pad_rows(frames)
        state, ends, ending = _together(states), counts + chunk.context, np.array(final)
        rows = np.concatenate([state["overlap"], new], 1)
        if not rows.shape[1]:  # a last step without context or rows, which still has its tail: one row that is padding
            rows = np.zeros((len(rows), 1, rows.shape[2]), np.float32)
        hidden, raw, following = self._encode(rows, ends, state, chunk)
        following |= {"overlap": rows[:, rows.shape[1] - chunk.context :], "position": state["position"] + counts}
        weights = np.zeros_like(raw)
        for i, (count, last) in enumerate(zip(counts.tolist(), final, strict=True)):
            # Rows of the context have weight in the step that commits them, and in no other.
            span = committed(chunk, count, last)
            weights[i, span] = raw[i, span]
        paused = cif.paused(self.config.predictor, weights, chunk.chunk, state["weight"]) & ~ending
        padded, summed = cif.add_tail(self.config.predictor, hidden, weights, ends, ending | paused)
        embeds, tokens, weight, vector = cif.step(padded, summed, state["weight"], state["vector"])
        weight, vector = weight * ~paused, vector * ~paused[:, None]
        logits, units, decoder = self._decode_step(hidden, ends, embeds, tokens, state)
        following |= decoder | {"weight": weight, "vector": vector}
        spoken = unit_rows(units, tokens.tolist())
        decoded = [
            Decoded.of(logits[i, : tokens[i]], weights[i, committed(chunk, int(counts[i]), final[i])], units=spoken[i])
            for i in range(len(frames))
        ]
        return decoded, split_state(following, unlimited=chunk.encoder_look_back < 0)

    def _encode(
        self, rows: np.ndarray, lengths: np.ndarray, state: dict[str, np.ndarray], chunk: ChunkConfig
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray | list[np.ndarray]]]:
        """Rows (B, T, F) through the encoder: hidden, weights, and the keys and values that streams keep."""
        # Of the first row, which is the overlap's: below 1 before the audio, where rows get no sinusoids (spec 2.1).
        inputs = {"feats": rows, "lengths": lengths, "start": state["position"] - chunk.context + 1}
        names = ("keys", "values", "past_lengths")
        if chunk.encoder_look_back == 0:
            hidden, weights = self._runner.run(contract.encoder(self.config), inputs)
            return hidden, weights, {name: state[name] for name in names}
        inputs |= {"past_keys": state["keys"], "past_values": state["values"], "past_lengths": state["past_lengths"]}
        hidden, weights, keys, values = self._runner.run(self._look_back, inputs)
        per_window = self.config.rows_per_window
        # Rows ahead of their time are heard again in the next step, better, so they do not enter the past.
        kept = (rows.shape[1] - chunk.right) * per_window
        drop = kept if chunk.encoder_look_back > 0 else 0
        lengths = state["past_lengths"] + (chunk.left + chunk.chunk) * per_window
        if chunk.encoder_look_back > 0:
            limit = chunk.encoder_look_back * chunk.chunk * per_window
            # The first step's addition is not cut, as in FunASR (spec 2.5); see model.encoder.next_past_lengths.
            lengths = np.where(state["past_lengths"] > 0, np.minimum(lengths, limit), lengths)
        return (
            hidden,
            weights,
            {
                "keys": _followed(state["keys"], keys[:, :, :kept], drop),
                "values": _followed(state["values"], values[:, :, :kept], drop),
                "past_lengths": lengths,
            },
        )

    def _decode_step(
        self, hidden: np.ndarray, ends: np.ndarray, embeds: np.ndarray, tokens: np.ndarray, state: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
        """Scores of a step's tokens and of their units, and the decoder's part of the next state.

        Without tokens, a stream keeps its own.
        """
        size = state["memory"].shape[1]
        # What was kept stands at the end of the memory, right before the rows of this step.
        valid = np.arange(size)[None] >= size - state["memory_lengths"][:, None]
        rows = np.concatenate([state["memory"], hidden], 1)
        mask = np.concatenate([valid, np.arange(hidden.shape[1])[None] < ends[:, None]], 1)
        logits, units, fsmn = self._decode(rows, mask, embeds, tokens, state["fsmn"])
        spoke = tokens > 0
        grown = {
            "fsmn": fsmn,
            "memory": rows[:, rows.shape[1] - size :],
            "memory_lengths": np.minimum(state["memory_lengths"] + hidden.shape[1], size),
        }
        following = {
            name: np.where(spoke.reshape(-1, *[1] * (array.ndim - 1)), array, state[name])
            for name, array in grown.items()
        }
        return logits, units, following

    def _decode(
        self, memory: np.ndarray, mask: np.ndarray, embeds: np.ndarray, counts: np.ndarray, fsmn: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Scores (B, L, V), those of units where there are any, and the next memory rows where there were some.

        Nothing is asked when there is no token at all.
        """
        if embeds.shape[1] == 0:
            empty = np.zeros((len(embeds), 0, self.config.vocab_size), np.float32)
            return empty, np.zeros((len(embeds), 0, self.config.units), np.float32) if self.config.units else None, fsmn
        inputs = {"memory": memory, "memory_mask": mask, "embeds": embeds, "counts": counts}
        if fsmn is not None:
            inputs["fsmn"] = fsmn
        names = [port.name for port in self._decoder.outputs]
        outputs = dict(zip(names, self._runner.run(self._decoder, inputs), strict=True))
        return outputs["logits"], outputs.get("units"), outputs.get("next_fsmn")

    def _no_memory(self, batch: int) -> np.ndarray | None:
        decoder = self.config.decoder
        if not self.config.streaming or not isinstance(decoder, SanmDecoderConfig):
            return None
        return np.zeros((batch, decoder.memories, decoder.kernel - 1, self.config.encoder.output_dim), np.float32)


def shortlist(hotwords: np.ndarray, attention: np.ndarray, most: int = SHORTLIST) -> np.ndarray:
    """The twin of paraformer.model.hotwords.shortlist."""
    # "None of them", the last row, is always among the chosen.
    best = np.argsort(-attention, axis=-1, kind="stable")[:, : min(most, len(hotwords) - 1)]
    chosen: np.ndarray = hotwords[np.pad(best, ((0, 0), (0, 1)), constant_values=len(hotwords) - 1)]
    return chosen


def _followed(
    past: Float32[np.ndarray, "batch layers past dim"], new: Float32[np.ndarray, "batch layers new dim"], drop: int
) -> list[Float32[np.ndarray, "layers kept dim"]]:
    """Of each stream its rows and those after them, without the first `drop`: only what stays is copied."""
    rest = max(0, drop - past.shape[2])
    return [np.concatenate([before[:, drop:], after[:, rest:]], 1) for before, after in zip(past, new, strict=True)]


def _together(states: Sequence[LiveState]) -> dict[str, np.ndarray]:
    """As stack_states; a stream alone is looked at and not copied, since no state is ever written to here."""
    return stack_states(states) if len(states) > 1 else {name: array[None] for name, array in states[0].items()}
