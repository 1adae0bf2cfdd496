"""Hotwords by their sound: what is offered where, what is left alone, whole and live."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraformer.candidates import CANDIDATES, IMPOSSIBLE, Candidates
from paraformer.sounds import confusions, parted, readings, syllables
from paraformer.spotting import Spotter

TOKENS = ["<blank>", "<s>", "</s>", *"达大摩魔院远圆我们去了张章长三山四事是时", "<unk>", "hello"]
PLACES = {token: place for place, token in enumerate(TOKENS)}


def heard(*rows: str | dict[str, float]) -> Candidates:
    """A token a row: characters with their probabilities; one alone has all of it."""
    ids = np.zeros((len(rows), CANDIDATES), np.int64)
    log_probs = np.full((len(rows), CANDIDATES), IMPOSSIBLE, np.float32)
    for row, told in enumerate(rows):
        shares = {told: 0.99} if isinstance(told, str) else told
        for column, (character, share) in enumerate(sorted(shares.items(), key=lambda one: -one[1])):
            ids[row, column], log_probs[row, column] = PLACES[character], np.log(share)
    return Candidates(ids, log_probs)


def said(words: list[str], candidates: Candidates) -> str:
    first = np.zeros(len(candidates), np.int64)
    spotted = Spotter(words, TOKENS)(candidates, first, None)
    return "".join(TOKENS[index] for index in spotted.chosen(first)[0])


def test_a_long_word_replaces_what_sounds_like_it():
    assert said(["达摩院"], heard("我", "去", {"大": 0.6, "达": 0.3}, "魔", "远")) == "我去达摩院"
    assert said(["张三"], heard({"章": 0.5, "张": 0.48}, {"山": 0.5, "三": 0.5})) == "张三"


def test_a_short_word_needs_what_was_heard_to_be_in_doubt():
    assert said(["张三"], heard("章", "山")) == "章山"


def test_of_a_long_word_a_syllable_may_have_been_misheard():
    assert said(["达摩院是了"], heard("达", "摩", "院", "四", "了")) == "达摩院是了"
    assert said(["是了"], heard("达", "摩", "院", "四", "了")) == "达摩院四了"
    assert said(["达摩院是了"], heard("大", "长", "院", "我", "张")) == "大长院我张"


def test_what_sounds_otherwise_stays():
    assert said(["达摩院"], heard("我", "们", "去", "了")) == "我们去了"
    assert said(["达摩院"], heard("大", "魔", "了")) == "大魔了"


def test_of_words_that_overlap_the_likelier_wins():
    assert said(["达摩院", "魔远圆"], heard("大", {"魔": 0.6, "摩": 0.3}, "院", "圆")) in ("达摩院圆", "大魔远圆")


@pytest.mark.parametrize("words", [[], ["我"], ["hello"], ["龘靐"], ["", "我"]])
def test_words_that_cannot_be_spotted_change_nothing(words: list[str]):
    assert said(words, heard("我", "去", "大", "魔", "远")) == "我去大魔远"


def test_a_vocabulary_without_characters_is_known():
    assert not Spotter(["你好"], ["<blank>", "hello"]).knows_characters
    assert Spotter([], TOKENS).knows_characters


def test_a_stream_waits_for_the_rest_of_a_word():
    spotter = Spotter(["达摩院去了"], TOKENS)
    assert spotter.begun(heard("我", "大", "魔", "远")) == 3
    assert spotter.begun(heard("我", "大", "魔", "了")) == 0
    assert spotter.begun(heard("大", "魔", "远", "去", "了")) == 0
    assert spotter.begun(heard()) == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(TOKENS[3:22]), max_size=8),
    st.lists(st.text(st.sampled_from("达摩院我们去了张三"), max_size=4)),
)
def test_only_hotwords_and_what_was_heard_is_written(rows: list[str], words: list[str]):
    text = said(words, heard(*rows))
    assert len(text) == len(rows)
    place = 0
    while place < len(text):
        word = next((one for one in words if len(one) > 1 and text.startswith(one, place)), "")
        assert word or text[place] == rows[place]
        place += len(word) or 1


def test_syllables_that_sound_alike():
    assert [parted(one) for one in ("zhang", "er", "yuan")] == [("zh", "ang"), ("", "er"), ("y", "uan")]
    odds, place = confusions(), syllables()
    assert (odds.diagonal() == 1).all()
    assert (odds[~np.eye(len(odds), dtype=bool)] < 1).all()
    for heard, near, far in (("zhang", "zang", "ma"), ("lin", "ling", "lu"), ("nan", "lan", "chan")):
        assert odds[place[heard], place[near]] > odds[place[heard], place[far]] > 0
    assert "yuan" in readings()["院"]
    assert len(readings()) > 6700
