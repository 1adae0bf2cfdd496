"""How characters sound, and how often a syllable is heard for another one.

`syllables.txt`: made from pypinyin's readings, without tones: who speaks fast or with an accent keeps the syllable and
not the tone. `confusions.txt`: counted by `recipes/confusions.py` in what the embedded model made of read speech, whole
and live, initials and finals apart, since it is rarely both that are taken for others.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float32

PRIOR = 30
"""Times that what is rarely said counts as heard aright, so that little is not taken for much."""
INITIALS = ("zh", "ch", "sh", *"bpmfdtnlgkhjqxrzcsyw")


@cache
def readings() -> dict[str, tuple[str, ...]]:
    """The syllables of each character, without tones.

    >>> readings()["行"]
    ('hang', 'heng', 'xing')
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in _lines("syllables.txt"):
        syllable, characters = line.split()
        for character in characters:
            found[character] = (*found.get(character, ()), syllable)
    return found


@cache
def syllables() -> dict[str, int]:
    """The place of each syllable in `confusions`."""
    return {line.split()[0]: place for place, line in enumerate(_lines("syllables.txt"))}


def parted(syllable: str) -> tuple[str, str]:
    """Initial, "" for none, and final.

    >>> parted("zhang"), parted("an")
    (('zh', 'ang'), ('', 'an'))
    """
    initial = next((one for one in INITIALS if syllable.startswith(one)), "")
    return initial, syllable.removeprefix(initial)


@cache
def confusions() -> Float32[np.ndarray, "heard said"]:
    """The odds of each syllable having been said, to that of the one that was heard.

    >>> lin, ling, ma = (confusions()[syllables()["lin"], syllables()[one]] for one in ("lin", "ling", "ma"))
    >>> bool(lin == 1 > ling > ma > 0)
    True
    """
    counts: dict[tuple[str, str, str], int] = {}
    right: dict[tuple[str, str], int] = {}
    for line in _lines("confusions.txt"):
        kind, heard, same, *others = line.replace("-", "").split(" ")
        right[kind, heard] = int(same) + PRIOR
        counts |= {(kind, heard, said): int(count) for said, count in (other.split(":") for other in others)}

    def of(kind: str, heard: str, said: str) -> float:
        return 1.0 if heard == said else (counts.get((kind, heard, said), 0) + 1) / right.get((kind, heard), PRIOR)

    parts = [parted(syllable) for syllable in syllables()]
    found = [[of("initial", one[0], other[0]) * of("final", one[1], other[1]) for other in parts] for one in parts]
    return np.array(found, np.float32)


def _lines(name: str) -> list[str]:
    return (files("paraformer") / name).read_text(encoding="utf-8").splitlines()
