"""A trigram language model of several texts at once, each with the weight that suits a development text best.

Texts differ in size and in how near they are to what will be said; counts that are simply added let the largest speak
for all. Here every count of text i has a weight a(i), and so has its discount:

    p(w | h) = (sum_i a(i) max(n_i(h, w) - D, 0) + D sum_i a(i) types_i(h) p(w | h')) / sum_i a(i) n_i(h)

which is a linear mixture of the texts' own models whose shares depend on how well each knows the history h, with h' the
history without its oldest item. Below trigrams, n counts the different items before (Kneser and Ney, 1995), but after
the beginning of a sentence, before which there is nothing. The weights and the two discounts are those under which the
development text is most probable, the weights half way back to equal ones. What is kept is what would cost most
probability if it were not (Stolcke, 1998).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from paraformer.config import SOS_ID
from paraformer.errors import DataError
from paraformer.language import LanguageModel

STEPS = (4.0, 2.0, 1.4, 1.15)
"""Factors by which weights are tried, one round of them after the other."""
ROUNDS = 3
TRUST = 0.5
"""How far weights go, in logarithms, from equal ones to those that suit the development text best. All the way suits
that text alone: what is said in earnest is never quite like it (docs/embedded-model.md)."""
BIGRAM_BYTES, TRIGRAM_BYTES, ITEM_BYTES = 8, 4, 10
"""Of an entry in the file."""


@dataclass(frozen=True, eq=False)
class NGrams:
    """n-grams as keys in order, context * size + last item, and how often each was counted."""

    keys: Int64[np.ndarray, " n"]
    counts: Int64[np.ndarray, " n"]

    def of(self, keys: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        """Counts of these keys, 0 for those not there."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, self.counts[places], 0)

    def after(self, contexts: Int64[np.ndarray, " m"], size: int) -> tuple[np.ndarray, np.ndarray]:
        """How much was counted after each context, and of how many kinds."""
        ends = np.searchsorted(self.keys, np.stack([contexts, contexts + 1]) * size)
        sums = np.append(0, np.cumsum(self.counts))
        return sums[ends[1]] - sums[ends[0]], ends[1] - ends[0]


@dataclass(frozen=True, eq=False)
class Counts:
    """What one text holds, over vocabulary items below `size`. items: how many it has.

    three: as often as they occur, but for those at a beginning, which two already has. two: how many items stand before
    each pair, or how often it begins a sentence. one: how many items stand before each.
    """

    size: int
    items: int
    one: NGrams
    two: NGrams
    three: NGrams

    @classmethod
    def of(cls, sentences: Iterable[Sequence[int]], size: int) -> Counts:
        """Count sentences of ids, each after two beginnings."""
        words = np.fromiter((index for sentence in sentences for index in (SOS_ID, SOS_ID, *sentence)), np.int64)
        real = np.flatnonzero(words != SOS_ID)
        found = (words[real - 2] * size + words[real - 1]) * size + words[real]
        keys, counts = np.unique(found, return_counts=True)
        # Different items before each pair, and before each item; after a beginning, how often.
        first = keys // size % size == SOS_ID
        pairs, kinds = _summed(keys % size**2, np.where(first, counts, 1))
        items, contexts = _summed(pairs % size, np.ones(len(pairs), np.int64))
        two = NGrams(pairs, kinds)
        return cls(size, len(real), NGrams(items, contexts), two, NGrams(keys[~first], counts[~first]))


