"""The autoregressive system: steps equal the whole, search finds the best there is, padding changes nothing."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import tiny
import torch
from torch import Tensor

from paraformer.config import EOS_ID, SOS_ID, ObjectiveConfig, SanmEncoderConfig, TransformerDecoderConfig
from paraformer.errors import ConfigError
from paraformer.model.objective import Batch
from recipes.autoregressive import Autoregressive


def model(vocab_size: int = 5) -> Autoregressive:
    torch.manual_seed(2)
    decoder = TransformerDecoderConfig(heads=2, ffn_dim=24, layers=2, dropout=0.0, positional_dropout=0.0)
    encoder = SanmEncoderConfig(dim=16, heads=2, ffn_dim=24, layers=2, kernel=5, dropout=0.0, attention_dropout=0.0)
    config = dataclasses.replace(
        tiny.config(), vocab_size=vocab_size, encoder=encoder, decoder=decoder, live=None, objective=ObjectiveConfig()
    )
    made = Autoregressive(config).eval()
    with torch.no_grad():
        made.decoder.output.weight.mul_(8.0)
    return made


def score(made: Autoregressive, feats: Tensor, ids: list[int]) -> float:
    """Log-probability of ids and then </s>, per token, from the training form."""
    rows = torch.tensor([len(feats)])
    hidden, _ = made.encoder(feats[None], rows)
    said = torch.tensor([[SOS_ID, *ids]])
    causal = torch.ones(1, said.shape[1], said.shape[1], dtype=torch.bool).tril()
    logits = made.decoder(hidden, None, made.decoder.embed_tokens(said), causal)
    log_probs = logits.log_softmax(-1)[0]
    return float(sum(log_probs[i, item] for i, item in enumerate([*ids, EOS_ID]))) / (len(ids) + 1)


@torch.no_grad()
def test_search_with_room_for_all_finds_the_best_hypothesis() -> None:
    made, feats = model(), torch.randn(12, 560, generator=torch.Generator().manual_seed(4))
    items = [i for i in range(5) if i != EOS_ID]
    every = [list(ids) for size in range(3) for ids in itertools.product(items, repeat=size)]
    best = max(every, key=lambda ids: score(made, feats, ids))
    assert made.recognize(feats[None], torch.tensor([12]), beams=64, longest=3)[0] == best


@torch.no_grad()
def test_neighbours_and_padding_change_nothing() -> None:
    made = model(30)
    feats, lengths = torch.randn(3, 20, 560, generator=torch.Generator().manual_seed(5)), torch.tensor([20, 7, 13])
    together = made.recognize(feats, lengths, beams=3, longest=8)
    alone = [made.recognize(feats[i : i + 1, :n], torch.tensor([n]), 3, 8)[0] for i, n in enumerate(lengths.tolist())]
    assert together == alone


def test_it_learns_to_write_what_it_hears() -> None:
    made = model(9).train()
    optimiser = torch.optim.Adam(made.parameters(), lr=1e-2)
    feats, lengths = torch.randn(2, 12, 560, generator=torch.Generator().manual_seed(6)), torch.tensor([12, 9])
    batch = Batch(feats, lengths, torch.tensor([[5, 4, 7], [3, 6, -1]]), torch.tensor([3, 2]))
    for _ in range(60):
        optimiser.zero_grad()
        made(batch).total.backward()
        optimiser.step()
    assert made.eval().recognize(feats, lengths, beams=4) == [[5, 4, 7], [3, 6]]


def test_a_parallel_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="transformer"):
        Autoregressive(tiny.config())
