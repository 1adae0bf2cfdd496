"""The first stage of a model on Whisper's encoder: vocabulary and text part from texts that nobody has read aloud.

    python -m recipes.reading WHISPER OUT texts/*.txt --steps 4000

WHISPER: a directory with whisper-base in one of the layouts of `paraformer.checkpoint.whisper`. OUT becomes a model
directory: Whisper's encoder, the characters of the texts as tokens and their syllables as units, and a text part that
writes characters from syllables that were partly misheard. All else starts from nothing; `recipes.whisper_zh` goes on.

Syllables stand for what the decoder's second output will say: for every clause a share of them, 15 % on average, is
taken for one that sounds like it, and the probability that is left goes to the right one or to others that sound alike.
Cost: 3,300 characters a core-second with bfloat16 on a processor with AMX, so 80 minutes of one core for 4,000 steps.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from pypinyin.contrib.tone_convert import to_finals, to_initials
from torch.nn import functional as F

from paraformer.bundle import Bundle
from paraformer.checkpoint import native, whisper
from paraformer.data.dataset import syllables_of
from paraformer.model.layers import length_mask
from paraformer.model.paraformer import Paraformer
from paraformer.text import UNKNOWN
from recipes.whisper_zh import WRITES, sized

MARKS = ("<blank>", "<s>", "</s>")
LONGEST = 40
"""Characters of a clause; longer ones are cut."""
JOINED = (0.55, 0.3, 0.15)
"""Shares of one, two and three clauses in a row: who speaks does not stop at each comma."""
LEAST = 12
"""Occurrences of a character in the texts that make it a token."""
LIVE_SHARE, LIVE_TOKENS = 0.5, 4
"""Share of the batches that are read as in live steps, and the most tokens that a step brings."""
ALIKE = 8
"""Syllables that each can be taken for."""
MISHEARD = (1.2, 7.0)
"""Of the beta distribution of the share of misheard syllables in a clause: 15 % on average."""
_HAN = re.compile("[\u4e00-\u9fff]+")
_INITIALS = "zh z,ch c,sh s,n l,l r,f h,b p,d t,g k,j q,j zh,q ch,x sh"
_FINALS = "in ing,en eng,an ang,un ong,uan uang,ian in"
_NEAR = {frozenset(pair.split()) for pair in f"{_INITIALS},{_FINALS}".split(",")}


@dataclass(frozen=True)
class Clauses:
    """Characters and syllables of clauses as ids, one clause after another; clause i is [starts[i], starts[i + 1])."""

    characters: np.ndarray
    syllables: np.ndarray
    starts: np.ndarray


def clauses(paths: Sequence[Path]) -> Iterator[str]:
    """Runs of Chinese characters between anything else."""
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for run in itertools.chain.from_iterable(map(_HAN.findall, lines)):
                yield from (run[at : at + LONGEST] for at in range(0, len(run), LONGEST))


def read(paths: Sequence[Path]) -> tuple[tuple[str, ...], tuple[str, ...], Clauses]:
    """Tokens, units (from number 1 on) and the clauses in both."""
    texts = list(clauses(paths))
    seen = Counter(itertools.chain.from_iterable(texts))
    tokens = (*MARKS, *sorted(c for c, n in seen.items() if n >= LEAST), UNKNOWN)
    sounds = [syllables_of(text) for text in texts]
    units = tuple(sorted({syllable for sound in sounds for syllable in sound}))
    places, numbers = {c: i for i, c in enumerate(tokens)}, {s: i for i, s in enumerate(units, start=1)}
    kept = [pair for pair in zip(texts, sounds, strict=True) if len(pair[0]) == len(pair[1])]
    characters = np.array([places.get(c, len(tokens) - 1) for text, _ in kept for c in text], np.int64)
    syllables = np.array([numbers[s] for _, sound in kept for s in sound], np.int64)
    return tokens, units, Clauses(characters, syllables, np.cumsum([0, *(len(text) for text, _ in kept)]))


def likeness(one: str, other: str) -> float:
    """How easily one syllable is heard for another, from 0 (not at all) to 3 (the same)."""
    score = 1.0 if one[-1] == other[-1] else 0.7
    for part in (_initial, _final):
        pair = part(one), part(other)
        score += 1.0 if pair[0] == pair[1] else 0.7 if frozenset(pair) in _NEAR else 0.0
    return score


@lru_cache(maxsize=4096)
def _initial(syllable: str) -> str:
    initial: str = to_initials(syllable[:-1], strict=False)
    return initial


@lru_cache(maxsize=4096)
def _final(syllable: str) -> str:
    final: str = to_finals(syllable[:-1], strict=False)
    return final


def alike(units: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The syllables that each is taken for most easily, (units + 1, ALIKE), and how often, as running sums."""
    scores = np.array([[likeness(one, other) if one != other else -1.0 for other in units] for one in units])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :ALIKE]
    weights = np.exp(4 * np.take_along_axis(scores, order, 1))
    sums = np.cumsum(weights / weights.sum(1, keepdims=True), 1)
    return np.pad(order + 1, ((1, 0), (0, 0))), np.pad(sums, ((1, 0), (0, 0)), constant_values=1.0)


