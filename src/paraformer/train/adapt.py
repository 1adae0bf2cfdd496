"""What fine-tuning adds to a model: rows for more characters, and low-rank changes of its linear layers.

Low-rank adaptation (Hu et al., 2021, "LoRA"): of every linear layer only a product of two thin matrices is trained.
torch.nn.utils.parametrize computes W + SCALE * U D wherever a layer reads its weight, so that no layer knows of it, and
`merged` turns the result into ordinary weights.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from paraformer.data.check import spoken_words
from paraformer.model.paraformer import Paraformer
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

    >>> extend_tokens(("<blank>", "一", "<unk>"), {}, ["三一二", "8"])
    Extended(tokens=('<blank>', '一', '三', '二', '<unk>'), words={}, added=('三', '二'))
    """
    listed = tuple(tokens) if UNKNOWN in tokens else (*tokens, UNKNOWN)
    known, unknown = Vocabulary(listed, words), listed.index(UNKNOWN)
    # First whole words, of which few are strange, then their letters: texts are long.
    strange = {word for text in texts for word in spoken_words(text) if unknown in known.encode(word)}
    letters = {character for word in strange for character in word if _is_letter(character)}
    lacking = sorted(character for character in letters if unknown in known.encode(character))
    added = tuple(character for character in lacking if character not in tokens)
    # A vocabulary with word pieces looks a character up like any word, so a new one needs an entry there as well.
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

    >>> rows = extend_rows({"embed": torch.eye(2)}, {"embed": (3, 2)}, ("a", "b"), ("a", "new", "b"))
    >>> rows["embed"].tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    place = {token: row for row, token in enumerate(old)}
    # New tokens point one row past the last old one, where the mean of all is put.
    rows = torch.tensor([place.get(token, len(old)) for token in new])
    return {
        name: tensor
        if tuple(shapes.get(name, tensor.shape)) == tuple(tensor.shape) or len(tensor) != len(old)
        else torch.cat([tensor, tensor.mean(0, keepdim=True)])[rows]
        for name, tensor in weights.items()
    }


SCALE = 2.0
"""Of the product: alpha / rank in the paper's words."""
_MARK = ".parametrizations.weight."


class LowRank(nn.Module):
    """weight (outputs, inputs) -> weight + SCALE * up (outputs, rank) @ down (rank, inputs); at first up is zero."""

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        # Only one of the two is zero: their product is then zero, and yet the other's gradient is not.
        self.down = nn.Parameter(torch.empty(rank, inputs))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return adapted(weight, self.up, self.down)


def adapted(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """weight (outputs, inputs), up (outputs, rank), down (rank, inputs) -> (outputs, inputs)."""
    return weight + SCALE * (up @ down)


def add_adapters(model: Paraformer, rank: int, *, whole_rows: bool) -> None:
    """Freeze the model and let each linear layer of encoder and decoder learn a change of the given rank.

    whole_rows: what has a row for each token (embedding, output, CTC) is trained as it is, which new tokens need.
    """
    by_token = [model.decoder.embed, model.decoder.output, *([model.ctc] if model.ctc is not None else [])]
    # Before the adapters are registered, whose parameters then ask for gradients as usual.
    model.requires_grad_(requires_grad=False)
    for part in (model.encoder, model.decoder):
        for layer in [module for module in part.modules() if isinstance(module, nn.Linear) and module not in by_token]:
            parametrize.register_parametrization(layer, "weight", LowRank(layer.out_features, layer.in_features, rank))
    for module in by_token if whole_rows else ():
        module.requires_grad_(requires_grad=True)


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ordinary weights of a model that may be adapted; what was not adapted keeps its bits."""
    ordinary = {}
    for name, tensor in weights.items():
        layer, mark, part = name.partition(_MARK)
        if not mark:
            ordinary[name] = tensor
        elif part == "original":
            up, down = (weights[f"{layer}{_MARK}0.{factor}"] for factor in ("up", "down"))
            ordinary[f"{layer}.weight"] = adapted(tensor, up, down)
    return ordinary
