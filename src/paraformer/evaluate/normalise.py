"""What counts in scoring: two ways to write what was said become one text (after SpeechIO's rules for Mandarin).

Always: full width becomes half width and letters lower case; punctuation, symbols and white space go; 幺 and 〇 become
一 and 零. With numbers read, "120块" becomes "一百二十块" and "3.5%" "百分之三点五", by the rules of WeTextProcessing.
A figure can be read in more than one way ("120" as 一百二十 or 一二零); `readings` gives those worth comparing.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

from paraformer.errors import MissingExtra

_CHARACTERS = str.maketrans("0123456789幺〇", "零一二三四五六七八九一零")
_DIGIT = re.compile("[0-9]")
_UNSPOKEN = re.compile(r"[^\w\s.,:/%+~$¥€£°×=-]")
"""What says nothing about how a number is read."""
_SPACED = re.compile(r"(?<=[\u4e00-\u9fff])\s+|\s+(?=[\u4e00-\u9fff])")
_READINGS = 2
"""Of the library's: the first can be a telephone number, the second the same figures as a quantity."""


@dataclass(frozen=True)
class Normalizer:
    """A text as it is scored; the same rules go over reference and hypothesis."""

    numbers: bool = True
    """Read figures as words; else digit by digit."""
    erhua: bool = True
    """Whether the suffix 儿 counts: 玩儿 is one character more than 玩. 女儿 and 儿子 keep theirs either way."""

    def __call__(self, text: str) -> str:
        """The likeliest reading; itself when normalised again. Raises MissingExtra as `readings` does."""
        return self.readings(text)[0]

    def readings(self, text: str) -> tuple[str, ...]:
        """What the text may have been spoken as, likeliest first; more than one only where it has figures.

        Raises MissingExtra where a text has figures to be read, or erhua to be dropped, without paraformer[evaluate].
        """
        found = dict.fromkeys(_plain(spoken) for spoken in self._spoken(text))
        return tuple(found if self.erhua else dict.fromkeys(map(_without_erhua, found)))

    def _spoken(self, text: str) -> list[str]:
        if not (self.numbers and _DIGIT.search(unicodedata.normalize("NFKC", text))):
            return [text]
        apart = text.replace("，", " ")  # a Chinese comma ends a number; NFKC would make it one that groups digits
        spoken = _SPACED.sub("", _UNSPOKEN.sub(" ", unicodedata.normalize("NFKC", apart)))
        return [*_reader().normalize(spoken, nbest=_READINGS), text]


PLAIN = Normalizer(numbers=False)
"""The rules that need no library."""


def written(text: str) -> str:
    """A text as it was written, white space apart: what the raw error rate compares."""
    return "".join(text.split())


def _plain(text: str) -> str:
    """Letters and digits alone, in one width and case, digits as Chinese."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LN").translate(_CHARACTERS)


def _without_erhua(text: str) -> str:
    return str(_reader().normalize(text, remove_erhua=True)) if "儿" in text else text


@cache
def _reader() -> Any:
    """The library that reads; its grammars are loaded once."""
    try:
        from wetext import Normalizer as Reader
    except ImportError as error:
        raise MissingExtra("Reading numbers and erhua in a text that is scored", "evaluate") from error
    return Reader(lang="zh", operator="tn")
