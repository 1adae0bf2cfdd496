"""Hotwords for models that have no ear for them: a word is offered where what was heard sounds like it.

A token's candidates say which syllables were heard, and how surely. Where those of a stretch of tokens are a hotword's,
or are easily taken for them, the word is weighed against what was chosen there; if it wins, these tokens are its
characters, and the language model chooses the others beside it. A hotword's own characters count by their probability
among the candidates, or by that of their syllable or of those that sound like it, less `OTHER_CHARACTER` and
`NEAR_SYLLABLE`. Short words, which many others sound like, must be as likely as what they replace; longer ones less.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paraformer.config import SOS_ID
from paraformer.language import IMPOSSIBLE, Candidates, LanguageModel
from paraformer.sounds import likeness, readings

ALLOWANCE = {2: 0.1, 3: 5.3, 4: 6.3}
"""Log-odds in favour of a hotword of so many characters; chosen on real speech with the embedded model."""
EACH_FURTHER = 1.0
"""For each character beyond four."""
OTHER_CHARACTER = 2.0
"""Log-odds against a character of which only the syllable was heard."""
NEAR_SYLLABLE = 1.0
"""Log-odds against a syllable that is only easily taken for one of those heard."""
LM_WEIGHT = 0.15
"""Of what the language model says of a hotword and of what it replaces: little, for it knows few of them."""
LM_MOST = 1.5
"""By so much it can speak for a hotword, with that weight: what falls short of more is not asked about."""
LEAST_HEARD = 0.02
"""Probability below which a syllable was not heard."""


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

    def __init__(self, words: Sequence[str], tokens: Sequence[str]) -> None:
        """Words of a single character are left out, which would come everywhere, and so are those with any that is not
        in the vocabulary or has no reading.
        """
        known = readings()
        ids = {token: index for index, token in enumerate(tokens) if token in known}
        self._syllables = {index: known[character] for character, index in ids.items()}
        self._near = {index: tuple(map(likeness, found)) for index, found in self._syllables.items()}
        self._starts: dict[tuple[str, str], list[tuple[int, ...]]] = defaultdict(list)
        for word in words:
            if len(word) > 1 and all(character in ids for character in word):
                self._add(tuple(ids[character] for character in word))

    @property
    def knows_characters(self) -> bool:
        """Whether the vocabulary has characters whose sound is known."""
        return bool(self._syllables)

    def __call__(
        self, candidates: Candidates, places: np.ndarray, lm: LanguageModel | None, history: Sequence[int] = ()
    ) -> Candidates:
        """The candidates with those of each hotword that was spotted made the only ones of their tokens.

        places: which were chosen without hotwords; history: the last ids before them.
        """
        chosen, _ = candidates.chosen(places)
        scale = _Scale(lm, [SOS_ID, SOS_ID, *history][-2:], chosen.tolist())
        found = self._best(self._all(candidates, places, scale))
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
        heard = self._everything(candidates)
        for begin in range(len(heard) - 2):
            rest = heard[begin:]
            for word in self._beginning(rest):
                if len(word) > len(rest) and all(
                    self._sounds(index, one) for index, one in zip(word, rest, strict=False)
                ):
                    return len(rest)
        return 0

    def _add(self, word: tuple[int, ...]) -> None:
        for first in dict.fromkeys(self._near[word[0]]):
            for second in dict.fromkeys(self._near[word[1]]):
                self._starts[first, second].append(word)

    def _all(self, candidates: Candidates, places: np.ndarray, scale: _Scale) -> Iterator[Spotted]:
        heard = self._everything(candidates)
        likely = candidates.log_probs[np.arange(len(places)), places].tolist()
        for begin in range(len(heard) - 1):
            for word in self._beginning(heard[begin:]):
                if begin + len(word) <= len(heard):
                    spotted = self._weighed(word, begin, heard, likely, scale)
                    if spotted is not None:
                        yield spotted

    def _everything(self, candidates: Candidates) -> list[_Heard]:
        return [self._heard(*one) for one in zip(candidates.ids, candidates.log_probs, strict=True)]

    def _beginning(self, heard: Sequence[_Heard]) -> Iterator[tuple[int, ...]]:
        """The words whose first two syllables are among those heard of the first two tokens, each once."""
        found: dict[tuple[int, ...], None] = {}
        for first in heard[0].near:
            for second in heard[1].near:
                found.update(dict.fromkeys(self._starts.get((first, second), ())))
        yield from found

    def _weighed(
        self, word: tuple[int, ...], begin: int, heard: Sequence[_Heard], likely: Sequence[float], scale: _Scale
    ) -> Spotted | None:
        gain, log_probs = ALLOWANCE.get(len(word), ALLOWANCE[4] + EACH_FURTHER * (len(word) - 4)), list[float]()
        for place, index in enumerate(word, begin):
            same = index == scale.chosen[place]
            log_prob = likely[place] if same else self._log_prob(index, heard[place])
            if log_prob is None:
                return None
            log_probs.append(log_prob)
            gain += log_prob - likely[place]
        if gain <= (0.0 if scale.lm is None else -LM_MOST):
            return None
        gain += LM_WEIGHT * scale.difference(word, begin)
        return Spotted(begin, word, tuple(log_probs), gain) if gain > 0 else None

    def _log_prob(self, index: int, heard: _Heard) -> float | None:
        """Of a character where this was heard; None: it was not."""
        found = [heard.items[index]] if index in heard.items else []
        found += [heard.syllables[one] - OTHER_CHARACTER for one in self._syllables[index] if one in heard.syllables]
        found += [heard.near[one] - OTHER_CHARACTER - NEAR_SYLLABLE for one in self._near[index] if one in heard.near]
        return max(found, default=None)

    def _sounds(self, index: int, heard: _Heard) -> bool:
        return any(near in heard.near for near in self._near[index])

    def _heard(self, ids: np.ndarray, log_probs: np.ndarray) -> _Heard:
        items = dict(zip(ids.tolist(), log_probs.tolist(), strict=True))
        syllables: dict[str, float] = defaultdict(float)
        near: dict[str, float] = defaultdict(float)
        for index, log_prob in items.items():
            share = math.exp(log_prob)
            for one in self._syllables.get(index, ()):
                syllables[one] += share
            for one in dict.fromkeys(self._near.get(index, ())):
                near[one] += share
        return _Heard(items, _log(syllables), _log(near))

    @staticmethod
    def _best(found: Iterator[Spotted]) -> list[Spotted]:
        """Of those that overlap the one that gains most, in order."""
        kept: list[Spotted] = []
        for one in sorted(found, key=lambda one: -one.gain):
            if all(one.end <= other.begin or other.end <= one.begin for other in kept):
                kept.append(one)
        return sorted(kept, key=lambda one: one.begin)


@dataclass(frozen=True)
class _Heard:
    """Log-probabilities of what one token may be: items, syllables, groups of syllables that sound alike."""

    items: Mapping[int, float]
    syllables: Mapping[str, float]
    near: Mapping[str, float]


@dataclass(frozen=True)
class _Scale:
    """What a hotword is weighed against: the ids chosen without it, after two others, and a language model of both."""

    lm: LanguageModel | None
    before: Sequence[int]
    chosen: Sequence[int]

    def difference(self, word: Sequence[int], begin: int) -> float:
        """How much more likely the language model takes a text with the word at its place; 0 without one."""
        if self.lm is None:
            return 0.0
        end = begin + len(word)
        text = [*self.before, *self.chosen]
        window, other = text[begin : end + 4], [*text[begin : begin + 2], *word, *text[end + 2 : end + 4]]
        return self._said(other) - self._said(window)

    def _said(self, ids: Sequence[int]) -> float:
        """Log-probability of all but the first two."""
        assert self.lm is not None
        words = np.array(ids, np.int64)
        places = range(len(words) - 2)
        return sum(
            float(self.lm.log_probs(words[i : i + 1], words[i + 1 : i + 2], words[i + 2 : i + 3])[0, 0]) for i in places
        )


def _log(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: math.log(min(share, 1.0)) for name, share in shares.items() if share >= LEAST_HEARD}
