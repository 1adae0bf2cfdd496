"""Integrate-and-fire on numpy arrays, for graphs that end before it and begin after it.

The twin of paraformer.model.cif, in the same view: token k gets, of each frame, the length of the overlap between the
frame's stretch of the running sum and [k, k + 1]. One test holds the two together.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64

from paraformer.config import PAUSE_WINDOWS, PredictorConfig


def token_counts(weights: Float32[np.ndarray, "batch rows"]) -> Int64[np.ndarray, " batch"]:
    """Whole tokens of each row: the floor of the sum, taken in float64 and rounded to float32 first (spec 3.2)."""
    return np.floor(weights.cumsum(-1, dtype=np.float64)[:, -1].astype(np.float32)).astype(np.int64)


def integrate(
    hidden: Float32[np.ndarray, "batch rows dim"], weights: Float32[np.ndarray, "batch rows"], tokens: int
) -> Float32[np.ndarray, "batch tokens dim"]:
    """The first `tokens` acoustic vectors.

    A frame reaches into one token or two, so that few of all overlaps are not zero, and only these are added up: in the
    order of frames, which depends on nothing beside the utterance, and without BLAS and its threads.
    """
    batch, _, dim = hidden.shape
    ends = weights.cumsum(-1, dtype=np.float64)
    starts = ends - weights
    index = np.arange(tokens)[None, :, None]
    overlap = np.minimum(ends[:, None], index + 1) - np.maximum(starts[:, None], index)
    # In the order of rows, tokens and frames: what makes one token stands side by side, and is one stretch to reduceat.
    row, token, frame = np.nonzero(overlap > 0)
    vectors = np.zeros((batch * tokens, dim), np.float32)
    if len(row):
        parts = hidden[row, frame] * overlap[row, token, frame].astype(np.float32)[:, None]
        places = row * tokens + token
        first = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
        vectors[places[first]] = np.add.reduceat(parts, first, axis=0)
    return vectors.reshape(batch, tokens, dim)


def complete(
    config: PredictorConfig,
    hidden: Float32[np.ndarray, "batch rows dim"],
    weights: Float32[np.ndarray, "batch rows"],
    ends: Int64[np.ndarray, " batch"],
) -> tuple[Float32[np.ndarray, "batch rows2 dim"], Float32[np.ndarray, "batch rows2"], Int64[np.ndarray, " batch"]]:
    """Rows, weights and numbers of tokens of whole utterances, by the fixed or the dynamic threshold."""
    if config.threshold == "dynamic":
        total = weights.sum(-1, dtype=np.float64)
        # Halves up, where np.rint takes them to the even number.
        counts = np.floor(total + 0.5).astype(np.int64)
        factors = counts / np.maximum(total, 1e-6)
        return hidden, weights * factors[:, None].astype(np.float32), counts
    hidden, weights = add_tail(config, hidden, weights, ends, np.ones(len(ends), bool))
    return hidden, weights, token_counts(weights)


def add_tail(
    config: PredictorConfig,
    hidden: Float32[np.ndarray, "batch rows dim"],
    weights: Float32[np.ndarray, "batch rows"],
    ends: Int64[np.ndarray, " batch"],
    final: np.ndarray,
) -> tuple[Float32[np.ndarray, "batch rows2 dim"], Float32[np.ndarray, "batch rows2"]]:
    """One more row, and the tail weight after the last row (ends) of each stream that is final (spec 3.1)."""
    hidden, weights = _one_more(hidden), _one_more(weights)
    weights[final, ends[final]] += np.float32(config.tail_threshold)
    return hidden, weights


def paused(
    config: PredictorConfig,
    weights: Float32[np.ndarray, "batch rows"],
    windows: int,
    carried_weight: Float32[np.ndarray, " batch"],
) -> Bool[np.ndarray, " batch"]:
    """Whether a step that commits so many windows is a pause that ends the unfinished token of each stream."""
    said = weights.sum(-1)
    begun = carried_weight + said
    quiet = said < (config.pause_weight if windows >= PAUSE_WINDOWS else 0.0)
    ended: np.ndarray = quiet & (begun < 1) & (begun + np.float32(config.tail_threshold) >= 1)
    return ended


def _one_more(rows: np.ndarray) -> np.ndarray:
    """Rows (B, n, ...) and one of zeros."""
    more = np.zeros((len(rows), rows.shape[1] + 1, *rows.shape[2:]), rows.dtype)
    more[:, :-1] = rows
    return more


def step(
    hidden: Float32[np.ndarray, "batch rows dim"],
    weights: Float32[np.ndarray, "batch rows"],
    carried_weight: Float32[np.ndarray, " batch"],
    carried_vector: Float32[np.ndarray, "batch dim"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (B, L, D), counts (B,), and the weight (B,) and mean vector (B, D) of the unfinished token."""
    # The unfinished token goes in as one more frame in front, with the weight that it has gathered.
    hidden = np.concatenate([carried_vector[:, None], hidden], 1)
    weights = np.concatenate([carried_weight[:, None], weights], 1)
    counts = token_counts(weights)
    # One more than any row completes: behind each row's last whole token stands what it has begun.
    vectors = integrate(hidden, weights, int(counts.max()) + 1)
    rest = np.clip(weights.sum(-1, dtype=np.float64) - counts, 0, None).astype(np.float32)
    partial = vectors[np.arange(len(counts)), counts]
    mean = np.where(rest[:, None] > 0, partial / np.maximum(rest[:, None], 1e-12), partial)
    return vectors[:, :-1], counts, rest, mean.astype(np.float32)
