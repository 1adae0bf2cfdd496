"""Texts as FunASR punctuates them: its pieces, its joining, its records of sentences (spec: variants 4.4, 4.5, 8.3).

What a model is asked, and which of its answers count, is FunASR's, mark for mark. Where FunASR spoils a text ours does
not: capitals within a word stay, a text does not begin with a space, and no "<unk>" is printed (docs/quirks.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from paraformer.errors import DataError
from paraformer.loader import load_punctuation
from paraformer.punctuation import NONE, Punctuation
from paraformer.punctuation.config import UNKNOWN_MARK

SPLIT_SIZE = 20
"""Words that are added at a time."""
LONGEST = 200
"""Words without the end of a sentence, beyond which a comma is taken for one."""
_HALF_WIDTH = {"，": ",", "。": ".", "？": "?"}
_ENGLISH = {**_HALF_WIDTH, "、": ","}
_SENTENCE_ENDS = ("。", "？")


@dataclass(frozen=True)
class Marked:
    """A text with marks, its words without, and the class of the mark after each."""

    text: str
    words: list[str]
    classes: list[int]


class Texts:
    """FunASR's `AutoModel` of a punctuation model: texts in, texts with marks out."""

    def __init__(self, model: Punctuation) -> None:
        self.model = model

    @classmethod
    def open(cls, directory: Path) -> Texts:
        """Of a directory. Raises what `load_punctuation` raises."""
        return cls(load_punctuation(directory))

    def generate(self, source: object, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Of a text, or of each in a list: {"key", "text", "punc_array"}, the classes as integers, None without words.

        With a model for live texts, `cache` holds what the next text of the stream needs, under "pre_text"; a text that
        is a file's name stays a text. Raises DataError for what is no text.
        """
        texts = [source] if isinstance(source, str) else source
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise DataError("the input of a punctuation model is a text, or a list of texts")
        cache = options.get("cache")
        told = [self._marked(text, cache) for text in texts]
        return [{"key": f"text{number}"} | one for number, one in enumerate(told)]

    def _marked(self, text: str, cache: dict[str, Any] | None) -> dict[str, Any]:
        if self.model.config.attention == "live":
            kept = {} if cache is None else cache
            before = kept.get("pre_text", [])
            if not isinstance(before, list) or not all(isinstance(word, str) for word in before):
                raise DataError(
                    f"pre_text of cache must be the list that the call before left there, not {before!r:.60}"
                )
            marked, kept["pre_text"] = punctuate_live(self.model, text, before)
            classes = marked.classes
        else:
            marked = punctuate(self.model, text)
            classes = by_character(self.model, marked)
        return {"text": marked.text, "punc_array": as_array(classes) if classes else None}


def punctuate(model: Punctuation, text: str, split_size: int = SPLIT_SIZE) -> Marked:
    """A whole text; an empty one stays so."""
    words = model.cutter.split(text)
    marks = model.config.marks
    written, classes = "", list[int]()
    for emitted, found in _emissions(model, words, split_size, heard=None):
        written += "".join(_rendered(emitted, [marks[index] for index in found]))
        classes += found
    if not words:
        return Marked("", [], [])
    closed = _closed(written)
    if closed != written:
        classes[-1] = marks.index("。")
    return Marked(closed.strip(), words, classes)


def by_character(model: Punctuation, marked: Marked) -> list[int]:
    """The classes as FunASR tells them: of a dictionary's words, one for each character, the last one's its own."""
    counts = [len(units) for units in _units(model, marked)]
    return [index for count, found in zip(counts, marked.classes, strict=True) for index in [1] * (count - 1) + [found]]


def characters(model: Punctuation, marked: Marked) -> list[str]:
    """What these classes are about: the words, a dictionary's ones in characters."""
    return [unit for units in _units(model, marked) for unit in units]


def _units(model: Punctuation, marked: Marked) -> list[list[str]]:
    whole = model.bundle.dictionary is None
    return [list(word) if not whole and "\u0e00" <= word[0] <= "\u9fa5" else [word] for word in marked.words]


def punctuate_live(
    model: Punctuation, text: str, before: Sequence[str], split_size: int = SPLIT_SIZE
) -> tuple[Marked, list[str]]:
    """The next text of a stream, and the words that the one after it needs to know.

    before: those of the last call, none at first. The text begins with the mark after the last of them, where there is
    one, and does not end with one.
    """
    words = model.cutter.split("".join(before) + " " + text)
    marks, skip = model.config.marks, len(before)
    emissions = list(_emissions(model, words, split_size, heard=skip))
    classes = [index for _, found in emissions for index in found]
    spaced = [
        " " + word if i and _ascii(word) and words[i - 1][-1:].isascii() else word for i, word in enumerate(words)
    ]
    written = "".join(
        (word if place >= skip else "") + (_shown(marks[index]) if place >= skip - 1 else "")
        for place, (word, index) in enumerate(zip(spaced, classes, strict=True))
    )
    if written[-1:] in marks:
        written = written[:-1]
    end = _sentence_end([marks[index] for index in classes])
    return Marked(written, words, classes), spaced[end + 1 :]


def sentence_records(
    classes: Sequence[int] | None,
    marks: Sequence[str],
    timestamps: Sequence[Sequence[int]],
    words: Sequence[str],
    *,
    raw: bool,
    english: bool = False,
) -> list[dict[str, Any]]:
    """FunASR's `sentence_info`: what stands between two marks of any kind, with its times in milliseconds.

    raw: its text without the mark as well. english: marks of half width, and no space before a first English word.
    Without classes all is one, its text a list of words, as with FunASR.
    """
    if not timestamps or not words:
        return []
    if not classes:
        whole = {"start": timestamps[0][0], "end": timestamps[-1][1]}
        return [{"text": list(words), **whole, "timestamp": [list(one) for one in timestamps]}]
    records, text, times = list[dict[str, Any]](), "", list[list[int]]()
    for index, span, word in zip_longest(classes, timestamps, words):
        if word:
            latin = _letter(word[:1]) or _letter(text[-1:])
            text += (" " if latin else "") + word
        if span is not None:
            times.append(list(span))
        mark = NONE if index is None else marks[index]
        if mark in (NONE, UNKNOWN_MARK):
            continue
        start, end = (times[0][0], times[-1][1]) if times else (0, 0)
        written = text.lstrip() + _ENGLISH.get(mark, mark) if english else text + mark
        record = {"text": written, "start": start, "end": end, "timestamp": times}
        records.append(record | ({"raw_text": text.strip()} if raw else {}))
        text, times = "", []
    return records


def _emissions(
    model: Punctuation, words: Sequence[str], split_size: int, heard: int | None
) -> Iterator[tuple[list[str], list[int]]]:
    """Words in pieces up to the last end of a sentence so far, and their classes."""
    marks, held = model.config.marks, list[str]()
    for begin in range(0, len(words), split_size):
        held += words[begin : begin + split_size]
        found = model.scores(held, heard).argmax(axis=1).tolist()
        if begin + split_size >= len(words):
            yield held, found
            return
        end = _sentence_end([marks[index] for index in found])
        if end < 0 and len(held) > LONGEST:
            commas = [place for place in range(2, len(held) - 1) if marks[found[place]] == "，"]
            if commas:
                end = commas[-1]
                found[end] = marks.index("。")
        yield held[: end + 1], found[: end + 1]
        held = held[end + 1 :]


def _sentence_end(marks: Sequence[str]) -> int:
    """The last mark that ends a sentence, of those from the third to the last but one; -1 for none."""
    places = range(len(marks) - 2, 1, -1)
    return next((place for place in places if marks[place] in _SENTENCE_ENDS), -1)


def _rendered(words: Sequence[str], marks: Sequence[str]) -> Iterator[str]:
    """Words of one emission with their marks: narrow after Latin ones, which are capitals where a sentence begins."""
    for place, (word, mark) in enumerate(zip(words, marks, strict=True)):
        begins = place == 0 or marks[place - 1] in _SENTENCE_ENDS
        spaced = word[:1].upper() + word[1:] if begins and _ascii(word) else word
        if _ascii(word) and (place == 0 or _ascii(words[place - 1])):
            spaced = " " + spaced
        shown = _shown(mark)
        yield spaced + (_HALF_WIDTH.get(shown, shown) if _ascii(word) else shown)


def _closed(text: str) -> str:
    """The text with an end."""
    last = text[-1:]
    if last in ("，", "、"):
        return text[:-1] + "。"
    if last == ",":
        return text[:-1] + "."
    if last in ("。", "？", ".", "?"):
        return text
    return text + ("." if last.isascii() else "。")


def _shown(mark: str) -> str:
    return "" if mark in (NONE, UNKNOWN_MARK) else mark


def _ascii(word: str) -> bool:
    return word[:1].isascii()


def _letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def as_array(classes: Sequence[int]) -> np.ndarray:
    """As FunASR gives them: 64-bit integers, with `tolist` and so on."""
    return np.array(classes, np.int64)
