"""A vocabulary with more characters: new rows where the weights have a row for each token, all others as they were."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paraformer.data.check import units
from paraformer.text import UNKNOWN, Vocabulary

Words = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Extended:
    """Tokens and word pieces that cover more text; `added` are the tokens which were not there before."""

    tokens: tuple[str, ...]
    words: Words
    added: tuple[str, ...]


def extend_tokens(tokens: Sequence[str], words: Words, texts: Iterable[str]) -> Extended:
    """Make tokens of the characters of `texts` that the vocabulary lacks, in code order before <unk>.

    Latin letters are lacking where a word of them has no pieces. Digits stay unknown: they are read out in more than
    one way, and belong into a text as they were spoken. A vocabulary with word pieces finds a character like any word,
    so that it gets an entry there as well.
    """
    listed = tuple(tokens) if UNKNOWN in tokens else (*tokens, UNKNOWN)
    known, unknown = Vocabulary(listed, words), listed.index(UNKNOWN)
    strange = {unit for text in texts for unit in units(text) if unknown in known.encode(unit)}
    letters = {character for unit in strange for character in unit if _is_letter(character)}
    lacking = sorted(character for character in letters if unknown in known.encode(character))
    added = tuple(character for character in lacking if character not in tokens)
    pieces = {**words, **{character: (character,) for character in lacking}} if words else words
    return Extended((*tokens[:unknown], *added, *tokens[unknown:]), pieces, added)


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] == "L" or character == "〇"


def extend_rows(
    weights: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], old: Sequence[str], new: Sequence[str]
) -> dict[str, Tensor]:
    """Weights for the tokens `new`, which hold all of `old`, from those for `old`; other tensors are the same objects.

    Tensors with a row for each token (embedding, output layer, CTC) are those whose shape is another in `shapes`. A new
    token's rows are the mean of all rows: before training its score is the mean of all scores, and so never the best.
    """
    place = {token: row for row, token in enumerate(old)}
    rows = torch.tensor([place.get(token, len(old)) for token in new])
    return {
        name: tensor
        if tuple(shapes.get(name, tensor.shape)) == tuple(tensor.shape) or len(tensor) != len(old)
        else torch.cat([tensor, tensor.mean(0, keepdim=True)])[rows]
        for name, tensor in weights.items()
    }
