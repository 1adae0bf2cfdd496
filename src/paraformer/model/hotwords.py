"""Hotwords inside a model: a row for each of them, and what SeACo-Paraformer makes of the rows (variants 1).

Shapes: B utterances, L tokens, N hotwords, the last of which is "none of them", V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from paraformer.config import SHORTLIST, SOS_ID, ContextualConfig, HotwordConfig, SanmDecoderConfig, SeacoConfig
from paraformer.model.decoder import FinalFeedForward, SanmDecoderBlock
from paraformer.model.layers import layer_norm


class HotwordEncoder(nn.Module):
    """A row for each hotword: the last output of an LSTM over its embedded tokens."""

    def __init__(self, config: HotwordConfig, vocab_size: int, dim: int) -> None:
        super().__init__()
        both, own = False, False
        match config:
            case SeacoConfig():
                both = config.bidirectional
            case ContextualConfig():
                own = config.own_embedding
        self.embed = nn.Embedding(vocab_size, dim) if own else None
        self.lstm = nn.LSTM(dim, dim, config.recurrent_layers, batch_first=True, bidirectional=both)
        self.project = nn.Linear(2 * dim, dim) if both else None

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """embedded (N, M, D) of which lengths (N,) rows are present, at least one of each -> (N, D)."""
        # Packed, so that the LSTM never reads padding: the row of a hotword is the same in every list.
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        # Of both directions the output at the last token, as the reference takes it; the one that comes from behind has
        # read no other token by then.
        last = (lengths - 1)[:, None, None].expand(-1, 1, outputs.shape[2])
        rows: Tensor = outputs.gather(1, last).squeeze(1)
        return rows if self.project is None else self.project(rows)


class Seaco(HotwordEncoder):
    """The second decoder, and the choice between the two."""

    def __init__(self, config: SeacoConfig, vocab_size: int, dim: int) -> None:
        super().__init__(config, vocab_size, dim)
        self.config = config
        shared = ("heads", "ffn_dim", "layers", "attention_layers", "kernel", "shift", "dropout", "attention_dropout")
        inner = SanmDecoderConfig(**{name: getattr(config, name) for name in shared})
        self.blocks = nn.ModuleList(
            SanmDecoderBlock(inner, dim, dim, cross=index < inner.attention_layers) for index in range(inner.layers)
        )
        self.final = FinalFeedForward(inner, dim)
        self.norm = layer_norm(dim)
        self.output = nn.Linear(dim, vocab_size)

    def attend(self, x: Tensor, hotwords: Tensor, token_mask: Tensor | None) -> Tensor:
        """Rows x (B, L, D) through the second decoder over hotwords (B or 1, N, D)."""
        for block in self.blocks:
            x, _ = block(x, self._nothing_before(x), hotwords, None, token_mask)
        rows: Tensor = self.norm(self.final(x))
        return rows

    def scores(self, embeds: Tensor, rows: Tensor, hotwords: Tensor, token_mask: Tensor | None) -> Tensor:
        """Scores (B, L, V): acoustic vectors and the first decoder's rows, both (B, L, D), each ask for hotwords."""
        # One decoder for two questions, what a token sounds like and what the first decoder made of it; the answers add
        # up.
        heard = self.attend(embeds, hotwords, token_mask)
        logits: Tensor = self.output(heard + self.attend(rows, hotwords, token_mask))
        return logits

    def attention(self, rows: Tensor, hotwords: Tensor, token_mask: Tensor) -> Tensor:
        """How much an utterance's tokens attend to each hotword, (B, N): hotwords (1, N, D), token_mask (B, L)."""
        x = rows
        # Up to the shares of the last attention and no further: what it makes of them is not asked for here.
        last = self.config.attention_layers - 1
        for block in self.blocks[:last]:
            x, _ = block(x, self._nothing_before(x), hotwords, None, token_mask)
        block = self.blocks[last]
        assert isinstance(block, SanmDecoderBlock)
        x, _ = block.remember(x, self._nothing_before(x), token_mask)
        shares = block.shares(x, hotwords)
        summed: Tensor = (shares * token_mask[:, None, :, None].to(shares.dtype)).sum((1, 2))
        return summed

    def _nothing_before(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.config.kernel - 1, x.shape[2])


def shortlist(hotwords: Tensor, attention: Tensor, most: int = SHORTLIST) -> Tensor:
    """The rows that each utterance chooses from: hotwords (N, D), attention (B, N) -> (B, K + 1, D).

    The K = min(most, N - 1) that are attended to most, and the last, "none of them", which may be among these too. The
    reference looks at the first utterance of a batch and takes its choice for all (docs/quirks.md).
    """
    chosen = attention.topk(min(most, len(hotwords) - 1), dim=-1).indices
    none = torch.full_like(chosen[:, :1], len(hotwords) - 1)
    return hotwords[torch.cat([chosen, none], 1)]


def merge(plain: Tensor, biased: Tensor, no_bias_id: int, weight: float = 1.0) -> Tensor:
    """Log-probabilities (B, L, V) of the two decoders, of each token those of one: the second's where it hears a word.

    weight: below 1, the second's are mixed with the first's and are no log-probabilities any more.
    """
    # Its own best item decides, token by token, so there is no threshold that somebody would have to choose.
    none = biased.argmax(-1, keepdim=True) == no_bias_id
    return torch.where(none, plain, plain * (1 - weight) + biased * weight)


def hotword_labels(targets: Tensor, words: Sequence[Sequence[int]], none: int) -> Tensor:
    """What the second decoder is to say of targets (B, L): the token where it is in one of the words, else `none`.

    Padding stays -1. A word counts wherever it is said, not only where the reference drew it.

    >>> hotword_labels(torch.tensor([[5, 6, 7, 8], [6, 7, 6, -1]]), [[6, 7]], 0).tolist()
    [[0, 6, 7, 0], [6, 7, 0, -1]]
    """
    within = torch.zeros_like(targets, dtype=torch.bool)
    for word in words:
        if len(word) <= targets.shape[1]:
            starts = (targets.unfold(1, len(word), 1) == targets.new_tensor(word)).all(-1)
            # A start tells of every token of the word: marked once for each place in it.
            for place in range(len(word)):
                within[:, place : place + starts.shape[1]] |= starts
    return torch.where(within | (targets < 0), targets, torch.full_like(targets, none))


def padded_ids(words: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Hotwords as ids, with "none of them" after the last: (N, M) padded with 0, and their lengths (N,).

    >>> padded_ids([[7, 8]])[0].tolist()
    [[7, 8], [1, 0]]
    """
    # "None of them" is <s> alone, which is in no text and so can be no hotword.
    listed = [*words, [SOS_ID]]
    lengths = torch.tensor([len(word) for word in listed])
    ids = torch.zeros(len(listed), int(lengths.max()), dtype=torch.int64)
    for index, word in enumerate(listed):
        ids[index, : len(word)] = torch.tensor(word)
    return ids, lengths
