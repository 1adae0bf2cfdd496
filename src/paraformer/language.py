"""A trigram language model over the items of a vocabulary, and the most probable text of scores and model together.

The decoder gives each token's scores by itself, so the best sequence under both is found by a beam over the few best
items of each token. Probabilities are those of absolute discounting, interpolated (Ney, Essen and Kneser, 1994):

    p(w | u, v) = max(n(u, v, w) - D, 0) / n(u, v) + b(u, v) p(w | v)

where b(u, v) is what the discounts, and the trigrams that were too rare to keep, leave over. So all that is kept is a
table of trigrams and one of bigrams, and every distribution sums to one. Beside them may be a lexicon: which items are
written for the units that a decoder heard.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ctypes import CDLL, byref, c_void_p, pointer
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from paraformer import native
from paraformer.bundle import replacing
from paraformer.candidates import Candidates
from paraformer.config import SILENT_IDS, SOS_ID
from paraformer.errors import DataError, ModelError
from paraformer.lexicon import ARRAYS as READINGS
from paraformer.lexicon import Lexicon
from paraformer.native.layout import Beam, Ngrams
from paraformer.text import Vocabulary

_MARKS = re.compile(r"[^\w\s']+")
_UNITS = re.compile(r"[a-z']+|\w")
DISCOUNT = 0.75
BY_LEXICON = 1.5
"""Times that the weight is larger where a lexicon offers the candidates, among which more sound alike."""
BEAM = 48
"""Histories that are kept from token to token."""
_History = tuple[int, int]
"""The last two items that stand for text, the older one first."""
_ARRAYS = {
    "unigram": np.float32,
    "unigram_backoff": np.float32,
    "bigrams": np.uint16,
    "bigram_word": np.uint16,
    "bigram": np.float16,
    "bigram_backoff": np.float16,
    "trigrams": np.uint16,
    "trigram_word": np.uint16,
    "trigram": np.float16,
}


_TABLES = {
    "unigram": "unigram",
    "unigram_backoff": "unigram_backoff",
    "bigram_word": "pair_word",
    "bigram": "pair",
    "bigram_backoff": "pair_backoff",
    "trigram_word": "triple_word",
    "trigram": "triple",
}
"""What is called how in compiled code."""


class _Table:
    """Values of n-grams by key, context * size + word. One more stands at the end, for those that are not there."""

    def __init__(self, keys: np.ndarray, values: np.ndarray) -> None:
        self._keys = np.append(keys.astype(np.int64), np.iinfo(np.int64).max)
        self.values = np.append(values, values.dtype.type(0))

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of keys in the table, the last one for those that are not there, and whether they are."""
        places, found = self.look_up(keys)
        return np.where(found, places, len(self._keys) - 1), found

    def look_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of keys in the table, any one for those that are not there, and whether they are."""
        places = self._keys.searchsorted(keys)
        return places, self._keys[places] == keys


class _CompiledBeam:
    """`LanguageModel.best` in compiled code, to the last bit: it takes a thirtieth of the time."""

    def __init__(self, code: CDLL, arrays: Mapping[str, np.ndarray]) -> None:
        self._code, self._size = code, len(arrays["unigram"])
        pairs, triples = (np.append(0, arrays[name].cumsum(dtype=np.int64)) for name in ("bigrams", "trigrams"))
        tables = {"pairs": pairs, "triples": triples} | {ours: arrays[theirs] for theirs, ours in _TABLES.items()}
        self._tables = {name: np.require(table, requirements=["C", "A"]) for name, table in tables.items()}
        self._model = Ngrams(**{name: table.ctypes.data for name, table in self._tables.items()})

    def __call__(
        self, candidates: Candidates, silent: np.ndarray, before: _History, weight: float
    ) -> Int64[np.ndarray, " tokens"]:
        """silent: of each candidate, whether it stands for no text. before: the last two items."""
        ids = np.ascontiguousarray(candidates.ids, np.int64)
        log_probs = np.ascontiguousarray(candidates.log_probs, np.float32)
        silent = np.ascontiguousarray(silent, np.uint8)
        addresses = (array.ctypes.data for array in (ids, log_probs, silent))
        if min(*before, ids.min(initial=0)) < 0 or max(*before, ids.max(initial=0)) >= self._size:
            raise IndexError("an item that the vocabulary does not have")
        places = np.empty(len(ids), np.int64)
        beam = Beam(pointer(self._model), *addresses, *ids.shape, BEAM, *before, weight)
        if self._code.pf_beam(byref(beam), c_void_p(places.ctypes.data)):
            raise MemoryError("for the best text")
        return places


class LanguageModel:
    """Probabilities of an item after the two before it. Histories begin with <s>."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        """arrays: as `save` keeps them: bigrams and trigrams in order, with the number of them in each context."""
        self._arrays = arrays
        self.size = len(arrays["unigram"])
        self.lexicon = Lexicon.of(arrays)
        self._unigram, self._unigram_backoff = arrays["unigram"], arrays["unigram_backoff"]
        self._silent = np.isin(np.arange(self.size), SILENT_IDS)

    def __reduce__(self) -> tuple[type[LanguageModel], tuple[dict[str, np.ndarray]]]:
        """Pickled as what it was made of: the rest has addresses of this process in it."""
        return LanguageModel, (self._arrays,)

    # What only one way of reading the tables needs is made when it is first wanted: the other opens at once.

    @cached_property
    def _compiled(self) -> _CompiledBeam | None:
        code = native.code()
        return None if code is None else _CompiledBeam(code, self._arrays)

    @cached_property
    def _bigrams(self) -> _Table:
        first = np.repeat(np.arange(self.size), self._arrays["bigrams"])
        pairs = first * self.size + self._arrays["bigram_word"]
        return _Table(pairs, self._arrays["bigram"].astype(np.float32))

    @cached_property
    def _trigrams(self) -> _Table:
        context = np.repeat(np.arange(self.bigrams), self._arrays["trigrams"])
        triples = context * self.size + self._arrays["trigram_word"]
        return _Table(triples, self._arrays["trigram"].astype(np.float32))

    @cached_property
    def _bigram_backoff(self) -> Float32[np.ndarray, " pairs"]:
        return np.append(self._arrays["bigram_backoff"].astype(np.float32), np.float32(0))

    @property
    def bigrams(self) -> int:
        """How many are kept."""
        return len(self._arrays["bigram"])

    @property
    def trigrams(self) -> int:
        """How many are kept."""
        return len(self._arrays["trigram"])

    @cached_property
    def fingerprint(self) -> str:
        """Tells this model from any other: a digest of its tables."""
        digest = hashlib.sha256()
        for name in sorted(self._arrays):
            digest.update(self._arrays[name].tobytes())
        return digest.hexdigest()[:16]

    def log_probs(
        self, older: Int64[np.ndarray, " n"], newer: Int64[np.ndarray, " n"], words: Int64[np.ndarray, " k"]
    ) -> Float32[np.ndarray, "n k"]:
        """Logarithms of p(word | older, newer), of each word after each history."""
        place, known = self._bigrams.look_up(newer[:, None] * self.size + words)
        two = self._unigram_backoff[newer][:, None] + self._unigram[words]
        two = np.where(known, self._bigrams.values[place], two)
        context, known = self._bigrams.find(older * self.size + newer)
        place, found = self._trigrams.look_up(context[:, None] * self.size + words)
        backed_off = self._bigram_backoff[context][:, None] + two
        log_probs: np.ndarray = np.where(known[:, None] & found, self._trigrams.values[place], backed_off)
        return log_probs.astype(np.float32, copy=False)

    def candidates(
        self, scores: Float32[np.ndarray, "tokens vocab"], units: Float32[np.ndarray, "tokens units"] | None = None
    ) -> Candidates:
        """By scores of the items and, where there is a lexicon, of the units that the decoder heard."""
        return Candidates.of(scores, units, self.lexicon)

    def reading(self, lexicon: Lexicon | None) -> LanguageModel:
        """The same with this lexicon, or with none."""
        ngrams = {name: self._arrays[name] for name in _ARRAYS}
        return LanguageModel(ngrams if lexicon is None else ngrams | lexicon.arrays)

    def best(
        self, candidates: Candidates, history: Sequence[int] = (), *, weight: float
    ) -> Int64[np.ndarray, " tokens"]:
        """Which candidate of each token makes the largest sum of log-probabilities, the decoder's and this model's.

        history: the last items that stand for text, before the first token. weight: of this model. Items that stand for
        no text have no part in it.
        """
        older, newer = [SOS_ID, SOS_ID, *history][-2:]
        silent = self._silent[candidates.ids]
        weight *= 1.0 if self.lexicon is None else BY_LEXICON
        if self._compiled is not None:
            return self._compiled(candidates, silent, (older, newer), weight)
        return self._best(candidates, silent, (older, newer), weight)

    def _best(
        self, candidates: Candidates, silent: np.ndarray, before: _History, weight: float
    ) -> Int64[np.ndarray, " tokens"]:
        """The same without compiled code."""
        past, totals, ways = [before], np.zeros(1), list[list[int]]()
        tokens = zip(candidates.ids, candidates.log_probs, silent, strict=True)
        for words, log_probs, without in tokens:
            older, newer = np.array(past, np.int64).T
            said = np.where(without, 0, self.log_probs(older, newer, words))
            scores = (totals[:, None] + (log_probs + weight * said)).ravel()
            order = (-scores).argsort(kind="stable")
            kept = _best_of_each(order.tolist(), past, words.tolist(), without.tolist())
            past, way = list(kept), list(kept.values())
            totals = scores[way]
            ways.append(way)
        places, at = np.zeros(len(ways), np.int64), 0
        for token in reversed(range(len(ways))):
            at, places[token] = divmod(ways[token][at], candidates.ids.shape[1])
        return places

    def save(self, path: Path) -> None:
        """Write it as safetensors, atomically."""
        with replacing(path) as temporary:
            save_file(self._arrays, temporary)

    @classmethod
    def open(cls, path: Path, size: int, units: int = 0) -> LanguageModel:
        """Read what `save` wrote, for a vocabulary of `size` items and a decoder that hears so many units.

        Raises ModelError where it is damaged, or of others.
        """
        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} cannot be read: {error}; make it again with `paraformer lm`") from error
        if not (_holds_together(arrays, size) and Lexicon.fits(arrays, size, units)):
            raise ModelError(f"{path} is not a language model of this vocabulary; make it again with `paraformer lm`")
        return cls(arrays)

    def moved(self, places: Int64[np.ndarray, " items"], size: int) -> LanguageModel:
        """The same over a vocabulary of `size` items, where item i stands at places[i], in the same order.

        Items that are new there are as likely as the rarest, after anything.
        """
        arrays = dict(self._arrays)
        for name in ("unigram", "unigram_backoff", "bigrams"):
            known = arrays[name]
            arrays[name] = np.full(size, known.min() if name == "unigram" else 0, known.dtype)
            arrays[name][places] = known
        for name in ("bigram_word", "trigram_word"):
            arrays[name] = places[arrays[name]].astype(np.uint16)
        return LanguageModel(arrays).reading(None if self.lexicon is None else self.lexicon.moved(places))

    @classmethod
    def count(
        cls, sentences: Iterable[Sequence[int]], size: int, *, least_bigram: int = 2, least_trigram: int = 3
    ) -> LanguageModel:
        """Of sentences of ids below `size`; rarer bigrams and trigrams are not kept. Raises DataError without an id."""
        words = _after_starts(sentences)
        real = words != SOS_ID
        if not real.any():
            raise DataError("the texts hold no character of the model's vocabulary")
        counts = np.bincount(words[real], minlength=size)
        unigram = (counts + 0.5) / (counts.sum() + 0.5 * size)
        pairs, pair_counts = np.unique(words[:-1][real[1:]] * size + words[1:][real[1:]], return_counts=True)
        two = _discounted(pairs, pair_counts, size, least_bigram)
        bigram = two.shares + two.backoff[two.contexts] * unigram[two.words]
        triples = np.stack([words[:-2] * size + words[1:-1], words[2:]])[:, real[2:]]
        table = _Table(two.keys, bigram)
        context, kept = table.find(triples[0])
        starts = np.bincount(context[kept], minlength=len(two.keys))
        found, found_counts = np.unique(context[kept] * size + triples[1, kept], return_counts=True)
        three = _discounted(found, found_counts, size, least_trigram, totals=starts)
        before = two.words[three.contexts]
        place, known = table.find(before * size + three.words)
        lower = np.where(known, table.values[place], two.backoff[before] * unigram[three.words])
        trigram = three.shares + three.backoff[three.contexts] * lower
        return cls(
            {
                "unigram": np.log(unigram).astype(np.float32),
                "unigram_backoff": np.log(two.backoff).astype(np.float32),
                "bigrams": np.bincount(two.contexts, minlength=size).astype(np.uint16),
                "bigram_word": two.words.astype(np.uint16),
                "bigram": np.log(bigram).astype(np.float16),
                "bigram_backoff": np.log(three.backoff).astype(np.float16),
                "trigrams": np.bincount(three.contexts, minlength=len(two.keys)).astype(np.uint16),
                "trigram_word": three.words.astype(np.uint16),
                "trigram": np.log(trigram).astype(np.float16),
            }
        )


def _holds_together(arrays: Mapping[str, np.ndarray], size: int) -> bool:
    """Whether these are tables over `size` items, none of which leads out of another, of probabilities and in order.

    Compiled code reads them as they are, and looks items up by halves.
    """
    if {name: array.dtype for name, array in arrays.items() if name not in READINGS} != _ARRAYS:
        return False
    items, pairs, triples = (
        {len(arrays[name]) for name in names}
        for names in (
            ("unigram", "unigram_backoff", "bigrams"),
            ("bigram_word", "bigram", "bigram_backoff", "trigrams"),
            ("trigram_word", "trigram"),
        )
    )
    words = [arrays[name] for name in ("bigram_word", "trigram_word")]
    return (
        (items, pairs, triples) == ({size}, {int(arrays["bigrams"].sum())}, {int(arrays["trigrams"].sum())})
        and all(arrays[name].ndim == 1 for name in _ARRAYS)
        and all(int(array.max(initial=0)) < size for array in words)
        and all(_ascend(arrays[f"{name}_word"], arrays[f"{name}s"]) for name in ("bigram", "trigram"))
        and all(_are_logs(array) for name, array in arrays.items() if name not in READINGS and array.dtype.kind == "f")
    )


def _ascend(words: np.ndarray, counts: np.ndarray) -> bool:
    """Whether the words of each context are in order, each there once."""
    ends = counts.cumsum(dtype=np.int64)
    rising = words[1:] > words[:-1]
    rising[ends[(ends > 0) & (ends < len(words))] - 1] = True
    return bool(rising.all())


def _are_logs(array: np.ndarray) -> bool:
    """Whether these are logarithms of probabilities: numbers, none above 0."""
    if array.dtype == np.float16:  # as their bits stand: a comparison of such numbers takes ten times as long
        bits = array.view(np.uint16) ^ np.uint16(0x8000)
        return bool(((bits < 0x7C00) | (bits == 0x8000)).all())
    return bool(np.isfinite(array).all() and (array <= 0).all())


@dataclass(frozen=True, eq=False)
class _Discounted:
    """Kept n-grams: keys context * size + word, (count - D) / total of each; backoff: of every context."""

    keys: np.ndarray
    contexts: np.ndarray
    words: np.ndarray
    shares: np.ndarray
    backoff: np.ndarray


def _discounted(
    keys: np.ndarray, counts: np.ndarray, size: int, least: int, totals: np.ndarray | None = None
) -> _Discounted:
    """totals: n-grams in each context, of which some may be unknown here; None: all are in `counts`."""
    if totals is None:
        totals = np.bincount(keys // size, counts, minlength=size)
    kept = counts >= least
    contexts, words = np.divmod(keys[kept], size)
    shares = (counts[kept] - DISCOUNT) / totals[contexts]
    left = 1 - np.bincount(contexts, shares, minlength=len(totals))
    return _Discounted(keys[kept], contexts, words, shares, np.maximum(left, 1e-6))


def sentences_of(lines: Iterable[str], vocabulary: Vocabulary) -> Iterator[list[int]]:
    """Ids of what stands between punctuation, one sentence after another."""
    for line in lines:
        for part in _MARKS.split(line.lower()):
            if part.strip():
                yield vocabulary.encode(" ".join(_UNITS.findall(part)))


def _after_starts(sentences: Iterable[Sequence[int]]) -> Int64[np.ndarray, " words"]:
    """All sentences one after another, each after two starts."""
    flat = [index for sentence in sentences for index in (SOS_ID, SOS_ID, *sentence)]
    return np.array([*flat, SOS_ID, SOS_ID], np.int64)


def _best_of_each(
    order: Iterable[int], past: Sequence[_History], words: Sequence[int], silent: Sequence[bool]
) -> dict[_History, int]:
    """Of each history that there may be after a token the best way to it, for the BEAM best of them, best first.

    order: ways, best first; a way is the place of a history in `past` * the number of words + that of a word. Numpy
    would look at all 960 where the first few suffice.
    """
    found: dict[_History, int] = {}
    for way in order:
        back, place = divmod(way, len(words))
        history = past[back] if silent[place] else (past[back][1], words[place])
        if history not in found:
            found[history] = way
            if len(found) == BEAM:
                break
    return found
