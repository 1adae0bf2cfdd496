"""What is counted of confused sounds, and which words make a list to try hotwords with."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.confusions import aligned, counted, lines


def test_characters_are_aligned_with_the_fewest_errors() -> None:
    assert list(aligned("今天好", "今天好"))[::-1] == [("今", "今"), ("天", "天"), ("好", "好")]
    assert list(aligned("今天好", "天号"))[::-1] == [("天", "天"), ("好", "号")]
    assert list(aligned("", "天")) == []


def test_confusions_as_the_package_reads_them() -> None:
    told = list(lines(counted([("三山四", "山山四"), ("爱", "爱")])))
    assert "initial sh 3 s:2" in told
    assert "initial s 3 sh:1" in told
    assert "initial - 3" in told
    assert "final an 6" in told


def test_rare_words() -> None:
    pytest.importorskip("jieba")
    from recipes.rare_words import others, rare_words

    texts = ["今天天气很好", "我们去公园散步"]
    known = frozenset("今天气很好我们去公园散步地铁站")
    assert rare_words(texts, "今天天气很好。公园。公园。", known, 2) == ["我们", "散步"]
    drawn = others(texts, known, 5)
    assert drawn == others(texts, known, 5)
    assert not [word for word in drawn if any(word in text for text in texts)]


def test_misheard_text_keeps_its_length_and_marks() -> None:
    pytest.importorskip("torch")
    from recipes.punctuation import Labelled
    from recipes.punctuation_heard import Mishearing

    words = ["<unk>", *"三山四是事张章长"]
    text = Labelled(np.arange(900) % len(words), np.zeros(900, np.int64))
    heard = Mishearing(text, words)(text, 0.2)
    assert heard.marks is text.marks
    assert 0.1 < (heard.words != text.words).mean() < 0.25
    assert (heard.words[text.words == 0] == 0).all()
