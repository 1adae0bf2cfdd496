"""How far the times of tokens are from where words are spoken: single recorded words, joined, all joints known.

    python -m recipes.boundaries [--model DIR|NAME] WORDS --utterances 200

WORDS: recordings of single words with their texts, of any kind that `paraformer data` knows. Each word is cut where it
rises above, and falls for good below, a share of its loudest 10 ms; WORDS_EACH of them make an utterance, with pauses
between some. What lies within a word is not known, so that its first token's start and its last token's end are
compared, of words that were recognised; an aligner is given the text, and all its words count.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import paraformer
from paraformer.backends.companions import kind_in
from paraformer.data.check import spoken_words
from paraformer.data.sources import open_data
from paraformer.data.utterances import utterances
from paraformer.kinds import ALIGNER
from paraformer.loader import locate
from paraformer.manifests import Utterance
from paraformer.types import Token

RATE, FRAME = 16000, 160
FLOOR_DB = -35.0
"""What of a word is softer than its loudest frame by so much is not of it."""
WORDS_EACH, PAUSES_S = 5, (0.0, 0.0, 0.1, 0.3, 0.6)
LONGEST_WORD = 4


@dataclass(frozen=True)
class Joined:
    """An utterance made of words: (characters, start, end) of each, in seconds."""

    samples: np.ndarray
    words: tuple[tuple[list[str], float, float], ...]

    @property
    def text(self) -> str:
        """What is said."""
        return "".join("".join(characters) for characters, _, _ in self.words)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """A word without what is before and after it.

    >>> len(trimmed(np.concatenate([np.zeros(800), np.ones(1600), np.zeros(800)])))
    1600
    """
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    level = 10 * np.log10(np.square(frames).mean(1) + 1e-10)
    loud = np.flatnonzero(level > level.max() + FLOOR_DB)
    return samples[loud[0] * FRAME : (loud[-1] + 1) * FRAME]


def joined(words: Sequence[Utterance], generator: random.Random) -> Joined:
    """An utterance of these words, half a second of nothing around."""
    parts, told, at = [np.zeros(RATE // 2, np.float32)], [], RATE // 2
    for word in words:
        sound = trimmed(word.load())
        pause = np.zeros(int(generator.choice(PAUSES_S) * RATE), np.float32)
        told.append((spoken_words(word.text), at / RATE, (at + len(sound)) / RATE))
        parts += [sound, pause]
        at += len(sound) + len(pause)
    return Joined(np.concatenate([*parts, np.zeros(RATE // 2, np.float32)]), tuple(told))


def errors(one: Joined, tokens: Sequence[Token]) -> Iterator[tuple[float, float]]:
    """Of each word that was recognised, how much later it begins and ends by its tokens than it does, in seconds."""
    said = [character for characters, _, _ in one.words for character in characters]
    matcher = SequenceMatcher(None, said, [token.text for token in tokens], autojunk=False)
    place = {block.a + i: block.b + i for block in matcher.get_matching_blocks() for i in range(block.size)}
    at = 0
    for characters, start_s, end_s in one.words:
        heard = [place.get(at + index) for index in range(len(characters))]
        at += len(characters)
        if heard and None not in heard:
            yield tokens[heard[0]].start_s - start_s, tokens[heard[-1]].end_s - end_s


def table(name: str, found: Sequence[tuple[float, float]], words: int) -> str:
    """A line of Markdown."""
    cells = [name, f"{len(found)} of {words}"]
    for late in zip(*found, strict=True):
        cells += [f"{1000 * median(map(abs, late)):.0f} ms", f"{1000 * median(late):+.0f} ms"]
        cells.append(f"{100 * sum(abs(one) > 0.1 for one in late) / len(late):.0f} %")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a table."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("words", type=Path, metavar="WORDS")
    options.add_argument("--model", metavar="DIR|NAME")
    options.add_argument("--utterances", type=int, default=300, metavar="N")
    chosen = options.parse_args()
    generator = random.Random(0)  # noqa: S311
    listed = [one for one in utterances(open_data(chosen.words)) if 2 <= len(spoken_words(one.text)) <= LONGEST_WORD]
    made = [joined(generator.sample(listed, WORDS_EACH), generator) for _ in range(chosen.utterances)]
    print("| times | words | start: median error | median lateness | over 100 ms | end: | | |")
    print("|---|---|---|---|---|---|---|---|")
    for name, heard in passes(chosen.model, made):
        found = [error for one, tokens in zip(made, heard, strict=True) for error in errors(one, tokens)]
        print(table(name, found, WORDS_EACH * len(made)))


def passes(model: str | None, made: Sequence[Joined]) -> Iterator[tuple[str, list[Sequence[Token]]]]:
    """Tokens of each utterance: of a recogniser whole and live, if it can; of an aligner."""
    directory = locate(model)
    if kind_in(directory) is ALIGNER:
        aligner = paraformer.load_aligner(directory)
        yield "aligner", [aligner.align(one.samples, one.text).tokens for one in made]
        return
    recognizer: Any = paraformer.load(directory)
    yield "whole", [result.tokens for result in recognizer.transcribe([one.samples for one in made])]
    if recognizer.config.streaming:
        yield "live", [live_tokens(recognizer, one.samples) for one in made]


def live_tokens(recognizer: Any, samples: np.ndarray) -> Sequence[Token]:
    """Those of a stream."""
    session = recognizer.stream()
    session.accept(samples)
    session.finish()
    tokens: Sequence[Token] = session.transcript().tokens
    return tokens


if __name__ == "__main__":
    main()
