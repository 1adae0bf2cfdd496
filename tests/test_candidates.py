"""Candidates of tokens: the best items in order, the same in compiled code and in numpy, with a lexicon and without."""

from __future__ import annotations

import os
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer import native
from paraformer.candidates import CANDIDATES, IMPOSSIBLE, Candidates
from paraformer.lexicon import Lexicon

compiled = pytest.mark.skipif(native.code() is None, reason="there is no compiled code here")
TOKENS, SIZES, SEEDS = st.integers(0, 4), st.integers(3, 300), st.integers(0, 1000)


def by_numpy(*given_: object) -> Candidates:
    with patch.dict(os.environ, {native.SWITCH: "none"}):
        return Candidates.of(*given_)  # type: ignore[arg-type]


def readings(size: int, units: int, seed: int) -> Lexicon:
    rng = np.random.default_rng(seed)
    pairs = zip(rng.integers(0, size, 2 * size).tolist(), rng.integers(1, units, 2 * size).tolist(), strict=True)
    lexicon = Lexicon.count(pairs, size, units)
    assert lexicon is not None
    return lexicon


@pytest.mark.parametrize("way", [pytest.param(Candidates.of, marks=compiled), by_numpy])
@given(TOKENS, SIZES, SEEDS, st.booleans())
def test_they_are_the_best_in_order_and_of_equal_ones_the_first(way, tokens, size, seed, coarse) -> None:
    scores = 3 * np.random.default_rng(seed).normal(size=(tokens, size)).astype(np.float32)
    scores = scores.round() if coarse else scores
    found, count = way(scores), min(size, CANDIDATES)
    np.testing.assert_array_equal(found.ids[:, :count], (-scores).argsort(axis=1, kind="stable")[:, :count])
    exact = scores.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
    np.testing.assert_allclose(
        found.log_probs[:, :count], np.take_along_axis(exact, found.ids, 1)[:, :count], atol=1e-5
    )
    assert not found.ids[:, count:].any()
    assert (found.log_probs[:, count:] == IMPOSSIBLE).all()


@compiled
@given(TOKENS, SIZES, st.integers(2, 90), SEEDS)
def test_compiled_code_chooses_what_numpy_chooses(tokens: int, size: int, units: int, seed: int) -> None:
    """What differs by rounding alone may change places."""
    rng, lexicon = np.random.default_rng(seed), readings(size, units, seed)
    scores = 5 * rng.normal(size=(tokens, size)).astype(np.float32)
    heard = 5 * rng.normal(size=(tokens, units)).astype(np.float32)
    got, expected = Candidates.of(scores, heard, lexicon), by_numpy(scores, heard, lexicon)
    np.testing.assert_allclose(got.log_probs, expected.log_probs, atol=1e-5)
    every = lexicon.scores(scores, heard).astype(np.float64)
    every -= np.log(np.exp(every).sum(-1, keepdims=True))
    count = min(size, CANDIDATES)
    np.testing.assert_allclose(np.take_along_axis(every, got.ids, 1)[:, :count], got.log_probs[:, :count], atol=1e-5)
    assert all(len(set(ids)) == count for ids in got.ids[:, :count].tolist())


@pytest.mark.parametrize("way", [pytest.param(Candidates.of, marks=compiled), by_numpy])
def test_how_scores_lie_in_memory_changes_nothing(way) -> None:
    scores = np.random.default_rng(3).normal(size=(4, 40)).astype(np.float32)
    expected = way(scores)
    assert len(expected) == 4
    for other in (np.asfortranarray(scores), np.repeat(scores, 2, axis=1)[:, ::2], scores[::-1][::-1]):
        got = way(other)
        np.testing.assert_array_equal(got.ids, expected.ids)
        np.testing.assert_allclose(got.log_probs, expected.log_probs, atol=1e-6)


@compiled
def test_scores_as_far_apart_as_can_be_are_numbers() -> None:
    scores = np.array([[0, -1e30, -100, 88], [-1e30, -1e30, -1e30, -1e30]], np.float32)
    lexicon = readings(4, 3, 0)
    units = np.array([[-1e30, 0, 1e30], [0, 0, 0]], np.float32)
    for given_ in ((scores,), (scores, units, lexicon)):
        got, expected = Candidates.of(*given_), by_numpy(*given_)
        np.testing.assert_allclose(got.log_probs, expected.log_probs, rtol=1e-6, atol=1e-5)
        np.testing.assert_array_equal(got.ids, expected.ids)


@pytest.mark.parametrize("way", [pytest.param(Candidates.of, marks=compiled), by_numpy])
def test_a_lexicon_of_more_items_or_units_than_there_are_is_refused(way) -> None:
    lexicon = readings(9, 5, 0)
    for size, units in ((8, 5), (9, 4)):
        with pytest.raises(IndexError):
            way(np.zeros((1, size), np.float32), np.zeros((1, units), np.float32), lexicon)
