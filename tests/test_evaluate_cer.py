from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.evaluate.cer import ErrorCounts, count_errors, scored_text, total_errors

CHINESE = st.text("一二三四五", max_size=8)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("今天天气", "今天天气", (0, 0, 0, 4)),
        ("今天天气", "今天气", (0, 1, 0, 4)),
        ("今天", "今天好", (0, 0, 1, 2)),
        ("今天", "明天", (1, 0, 0, 2)),
        ("", "好", (0, 0, 1, 0)),
        ("你好，世界。", "你好世界", (0, 0, 0, 4)),
        ("ABC", "abc", (0, 0, 0, 3)),
        ("幺三", "13", (0, 0, 0, 2)),
    ],
)
def test_hand_made_cases(reference: str, hypothesis: str, counts: tuple[int, int, int, int]) -> None:
    assert count_errors(reference, hypothesis) == ErrorCounts(*counts)


@given(reference=CHINESE, hypothesis=CHINESE)
def test_lengths_add_up(reference: str, hypothesis: str) -> None:
    counts = count_errors(reference, hypothesis)
    assert counts.characters - counts.deletions + counts.insertions == len(hypothesis)
    assert counts.substitutions + counts.deletions <= len(reference)


@given(st.lists(st.tuples(CHINESE, CHINESE), max_size=5))
def test_totals_are_sums(pairs: list[tuple[str, str]]) -> None:
    total = total_errors(pairs)
    assert total.characters == sum(len(reference) for reference, _ in pairs)
    assert total.substitutions == sum(count_errors(*pair).substitutions for pair in pairs)


def test_rates() -> None:
    assert ErrorCounts(1, 1, 0, 8).cer == 0.25
    assert ErrorCounts(0, 0, 0, 0).cer == 0.0
    assert ErrorCounts(0, 0, 2, 0).cer == 1.0
    assert "25.00 %" in str(ErrorCounts(1, 1, 0, 8))
    assert scored_text("２０２６年！") == "二零二六年"
