"""The seam between streams and what computes them: ragged things per stream here, rectangular batches there.

A backend gets and gives numpy arrays, one entry per stream, and does the padding and stacking itself. The state of a
stream is a value with the same names and shapes in every backend, so a saved session moves between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol, Self

import numpy as np
from jaxtyping import Float32, Int64

from paraformer.config import ChunkConfig, ModelConfig
from paraformer.errors import Unpicklable, UnsupportedModel

LiveState = Mapping[str, np.ndarray]
"""The state of one stream: names and shapes of paraformer.model.paraformer.ParaformerState, without the batch axis."""


class OfOneProcess:
    """What computes, of whatever kind: memory and threads of one process, which other processes know nothing of.

    All that holds one, as a recogniser, cannot be pickled for it. In a deep copy it is the same one: it is read-only.
    """

    def __reduce__(self) -> NoReturn:
        raise Unpicklable(
            "a loaded model cannot be pickled, as it belongs to the process that loaded it: load it in each process, "
            "and let the threads of one share it"
        )

    def __deepcopy__(self, memo: object) -> Self:
        return self


@dataclass(frozen=True)
class Decoded:
    """What one utterance, or one step of one stream, came to.

    ids, confidences (L,): most probable item of each token and its probability.
    weights (n,): CIF weights of the committed rows, without the tail; they tell when each token was spoken.
    scores (L, V): of every item, before or after softmax.
    fine (n * rate,): of a model with a second integrate-and-fire, its weights, which tell the same more precisely.
    units (L, U): of a decoder that hears units, such as syllables, before it writes: scores of each, before softmax.
    """

    ids: Int64[np.ndarray, " tokens"]
    confidences: Float32[np.ndarray, " tokens"]
    weights: Float32[np.ndarray, " rows"]
    scores: Float32[np.ndarray, "tokens vocab"]
    fine: Float32[np.ndarray, " steps"] | None = None
    units: Float32[np.ndarray, "tokens units"] | None = None

    @classmethod
    def of(
        cls,
        scores: Float32[np.ndarray, "tokens vocab"],
        weights: Float32[np.ndarray, " rows"],
        fine: Float32[np.ndarray, " steps"] | None = None,
        units: Float32[np.ndarray, "tokens units"] | None = None,
    ) -> Decoded:
        """By the scores alone."""
        ids = scores.argmax(-1) if len(scores) else np.zeros(0, np.int64)
        return cls(ids.astype(np.int64), _likeliest(scores).astype(np.float32), weights, scores, fine, units)

    @property
    def clarity(self) -> float:
        """How surely units were heard: the mean probability of each token's likeliest one; 1 where there are none."""
        if self.units is None or not len(self.units):
            return 1.0
        return float(_likeliest(self.units).mean())


def _likeliest(scores: Float32[np.ndarray, "tokens items"]) -> Float32[np.ndarray, " tokens"]:
    """The probability of each token's likeliest item."""
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    # Softmax at its largest alone, whose own power is e^0.
    probabilities: np.ndarray = 1.0 / np.exp(scores - top).sum(-1)
    return probabilities


class Backend(Protocol):
    """What runs one model."""

    @property
    def config(self) -> ModelConfig:
        """Settings of the model."""
        ...

    @property
    def name(self) -> str:
        """Backend and precision, for people: "onnx float32"."""
        ...

    @property
    def device(self) -> object:
        """Where it computes, in torch's words: "cpu", "cuda:0"."""
        ...

    def whole(self, feats: Sequence[Float32[np.ndarray, "_ dim"]]) -> list[Decoded]:
        """Recognise whole utterances in one padded batch; padding changes nothing. Utterances have at least one row."""
        ...

    def init_state(self, chunk: ChunkConfig) -> LiveState:
        """The state of one stream before its first step."""
        ...

    def step(
        self,
        frames: Sequence[Float32[np.ndarray, "_ dim"]],
        final: Sequence[bool],
        states: Sequence[LiveState],
        chunk: ChunkConfig,
    ) -> tuple[list[Decoded], list[LiveState]]:
        """One live step of several streams in one batch: chunk.chunk rows each, up to that many in a final step."""
        ...


