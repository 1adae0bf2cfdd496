"""Marks and numbers on tokens: nothing that a token has moves to another, whole and live."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from punctuation_goldens import model, tokens

from paraformer.itn import NumberWriter
from paraformer.punctuation import Punctuation
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
    assert [bare(one) for one in written] == [heard[:cut], heard[cut:]]
    flat = [token for one in written for token in one]
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
    assert own.punctuate("今天天气很好我们去公园玩吧你觉得怎么样") == "今天天气很好。我们去公园玩吧。你觉得怎么样？"
    directory = locate(None).parent / EMBEDDED_PUNCTUATION
    assert sum(path.stat().st_size for path in directory.iterdir()) < 6e6
