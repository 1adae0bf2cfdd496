"""How well punctuation survives what a recogniser gets wrong: F1 on held-out text with errors of its kind.

    python -m recipes.punctuation_heard text/news_ntrex.txt.xz text/dialogue_travel.txt.xz --errors 0.13

There are no recordings with punctuated transcripts at hand. So characters of the held-out text are replaced at the
recogniser's error rate as it replaces them: `SAME_SOUND` of them by another character of the same syllable, the others
by one of a syllable that is heard for it (`paraformer.sounds.confusions`), each as often as the text has it. None is
left out or put in between, which is what one of the recogniser's errors in seventeen is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from paraformer.loader import load_punctuation
from paraformer.sounds import confusions, readings, syllables
from recipes.punctuation import Labelled, measured, read, split

SAME_SOUND = 0.47
"""Share of the characters that the embedded model replaces, read speech, whole and live."""


class Mishearing:
    """Replaces characters of one text."""

    def __init__(self, text: Labelled, words: Sequence[str], seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._sounds = {
            index: [syllables()[one] for one in readings()[word]]
            for index, word in enumerate(words)
            if word in readings()
        }
        counts = np.bincount(text.words, minlength=len(words)).astype(np.float64)
        self._of: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for sound in range(len(syllables())):
            ids = np.array([index for index, sounds in self._sounds.items() if sound in sounds and counts[index]])
            if len(ids):
                self._of[sound] = (ids, counts[ids])
        odds = confusions().T.astype(np.float64) - np.eye(len(syllables()))
        odds[:, [sound for sound in range(len(odds)) if sound not in self._of]] = 0
        self._heard = odds / np.maximum(odds.sum(1, keepdims=True), 1e-12)

    def __call__(self, text: Labelled, rate: float) -> Labelled:
        """The text with so many of its characters replaced."""
        heard = text.words.copy()
        for place in np.flatnonzero(self._rng.random(len(heard)) < rate).tolist():
            heard[place] = self._misheard(int(heard[place]))
        return replace(text, words=heard)

    def _misheard(self, index: int) -> int:
        if index not in self._sounds:
            return index
        sound = int(self._rng.choice(self._sounds[index]))
        if self._rng.random() >= SAME_SOUND:
            sound = int(self._rng.choice(len(self._heard), p=self._heard[sound]))
        ids, counts = self._of.get(sound, (np.array([index]), np.ones(1)))
        others = np.where(ids == index, 0.0, counts)
        return int(self._rng.choice(ids, p=others / others.sum())) if others.sum() else index


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("texts", type=Path, nargs="+", metavar="NAME.txt.xz")
    options.add_argument("--errors", type=float, default=0.13, help="share of characters (default: %(default)s)")
    options.add_argument("--model", help="of punctuation (default: the package's own)")
    asked = options.parse_args()
    model = load_punctuation(asked.model)
    places = {word: index for index, word in enumerate(model.bundle.words)}
    for path in asked.texts:
        _, text = split(read(path, places, model.config.marks))
        heard = Mishearing(text, model.bundle.words)(text, asked.errors)
        told = {name: measured(model, one) for name, one in (("written", text), ("heard", heard))}
        figures = {name: {mark: round(one["f1"], 3) for mark, one in marks.items()} for name, marks in told.items()}
        print(path.name, f"{(heard.words != text.words).mean():.3f} replaced", json.dumps(figures, ensure_ascii=False))


if __name__ == "__main__":
    main()
