"""Passes over utterances with a tiny model, and what is told of them."""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

from paraformer import Recognizer, Token, Transcript, audio, load
from paraformer.config import ChunkConfig
from paraformer.errors import DataError
from paraformer.evaluate.latency import PACKET, transcribe_live
from paraformer.evaluate.normalise import PLAIN, Normalizer
from paraformer.evaluate.report import html_report
from paraformer.evaluate.results import Evaluation, Failure, Pass, Scored, common, read_evaluation
from paraformer.evaluate.run import collect, recognize_live, recognize_whole
from paraformer.evaluate.summary import compare_evaluations, summary
from paraformer.evaluate.tables import aligned_lines, by_duration, by_speaker, delays, worst
from paraformer.evaluate.utterances import Utterance


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load(tiny_bundle.directory())


def utterance(number: int, seconds: float = 1.5) -> Utterance:
    samples = tiny.signal(int(seconds * 16000), number)
    return Utterance(f"u{number}", "一丁七", f"s{number % 2}", lambda: samples)


GONE = Utterance("gone", "一", "", partial(audio.read, Path("gone.wav")))


@pytest.fixture(scope="module")
def evaluation(recognizer: Recognizer) -> Evaluation:
    some = [utterance(0), GONE, utterance(1, 3.0), utterance(2, 0.0)]
    whole = collect(recognize_whole(recognizer, some, PLAIN), "whole")
    live = collect(recognize_live(recognizer, some, PLAIN, ChunkConfig()), "live", "[5,10,5]")
    return Evaluation("tiny", "noise", True, (whole, live))


def test_texts_are_those_of_the_recognizer(recognizer: Recognizer, evaluation: Evaluation) -> None:
    whole, live = evaluation.passes
    assert [one.hypothesis for one in whole.scored[:2]] == [
        recognizer.transcribe(utterance(number, seconds).load()).text for number, seconds in ((0, 1.5), (1, 3.0))
    ]
    session = recognizer.stream()
    assert live.scored[1].hypothesis == session.accept(utterance(1, 3.0).load()) + session.finish()


def test_what_cannot_be_read_is_counted_and_the_rest_goes_on(evaluation: Evaluation) -> None:
    for one in evaluation.passes:
        assert [scored.id for scored in one.scored] == ["u0", "u1", "u2"]
        ((failed, why),) = [(failure.id, failure.error) for failure in one.failures]
        assert failed == "gone" and "there is no file gone.wav" in why
        assert one.audio_s == 4.5 and one.rtf > 0 and one.rtf_per_core > 0
        assert one.scored[2].errors.deletions == 3  # no sound, no text


def test_whatever_fails_is_the_failure_of_one_utterance(recognizer: Recognizer) -> None:
    def breaks() -> np.ndarray:
        raise ZeroDivisionError("rate")

    some = [utterance(0), Utterance("odd", "一", "", breaks), utterance(1)]
    for one in (
        collect(recognize_whole(recognizer, some, PLAIN, batch_s=1.0), "whole"),
        collect(recognize_live(recognizer, some, PLAIN, ChunkConfig()), "live"),
    ):
        assert [scored.id for scored in one.scored] == ["u0", "u1"]
        assert [(one.id, one.error) for one in one.failures] == [("odd", "odd failed: ZeroDivisionError: rate")]


def test_every_token_of_a_live_pass_has_a_delay(evaluation: Evaluation) -> None:
    whole, live = evaluation.passes
    assert sum(len(one.commit_s) for one in live.scored) > 3
    assert all(delay > 0 for one in live.scored for delay in one.commit_s)
    assert all((one.first_token_s is None) == (not one.commit_s) for one in live.scored)
    assert set(delays(live)) == {"first token", "commit"} and delays(whole) == {}


class Slow:
    """A session that decides a token a step, each 100 ms long; a step takes what the clock of the test says."""

    def __init__(self) -> None:
        self.tokens: tuple[Token, ...] = ()

    def accept(self, samples: np.ndarray) -> str:
        start = 0.1 * len(self.tokens)
        self.tokens += (Token("一", start, start + 0.1, 1.0),)
        return "一"

    def finish(self) -> str:
        return self.accept(np.zeros(0))

    def transcript(self) -> Transcript:
        from paraformer.types import Segment

        return Transcript("", 1.0, (Segment("", 0.0, 1.0, self.tokens),))


@pytest.mark.parametrize(
    ("step_s", "emitted"),
    [(0.0, [0.06, 0.12, 0.12]), (0.01, [0.07, 0.13, 0.14]), (1.0, [1.06, 2.06, 3.06])],
)
def test_delays_by_hand(step_s: float, emitted: list[float]) -> None:
    ticks = itertools.accumulate(itertools.cycle([0.0, step_s]))
    samples = np.zeros(2 * PACKET, np.float32)
    _, timing = transcribe_live(Slow(), samples, clock=lambda: next(ticks))  # type: ignore[arg-type]
    assert timing.first_token_s == pytest.approx(emitted[0])
    ends = [0.1, 0.2, 0.3]
    assert timing.commit_s == pytest.approx([at - end for at, end in zip(emitted, ends, strict=True)])


