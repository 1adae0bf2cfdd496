"""What fine-tuning makes of speech data of any kind: a training part and a dev part, as prepared sets of the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut

from paraformer.data.dataset import text_of
from paraformer.data.prepare import save_cuts
from paraformer.data.reading import in_files
from paraformer.data.shar import is_shar, write_shar
from paraformer.data.skips import EMPTY, Skipped, Skips
from paraformer.data.sources import open_data
from paraformer.data.utterances import speaker_of
from paraformer.errors import DataError

TRAIN, DEV = "train", "dev"
SHARE, MOST, LEAST = 10, 500, 20
"""The dev part is one in so many utterances, but no more than so many, and where there are few at least so many."""
SPEAKERS = 10
"""With fewer speakers than this, utterances are held out and not speakers."""


@dataclass(frozen=True)
class Parts:
    """Cuts to train on and to measure with. held_out: how the second were chosen, in words."""

    train: list[Cut]
    dev: list[Cut]
    held_out: str


def parts_of(data: Path, dev: Path | None, skips: Skips) -> Parts:
    """The parts of some data, or all of it and `dev`. Utterances without a text are left out.

    Raises DataError where there are too few utterances to hold any out, and as `open_data` does.
    """
    cuts = _with_text(open_data(data, skips), skips)
    if dev is not None:
        return Parts(cuts, _with_text(open_data(dev, skips), skips), str(dev))
    if len(cuts) < 4:
        raise DataError(f"{data} has {len(cuts)} usable utterances, too few to hold some out: name a dev set")
    return hold_out(cuts)


def hold_out(cuts: Sequence[Cut], seed: int = 0) -> Parts:
    """One in SHARE utterances for measuring: those of speakers who are then not trained on, or else at random."""
    # Enough to tell models apart, and of little data never so much that there is nothing left to learn from.
    wanted = min(MOST, max(len(cuts) // SHARE, min(LEAST, len(cuts) // 4)))
    order = np.random.default_rng(seed).permutation(len(cuts))
    by_speaker = defaultdict(list)
    for index in order:
        by_speaker[speaker_of(cuts[index])].append(index)
    chosen: list[int] = []
    # By speakers, where they are all known: with the voice in training too, errors would look fewer than they are.
    if len(by_speaker) >= SPEAKERS and "" not in by_speaker:
        # Nobody who has said more than is wanted, as the one reader of most of a set has.
        speakers = [said for said in by_speaker.values() if len(said) <= wanted]
        while speakers and len(chosen) < wanted:
            chosen += speakers.pop()
    how = "the utterances of some speakers" if chosen else "utterances drawn at random"
    held_out = set(chosen or order[:wanted].tolist())
    train = [cut for index, cut in enumerate(cuts) if index not in held_out]
    return Parts(train, [cuts[index] for index in sorted(held_out)], how)


def keep(cuts: Sequence[Cut], directory: Path, name: str, skips: Skips) -> None:
    """Write a prepared set; audio that is not in files is packed into shards, once."""
    if all(map(in_files, cuts)):
        save_cuts(cuts, directory, name)
    elif not is_shar(directory / name):
        write_shar(CutSet.from_cuts(cuts), directory / name, skips)


def hours(cuts: Sequence[Cut]) -> float:
    """Length of some cuts."""
    return float(sum(cut.duration for cut in cuts)) / 3600


def _with_text(cuts: CutSet, skips: Skips) -> list[Cut]:
    usable = []
    for cut in cuts:
        if text_of(cut):
            usable.append(cut)
        else:
            skips.add(Skipped(cut.id, EMPTY))
    return usable
