"""What is counted of hotwords: said, heard, right, and the errors beside them."""

from __future__ import annotations

from paraformer.evaluate.hotwords import found, hotword_lines
from paraformer.evaluate.results import Pass, Scored


def scored(name: str, reference: str, hypothesis: str) -> Scored:
    return Scored(name, "", 1800.0, reference, hypothesis, (reference, hypothesis))


def made(*texts: tuple[str, str]) -> Pass:
    return Pass("whole", "", tuple(scored(str(n), *pair) for n, pair in enumerate(texts)), (), 1.0, 1.0)


def test_words_are_counted_utterance_by_utterance():
    one = found(
        made(("去达摩院", "去达摩院"), ("我们走了", "达摩院走了"), ("达摩院", "大魔院")).scored, ["达摩院", "达摩院"]
    )
    assert (one.said, one.heard, one.right) == (2, 2, 1)
    assert (one.recall, one.precision, one.false_per_hour) == (0.5, 0.5, 1 / 1.5)


def test_nothing_said_and_nothing_heard():
    one = found(made(("我们", "我们")).scored, ["达摩院", ""])
    assert (one.recall, one.precision, one.false_per_hour) == (0.0, 0.0, 0.0)


def test_lines_tell_both_and_what_became_of_the_rest():
    without, listening = (
        made(("去达摩院", "去大魔院"), ("我们走", "我们走")),
        made(("去达摩院", "去达摩院"), ("我们走", "我门走")),
    )
    lines = hotword_lines(without, listening, ["达摩院"])
    assert "1 hotwords, whole: said 1 times" in lines[0]
    assert "recall 0.0 %" in lines[1]
    assert "CER 28.57 %, where none was said 0.00 %" in lines[1]
    assert "recall 100.0 %, precision 100.0 %, 0.0 an hour" in lines[2]
    assert "where none was said 33.33 %" in lines[2]