def _summed(keys: Int64[np.ndarray, " n"], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values by key, keys in order."""
    unique, places = np.unique(keys, return_inverse=True)
    sums = np.bincount(places, values, minlength=len(unique))
    return unique, sums.astype(values.dtype)


@dataclass(frozen=True, eq=False)
class Weights:
    """a(i) of each text, and the discounts of bigrams and trigrams."""

    texts: Float64[np.ndarray, " texts"]
    discounts: tuple[float, float] = (0.8, 0.8)


class _Seen:
    """All that the probability of a development text depends on, position by position: (positions, texts) each."""

    def __init__(self, texts: Sequence[Counts], sentences: Iterable[Sequence[int]]) -> None:
        size = texts[0].size
        ids = np.array([index for sentence in sentences for index in (SOS_ID, SOS_ID, *sentence)], np.int64)
        real = np.flatnonzero(ids != SOS_ID)
        older, newer, words = ids[real - 2], ids[real - 1], ids[real]
        self.one = np.stack([text.one.of(words) for text in texts], 1)
        self.one_total = np.array([text.one.counts.sum() for text in texts])
        self.size, orders = size, []
        for name, contexts in (("two", newer), ("three", older * size + newer)):
            grams = [getattr(text, name) for text in texts]
            counts = np.stack([gram.of(contexts * size + words) for gram in grams], 1)
            totals, kinds = (np.stack(part, 1) for part in zip(*(g.after(contexts, size) for g in grams), strict=True))
            orders.append(tuple(part.astype(np.float64) for part in (counts, counts > 0, totals, kinds)))
        self.two, self.three = orders

    def log_probability(self, weights: Weights) -> float:
        """Mean of the natural logarithm over positions."""
        a = weights.texts
        p = (self.one @ a + 0.5 * a.mean()) / (self.one_total @ a + 0.5 * a.mean() * self.size)
        for (counts, there, totals, kinds), discount in zip((self.two, self.three), weights.discounts, strict=True):
            total = totals @ a
            mixed = counts @ a - discount * (there @ a) + discount * (kinds @ a) * p
            p = np.where(total > 0, mixed / np.maximum(total, 1e-300), p)
        return float(np.log(p).mean())


def tune(texts: Sequence[Counts], development: Iterable[Sequence[int]]) -> tuple[Weights, float]:
    """Weights for a development text, and its perplexity under them. Raises DataError where that text is empty."""
    sentences = [sentence for sentence in development if sentence]
    if not sentences:
        raise DataError("the development text holds no character of the model's vocabulary")
    seen = _Seen(texts, sentences)
    best = Weights(np.ones(len(texts)))
    value = seen.log_probability(best)
    for step in STEPS:
        for _ in range(ROUNDS):
            before = value
            for candidate in _neighbours(len(texts), step):
                tried = candidate(best)
                score = seen.log_probability(tried)
                if score > value:
                    best, value = tried, score
            if value - before < 1e-4:
                break
    shrunk = Weights((best.texts / best.texts.max()) ** TRUST, best.discounts)
    return shrunk, float(np.exp(-seen.log_probability(shrunk)))


def _neighbours(texts: int, step: float) -> Iterable[_Change]:
    """Every weight a step up and down, and every discount."""
    for factor in (step, 1 / step):
        yield from (_Change(index, factor) for index in range(texts))
        yield from (_Change(-1 - order, factor) for order in range(2))


@dataclass(frozen=True)
class _Change:
    """One number times a factor: of text `place`, or, below 0, the share of a discount that is not taken."""

    place: int
    factor: float

    def __call__(self, weights: Weights) -> Weights:
        if self.place >= 0:
            texts = weights.texts.copy()
            texts[self.place] *= self.factor
            return Weights(texts, weights.discounts)
        discounts = list(weights.discounts)
        left = (1 - discounts[-1 - self.place]) / discounts[-1 - self.place] * self.factor
        discounts[-1 - self.place] = 1 / (1 + left)
        return Weights(weights.texts, (discounts[0], discounts[1]))


def mixed(texts: Sequence[Counts], weights: Weights, megabytes: float) -> LanguageModel:
    """The model of all texts, cut to at most so many million bytes. Raises DataError where all are empty."""
    if not any(text.items for text in texts):
        raise DataError("the texts hold no character of the model's vocabulary")
    size, floor = texts[0].size, 0.5 * weights.texts.mean()
    unigram = np.full(size, floor)
    for text, weight in zip(texts, weights.texts, strict=True):
        unigram[text.one.keys] += weight * text.one.counts
    unigram /= unigram.sum()
    two = _Order.of([text.two for text in texts], weights.texts, weights.discounts[0], size)
    bigram = two.shares + two.backoff[two.inverse] * unigram[two.keys % size]
    three = _Order.of([text.three for text in texts], weights.texts, weights.discounts[1], size)
    place = np.searchsorted(two.keys, three.keys % size**2)  # every trigram's last two were counted as a pair
    lower = bigram[place]
    gain = _gain(three, lower)
    room = megabytes * 1e6 - 20_000 - size * ITEM_BYTES
    return _cut(two, three, gain, unigram, size, room)


@dataclass(frozen=True, eq=False)
class _Order:
    """n-grams of one order: keys in order, their discounted shares of all after the context; of each context, in order,
    its share of all text, what is left to shorter histories, and the place of each n-gram's context.
    """

    keys: np.ndarray
    shares: np.ndarray
    contexts: np.ndarray
    frequency: np.ndarray
    backoff: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, grams: Sequence[NGrams], weights: np.ndarray, discount: float, size: int) -> _Order:
        keys = np.concatenate([gram.keys for gram in grams])
        counts = np.concatenate([weight * gram.counts for gram, weight in zip(grams, weights, strict=True)])
        taken = np.concatenate(
            [np.full(len(g.keys), weight * discount) for g, weight in zip(grams, weights, strict=True)]
        )
        unique, places = np.unique(keys, return_inverse=True)
        full = np.bincount(places, counts)
        discounted = full - np.bincount(places, taken)
        contexts, inverse = np.unique(unique // size, return_inverse=True)
        totals = np.bincount(inverse, full)
        shares = discounted / totals[inverse]
        backoff = 1 - np.bincount(inverse, shares)
        return cls(unique, shares, contexts, totals / totals.sum(), backoff, inverse)


def _gain(order: _Order, lower: np.ndarray) -> np.ndarray:
    """What the text as a whole would lose in logarithms if each n-gram were left to shorter histories."""
    backed_off = order.backoff[order.inverse] * lower
    p = order.shares + backed_off
    gain: np.ndarray = order.frequency[order.inverse] * p * np.log(p / np.maximum(backed_off, 1e-30))
    return gain


def _cut(two: _Order, three: _Order, gain: np.ndarray, unigram: np.ndarray, size: int, room: float) -> LanguageModel:
    """The n-grams with the largest gain that `room` bytes hold; the pair that a kept trigram begins with stays."""
    gain_two = _gain(two, unigram[two.keys % size])
    context = np.searchsorted(two.keys, three.contexts)[three.inverse]
    known = two.keys[np.minimum(context, len(two.keys) - 1)] == three.contexts[three.inverse]
    least = _threshold(gain, gain_two, np.where(known, context, -1), room)
    kept = known & (gain >= least)
    pairs = gain_two >= least
    pairs[context[kept]] = True
    return _tables(two, three, pairs, kept, context, unigram, size)


def _threshold(gain: np.ndarray, gain_two: np.ndarray, context: np.ndarray, room: float) -> float:
    """The least gain of what is kept, to a percent: as little as `room` allows."""

    def bytes_of(least: float) -> int:
        kept = (gain >= least) & (context >= 0)
        pairs = gain_two >= least
        pairs[context[kept]] = True
        return int(BIGRAM_BYTES * pairs.sum() + TRIGRAM_BYTES * kept.sum())

    low, high = 1e-16, 1.0
    if bytes_of(low) <= room:
        return low
    while high / low > 1.01:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if bytes_of(middle) <= room else (middle, high)
    return high


def _tables(
    two: _Order,
    three: _Order,
    pairs: np.ndarray,
    kept: np.ndarray,
    context: np.ndarray,
    unigram: np.ndarray,
    size: int,
) -> LanguageModel:
    """What LanguageModel keeps; what is not kept goes to shorter histories."""
    first, second = np.divmod(two.keys[pairs], size)
    unigram_backoff = 1 - np.bincount(first, two.shares[pairs], minlength=size)
    two_p = two.shares + unigram_backoff[two.keys // size] * unigram[two.keys % size]
    two_p = np.where(pairs, two_p, unigram_backoff[two.keys // size] * unigram[two.keys % size])
    number = np.cumsum(pairs) - 1
    place = number[context[kept]]
    bigram_backoff = 1 - np.bincount(place, three.shares[kept], minlength=len(first))
    lower = two_p[np.searchsorted(two.keys, three.keys[kept] % size**2)]
    trigram = three.shares[kept] + np.clip(bigram_backoff, 1e-6, 1)[place] * lower
    return LanguageModel(
        {
            "unigram": np.log(unigram).astype(np.float32),
            "unigram_backoff": np.log(np.clip(unigram_backoff, 1e-6, 1)).astype(np.float32),
            "bigrams": np.bincount(first, minlength=size).astype(np.uint16),
            "bigram_word": second.astype(np.uint16),
            "bigram": np.log(two_p[pairs]).astype(np.float16),
            "bigram_backoff": np.log(np.clip(bigram_backoff, 1e-6, 1)).astype(np.float16),
            "trigrams": np.bincount(place, minlength=len(first)).astype(np.uint16),
            "trigram_word": (three.keys[kept] % size).astype(np.uint16),
            "trigram": np.log(trigram).astype(np.float16),
        }
    )
