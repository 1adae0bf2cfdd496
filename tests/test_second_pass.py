"""Sentences of a stream, recognised again: which live tokens they replace, and the laws with all of it switched on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from functools import cache, partial
from importlib.resources import files

import numpy as np
import pytest
import tiny
import tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

import paraformer
from paraformer import ConfigError, Recognizer, Revision, SecondPass, Session, revised
from paraformer.audio import read
from paraformer.cli import main
from paraformer.second_pass import LONGEST_S, Sentences
from paraformer.types import Token


@cache
def recognizer() -> Recognizer:
    return paraformer.load(punctuation=True, itn=True, hotwords=["准时参加"])


@cache
def talk() -> np.ndarray:
    """Sentences with pauses between them, and noise before."""
    pause = np.random.default_rng(0).normal(0, 1e-3, 16_000).astype(np.float32)
    spoken = [read(str(files("paraformer") / "samples" / f"{name}.flac")) for name in ("company", "meeting", "weather")]
    return np.concatenate([pause, *(part for one in spoken for part in (one, pause))])


def heard(session: Session, samples: np.ndarray, sizes: list[int]) -> Session:
    place = 0
    for size in sizes:
        session.accept(samples[place : place + size])
        place += size
    session.accept(samples[place:])
    session.finish()
    return session


@cache
def expected() -> tuple[tuple[Token, ...], list[Revision]]:
    session = heard(recognizer().stream(second_pass=True), talk(), [])
    return session.tokens, session.take_revisions()


def test_sentences_are_what_the_whole_pass_hears() -> None:
    tokens, revisions = expected()
    assert [one.number for one in revisions] == list(range(len(revisions)))
    assert len(revisions) >= 4
    assert {one.segment.text[-1] for one in revisions} <= set("。？")
    bounds = [bound for one in revisions for bound in one.replaces]
    assert bounds == sorted(bounds)
    assert bounds[-1] == len(tokens)
    live = heard(recognizer().stream(), talk(), [])
    assert live.tokens == tokens
    assert live.take_revisions() == live.take_ended() == []
    assert live.speaking_since_s is None
    text = revised(live.transcript(), revisions).text
    assert text == "".join(one.segment.text for one in revisions)
    assert "15%" in text
    assert revised(live.transcript(), []).text == live.text.strip()


@settings(max_examples=4, deadline=None)
@given(st.lists(st.integers(0, 60_000), max_size=8), st.integers(0, 8))
def test_packets_and_saving_change_nothing(sizes: list[int], at: int) -> None:
    session = recognizer().stream(second_pass=True)
    place = 0
    for number, size in enumerate(sizes):
        session.accept(talk()[place : place + size])
        place += size
        if number == at:
            session = recognizer().restore(session.save())
    session = heard(session, talk()[place:], [])
    assert (session.tokens, session.take_revisions()) == expected()


def test_neighbours_and_feeding_change_nothing() -> None:
    sessions = [recognizer().stream(second_pass=True) for _ in range(2)]
    sessions.append(recognizer().stream())
    for session, start in zip(sessions, (0, 40_000, 0), strict=True):
        session.feed(talk()[start:])
        session.end()
    recognizer().advance(sessions)
    assert (sessions[0].tokens, sessions[0].take_revisions()) == expected()
    assert sessions[0].tokens == sessions[2].tokens
    assert sessions[1].take_revisions()


def test_a_second_pass_that_fails_changes_nothing_and_can_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every time, before it succeeds: no live text, no sentence is lost, told twice or another."""
    undisturbed = expected()
    backend, session = recognizer()._model.backend, recognizer().stream(second_pass=True)
    whole, outcomes, failed, text = backend.whole, itertools.cycle(["fails", "goes well"]), 0, ""

    def failing(feats: Sequence[np.ndarray]) -> object:
        if next(outcomes) == "fails":
            raise MemoryError
        return whole(feats)

    monkeypatch.setattr(backend, "whole", failing)
    packets = [talk()[start : start + 9600] for start in range(0, len(talk()), 9600)]
    for call in (*(partial(session.accept, packet) for packet in packets), session.finish):
        for _ in range(9):
            try:
                text += call()
                break
            except MemoryError:
                failed += 1
    assert failed >= 4
    assert text == session.text
    assert (session.tokens, session.take_revisions()) == undisturbed


