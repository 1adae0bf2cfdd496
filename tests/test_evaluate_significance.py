from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.errors import DataError
from paraformer.evaluate.cer import ErrorCounts
from paraformer.evaluate.significance import cer_interval, compare

COUNTS = st.lists(
    st.builds(ErrorCounts, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(1, 20)),
    min_size=1,
    max_size=30,
)


def drawn(rate: float, seed: int, utterances: int = 300) -> list[ErrorCounts]:
    rng = np.random.default_rng(seed)
    return [ErrorCounts(int(n), 0, 0, 20) for n in rng.binomial(20, rate, utterances)]


@given(COUNTS)
def test_an_interval_has_its_ends_in_order_within_what_occurs(counts: list[ErrorCounts]) -> None:
    interval = cer_interval(counts, draws=200)
    rates = [one.cer for one in counts]
    assert min(rates) <= interval.low <= interval.high <= max(rates) + 1e-12


@given(COUNTS, st.integers(0, 5))
def test_the_seed_decides(counts: list[ErrorCounts], seed: int) -> None:
    assert cer_interval(counts, draws=50, seed=seed) == cer_interval(counts, draws=50, seed=seed)


@given(COUNTS)
def test_a_model_is_not_better_than_itself(counts: list[ErrorCounts]) -> None:
    same = compare(counts, counts, draws=100)
    assert (same.change.low, same.change.high, same.probability_better) == (0.0, 0.0, 0.5)
    assert same.verdict == "not distinguishable"


@given(COUNTS, COUNTS)
def test_comparing_the_other_way_round_turns_the_sign(first: list[ErrorCounts], second: list[ErrorCounts]) -> None:
    size = min(len(first), len(second))
    there, back = compare(first[:size], second[:size], draws=100), compare(second[:size], first[:size], draws=100)
    assert (there.change.low, there.change.high) == pytest.approx((-back.change.high, -back.change.low))
    assert there.probability_better == pytest.approx(1 - back.probability_better)


def test_the_interval_covers_the_true_rate_about_as_often_as_it_says() -> None:
    intervals = [cer_interval(drawn(0.2, seed), draws=400) for seed in range(60)]
    assert 50 <= sum(one.low <= 0.2 <= one.high for one in intervals) <= 60


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    counts = drawn(0.2, seed=1)
    rates = np.array([one.cer for one in counts])
    half = 1.96 * rates.std() / np.sqrt(len(rates))
    interval = cer_interval(counts)
    assert (interval.low, interval.high) == pytest.approx((rates.mean() - half, rates.mean() + half), abs=5e-4)


def test_verdicts() -> None:
    before = drawn(0.30, seed=1)
    better = compare(before, drawn(0.20, seed=2))
    assert better.verdict == "better" and better.probability_better > 0.999
    assert "the second is better" in str(better) and "points of CER" in str(better)
    assert compare(drawn(0.20, seed=2), before).verdict == "worse"
    assert compare(before, drawn(0.30, seed=3)).verdict == "not distinguishable"


def test_pairing_shows_what_separate_intervals_would_hide() -> None:
    rng = np.random.default_rng(0)
    hard = rng.integers(0, 15, 200)
    before = [ErrorCounts(int(n) + 1, 0, 0, 20) for n in hard]
    after = [ErrorCounts(int(n) + int(rng.random() < 0.6), 0, 0, 20) for n in hard]
    first, second = cer_interval(before), cer_interval(after)
    assert first.low < second.high  # they overlap
    assert compare(before, after).verdict == "better"


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(DataError, match="no reference characters"):
        cer_interval([])
    with pytest.raises(DataError, match="no reference characters"):
        cer_interval([ErrorCounts(0, 0, 2, 0)])
    with pytest.raises(DataError, match="2 utterances cannot be compared with 1"):
        compare([ErrorCounts(0, 0, 0, 3)] * 2, [ErrorCounts(0, 0, 0, 3)])
