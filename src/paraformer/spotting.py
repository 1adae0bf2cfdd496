"""Hotwords for models that have no ear for them: a word is offered where what was heard sounds like it.

A token's candidates say which syllables were heard, and how surely; how often each is heard for another says what may
have been spoken. A character counts by its probability among the candidates, or by that of its sound less
`Odds.other_character`. Every word is weighed at every place against what was chosen there, by the sum of its
characters, by what the language model says of both, and by an allowance that grows with its length: a short word, which
many others sound like, must be as likely as what it replaces; of a long one a syllable may have been misheard outright.
Where it wins, these tokens are its characters, and the language model chooses the others beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int64

from paraformer.candidates import IMPOSSIBLE, Candidates
from paraformer.config import SOS_ID
from paraformer.language import LanguageModel
from paraformer.products import product
from paraformer.sounds import confusions, readings, syllables

EACH_FURTHER = 1.0
"""Log-odds in favour of a hotword, for each character beyond four."""
UNHEARD = 1e-6
"""Share of what no confusion explains."""
LM_WEIGHT = 0.5
"""Of what the language model says of a hotword and of what it replaces."""
LM_MOST = 4.0
"""By so much it can speak for a hotword, with that weight: what falls short of more is not asked about."""


@dataclass(frozen=True)
class Odds:
    """Log-odds by which hotwords are weighed; chosen on real speech with the embedded model.

    short: in favour of one of two, three and four characters. live: against any in live recognition, which mishears
    more. other_character: against a character of which only the sound was heard.
    """

    short: tuple[float, float, float]
    live: float
    other_character: float

    def allowance(self, length: int) -> float:
        """In favour of a hotword of so many characters."""
        return self.short[min(length, 4) - 2] + EACH_FURTHER * max(0, length - 4)


OWN = Odds(short=(1.8, 4.8, 6.0), live=0.9, other_character=2.0)
"""Among a decoder's own candidates."""
OFFERED = Odds(short=(2.0, 5.8, 7.0), live=1.0, other_character=5.0)
"""Among those of a lexicon, which itself offers the characters of a sound."""


@dataclass(frozen=True)
class Spotted:
    """A hotword at tokens begin to begin + len(ids); log_probs: of its characters by what was heard."""

    begin: int
    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    gain: float

    @property
    def end(self) -> int:
        """The token after it."""
        return self.begin + len(self.ids)


class Spotter:
    """A list of hotwords for one vocabulary; read-only."""

    def __init__(self, words: Sequence[str], tokens: Sequence[str], odds: Odds = OWN) -> None:
        """Spaces in a word mean nothing. What cannot be listened for is in `left_out`: words of a single character,
        which would come everywhere, and those with any that is not in the vocabulary or has no reading.
        """
        self._odds = odds
        known, places = readings(), syllables()
        ids = {token: index for index, token in enumerate(tokens) if token in known}
        joined = {word: "".join(word.split()) for word in words}
        heard = {word: len(text) > 1 and all(map(ids.__contains__, text)) for word, text in joined.items()}
        self.left_out = [word for word in joined if not heard[word]]
        found = list(dict.fromkeys(text for word, text in joined.items() if heard[word]))
        columns = {character: column for column, character in enumerate(dict.fromkeys("".join(found)))}
        lengths = defaultdict[int, list[list[int]]](list)
        for word in found:
            lengths[len(word)].append([columns[character] for character in word])
        self._words = {length: np.array(rows, np.int64).T.copy() for length, rows in lengths.items()}
        self._ids = np.array([ids[character] for character in columns], np.int64)
        self._columns = np.full(len(tokens), -1, np.int64)
        self._columns[self._ids] = np.arange(len(self._ids))
        # Of each item its syllables, the last place standing for none.
        most = max((len(known[character]) for character in ids), default=1)
        self._sounds = np.full((len(tokens), most), len(places), np.int64)
        for character, index in ids.items():
            self._sounds[index, : len(known[character])] = [places[one] for one in known[character]]
        self._first = self._sounds[self._ids, 0]
        self._others = [
            (characters, column[characters])
            for column in self._sounds[self._ids, 1:].T
            if len(characters := np.flatnonzero(column < len(places)))
        ]

    @property
    def knows_characters(self) -> bool:
        """Whether the vocabulary has characters whose sound is known."""
        return bool((self._sounds < len(syllables())).any())

    def __call__(
        self,
        candidates: Candidates,
        places: np.ndarray,
        lm: LanguageModel | None,
        history: Sequence[int] = (),
        *,
        live: bool = False,
    ) -> Candidates:
        """The candidates with those of each hotword that was spotted made the only ones of their tokens.

        places: which were chosen without hotwords; history: the last ids before them.
        """
        if not self._words or not len(candidates):
            return candidates
        against = self._odds.live if live else 0.0
        found = _best(self._all(candidates, places, _Scale.of(lm, history, candidates, places, against)))
        if not found:
            return candidates
        ids, log_probs = candidates.ids.copy(), candidates.log_probs.copy()
        for one in found:
            for place, (index, log_prob) in enumerate(zip(one.ids, one.log_probs, strict=True), one.begin):
                ids[place, 0], log_probs[place, 0] = index, min(log_prob, 0.0)
                log_probs[place, 1:] = IMPOSSIBLE
        return Candidates(ids, log_probs)

    def begun(self, candidates: Candidates) -> int:
        """How many tokens at the end may begin a hotword that goes on, for a stream that would else let them go."""
        longest = min(max(self._words, default=0) - 1, len(candidates))
        if longest < 3:
            return 0
        tail = candidates[len(candidates) - longest :]
        scores, likely = self._scores(tail), tail.log_probs[:, 0].astype(np.float64)
        for count in range(longest, 2, -1):
            heard, least = scores[longest - count :], float(likely[longest - count :].sum())
            for length, words in self._words.items():
                if length > count:
                    said = float(_sums(heard, words[:count]).max())
                    if said - least + self._odds.allowance(length) > 0:
                        return count
        return 0

    def _all(self, candidates: Candidates, places: np.ndarray, scale: _Scale) -> Iterator[Spotted]:
        scores = self._scores(candidates)
        likely = candidates.log_probs[np.arange(len(places)), places].astype(np.float64)
        before = np.append(0.0, likely.cumsum())
        for length, words in self._words.items():
            if length > len(likely):
                continue
            against = before[length:] - before[:-length] - self._odds.allowance(length) + scale.against
            sums = _sums(scores, words)
            least = against - (0.0 if scale.lm is None else LM_MOST)
            for begin, word in np.argwhere(sums > least.astype(np.float32)[:, None]).tolist():
                columns = words[:, word]
                ids = tuple(self._ids[columns].tolist())
                gain = float(sums[begin, word]) - float(against[begin]) + LM_WEIGHT * scale.difference(ids, begin)
                if gain > 0:
                    heard = scores[begin + np.arange(length), columns].tolist()
                    yield Spotted(begin, ids, tuple(heard), gain)

    def _scores(self, candidates: Candidates) -> Float32[np.ndarray, "tokens characters"]:
        """Log-probabilities of the hotwords' characters by what was heard of each token."""
        count, size = len(candidates), len(syllables())
        sounded = self._sounds[candidates.ids] + (size + 1) * np.arange(count)[:, None, None]
        weights = np.broadcast_to(np.exp(candidates.log_probs)[..., None], sounded.shape)
        shares = np.bincount(sounded.ravel(), weights.ravel(), minlength=count * (size + 1)).reshape(count, -1)[
            :, :size
        ]
        said = np.flatnonzero(shares.any(axis=0))
        heard = product(np.minimum(shares[:, said], 1).astype(np.float32), confusions()[said])
        sounds = np.log(heard + np.float32(UNHEARD)) - np.float32(self._odds.other_character)
        scores: np.ndarray = sounds.take(self._first, axis=1)
        for characters, others in self._others:
            scores[:, characters] = np.maximum(scores[:, characters], sounds[:, others])
        columns = self._columns[candidates.ids]
        tokens, ranks = np.nonzero(columns >= 0)
        own = columns[tokens, ranks]
        scores[tokens, own] = np.maximum(scores[tokens, own], candidates.log_probs[tokens, ranks])
        return scores


