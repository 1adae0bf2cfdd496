"""Voices of unknown speakers to groups: spectral clustering on cosine similarities (variants 6.4).

FunASR's way for up to 2047 windows; more of them are clustered by the same rules here, in pieces of that many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

from paraformer.products import product

FEW = 20
"""Fewer windows, half a minute of speech at most, are one speaker."""
MOST_SPEAKERS, WINDOWS_EACH = 50, 4
"""As many are looked for where nobody says how many there are, and no more than have so many windows each.

FunASR looks for 15; so many are looked for here in any case.
"""
_FEWEST_SOUGHT = 15
NEAR = 0.78
"""Cosine similarity from which two groups are one."""
_KEPT, _LEAST_KEPT = 0.022, 6
"""Share of the similarities of a window that count, and their least number."""
_AT_ONCE = 2000
_ROUNDS, _STARTS = 100, 10

Labels = Int64[np.ndarray, " n"]


def cluster(voices: Float[np.ndarray, "n d"], speakers: int | None = None, *, near: float = NEAR) -> Labels:
    """A number for each voice, by first appearance from 0.

    speakers: how many there are, where that is known; near: else, similarity from which two groups are one.
    """
    if len(voices) < FEW:
        return np.zeros(len(voices), np.int64)
    pieces = np.array_split(np.asarray(voices, np.float64), -(-len(voices) // _AT_ONCE))
    found, offset = [], 0
    for piece in pieces:
        labels = _spectral(piece, speakers)
        found.append(labels + offset)
        offset += int(labels.max()) + 1
    joined = np.concatenate(found)
    if speakers is None:
        joined = merged(voices, joined, near=near)
    elif len(pieces) > 1:
        # Each piece has found all speakers for itself, so those alike are joined until there are as many as were named.
        joined = merged(voices, joined, at_least=speakers, near=-1.0)
    return by_appearance(joined)


def by_appearance(labels: Labels) -> Labels:
    """The same groups, numbered in the order in which they come.

    >>> by_appearance(np.array([2, 2, 0, 1])).tolist()
    [0, 0, 1, 2]
    """
    order = {int(label): number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([order[int(label)] for label in labels], np.int64)


def merged(voices: Float[np.ndarray, "n d"], labels: Labels, *, near: float = NEAR, at_least: int = 1) -> Labels:
    """Groups whose mean voices are nearer than `near` become one, the nearest first."""
    labels = labels.copy()
    while (count := int(labels.max()) + 1) > at_least:
        centres = np.stack([voices[labels == label].mean(0) for label in range(count)])
        alike = np.triu(_cosines(centres), 1)
        first, second = np.unravel_index(int(alike.argmax()), alike.shape)
        if first >= second or alike[first, second] < near:
            return labels
        labels[labels == second] = first
        labels[labels > second] -= 1
    return labels


def _spectral(voices: np.ndarray, speakers: int | None) -> Labels:
    """Groups by the first eigenvectors of the graph of similarities; how many, by the widest gap of the values."""
    similar = _cosines(voices)
    size = len(similar)
    share = max(_KEPT, _LEAST_KEPT / size)
    weakest = np.argsort(similar, axis=1)[:, : int((1 - share) * size)]
    # Only what a window is most like counts: the noise of many weak likenesses would join all speakers.
    np.put_along_axis(similar, weakest, 0.0, axis=1)
    # Two windows may not keep each other; eigenvectors of this kind need a symmetric graph.
    graph = (similar + similar.T) / 2
    np.fill_diagonal(graph, 0.0)
    values, vectors = np.linalg.eigh(np.diag(np.abs(graph).sum(1)) - graph)
    if speakers is None:
        sought = max(_FEWEST_SOUGHT, min(MOST_SPEAKERS, size // WINDOWS_EACH))
        speakers = int(np.diff(values[: sought + 1]).argmax()) + 1
    return _k_means(vectors[:, :speakers], speakers)


def _cosines(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.maximum(lengths, 1e-12)
    cosines: np.ndarray = product(unit, unit.T)
    return cosines


def _k_means(rows: np.ndarray, groups: int) -> Labels:
    """The best of several starts, each with centres drawn far from one another (k-means++); the same in every run."""
    draws = np.random.default_rng(0)
    best, least = np.zeros(len(rows), np.int64), np.inf
    for _ in range(_STARTS if groups > 1 else 0):
        centres = _far_apart(rows, groups, draws)
        for _ in range(_ROUNDS):
            distances = _distances(rows, centres)
            labels = distances.argmin(1)
            moved = np.stack([rows[labels == g].mean(0) if (labels == g).any() else centres[g] for g in range(groups)])
            if np.allclose(moved, centres):
                break
            centres = moved
        total = float(distances.min(1).sum())
        if total < least:
            best, least = labels.astype(np.int64), total
    return by_appearance(best)


def _far_apart(rows: np.ndarray, groups: int, draws: np.random.Generator) -> np.ndarray:
    chosen = [rows[draws.integers(len(rows))]]
    nearest = np.full(len(rows), np.inf)
    while len(chosen) < groups:
        nearest = np.minimum(nearest, _distances(rows, chosen[-1:])[:, 0])
        total = nearest.sum()
        odds = nearest / total if total > 0 else None
        chosen.append(rows[draws.choice(len(rows), p=odds)])
    return np.stack(chosen)


def _distances(rows: np.ndarray, centres: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The square of the distance of each row from each centre, (n, groups)."""
    there = np.stack(list(centres))
    squares = np.square(rows).sum(1)[:, None] - 2 * product(rows, there.T) + np.square(there).sum(1)
    distances: np.ndarray = np.maximum(squares, 0.0)
    return distances
