"""A punctuation model's words out of units of a text (spec: variants 4.3)."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from paraformer.errors import MissingExtra

_PIECES = re.compile(r"[\x00-\x7f]+|[^\x00-\x7f]")
_ENGLISH = re.compile(r"[a-zA-Z']+")


class Cutter:
    """Cuts texts and units into words."""

    def __init__(self, dictionary: str | None = None) -> None:
        """dictionary: see `PunctuationBundle`; None: every character that is not ASCII is a word of its own."""
        self._dictionary = dictionary

    def split(self, text: str) -> list[str]:
        """The words of a text.

        Between spaces: without a dictionary, characters that are not ASCII, and runs of those that are. With one,
        English words, and what jieba makes of all else between two of them, spaces left out.
        """
        if self._dictionary is None:
            return [word for piece in text.split() for word in _PIECES.findall(piece)]
        return list(self._by_dictionary(text.split()))

    def words(self, units: Sequence[str]) -> tuple[list[str], list[int]]:
        """The words of units, and of each the place of its last unit."""
        pieces: list[str] = []
        for place, unit in enumerate(units):
            digits = unit.isdigit() and place > 0 and units[place - 1].isdigit()
            pieces.append(unit if not pieces or digits else f" {unit}" if unit.isascii() else unit)
        words = self.split("".join(pieces))
        ends, total = list[int](), 0
        for unit in units:
            total += len(unit.replace(" ", ""))
            ends.append(total)
        lasts, total, place = list[int](), 0, 0
        for word in words:
            total += len(word)
            while place < len(ends) - 1 and ends[place] < total:
                place += 1
            lasts.append(place)
        return words, lasts

    def _by_dictionary(self, tokens: Sequence[str]) -> Iterator[str]:
        group: list[str] = []
        for token in tokens:
            if not _ENGLISH.fullmatch(token):
                group.append(token)
                continue
            yield from self._cut("".join(group))
            group = []
            yield token
        yield from self._cut("".join(group))

    def _cut(self, text: str) -> list[str]:
        return list(self._jieba.cut(text, HMM=False)) if text else []

    @cached_property
    def _jieba(self) -> Any:
        """A tokenizer of its own: words of one model are not those of another, nor of the program around."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about its own source
                import jieba
        except ImportError as error:
            raise MissingExtra("Cutting a text into this punctuation model's words", "punctuation") from error
        tokenizer = jieba.Tokenizer()
        jieba.setLogLevel(logging.CRITICAL)
        tokenizer.initialize()
        tokenizer.load_userdict(io.BytesIO((self._dictionary or "").encode()))
        return tokenizer
