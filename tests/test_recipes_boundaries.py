"""Joined words with known times, and what is made of the times of tokens."""

from __future__ import annotations

import random

import numpy as np
import pytest
from speech_archives import sound_of

from paraformer.manifests import Utterance
from paraformer.types import Token
from recipes.boundaries import Joined, errors, joined, table, trimmed


def test_words_are_joined_where_they_sound() -> None:
    words = [Utterance(text, text, "", lambda text=text: sound_of(text)) for text in ("一二", "三", "四一二")]
    one = joined(words, random.Random(3))
    assert one.text == "一二三四一二"
    for (characters, start, end), word in zip(one.words, words, strict=True):
        assert characters == list(word.text)
        assert end - start == pytest.approx(0.3 * len(word.text), abs=0.011)
        piece = one.samples[round(start * 16000) : round(end * 16000)]
        np.testing.assert_array_equal(piece, trimmed(word.load()))
    assert one.words[0][1] == 0.5


def test_errors_are_of_words_that_were_heard() -> None:
    one = Joined(np.zeros(0), ((["一", "二"], 0.5, 1.0), (["三"], 1.0, 1.3), (["四"], 1.5, 1.8)))
    tokens = [
        Token("一", 0.7, 0.8, 1.0),
        Token("二", 0.8, 0.95, 1.0),
        Token("五", 1, 1, 1.0),
        Token("四", 1.42, 1.88, 1.0),
    ]
    found = list(errors(one, tokens))
    np.testing.assert_allclose(found, [(0.2, -0.05), (-0.08, 0.08)], atol=1e-9)
    assert table("whole", found, 3) == "| whole | 2 of 3 | 140 ms | +60 ms | 50 % | 65 ms | +15 ms | 0 % |"
