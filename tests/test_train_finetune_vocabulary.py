"""New characters: rows of their own, and not a bit of the others changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from training import MODEL
from training import TEXTS as SPOKEN

from paraformer.bundle import Bundle
from paraformer.checkpoint import native, strict
from paraformer.config import ConformerEncoderConfig, ModelConfig, ObjectiveConfig, TransformerDecoderConfig
from paraformer.data.dataset import Symbols
from paraformer.data.prepare import UNKNOWN
from paraformer.model.objective import Batch
from paraformer.model.paraformer import Paraformer
from paraformer.text import Vocabulary
from paraformer.train.adapt import extend_rows, extend_tokens
from paraformer.train.speech import Setup, initial_weights

CHARACTERS = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x4E40), max_size=12)
CTC = dataclasses.replace(tiny.config(), objective=ObjectiveConfig(ctc_weight=0.3))
LARGE = ModelConfig(
    vocab_size=len(tiny.TOKENS),
    encoder=ConformerEncoderConfig(dim=16, heads=2, ffn_dim=24, layers=1),
    decoder=TransformerDecoderConfig(heads=2, ffn_dim=24, layers=1),
)


def extended(model: Paraformer, texts: list[str]) -> tuple[Paraformer, tuple[str, ...]]:
    tokens = extend_tokens(tiny.TOKENS, {}, texts).tokens
    config = dataclasses.replace(model.config, vocab_size=len(tokens))
    larger = strict.skeleton(config)
    shapes = {name: tensor.shape for name, tensor in larger.state_dict().items()}
    weights = extend_rows(model.state_dict(), shapes, tiny.TOKENS, tokens)
    return strict.fill(larger, weights, {name: name for name in shapes}, "a test"), tokens


@given(st.lists(CHARACTERS, max_size=4))
def test_all_texts_become_known_and_old_tokens_keep_their_order(texts: list[str]) -> None:
    result = extend_tokens(tiny.TOKENS, {}, texts)
    assert result.tokens[-1] == UNKNOWN
    assert [token for token in result.tokens if token not in result.added] == list(tiny.TOKENS)
    symbols = Symbols(Vocabulary(result.tokens))
    assert all(UNKNOWN not in map(symbols.vocabulary.token, symbols.encode(text)) for text in texts)
    assert extend_tokens(result.tokens, {}, texts).added == (), "once is enough"


@given(st.lists(CHARACTERS, min_size=1, max_size=3), st.sampled_from([tiny.config(), CTC, LARGE]))
def test_scores_of_old_tokens_stay_what_they_were(texts: list[str], config: ModelConfig) -> None:
    torch.manual_seed(len(texts))
    model = Paraformer(config).eval()
    larger, tokens = extended(model, texts)
    place = torch.tensor([tokens.index(token) for token in tiny.TOKENS])
    feats, lengths = torch.randn(2, 40, config.frontend.input_dim), torch.tensor([40, 31])
    with torch.no_grad():
        before, after = (one.encode(feats, lengths) for one in (model, larger))
        assert torch.equal(before.hidden, after.hidden)
        assert torch.equal(before.weights, after.weights)
        embeds, mask = torch.randn(2, 5, config.encoder.dim), torch.ones(2, 5, dtype=torch.bool)
        scores = [m.decode(e, e.weights, embeds, mask, None) for m, e in ((model, before), (larger, after))]
    torch.testing.assert_close(scores[1][..., place], scores[0], rtol=0, atol=1e-6)
    assert bool((scores[1].argmax(-1)[..., None] == place).any(-1).all()), "a new token is not recognised untaught"


def test_rows_are_the_same_bits_and_the_mean_for_what_is_new() -> None:
    torch.manual_seed(0)
    model = Paraformer(CTC)
    larger, tokens = extended(model, ["龙"])
    old, new, place = model.state_dict(), larger.state_dict(), tokens.index("龙")
    by_token = {"decoder.embed.weight", "decoder.output.weight", "decoder.output.bias", "ctc.weight", "ctc.bias"}
    for name, tensor in old.items():
        if name in by_token:
            assert torch.equal(torch.cat([new[name][:place], new[name][place + 1 :]]), tensor)
            torch.testing.assert_close(new[name][place], tensor.mean(0))
        else:
            assert new[name] is tensor or torch.equal(new[name], tensor)


def test_word_pieces_learn_characters_too() -> None:
    words = {"hello": ("hel@@", "lo")}
    result = extend_tokens(tiny.TOKENS, words, ["龙〇hello 3", "ok"])
    assert result.added == ("k", "o", "〇", "龙"), "hello has pieces, ok must be spelt, digits are read in many ways"
    assert result.words["hello"] == ("hel@@", "lo")
    vocabulary = Vocabulary(result.tokens, result.words)
    encoded = Symbols(vocabulary).encode("〇龙hello龙")
    assert list(map(vocabulary.token, encoded)) == ["〇", "龙", "hel@@", "lo", "龙"]


def test_a_token_list_without_unknown_is_extended_at_its_end() -> None:
    assert extend_tokens(("<blank>", "<s>", "</s>", "一"), {}, ["一二"]).tokens[3:] == ("一", "二")


def test_a_run_starts_from_the_bundle_without_ctc_of_other_units(tmp_path: Path) -> None:
    syllables = dataclasses.replace(CTC, objective=ObjectiveConfig(ctc_weight=0.3, ctc_units=7))
    torch.manual_seed(0)
    model = Paraformer(syllables)
    native.save(Bundle(None, syllables, tiny.TOKENS, tiny.engine().frontend.cmvn), model, tmp_path)
    tokens = extend_tokens(tiny.TOKENS, {}, SPOKEN).tokens
    plain = dataclasses.replace(tiny.config(), vocab_size=len(tokens), objective=MODEL.objective)
    plain = dataclasses.replace(plain, objective=ObjectiveConfig())
    weights = initial_weights(str(tmp_path), Setup(plain, tokens, {}, tiny.engine().frontend.cmvn))
    Paraformer(plain).load_state_dict(weights)
    assert not any(name.startswith("ctc") for name in weights)


def test_a_batch_of_new_characters_trains_their_rows() -> None:
    torch.manual_seed(0)
    larger, tokens = extended(Paraformer(CTC), ["龙"])
    place = tokens.index("龙")
    feats, lengths = torch.randn(1, 30, larger.config.frontend.input_dim), torch.tensor([30])
    larger(Batch(feats, lengths, torch.tensor([[place]]), torch.tensor([1]))).total.backward()
    assert bool((larger.decoder.output.weight.grad[place] != 0).any())