@pytest.mark.parametrize("length", [0, 1, 959, 9_600, 70_000])
def test_any_length_of_any_model(length: int) -> None:
    model = paraformer.load(tiny_bundle.directory())
    signal = tiny.signal(length)
    whole, cut = (heard(model.stream(second_pass=True), signal, sizes) for sizes in ([], [length // 3]))
    assert whole.tokens == cut.tokens
    revisions = whole.take_revisions()
    assert cut.take_revisions() == revisions
    replaced = sum(behind - first for first, behind in (one.replaces for one in revisions))
    assert 0 <= replaced <= len(whole.tokens)


def test_what_is_kept_is_bounded() -> None:
    """Speech without a pause is cut; noise without speech leaves nothing."""
    speech = np.tile(talk()[16_000:60_000], 24)
    state = Sentences(SecondPass(0.6).open())
    most = 0
    for start in range(0, len(speech), 8_000):
        state = state.heard(speech[start : start + 8_000], final=False)
        arrays = state.to_dict()[1]
        most = max(most, sum(array.nbytes for array in arrays.values()))
        state = state.decided([Token("好", start / 16_000, start / 16_000, 1.0)], (), now_s=1e9, final=False)
        assert len(state.free) <= 2
        state = Sentences(**{**vars(state), "due": ()})
    assert state.count >= 2
    assert most < 2.5 * LONGEST_S * 16_000 * 4


def test_a_sentence_that_is_nothing_the_second_time_takes_its_live_text_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one without live text that is nothing again is not told."""
    monkeypatch.setattr(Recognizer, "_again", lambda *_: [])
    session = heard(recognizer().stream(second_pass=True), talk(), [])
    revisions = session.take_revisions()
    assert [one.replaces for one in revisions] == [
        one.replaces for one in expected()[1] if one.replaces[0] < one.replaces[1]
    ]
    assert revised(session.transcript(), revisions).text == ""


def test_those_who_recognise_again_themselves() -> None:
    session = recognizer().stream(second_pass=SecondPass(0.6, deferred=True))
    ended, begun = [], dict[float, None]()
    assert session.speaking_since_s is None
    for start in range(0, len(talk()), 4_000):
        session.accept(talk()[start : start + 4_000])
        ended += session.take_ended()
        if session.speaking_since_s is not None:
            begun[session.speaking_since_s] = None
    session.finish()
    ended += session.take_ended()
    assert session.take_ended() == session.take_revisions() == []
    assert session.speaking_since_s is None
    assert list(begun) == pytest.approx([one.start_s for one in ended])
    texts = [segment.text for one in ended for segment in recognizer().segments(one.samples, one.start_s)]
    assert texts == [one.segment.text for one in expected()[1]]


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="second_pass must be true, false or a SecondPass"):
        recognizer().stream(second_pass="yes")  # type: ignore[arg-type]
    for pause_s in (0, -1, 21, float("nan")):
        with pytest.raises(ConfigError, match="pause_s"):
            SecondPass(pause_s)
    with pytest.raises(ConfigError, match="deferred must be true or false, not 'no'"):
        SecondPass(deferred="no")  # type: ignore[arg-type]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    talk = str(files("paraformer") / "samples" / "company.flac")
    asked = ["transcribe", talk, "--stream", "--second-pass", "--punctuate"]
    assert main(asked) == 0
    sentence = capsys.readouterr().out.strip()
    assert sentence.endswith("百分之十五。")
    assert main([*asked, "--format", "json"]) == 0
    *live, again, whole = map(json.loads, capsys.readouterr().out.splitlines())
    assert "".join(one["new"] for one in live).startswith("这家公司去年")
    assert (again["sentence"], again["replaces"], again["text"]) == (0, [0, 17], sentence)
    assert whole["text"] == sentence
    for mistake in (["transcribe", "--second-pass", talk], ["evaluate", "--second-pass", "--data", "x.tsv"]):
        assert main(mistake) == 2
