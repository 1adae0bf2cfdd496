"""Vocabulary, and tokens to readable text: at once or as they come, with the same result (spec 6.4, 7.2).

Chinese characters and digits stand side by side. English words are put together from pieces that end in "@@"; a space
follows a word unless a Chinese character does; a run of single letters is an abbreviation and becomes "ABC".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from paraformer.errors import DataError, ModelError

UNKNOWN = "<unk>"
SILENT_TOKENS = frozenset({"<s>", "</s>", "<unk>", "<OOV>"})
"""Tokens that never appear in a text."""
CONTINUED = "@@"
"""A piece with this mark goes on in the next piece."""

_COUNTED = re.compile(r"[\u4e00-\u9fa50-9]+")
_SPELLABLE = re.compile(r"[\u4e00-\u9fa5A-Za-z0-9]")


class Vocabulary:
    """Tokens in the order of their ids, and how English words split into them."""

    def __init__(self, tokens: Sequence[str], words: Mapping[str, Sequence[str]] | None = None) -> None:
        """words: the `seg_dict` of a model, word to pieces; without one, text is encoded character by character.

        Raises ModelError if a token occurs twice.
        """
        self._tokens = tuple(tokens)
        self._words = words or {}
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        if len(self._ids) != len(self._tokens):
            twice = next(token for index, token in enumerate(self._tokens) if self._ids[token] != index)
            raise ModelError(f"the vocabulary holds {twice!r} twice; every token must occur once")

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def tokens(self) -> tuple[str, ...]:
        """All of them, in the order of their ids."""
        return self._tokens

    def token(self, index: int) -> str:
        """The token of an id."""
        assert 0 <= index < len(self._tokens), f"id {index} is outside the vocabulary of {len(self._tokens)}"
        return self._tokens[index]

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text of ids."""
        return self.join(self.token(index) for index in ids)

    @staticmethod
    def join(tokens: Iterable[str]) -> str:
        """Readable text of tokens: all that a `TextAssembler` gives for them."""
        assembler = TextAssembler()
        return "".join([assembler.push(token) for token in tokens]) + assembler.finish()

    def encode(self, text: str) -> list[int]:
        """Ids of a text; what the vocabulary lacks becomes <unk>. Raises DataError if it lacks that too."""
        return [self._id(token) for token in self._split(text)]

    def hotword(self, text: str) -> list[int]:
        """Ids of a hotword as FunASR makes them, empty where the vocabulary has nothing of it.

        A word that `words` lacks is unknown as a whole, unless it is Chinese or a number. Without `words` a text is its
        characters, where FunASR knows words of one character only.
        """
        tokens = (
            "".join(text.split()) if not self._words else [p for w in text.lower().split() for p in self._hinted(w)]
        )
        ids = [self._ids.get(token, self._ids.get(UNKNOWN)) for token in tokens]
        known = any(token in self._ids and token != UNKNOWN for token in tokens)
        return [index for index in ids if index is not None] if known else []

    def _hinted(self, word: str) -> Iterable[str]:
        if word in self._words:
            return self._words[word]
        if not _COUNTED.fullmatch(word):
            return [UNKNOWN]
        return [piece for character in word for piece in self._words.get(character, [UNKNOWN])]

    def pieces(self, text: str) -> list[str]:
        """What `encode` gives the ids of: characters and pieces of words, also those that the vocabulary lacks."""
        return list(self._split(text))

    def _id(self, token: str) -> int:
        index = self._ids.get(token, self._ids.get(UNKNOWN))
        if index is None:
            raise DataError(f"the vocabulary has neither {token!r} nor {UNKNOWN}; clean the text or add one of them")
        return index

    def _split(self, text: str) -> Iterable[str]:
        """Tokens of a text: characters, or with `words` the pieces of each word in lower case."""
        if not self._words:
            return "".join(text.split())
        return [piece for word in text.lower().split() for piece in self._pieces(word)]

    def _pieces(self, word: str) -> Sequence[str]:
        if word in self._words:
            return self._words[word]
        if not _SPELLABLE.match(word):
            return [UNKNOWN]
        return [piece for character in word for piece in self._words.get(character, [character])]


def parse_tokens(text: str) -> tuple[str, ...]:
    """Tokens of a `tokens.json` (a list, or an object of token to id) or `tokens.txt` ("token" or "token id" lines).

    Raises ModelError if it is a list of anything but strings, or if its ids are not 0, 1, 2 and so on.
    """
    text = text.lstrip("\ufeff")
    if (listed := _json(text)) is not None:
        if not listed or not all(isinstance(token, str) for token in listed):
            raise ModelError("the tokens must be a JSON list of strings, in the order of their ids, and not none")
        return _by_id(listed) if isinstance(listed, dict) else tuple(listed)
    lines = [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]
    numbered = [line.rsplit(maxsplit=1) for line in lines]
    if all(len(pair) == 2 and pair[1].isdecimal() for pair in numbered):
        return _by_id({token: int(index) for token, index in numbered})
    return tuple(lines)


