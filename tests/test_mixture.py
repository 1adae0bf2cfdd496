"""The language model of several texts: its formula, proper distributions, weights that suit, and what is kept."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from paraformer.bundle import Bundle
from paraformer.cli import main
from paraformer.config import SOS_ID
from paraformer.errors import DataError
from paraformer.language import LanguageModel
from paraformer.mixture import Counts, Weights, mixed, tune

SIZE = 9
SENTENCES = st.lists(st.lists(st.integers(3, SIZE - 1), min_size=1, max_size=8), min_size=1, max_size=10)
TEXTS = st.lists(SENTENCES, min_size=1, max_size=3)
WORDS = np.arange(SIZE)
Sentences = list[list[int]]


def log_probability(model: LanguageModel, sentences: Sentences) -> float:
    """Mean over the items of sentences."""
    found = []
    for sentence in sentences:
        ids = np.array([SOS_ID, SOS_ID, *sentence])
        found += [
            model.log_probs(ids[i : i + 1], ids[i + 1 : i + 2], ids[i + 2 : i + 3]).item() for i in range(len(sentence))
        ]
    return float(np.mean(found))


def by_hand(texts: list[Sentences], weights: Weights, history: tuple[int, int], word: int) -> float:
    """The formula of the module, item by item."""
    a, (two, three) = weights.texts, weights.discounts
    grams = [
        Counter((u, v, w) for s in text for u, v, w in zip([1, 1, *s], [1, *s], s, strict=False)) for text in texts
    ]
    pairs = [Counter({(v, w): n for (u, v, w), n in gram.items() if v == 1}) for gram in grams]
    for gram, pair in zip(grams, pairs, strict=True):
        pair.update((v, w) for u, v, w in gram if v != 1)
    singles = [Counter(w for _, w in pair) for pair in pairs]
    floor = 0.5 * a.mean()
    p = sum(x * single[word] for x, single in zip(a, singles, strict=True)) + floor
    p /= sum(x * single.total() for x, single in zip(a, singles, strict=True)) + floor * SIZE
    trigrams = [Counter({key: n for key, n in gram.items() if key[1] != 1}) for gram in grams]
    for tables, discount, context in ((pairs, two, history[1:]), (trigrams, three, history)):
        total = mass = left = 0.0
        for x, table in zip(a, tables, strict=True):
            after = {key: n for key, n in table.items() if key[:-1] == context}
            total += x * sum(after.values())
            mass += x * max(after.get((*context, word), 0) - discount, 0)
            left += x * discount * len(after)
        p = (mass + left * p) / total if total else p
    return p


@given(TEXTS, st.integers(0, 9))
@settings(max_examples=30)
def test_the_formula(texts: list[Sentences], seed: int) -> None:
    weights = Weights(np.random.default_rng(seed).uniform(0.1, 2, len(texts)), (0.6, 0.9))
    model = mixed([Counts.of(text, SIZE) for text in texts], weights, 1.0)
    for older, newer in ((SOS_ID, SOS_ID), (SOS_ID, 3), (3, 4), (4, 4), (8, 3)):
        got = np.exp(model.log_probs(np.array([older]), np.array([newer]), WORDS))[0]
        expected = [by_hand(texts, weights, (older, newer), word) for word in WORDS]
        np.testing.assert_allclose(got, expected, rtol=5e-3, atol=1e-5)  # the tables are kept in 16 bits


@given(TEXTS, st.floats(0.02, 0.0205))
@settings(max_examples=30)
def test_distributions_sum_to_one_whatever_is_cut(texts: list[Sentences], megabytes: float) -> None:
    model = mixed([Counts.of(text, SIZE) for text in texts], Weights(np.ones(len(texts))), megabytes)
    older, newer = (axis.ravel() for axis in np.meshgrid(WORDS, WORDS))
    np.testing.assert_allclose(np.exp(model.log_probs(older, newer, WORDS)).sum(-1), 1, atol=2e-2)


@given(TEXTS, SENTENCES)
@settings(max_examples=30)
def test_the_perplexity_is_that_of_the_model(texts: list[Sentences], development: Sentences) -> None:
    counts = [Counts.of(text, SIZE) for text in texts]
    weights, perplexity = tune(counts, development)
    assert weights.texts.max() == 1
    assert np.exp(-log_probability(mixed(counts, weights, 1.0), development)) == pytest.approx(perplexity, rel=1e-2)


def texts_of_two_kinds(seed: int, count: int, step: int) -> Sentences:
    """Sentences that mostly go on by `step`."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        item, sentence = int(rng.integers(0, 6)), []
        for _ in range(8):
            item = (item + step) % 6 if rng.random() < 0.8 else int(rng.integers(0, 6))
            sentence.append(item + 3)
        made.append(sentence)
    return made


def test_what_is_like_the_development_text_counts_more() -> None:
    """Added up, the larger text would drown the one that fits."""
    texts = [texts_of_two_kinds(1, 2000, step=1), texts_of_two_kinds(2, 100, step=2)]
    development, measured = texts_of_two_kinds(3, 50, step=2), texts_of_two_kinds(4, 200, step=2)
    counts = [Counts.of(text, SIZE) for text in texts]
    weights, _ = tune(counts, development)
    assert weights.texts[1] > 3 * weights.texts[0]
    pooled = LanguageModel.count([sentence for text in texts for sentence in text], SIZE)
    gained = log_probability(mixed(counts, weights, 1.0), measured) - log_probability(pooled, measured)
    assert gained > 0.2


def test_what_is_kept_is_worth_most() -> None:
    """Half the room costs little, and no more is taken than there is."""
    text = texts_of_two_kinds(1, 3000, step=1)
    counts, weights = [Counts.of(text, SIZE)], Weights(np.ones(1))
    whole = mixed(counts, weights, 1.0)
    entries = 8 * whole.bigrams + 4 * whole.trigrams
    room = (entries / 2 + 20_000 + 10 * SIZE) / 1e6
    half = mixed(counts, weights, room)
    assert 0.3 * entries < 8 * half.bigrams + 4 * half.trigrams <= entries / 2
    assert log_probability(half, text) > log_probability(whole, text) - 0.02


def test_nothing_to_count() -> None:
    empty, some = Counts.of([], SIZE), Counts.of([[3, 4]], SIZE)
    with pytest.raises(DataError, match="the texts hold no character"):
        mixed([empty], Weights(np.ones(1)), 1.0)
    with pytest.raises(DataError, match="the development text holds no character"):
        tune([some], [[]])
    assert tune([some, empty], [[3]])[1] < SIZE


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "model"
    shutil.copytree(tiny_bundle.directory(), directory)
    for name, text in (("news", "一丁七\n" * 50), ("talk", "七丁一\n" * 5), ("dev", "七丁一，七丁\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = ["lm", str(directory), str(tmp_path / "news"), str(tmp_path / "talk"), "--dev", str(tmp_path / "dev")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "talk: 15 items, weight 1\n" in told
    assert "perplexity of the development text" in told
    Bundle.open(directory).verify()
    (tmp_path / "dev").write_text("\n", encoding="utf-8")
    assert main([*command, "--overwrite"]) == 1
    assert "the development text holds no character" in capsys.readouterr().err
