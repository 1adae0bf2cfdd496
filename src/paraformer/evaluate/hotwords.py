"""What a list of hotwords did: how many were found, how many came that nobody said, and what became of the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paraformer.evaluate.cer import ErrorCounts
from paraformer.evaluate.normalise import PLAIN
from paraformer.evaluate.results import Pass, Scored, common, total


@dataclass(frozen=True)
class Found:
    """Occurrences of the words of a list: said, heard, and of those heard the ones that were said there."""

    said: int
    heard: int
    right: int
    audio_s: float

    @property
    def recall(self) -> float:
        """Of those said; 0 where none was."""
        return self.right / self.said if self.said else 0.0

    @property
    def precision(self) -> float:
        """Of those heard; 0 where none was."""
        return self.right / self.heard if self.heard else 0.0

    @property
    def false_per_hour(self) -> float:
        """Heard and not said, in an hour of speech."""
        return 3600 * (self.heard - self.right) / self.audio_s if self.audio_s else 0.0


def found(scored: Iterable[Scored], words: Sequence[str]) -> Found:
    """Counted utterance by utterance in the texts that are compared."""
    plain = list(dict.fromkeys(filter(None, map(PLAIN, words))))
    said = heard = right = 0
    audio_s = 0.0
    for one in scored:
        audio_s += one.duration_s
        for word in plain:
            there, come = (text.count(word) for text in one.compared)
            said, heard, right = said + there, heard + come, right + min(there, come)
    return Found(said, heard, right, audio_s)


def hotword_lines(without: Pass, listening: Pass, words: Sequence[str]) -> list[str]:
    """The same utterances without hotwords and with them, in words for the terminal."""
    before, after = common(without, listening)
    plain = list(filter(None, map(PLAIN, words)))
    apart = {one.id for one in before if not any(word in one.compared[0] for word in plain)}
    lines = [f"{len(words)} hotwords, {listening.mode}: said {found(after, words).said} times"]
    for name, part in (("without", before), ("with", after)):
        one = found(part, words)
        lines.append(
            f"  {name:8} recall {100 * one.recall:.1f} %, precision {100 * one.precision:.1f} %, "
            f"{one.false_per_hour:.1f} an hour that nobody said; {_rates(part, apart)}"
        )
    return lines


def _rates(part: Sequence[Scored], apart: set[str]) -> str:
    elsewhere: ErrorCounts = total(one for one in part if one.id in apart)
    return f"CER {100 * total(part).cer:.2f} %, where none was said {100 * elsewhere.cer:.2f} %"