def _json(text: str) -> list[Any] | dict[str, Any] | None:
    """The parsed list or object, or None if the text is something else."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return None
    return parsed if isinstance(parsed, list | dict) else None


def _by_id(ids: Mapping[str, Any]) -> tuple[str, ...]:
    """Tokens in the order of their ids."""
    tokens = {index: token for token, index in ids.items()}
    try:
        return tuple(tokens[index] for index in range(len(ids)))
    except KeyError as error:
        raise ModelError(
            "the ids of the token list are not 0, 1, 2 and so on, each once; the file is damaged"
        ) from error


def parse_words(text: str) -> dict[str, tuple[str, ...]]:
    """Words and their pieces from a `seg_dict`: lines of "word piece@@ piece"."""
    lines = (line.split() for line in text.splitlines())
    return {word: tuple(pieces) for word, *pieces in filter(None, lines)}


class Kind(Enum):
    """What decides the spaces around a word."""

    CHINESE = "chinese"
    ENGLISH = "english"
    OTHER = "other"


class Word(NamedTuple):
    """What stands in the text as one: a character, an English word, an abbreviation. Made of tokens first to last."""

    text: str
    first: int
    last: int
    kind: Kind


def words_of(tokens: Iterable[str]) -> list[Word]:
    """The words of a text, one after another. A piece at the very end that was to go on is left out, as by FunASR."""
    joiner = _Joiner()
    return [word for token in tokens for word in joiner.push(token)] + joiner.finish()


class TextAssembler:
    """Text of a live stream. What has been handed out never changes: all of it together is `Vocabulary.join`.

    Held back are pieces that go on, and single letters, which may turn out to begin an abbreviation.
    """

    def __init__(self) -> None:
        self._joiner = _Joiner()
        self._space = False

    def push(self, token: str, mark: str = "") -> str:
        """Take in the next token and the punctuation after it, which ends a word; give the text that it decides."""
        words = self._joiner.push(token)
        if not mark:
            return "".join([self._spaced(word) for word in words])
        text = "".join([self._spaced(word) for word in (*words, *self._joiner.finish())])
        self._space = self._space and mark.isascii()
        return text + mark

    def finish(self) -> str:
        """Give the rest of the text. A piece that was to go on is dropped, as by FunASR."""
        return "".join([self._spaced(word) for word in self._joiner.finish()])

    def copy(self) -> TextAssembler:
        """Another one in the same state."""
        twin = TextAssembler()
        twin._space, twin._joiner = self._space, replace(self._joiner)
        return twin

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values, ready for JSON."""
        return {"space": self._space, "joiner": self._joiner.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextAssembler:
        """Read back `to_dict`. Raises KeyError if a value is missing."""
        assembler = cls()
        assembler._space, assembler._joiner = values["space"], _Joiner.from_dict(values["joiner"])
        return assembler

    def _spaced(self, word: Word) -> str:
        """The word, after the space that an English word left to be decided."""
        space = " " if self._space and word.kind is not Kind.CHINESE else ""
        self._space = word.kind is Kind.ENGLISH
        return space + word.text


@dataclass
class _Joiner:
    """Tokens to words, one at a time.

    count: tokens seen; piece: beginning of an unfinished word, from token piece_first on; letters: a run of single
    letters, each with its first token, ending in token letters_last.
    """

    count: int = 0
    piece: str = ""
    piece_first: int | None = None
    letters: str = ""
    letters_first: int = 0
    letters_last: int = 0

    def push(self, token: str) -> list[Word]:
        index, self.count = self.count, self.count + 1
        token = token.strip()
        if token in SILENT_TOKENS or not token:
            return []
        if all(map(_stands_alone, token)):
            kind = Kind.OTHER if self.piece else Kind.CHINESE  # FunASR keeps the space before a piece left unfinished
            return [*self._letters(), Word(token, index, index, kind)]
        if CONTINUED in token:
            self.piece += token.replace(CONTINUED, "")
            self.piece_first = index if self.piece_first is None else self.piece_first
            return []
        if all(map(_is_letter, token)):
            return self._word(token, index)
        return [*self._letters(), Word(token, index, index, Kind.OTHER)]

    def finish(self) -> list[Word]:
        return self._letters()

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> _Joiner:
        return cls(**values)

    def _word(self, token: str, index: int) -> list[Word]:
        """A word ends with this token."""
        word, first = self.piece + token, index if self.piece_first is None else self.piece_first
        self.piece, self.piece_first = "", None
        if len(word) > 1 or not word.isascii() or not word.isalpha():
            return [*self._letters(), Word(word, first, index, Kind.ENGLISH)]
        self.letters_first = self.letters_first if self.letters else first
        self.letters_last = index
        self.letters += word
        return []

    def _letters(self) -> list[Word]:
        """The run of letters that ends here, if there is one: two and more are an abbreviation."""
        if not self.letters:
            return []
        letters, self.letters = self.letters, ""
        text = letters.upper() if len(letters) > 1 else letters
        return [Word(text, self.letters_first, self.letters_last, Kind.ENGLISH)]


def is_chinese(token: str) -> bool:
    """Whether a token is a Chinese character.

    >>> is_chinese("好"), is_chinese("hao"), is_chinese("3")
    (True, False, False)
    """
    return len(token) == 1 and "\u4e00" <= token <= "\u9fff"


def _stands_alone(character: str) -> bool:
    """Whether no space is written beside a character: FunASR's class of CJK ideographs, digits and "@"."""
    return "\u4e00" <= character <= "\u9fff" or "0" <= character <= "9" or character == "@"


def _is_letter(character: str) -> bool:
    return character == "'" or (character.isalpha() and not _stands_alone(character))
