from __future__ import annotations

import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.errors import MissingExtra
from paraformer.evaluate.normalise import PLAIN, Normalizer, written

NORMALIZERS = pytest.mark.parametrize("normalizer", [PLAIN, Normalizer(), Normalizer(erhua=False)])

ALPHABET = st.sampled_from(
    "0123456789年月日点分元个人第百千万亿两二三十零儿女花玩事周：，。:/-+~.,%$¥€° １２ＡabckgKG×=“"
)
TEXTS = st.text(max_size=12) | st.text(ALPHABET, max_size=12)


def chinese(text: str) -> Counter[str]:
    return Counter(c for c in text if "\u4e00" <= c <= "\u9fff")


@NORMALIZERS
@given(text=TEXTS)
def test_normalising_twice_is_normalising_once(normalizer: Normalizer, text: str) -> None:
    once = normalizer(text)
    assert normalizer(once) == once


@given(text=TEXTS)
def test_no_chinese_character_is_lost(text: str) -> None:
    had = chinese(text.replace("幺", "一"))
    for normalizer in (PLAIN, Normalizer()):
        assert not had - chinese(normalizer(text))
    assert set(had - chinese(Normalizer(erhua=False)(text))) <= {"儿"}


@given(text=TEXTS)
def test_only_letters_of_one_width_and_case_remain(text: str) -> None:
    spoken = Normalizer()(text)
    assert not set("0123456789ＡＢ１２ABC，。 ：%“") & set(spoken)
    assert spoken == written(spoken)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("我有120块钱", "我有一百二十块钱"),
        ("２０２６年１１月", "二零二六年十一月"),
        ("2026 年", "二零二六年"),
        ("增长3.5%", "增长百分之三点五"),
        ("第1，200人", "第一两百人"),
        ("1,200人", "一千二百人"),
        ("10:30开会", "十点三十分开会"),
        ("打13812345678", "打一三八一二三四五六七八"),
        ("ＡＢＣ，abc。", "abcabc"),
        ("幺三〇", "一三零"),
        ("5G网络", "五g网络"),
        ("37℃", "三十七摄氏度"),
        ("一百二十", "一百二十"),
    ],
)
def test_what_is_spoken(text: str, spoken: str) -> None:
    assert Normalizer()(text) == spoken


@pytest.mark.parametrize(("text", "reading"), [("120", "一百二十"), ("120", "一二零"), ("2026", "二零二六")])
def test_a_number_has_several_readings(text: str, reading: str) -> None:
    assert reading in Normalizer().readings(text)


def test_plain_rules_read_digit_by_digit() -> None:
    assert PLAIN("２０２６年！") == "二零二六年"
    assert PLAIN.readings("120") == ("一二零",)


@pytest.mark.parametrize(("text", "dropped"), [("在玩儿", "在玩"), ("女儿和儿子", "女儿和儿子"), ("一会儿", "一会")])
def test_erhua_is_a_choice(text: str, dropped: str) -> None:
    assert Normalizer()(text) == text
    assert Normalizer(erhua=False)(text) == dropped


def test_the_library_is_needed_for_figures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from paraformer.evaluate import normalise

    normalise._reader.cache_clear()
    monkeypatch.setitem(sys.modules, "wetext", None)
    assert Normalizer()("今天ＡＢ。") == "今天ab"
    with pytest.raises(MissingExtra, match="evaluate"):
        Normalizer()("3个")
