"""How characters sound, and which syllables are taken for one another. `syllables.txt`: made from pypinyin's readings.

Tones are left out: who speaks fast or with an accent keeps the syllable and not the tone.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

_INITIALS = {"zh": "z", "ch": "c", "sh": "s", "n": "l", "r": "l", "h": "f"}
_FINALS = (("iang", "ian"), ("uang", "uan"), ("ang", "an"), ("eng", "en"), ("ing", "in"))


@cache
def readings() -> dict[str, tuple[str, ...]]:
    """The syllables of each character, without tones.

    >>> readings()["行"]
    ('hang', 'heng', 'xing')
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in (files("paraformer") / "syllables.txt").read_text(encoding="utf-8").splitlines():
        syllable, characters = line.split()
        for character in characters:
            found[character] = (*found.get(character, ()), syllable)
    return found


@cache
def likeness(syllable: str) -> str:
    """A name for all syllables that are easily taken for this one: zh for z, n for l, ing for in and so on.

    >>> likeness("zhang") == likeness("zan"), likeness("lin") == likeness("ning"), likeness("ma") == likeness("ba")
    (True, True, False)
    """
    for initial, other in _INITIALS.items():
        if syllable.startswith(initial):
            syllable = other + syllable[len(initial) :]
            break
    for final, other in _FINALS:
        if syllable.endswith(final):
            return syllable.removesuffix(final) + other
    return syllable