class ListeningBackend(Backend, Protocol):
    """What runs a model that itself listens for hotwords."""

    def whole(
        self,
        feats: Sequence[Float32[np.ndarray, "_ dim"]],
        hotwords: Float32[np.ndarray, "words dim"] | None = None,
    ) -> list[Decoded]:
        """See Backend.whole. hotwords: what `encode_hotwords` gave; None: nobody named any."""
        ...

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> Float32[np.ndarray, "words dim"]:
        """A row for each hotword, given as the ids of its tokens, and at the end one for "none of them"."""
        ...


def pad_rows(rows: Sequence[np.ndarray], least: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stack arrays (n_i, ...) as (B, max n or least, ...), zero where absent, with the lengths (B,)."""
    lengths = np.array([len(row) for row in rows], np.int64)
    stacked = np.zeros((len(rows), max(int(lengths.max()), least), *rows[0].shape[1:]), rows[0].dtype)
    for index, row in enumerate(rows):
        stacked[index, : len(row)] = row
    return stacked, lengths


def fine_rows(fine: np.ndarray, rows: Sequence[int], config: ModelConfig) -> list[np.ndarray]:
    """The weights of each utterance, which has so many encoder rows, of a padded batch (B, T * rate)."""
    timing = config.predictor.timing
    assert timing is not None
    return [fine[i, : count * timing.rate] for i, count in enumerate(rows)]


def unit_rows(units: np.ndarray | None, counts: Sequence[int]) -> list[np.ndarray | None]:
    """Scores of units of each utterance or stream, which has so many tokens, of a padded batch (B, L, units)."""
    return [None] * len(counts) if units is None else [units[i, :count] for i, count in enumerate(counts)]


def stack_states(states: Sequence[LiveState]) -> dict[str, np.ndarray]:
    """States of several streams as one batch. Looked-back rows are right-aligned: shorter ones get zeros in front."""
    return {name: _stack_right([state[name] for state in states], name in ("keys", "values")) for name in states[0]}


def split_state(batch: Mapping[str, np.ndarray | list[np.ndarray]], *, unlimited: bool) -> list[LiveState]:
    """The inverse of `stack_states`; with unlimited look-back each stream keeps just the rows that are valid.

    batch: arrays, or lists with an array of its own for each stream.
    """
    streams: list[LiveState] = []
    for index in range(len(batch["position"])):
        # Copied: a view would keep the whole batch alive as long as one of its streams.
        state = {name: one[index] if isinstance(one, list) else np.array(one[index]) for name, one in batch.items()}
        if unlimited:
            # Valid rows stand at the end, so what is before them filled the batch up.
            first = state["keys"].shape[1] - int(state["past_lengths"])
            state |= {name: state[name][:, first:].copy() for name in ("keys", "values")}
        streams.append(state)
    return streams


def _stack_right(arrays: Sequence[np.ndarray], align: bool) -> np.ndarray:
    if not align or len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    size = max(array.shape[1] for array in arrays)
    return np.stack([np.pad(array, ((0, 0), (size - array.shape[1], 0), (0, 0))) for array in arrays])


def check_streaming(config: ModelConfig) -> None:
    """Raise UnsupportedModel for a model that was not made for live recognition."""
    if not config.streaming:
        raise UnsupportedModel("this model recognises whole utterances only; live recognition needs a streaming one")


def committed(chunk: ChunkConfig, count: int, final: bool) -> slice:
    """The rows that a step commits: its chunk; in a final step, of count new rows, all the rest of the stream."""
    end = chunk.context + count if final else chunk.left + chunk.chunk
    return slice(chunk.left, end)
