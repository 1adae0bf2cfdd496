from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.timestamps import WINDOW_S, CifClock, funasr_timestamps, token_times

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "timestamps.json").read_text())


@st.composite
def speech(draw: st.DrawFn) -> np.ndarray:
    """Weights of up to 60 windows, some of them silent."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    size = draw(st.integers(0, 60))
    return (rng.random(size) * (rng.random(size) < draw(st.floats(0.1, 1)))).astype(np.float32)


def fired(weights: np.ndarray) -> int:
    return int(np.floor(weights.cumsum(dtype=np.float64)[-1:].sum().astype(np.float32)))


# -- laws -------------------------------------------------------------------------------------------------------------


@given(weights=speech(), cuts=st.lists(st.floats(0, 1), max_size=8), tail=st.booleans())
def test_any_chunks_give_the_times_of_the_whole(weights: np.ndarray, cuts: list[float], tail: bool) -> None:
    tokens = fired(weights) + tail
    clock, spans, seen, begun = CifClock(), [], 0, []
    edges = sorted(round(cut * len(weights)) for cut in cuts)
    for start, end in pairwise([0, *edges, len(weights)]):
        count = (fired(weights[:end]) if end < len(weights) else tokens) - seen
        clock = CifClock.from_dict(json.loads(json.dumps(clock.to_dict())))
        spans += clock.push(weights[start:end], count)
        seen += count
        begun.append((len(spans), clock.began_s))
    spans += clock.push(weights[:0], tokens - seen)
    assert spans == token_times(weights, tokens)
    assert all(start >= began for given, began in begun for start, _ in spans[given:])
    assert all(began >= spans[given - 1][0] for given, began in begun if given), "and not much earlier"


@given(weights=speech(), extra=st.integers(0, 2))
def test_times_are_in_order_and_inside(weights: np.ndarray, extra: int) -> None:
    spans = token_times(weights, fired(weights) + extra)
    edges = [time for span in spans for time in span]
    assert edges == sorted(edges)
    assert all(0.0 <= time <= len(weights) * WINDOW_S for time in edges)


@given(weights=speech())
def test_times_are_where_the_running_sum_says(weights: np.ndarray) -> None:
    """From level k to k + 1, at most a window beyond k + 0.1 and k + 0.9; levels count as reached 0.001 earlier."""
    sums = np.concatenate([[0], weights.cumsum(dtype=np.float64)])

    def reached(level: float) -> float:
        at = int(np.searchsorted(sums, max(level - 1e-3, 0)))
        if at == 0:
            return 0.0
        share = (level - 1e-3 - sums[at - 1]) / (sums[at] - sums[at - 1])
        return max(0.0, (at - 1.5 + max(share, 0)) * WINDOW_S)

    for token, (start, end) in enumerate(token_times(weights, fired(weights))):
        first, last = reached(token + 0.1), reached(token + 0.9)
        assert start == pytest.approx(max(reached(token), first - WINDOW_S), abs=1e-9)
        assert end == pytest.approx(min(reached(token + 1), last + WINDOW_S), abs=1e-9)


@given(weights=speech(), offset=st.floats(0, 1e4))
def test_offset(weights: np.ndarray, offset: float) -> None:
    plain = token_times(weights, fired(weights))
    assert token_times(weights, fired(weights), offset_s=offset) == [(s + offset, e + offset) for s, e in plain]


# -- examples ---------------------------------------------------------------------------------------------------------


def test_steady_speech_is_gapless() -> None:
    spans = token_times(np.full(12, 0.25, np.float32), 3)
    assert spans[0][0] == 0.0
    assert all(left[1] == right[0] for left, right in pairwise(spans))
    np.testing.assert_allclose([end for _, end in spans], (np.array([4, 8, 12]) - 0.5) * WINDOW_S, atol=1e-3)


def test_a_token_does_not_stretch_over_the_pause_beside_it() -> None:
    pause, token = np.full(20, 1e-4), np.array([0.25, 0.5, 0.25])
    weights = np.concatenate([pause, token, pause, token, pause]).astype(np.float32)
    for (start, end), centre in zip(token_times(weights, 2), (21 * WINDOW_S, 44 * WINDOW_S), strict=True):
        assert centre - 3 * WINDOW_S < start < centre < end < centre + 3 * WINDOW_S


def test_the_last_token_ends_with_its_weight_not_with_the_audio() -> None:
    weights = np.array([0.5, 0.5, 0.4, 0.4] + [1e-4] * 30, np.float32)
    assert token_times(weights, 2)[-1][1] < 6 * WINDOW_S


@given(share=st.floats(0.15, 0.95), pause=st.integers(0, 5))
def test_a_token_of_the_tail_lasts_a_window_beyond_the_last_tenth_that_it_reached(share: float, pause: int) -> None:
    """At most to the end of the audio."""
    whole = np.full(4, 0.25, np.float32)
    tail = np.array([share, *[0.0] * pause], np.float32)
    start, end = token_times(np.concatenate([whole, tail]), 2)[-1]
    last = 3.5 + (np.floor(10 * (float(tail[0]) + 1e-3)) / 10 - 1e-3) / float(tail[0])
    assert start == pytest.approx((3.5 - 1e-3 / 0.25) * WINDOW_S)
    assert end == pytest.approx(min(4.5 + pause, last + 1) * WINDOW_S)


def test_windows_before_the_stream_count_from_zero() -> None:
    assert CifClock(first_window=-5).push(np.full(5, 0.5, np.float32), 2)[0] == (0.0, 0.0)
    late = CifClock(first_window=-5).push(np.array([0] * 5 + [0.5, 0.5], np.float32), 1)
    assert late == token_times(np.array([0.5, 0.5], np.float32), 1)


def test_other_row_rates() -> None:
    weights = np.full(8, 0.5, np.float32)
    np.testing.assert_allclose(
        token_times(weights, 4, window_s=0.04), np.array(token_times(weights, 4)) * 0.04 / WINDOW_S, atol=1e-9
    )


# -- FunASR's times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_funasr_golden(case: dict[str, Any]) -> None:
    spans = funasr_timestamps(
        np.array(case["alphas"], np.float32),
        np.array(case["peaks"], np.float32),
        case["tokens"],
        offset_ms=case["vad_offset"],
        upsample_rate=case["upsample_rate"],
    )
    assert [list(span) for span in spans] == case["timestamps"]


@pytest.mark.parametrize(
    ("weights", "peaks", "expected"),
    [
        ("alphas", "cif_peak", "timestamp_arguments_in_correct_order"),
        ("cif_peak", "alphas", "timestamp_reference"),  # the reference swaps them
    ],
)
def test_funasr_golden_of_plain_paraformer(weights: str, peaks: str, expected: str) -> None:
    case = json.loads((GOLDEN / "paraformer_pred_timestamp.json").read_text())
    arrays = [np.array(case[name], np.float32) for name in (weights, peaks)]
    spans = funasr_timestamps(arrays[0], arrays[1], case["tokens"], upsample_rate=1)
    assert [list(span) for span in spans] == case[expected]


def test_funasr_takes_the_peaks_that_are_given() -> None:
    """Three per window: 20 ms each, 1.5 of them earlier; a last one far from the end lasts half-way to it."""
    weights, peaks = np.full(40, 0.3, np.float32), np.zeros(40, np.float32)
    peaks[[4, 10, 30]] = 1.0
    spans = [(50, 170), (170, 410)]  # at most 12 frames
    assert funasr_timestamps(weights, peaks, ["a", "b"]) == spans
    assert funasr_timestamps(weights, peaks, ["a", "b", "</s>"]) == spans
    peaks[[30, 14]] = 0.0, 1.0
    assert funasr_timestamps(weights, peaks, ["a", "b"]) == [(50, 170), (170, 525)]
    assert funasr_timestamps(weights[:16], peaks[:16], ["a", "b"]) == [(50, 170), (170, 320)]
    assert funasr_timestamps(weights, peaks, ["a", "b"], offset_ms=100.0)[0] == (150, 270)


def test_funasr_without_tokens() -> None:
    weights = np.full(4, 0.1, np.float32)
    assert funasr_timestamps(weights, weights.cumsum(), []) == []
    assert funasr_timestamps(weights, weights.cumsum(), ["</s>"]) == []