@pytest.mark.parametrize("samples", [0, 1, PACKET, 40000])
def test_packets_change_no_text(recognizer: Recognizer, samples: int) -> None:
    signal = tiny.signal(samples)
    session = recognizer.stream()
    session.accept(signal)
    session.finish()
    assert transcribe_live(recognizer.stream(), signal)[0].text == session.text


def test_json_reads_back(evaluation: Evaluation, tmp_path: Path) -> None:
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.json").write_text(evaluation.to_json().replace('"format": 1', '"format": 9'))
    for name, message in (("a.json", "not what"), ("b.json", "format 9"), ("c.json", "No such file")):
        with pytest.raises(DataError, match=message) as caught:
            read_evaluation(tmp_path / name)
        assert name in str(caught.value)


def scored(name: str, reference: str, hypothesis: str, speaker: str = "", duration_s: float = 1.0) -> Scored:
    return Scored(name, speaker, duration_s, reference, hypothesis, (PLAIN(reference), PLAIN(hypothesis)))


def one_pass(*utterances: Scored) -> Pass:
    return Pass("whole", "", utterances, (), 1.0, 1.0)


def test_raw_and_normalised_errors() -> None:
    one = scored("a", "今天，ＡＢ 好。", "今天ab好")
    assert one.errors.edits == 0 and one.raw_errors.edits == 4
    assert "as written" in summary(Evaluation("m", "d", True, (one_pass(one),)))
    assert "as written" not in summary(Evaluation("m", "d", True, (one_pass(scored("a", "今天", "明天")),)))


def test_tables() -> None:
    some = [
        scored("a", "今天", "今", "anna", 1.9),
        scored("b", "今天", "今天", "", 2.0),
        scored("c", "今", "今", "anna", 99),
    ]
    assert [(row.name, row.utterances, row.errors.edits) for row in by_speaker(some)] == [("anna", 2, 1), ("-", 1, 0)]
    assert [(row.name, row.audio_s) for row in by_duration(some)] == [("0-2 s", 1.9), ("2-5 s", 2.0), ("over 30 s", 99)]
    assert [one.id for one in worst(some, 5)] == ["a"]


def test_alignment_for_reading() -> None:
    cells = [("今", "今"), ("a", "天"), ("", "b"), ("好", "")]
    assert aligned_lines(cells) == ("今ａ＊好", "今天ｂ＊", "　ＳＩＤ")


def test_a_summary_says_everything(evaluation: Evaluation) -> None:
    text = summary(evaluation)
    figures = ("95 % interval", "real-time factor", "live [5,10,5]", "first token within", "commit within")
    for words in ("3 utterances, 2 speakers", "1 failed", *figures, "live beside whole", "speaker", "0-2 s", "ＤＤＤ"):
        assert words in text


def test_comparison(evaluation: Evaluation) -> None:
    assert "no difference can be shown" in compare_evaluations(evaluation, evaluation)
    before = one_pass(*(scored(str(i), "今天天气", "明年大雨") for i in range(30)), scored("x", "今", "今"))
    after = one_pass(*(scored(str(i), "今天天气。", "今天大气") for i in range(30)))
    told = compare_evaluations(Evaluation("a", "d", True, (before,)), Evaluation("b", "d", True, (after,)))
    assert "30 utterances: the second is better" in told and "one result only has them: 1" in told


def test_what_cannot_be_compared_is_refused(evaluation: Evaluation) -> None:
    one = one_pass(scored("a", "今天", "今天"))
    with pytest.raises(DataError, match="no utterance in common"):
        common(one, one_pass(scored("b", "今天", "今天")))
    with pytest.raises(DataError, match="two references"):
        common(one, one_pass(scored("a", "明天", "今天")))
    with pytest.raises(DataError, match="erhua"):
        compare_evaluations(evaluation, dataclasses.replace(evaluation, erhua=False))
    with pytest.raises(DataError, match="no mode in common"):
        compare_evaluations(
            dataclasses.replace(evaluation, passes=evaluation.passes[:1]),
            dataclasses.replace(evaluation, passes=evaluation.passes[1:]),
        )


def test_of_several_readings_the_nearest_is_scored() -> None:
    from paraformer.evaluate.results import score

    said = Utterance("a", "120", "", lambda: np.zeros(0, np.float32))
    assert score(said, 1.0, "一百二十", Normalizer()).errors.edits == 0
    assert score(said, 1.0, "幺二零", Normalizer()).errors.edits == 0


class Balanced(HTMLParser):
    """Checks that every element is closed, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_sound_page(evaluation: Evaluation) -> None:
    page = Balanced()
    html = html_report(evaluation)
    page.feed(html)
    assert not page.open
    assert {"svg", "rect", "table"} <= page.names
    assert not {"script", "link", "img"} & page.names and "http://" not in html and "https://" not in html
    assert "there is no file gone.wav" in page.text


@given(st.text("<>&\"'$ab", max_size=6))
def test_the_report_escapes_what_it_shows(text: str) -> None:
    hostile = f"<script>{text}"
    one = Scored(hostile, hostile, 1.0, hostile, "", (hostile, ""))
    report = Evaluation(
        hostile, hostile, True, (Pass("whole", hostile, (one,), (Failure(hostile, hostile),), 1.0, 1.0),)
    )
    page = Balanced()
    page.feed(html_report(report))
    assert not page.open and "script" not in page.names
    assert hostile in page.text