@dataclass(frozen=True)
class Hearing:
    """Draws what might be heard of syllables. table: as `alike` gives it."""

    table: tuple[np.ndarray, np.ndarray]
    rng: np.random.Generator

    def __call__(self, syllables: np.ndarray) -> np.ndarray:
        """syllables (B, L) -> probabilities (B, L, units + 1)."""
        batch, length = syllables.shape
        wrong = self.rng.random((batch, length)) < self.rng.beta(*MISHEARD, size=(batch, 1))
        first, other = self._taken_for(syllables), self._taken_for(syllables)
        sure = self.rng.random((batch, length)) < 0.55
        share = np.where(sure, self.rng.beta(30, 1, (batch, length)), self.rng.beta(3, 2, (batch, length)))
        heard = np.zeros((batch, length, len(self.table[0])), np.float32)
        rows, columns = np.ogrid[:batch, :length]
        np.add.at(heard, (rows, columns, np.where(wrong, first, syllables)), share)
        np.add.at(heard, (rows, columns, np.where(wrong, syllables, first)), 0.7 * (1 - share))
        np.add.at(heard, (rows, columns, other), 0.3 * (1 - share))
        return heard

    def _taken_for(self, syllables: np.ndarray) -> np.ndarray:
        ids, sums = self.table
        place = (sums[syllables] < self.rng.random((*syllables.shape, 1))).sum(-1)
        return ids[syllables, np.minimum(place, ids.shape[1] - 1)]


def batch(found: Clauses, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """About `size` characters of clauses in a row, of like length: characters, syllables (B, L), lengths (B,)."""
    last = len(found.starts) - 1
    first = rng.integers(0, last, max(8, size // 3))
    after = np.minimum(first + 1 + rng.choice(len(JOINED), len(first), p=JOINED), last)
    starts = found.starts[first]
    lengths = np.minimum(found.starts[after] - starts, LONGEST)
    order = np.argsort(lengths, kind="stable")
    order = order[int(rng.integers(0, max(1, len(order) - size // 10))) :]
    chosen = order[: max(1, int((np.arange(1, len(order) + 1) * lengths[order] <= size).sum()))]
    starts, lengths = starts[chosen], lengths[chosen]
    columns = np.arange(lengths.max())
    places = np.minimum(starts[:, None] + columns, len(found.characters) - 1)
    present = columns < lengths[:, None]
    return found.characters[places] * present, found.syllables[places] * present, lengths


def live_steps(shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Which live step brings each token, for tokens of this shape (B, L): some at a time, in order."""
    ends = rng.random(shape) < 2 / (1 + LIVE_TOKENS)
    return torch.from_numpy(np.cumsum(ends, 1))


def learn(
    model: Paraformer, found: Clauses, table: tuple[np.ndarray, np.ndarray], steps: int, size: int, rate: float
) -> None:
    """Train the text part, and what follows it, on clauses; says how it goes on standard error."""
    rng, decoder = np.random.default_rng(0), model.decoder
    hearing = Hearing(table, rng)
    parts = [model.get_submodule(name) for name in WRITES]
    optimiser = torch.optim.AdamW([p for part in parts for p in part.parameters()], betas=(0.9, 0.98))
    model.eval()  # no dropout: what is read once cannot be learnt by heart
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        characters, syllables, lengths = batch(found, size, rng)
        mask = length_mask(torch.from_numpy(lengths), characters.shape[1])
        live = rng.random() < LIVE_SHARE
        with torch.autocast("cpu", torch.bfloat16):
            heard = torch.from_numpy(hearing(syllables))
            scores = decoder.characters(heard, mask, live_steps(characters.shape, rng) if live else None)
        target = torch.from_numpy(characters)[mask]
        loss = F.cross_entropy(scores[mask].float(), target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 50 == 49:
            right = (scores[mask].argmax(-1) == target).float().mean()
            print(f"step {step + 1}: loss {loss.item():.3f}, {100 * right.item():.1f} % right", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Whisper's encoder, a vocabulary, and a text part that has read texts")
    parser.add_argument("whisper", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("texts", type=Path, nargs="+", help="text in UTF-8, numbers written in characters")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--size", type=int, default=4000, help="characters in a step")
    parser.add_argument("--rate", type=float, default=2.5e-3)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    tokens, units, found = read(options.texts)
    config = sized(whisper.settings(options.whisper), len(tokens), len(units) + 1)
    model = Paraformer(config)
    model.load_state_dict(whisper.encoder_weights(options.whisper, config, None), strict=False)
    learn(model, found, alike(units), options.steps, options.size, options.rate)
    card = {"sources": "Whisper's encoder; " + ", ".join(path.name for path in options.texts)}
    native.save(Bundle(None, config, tokens, None, {}, card, units), model.eval(), options.out)


if __name__ == "__main__":
    main()
