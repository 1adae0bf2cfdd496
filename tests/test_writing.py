"""Marks and numbers on tokens: nothing that a token has moves to another, whole and live."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from punctuation_goldens import model, tokens

from paraformer.itn import NumberWriter
from paraformer.punctuation import Punctuation
from paraformer.recordings import Draft
from paraformer.subtitles import cues
from paraformer.types import Segment, Token, Transcript
from paraformer.writing import Writer, WritingState, readable, sentences

ITEMS = [*[word for word in tokens() if len(word) == 1 and not word.isascii()][:20], "hel@@", "lo", "a", "b", "<unk>"]


@pytest.fixture(scope="module")
def punctuation(tmp_path_factory: pytest.TempPathFactory) -> Punctuation:
    return model("punc", tmp_path_factory.mktemp("punc"))


def spoken(texts: list[str], gap_s: float = 0.0) -> list[Token]:
    return [Token(text, i * (0.2 + gap_s), i * (0.2 + gap_s) + 0.2, 0.5 + i / 1000) for i, text in enumerate(texts)]


def bare(found: list[Token]) -> list[Token]:
    """As they were heard: without marks, capitals and numbers in digits."""
    apart = [one for token in found for one in (token.spoken or (token,))]
    return [replace(token, text=token.text.lower(), mark="") for token in apart]


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.sampled_from(ITEMS), max_size=60), cut=st.integers(0, 60))
def test_whole_every_token_stays_what_it_was(texts: list[str], cut: int, punctuation: Punctuation):
    heard = spoken(texts)
    written = Writer(punctuation, NumberWriter()).whole([heard[:cut], heard[cut:]])
    flat = [token for one in written for token in one]
    assert bare(flat) == heard
    border = heard[cut].start_s if cut < len(heard) else 99.0
    assert all(token.start_s < border for token in written[0])
    assert all(token.start_s >= border for token in written[1])
    assert not any(token.mark for token in flat if token.text == "<unk>" or token.text.endswith("@@"))
    assert "".join(one.text for one in sentences(flat)).replace(" ", "") in (readable(flat).replace(" ", ""), "")


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.lists(st.sampled_from(ITEMS), max_size=6), max_size=12),
    pauses=st.lists(st.booleans(), min_size=13, max_size=13),
    numbers=st.booleans(),
)
def test_live_every_token_comes_once_and_none_waits_at_the_end(
    steps: list[list[str]], pauses: list[bool], numbers: bool, punctuation: Punctuation
):
    writer = Writer(punctuation, NumberWriter() if numbers else None)
    state, given_out, taken, now_s = WritingState(), [], [], 0.0
    for texts, pause in zip(steps, pauses, strict=False):
        new = [replace(one, start_s=one.start_s + now_s, end_s=one.end_s + now_s) for one in spoken(texts)]
        now_s += 1.2 + pause
        taken += new
        decided, state = writer.step(new, state, now_s=now_s, final=False)
        state = WritingState.from_dict(json.loads(json.dumps(state.to_dict())))
        given_out += decided
        assert not pause or bare(given_out) == taken  # nothing waits beyond a pause
    decided, state = writer.step([], state, now_s=now_s, final=True)
    assert bare([*given_out, *decided]) == taken
    assert not state.waiting
    assert not state.clause


def test_nothing_to_do_changes_nothing():
    heard = spoken(list("今天天气好"))
    writer = Writer()
    assert writer.whole([heard]) == [heard]
    assert writer.step(heard, WritingState(), now_s=0.5, final=False) == (heard, WritingState())
    assert writer.fingerprint is None


def test_a_number_in_digits_keeps_what_was_heard_for_it():
    heard = spoken(list("一共九十七人来了"))
    (written,) = Writer(rewriter=NumberWriter()).whole([heard])
    number = written[2]
    assert readable(written) == "一共97人来了"
    assert (number.text, number.start_s, number.end_s) == ("97", heard[2].start_s, heard[4].end_s)
    assert number.spoken == tuple(heard[2:5])
    assert number.confidence == pytest.approx(sum(one.confidence for one in heard[2:5]) / 3)


@pytest.mark.parametrize(
    ("heard", "gap_s", "texts"),
    [
        (("收入一千", "二百万元"), 0.3, ["收入1200万", "元"]),
        (("百分之", "十五"), 0.0, ["15%"]),
        (("二零", "二五年", "三月"), 0.5, ["2025", "年", "3月"]),
        (("有", "三百", "二十一", "人"), 0.1, ["有", "321", "人"]),
        (("房间三百", "二十个人"), 1.0, ["房间三百", "20个人"]),
    ],
)
def test_a_number_over_the_joint_of_segments_is_one(heard: tuple[str, ...], gap_s: float, texts: list[str]):
    """Detectors cut within numbers; a pause as long as ends a clause does part them."""
    draft, place = Draft("talk"), 0.0
    for text in heard:
        draft.segments.append(
            [replace(one, start_s=place + one.start_s, end_s=place + one.end_s) for one in spoken([*text])]
        )
        place = draft.segments[-1][-1].end_s + gap_s
    told = draft.result(Writer(rewriter=NumberWriter()), None)
    assert isinstance(told, Transcript)
    assert [one.text for one in told.segments] == texts
    flat = [token for one in told.segments for token in one.tokens]
    assert bare(flat) == [token for one in draft.segments for token in one]
    assert all(one.end_s <= following.start_s for one, following in pairwise(told.segments))


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("before", range(31, 44, 4))
def test_a_long_clause_is_not_given_out_in_the_midst_of_a_number(size: int, before: int):
    heard = spoken([*("天" * before + "一千二百三十四万五千六百七十八" + "天" * 60)])
    writer, state, given_out = Writer(rewriter=NumberWriter()), WritingState(), list[Token]()
    for start in range(0, len(heard), size):
        part = heard[start : start + size]
        written, state = writer.step(part, state, now_s=part[-1].end_s, final=False)
        given_out += written
        assert len(state.clause) <= 60
    written, _ = writer.step([], state, now_s=99.0, final=True)
    assert readable([*given_out, *written]) == "天" * before + "12345678" + "天" * 60


def test_a_number_without_an_end_is_given_out_all_the_same():
    writer, state, longest = Writer(rewriter=NumberWriter()), WritingState(), 0
    for token in spoken([*"一二三四五六七八九零"] * 20):
        _, state = writer.step([token], state, now_s=token.end_s, final=False)
        longest = max(longest, len(state.clause))
    assert longest <= 80


def test_marks_end_words_and_keep_their_widths():
    heard = [
        replace(one, mark=mark) for one, mark in zip(spoken(["a", "b", "c", "好"]), ["", "，", "", "。"], strict=True)
    ]
    assert readable(heard) == "AB，c好。"
    words = [
        replace(one, mark=mark) for one, mark in zip(spoken(["hello", "world", "yes"]), [",", ".", ""], strict=True)
    ]
    assert readable(words) == "hello, world. yes"


def test_sentences_go_over_segments_and_subtitles_end_with_them():
    marks = ["", "", "。", "", "，", "", "？"]
    heard = [replace(one, mark=mark) for one, mark in zip(spoken(list("你好吗我很好吧")), marks, strict=True)]
    found = sentences(heard)
    assert [one.text for one in found] == ["你好吗。", "我很，好吧？"]
    assert (found[1].start_s, found[1].end_s) == (heard[3].start_s, heard[6].end_s)
    segment = Segment(readable(heard), 0.0, heard[-1].end_s, tuple(heard))
    assert [cue.text for cue in cues(Transcript(segment.text, 2.0, (segment,), found))] == ["你好吗。", "我很，好吧？"]
    assert sentences(spoken(list("你好"))) == ()


def test_texts_are_punctuated_whatever_their_length(punctuation: Punctuation):
    for count in (0, 1, 2, 99, 100, 101, 350):
        text = ("丁丂七" * 200)[:count]
        found = punctuation.punctuate(text)
        assert "".join(c for c in found if c.isalnum()) == text
        assert found[-1:] in ("", *"。？！")
    assert punctuation.punctuate(punctuation.punctuate("丁丂七丁丂七")) == punctuation.punctuate("丁丂七丁丂七")


def test_silence_speaks_for_a_mark(punctuation: Punctuation):
    units = list("丁丂七上下不与丐丑专")
    without = sum(mark != "" for mark in punctuation.marks(units))
    assert sum(mark != "" for mark in punctuation.marks(units, [1.0] * len(units))) >= without


def test_a_directory_of_ours_is_the_same_model(punctuation: Punctuation, tmp_path: Path):
    from paraformer.loader import load_punctuation
    from paraformer.punctuation.directory import save_bundle

    save_bundle(punctuation.bundle, tmp_path)
    again = load_punctuation(tmp_path)
    text = "丁丂七上下不与丐丑专" * 3
    assert again.punctuate(text) == punctuation.punctuate(text)


def test_the_packages_own_model_is_small_and_marks_sentences():
    from paraformer.loader import EMBEDDED_PUNCTUATION, load_punctuation, locate

    own = load_punctuation()
    assert own.punctuate("今天天气很好我们去公园玩吧你觉得怎么样") == "今天天气很好，我们去公园玩吧。你觉得怎么样？"
    directory = locate(None).parent / EMBEDDED_PUNCTUATION
    assert sum(path.stat().st_size for path in directory.iterdir()) < 6e6
