"""The lexicon: shares that sum to one, scores that are probabilities of both kinds, and files looked at first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.candidates import Candidates
from paraformer.errors import ModelError
from paraformer.language import LanguageModel
from paraformer.lexicon import ARRAYS, BY_UNITS, FLATTENED, LEAST, Lexicon

SIZE, UNITS = 9, 5
READINGS = st.lists(st.tuples(st.integers(3, SIZE - 1), st.integers(0, UNITS - 1)), min_size=1, max_size=40).filter(
    lambda pairs: any(unit for _, unit in pairs)
)


def counted(pairs: list[tuple[int, int]]) -> Lexicon:
    lexicon = Lexicon.count(pairs, SIZE, UNITS)
    assert lexicon is not None
    return lexicon


def log_softmax(scores: np.ndarray) -> np.ndarray:
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


@given(READINGS)
def test_shares_of_a_unit_sum_to_one(pairs: list[tuple[int, int]]) -> None:
    arrays = counted(pairs).arrays
    sums = np.bincount(arrays["reading_unit"], arrays["reading_share"].astype(np.float64), minlength=UNITS)
    heard = {unit for _, unit in pairs if unit}
    np.testing.assert_allclose(sums, [float(unit in heard) for unit in range(UNITS)], atol=1e-2)
    assert Lexicon.fits(arrays, SIZE, UNITS)


@given(READINGS, st.integers(0, 5), st.integers(0, 1000))
def test_scores_are_the_formula(pairs: list[tuple[int, int]], tokens: int, seed: int) -> None:
    rng, lexicon = np.random.default_rng(seed), counted(pairs)
    scores = rng.normal(size=(tokens, SIZE)).astype(np.float32)
    units = rng.normal(size=(tokens, UNITS)).astype(np.float32)
    expected, heard = log_softmax(scores.astype(np.float64)), np.exp(log_softmax(units.astype(np.float64)))
    table = np.zeros((SIZE, UNITS))
    np.add.at(table, tuple(np.array([pair for pair in pairs if pair[1]]).T), 1)
    shares = table / np.maximum(table.sum(0), 1)
    for item in np.flatnonzero(table.sum(1)):
        spoken = heard @ shares[item] ** FLATTENED
        expected[:, item] = (1 - BY_UNITS) * expected[:, item] + BY_UNITS * np.log(spoken + LEAST)
    np.testing.assert_allclose(lexicon.scores(scores, units), expected, atol=5e-3)  # shares are kept in 16 bits


def test_what_was_never_read_has_no_lexicon() -> None:
    assert Lexicon.count([], SIZE, UNITS) is None
    assert Lexicon.count([(4, 0)], SIZE, UNITS) is None


def test_a_language_model_offers_what_sounds_as_heard() -> None:
    """The decoder takes 6 for 5; both sound as unit 1, and the history knows 5."""
    ngrams = LanguageModel.count([[3, 4, 5]] * 5 + [[6, 4, 7]], SIZE)
    model = ngrams.reading(counted([(5, 1)] * 9 + [(6, 1), (7, 2), (4, 3)]))
    scores, units = np.zeros((1, SIZE), np.float32), np.zeros((1, UNITS), np.float32)
    scores[0, 7], units[0, 1] = 1, 6
    assert Candidates.of(scores).ids[0, 0] == 7
    assert set(model.candidates(scores, units).ids[0, :2]) == {5, 6}
    np.testing.assert_array_equal(model.candidates(scores).ids, Candidates.of(scores).ids)
    candidates = model.candidates(scores, units)
    assert candidates.chosen(model.best(candidates, (3, 4), weight=0.3))[0] == [5]
    assert np.exp(candidates.log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)


def test_it_is_kept_and_moved_with_the_model(tmp_path: Path) -> None:
    ngrams, lexicon = LanguageModel.count([[3, 4, 5]] * 5, SIZE), counted([(3, 1), (4, 2), (5, 2)])
    model = ngrams.reading(lexicon)
    model.save(tmp_path / "lm")
    again = LanguageModel.open(tmp_path / "lm", SIZE, UNITS)
    assert again.lexicon is not None
    assert again.fingerprint == model.fingerprint != ngrams.fingerprint == again.reading(None).fingerprint
    for name, array in lexicon.arrays.items():
        np.testing.assert_array_equal(again.lexicon.arrays[name], array)
    places = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9])
    moved = model.moved(places, SIZE + 1)
    assert moved.lexicon is not None
    assert moved.lexicon.arrays["reading_item"].tolist() == [4, 5, 6]
    with pytest.raises(ModelError, match="not a language model of this vocabulary"):
        LanguageModel.open(tmp_path / "lm", SIZE, 2)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("harm", ["missing", "short", "order", "high", "kind"])
def test_a_damaged_one_is_refused(name: str, harm: str) -> None:
    arrays = counted([(3, 1), (4, 2), (5, 2)]).arrays
    if harm == "missing":
        del arrays[name]
    elif harm == "short":
        arrays[name] = arrays[name][1:]
    elif harm == "kind":
        arrays[name] = arrays[name].astype(np.float64)
    elif harm == "high":
        arrays[name] = (arrays[name] + np.array(UNITS + SIZE)).astype(ARRAYS[name])
    elif name != "reading_item":
        arrays = counted([(3, 1), (3, 2), (4, 2), (4, 3), (5, 4)]).arrays
        arrays[name] = arrays[name][::-1]
    else:
        arrays[name] = arrays[name][::-1]
    assert not Lexicon.fits(arrays, SIZE, UNITS)


def test_nothing_read_and_shares_above_one_are_no_lexicon() -> None:
    arrays = counted([(3, 1), (4, 2)]).arrays
    assert Lexicon.fits(arrays, SIZE, UNITS)
    assert not Lexicon.fits({name: array[:0] for name, array in arrays.items()}, SIZE, UNITS)
    assert not Lexicon.fits(arrays | {"reading_share": np.array([1, 1.5], np.float16)}, SIZE, UNITS)
