from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.evaluate.cer import ErrorCounts, align, count_edits, count_errors, mark, nearest, total_errors

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


@given(reference=CHINESE, hypothesis=CHINESE)
def test_an_alignment_holds_both_texts_and_every_edit(reference: str, hypothesis: str) -> None:
    cells = align(reference, hypothesis)
    assert ("".join(cell[0] for cell in cells), "".join(cell[1] for cell in cells)) == (reference, hypothesis)
    marks = [mark(cell) for cell in cells]
    counts = count_edits(reference, hypothesis)
    assert [marks.count(letter) for letter in "SDI"] == [counts.substitutions, counts.deletions, counts.insertions]
    assert counts.edits == len(marks) - marks.count(" ")


@given(st.lists(st.tuples(CHINESE, CHINESE), max_size=5))
def test_totals_are_sums(pairs: list[tuple[str, str]]) -> None:
    total = total_errors(pairs)
    assert total.characters == sum(len(reference) for reference, _ in pairs)
    assert total.substitutions == sum(count_errors(*pair).substitutions for pair in pairs)


def test_of_several_readings_the_nearest_two_are_compared() -> None:
    assert nearest(["一二零", "一百二十"], ["一百二十"]) == ("一百二十", "一百二十")
    assert nearest(["一二零", "一百二十"], ["二零"]) == ("一二零", "二零")


def test_rates() -> None:
    assert ErrorCounts(1, 1, 0, 8).cer == 0.25
    assert ErrorCounts(0, 0, 0, 0).cer == 0.0
    assert ErrorCounts(0, 0, 2, 0).cer == 1.0
    assert "25.00 %" in str(ErrorCounts(1, 1, 0, 8))