def _sums(
    scores: Float32[np.ndarray, "tokens characters"], words: Int64[np.ndarray, "length words"]
) -> Float32[np.ndarray, "places words"]:
    """Of the scores of each word's characters, given as columns, one token after another from each place on."""
    places = len(scores) - len(words) + 1
    sums: np.ndarray = scores[:places].take(words[0], axis=1)
    for later, columns in enumerate(words[1:], 1):
        sums += scores[later : later + places].take(columns, axis=1)
    return sums


def _best(found: Iterator[Spotted]) -> list[Spotted]:
    """Of those that overlap the one that gains most, in order."""
    kept: list[Spotted] = []
    for one in sorted(found, key=lambda one: -one.gain):
        if all(one.end <= other.begin or other.end <= one.begin for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.begin)


@dataclass(frozen=True)
class _Scale:
    """What a hotword is weighed against: the ids chosen without it, after two others, a language model of both, and
    log-odds.
    """

    lm: LanguageModel | None
    before: Sequence[int]
    chosen: Sequence[int]
    against: float

    @classmethod
    def of(
        cls,
        lm: LanguageModel | None,
        history: Sequence[int],
        candidates: Candidates,
        places: np.ndarray,
        against: float,
    ) -> _Scale:
        return cls(lm, [SOS_ID, SOS_ID, *history][-2:], candidates.chosen(places)[0].tolist(), against)

    def difference(self, word: Sequence[int], begin: int) -> float:
        """How much more likely the language model takes a text with the word at its place; 0 without one."""
        end = begin + len(word)
        if self.lm is None or list(word) == self.chosen[begin:end]:
            return 0.0
        text, said = self._text, self._said_before
        other = [*text[begin : begin + 2], *word, *text[end + 2 : end + 4]]
        return float(self._said(other).sum() - (said[min(end + 4, len(text))] - said[begin + 2]))

    @cached_property
    def _text(self) -> list[int]:
        return [*self.before, *self.chosen]

    @cached_property
    def _said_before(self) -> np.ndarray:
        """Log-probability of the text up to each place."""
        return np.concatenate([np.zeros(3), self._said(self._text).cumsum(dtype=np.float64)])

    def _said(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities of all but the first two."""
        assert self.lm is not None
        words: Int64[np.ndarray, " n"] = np.array(ids, np.int64)
        return self.lm.log_probs(words[:-2], words[1:-1], words[2:]).diagonal()
