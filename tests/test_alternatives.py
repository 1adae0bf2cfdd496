"""What else a token may have been: asked for only, the likeliest first, and nothing else changes by it."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

import paraformer
from paraformer.bundle import Bundle
from paraformer.candidates import CANDIDATES
from paraformer.cli import main
from paraformer.cli.options.values import alternatives
from paraformer.confidence import Calibration, Curve
from paraformer.config import SILENT_IDS
from paraformer.errors import ConfigError
from paraformer.language import LanguageModel
from paraformer.recognizer import Recognizer
from paraformer.types import Token

CALIBRATION = Calibration(Curve(shift=1.0), Curve(rise=2.0))
SILENT = {tiny.TOKENS[index] for index in SILENT_IDS}


@cache
def recognizer(alternatives: int, *, lm: bool, calibrated: bool = False) -> Recognizer:
    bundle = replace(Bundle.open(tiny_bundle.directory()), confidence=CALIBRATION if calibrated else Calibration())
    model = LanguageModel.count([[3, 4, 5, 6]] * 4, len(tiny.TOKENS)) if lm else None
    return Recognizer(bundle, tiny.backend("onnx"), lm=model, lm_weight=2.0, alternatives=alternatives)


@cache
def heard(mode: str, alternatives: int, *, lm: bool, calibrated: bool = False, seed: int = 0) -> tuple[Token, ...]:
    return tokens_of(recognizer(alternatives, lm=lm, calibrated=calibrated), mode, seed)


def tokens_of(recognizer: Recognizer, mode: str, seed: int) -> tuple[Token, ...]:
    signal = tiny.signal(40_000, seed)
    if mode == "whole":
        return recognizer.transcribe(signal).tokens
    session = recognizer.stream()
    for start in range(0, len(signal), 7_000):
        session.accept(signal[start : start + 7_000])
    session.finish()
    return session.tokens


MODES = st.sampled_from(["whole", "live"])


@given(MODES, st.booleans(), st.booleans(), st.sampled_from([1, 4, CANDIDATES - 1]), st.integers(0, 1))
def test_they_are_the_likeliest_others_and_nothing_else_changes(
    mode: str, lm: bool, calibrated: bool, count: int, seed: int
) -> None:
    plain, told = (heard(mode, number, lm=lm, calibrated=calibrated, seed=seed) for number in (0, count))
    assert [replace(token, alternatives=()) for token in told] == list(plain)
    assert all(token.alternatives == () for token in plain) and plain
    for token in told:
        texts = [other.text for other in token.alternatives]
        confidences = [other.confidence for other in token.alternatives]
        assert len(texts) == len(set(texts)) <= count and not {token.text, *SILENT} & set(texts)
        assert count - len(SILENT) <= len(texts)
        assert confidences == sorted(confidences, reverse=True)
        assert all(0 <= confidence <= 1 for confidence in confidences)
        if not lm:
            assert all(confidence <= token.confidence + 1e-6 for confidence in confidences)


@given(MODES, st.booleans(), st.sampled_from([1, 4]))
def test_more_of_them_begin_with_the_same(mode: str, lm: bool, count: int) -> None:
    few, many = (heard(mode, number, lm=lm) for number in (count, CANDIDATES - 1))
    for one, two in zip(few, many, strict=True):
        assert two.alternatives[: len(one.alternatives)] == one.alternatives


@pytest.mark.parametrize("lm", [False, True])
def test_their_confidences_are_of_the_decoder_and_calibrated_like_those_of_tokens(lm: bool) -> None:
    for mode, curve in (("whole", CALIBRATION.whole), ("live", CALIBRATION.live)):
        plain, told = (heard(mode, 4, lm=lm, calibrated=calibrated) for calibrated in (False, True))
        assert curve is not None
        for one, two in zip(plain, told, strict=True):
            raw = np.array([other.confidence for other in one.alternatives], np.float32)
            found = [other.confidence for other in two.alternatives]
            assert one.confidence + raw.sum() <= 1 + 1e-5
            np.testing.assert_allclose(found, curve(raw), atol=1e-5)


def test_what_a_language_model_overruled_comes_first() -> None:
    """The decoder's own choice is the first alternative to what was chosen instead."""
    plain, told = ({one.start_s: one for one in heard("whole", number, lm=number > 0)} for number in (0, 4))
    overruled = [(plain[at], token) for at, token in told.items() if at in plain and plain[at].text != token.text]
    assert overruled
    for own, token in overruled:
        assert token.alternatives[0].text == own.text
        assert token.alternatives[0].confidence > token.confidence


@pytest.mark.parametrize("lm", [False, True])
def test_a_saved_session_keeps_them(lm: bool) -> None:
    signal, asked = tiny.signal(40_000), recognizer(3, lm=lm)
    session = asked.stream()
    session.accept(signal[:25_000])
    restored = asked.restore(session.save())
    for one in (session, restored):
        one.accept(signal[25_000:])
        one.finish()
    assert restored.tokens == session.tokens
    assert any(token.alternatives for token in session.tokens)
    assert asked.restore(session.save()).tokens == session.tokens


@pytest.mark.parametrize("value", [-1, CANDIDATES, 2.0, "3", True, None])
def test_a_number_that_cannot_be_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="alternatives must be a"):
        paraformer.load(tiny_bundle.directory(), alternatives=value)  # type: ignore[arg-type]


def test_the_command_allows_as_many_as_the_library() -> None:
    assert alternatives(str(CANDIDATES - 1)) == CANDIDATES - 1
    with pytest.raises(ArgumentTypeError):
        alternatives(str(CANDIDATES))


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str], stream: list[str]) -> None:
    soundfile.write(tmp_path / "a.wav", tiny.signal(40_000), 16_000, "FLOAT")
    command = ["transcribe", str(tmp_path / "a.wav"), "--model", str(tiny_bundle.directory()), *stream]
    as_json = [*command, "--format", "json", "--timestamps"]
    assert main([*as_json, "--alternatives", "2"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    tokens = [token for line in told for part in (line, *line.get("segments", ())) for token in part.get("tokens", ())]
    assert tokens and all(set(other) == {"text", "confidence"} for token in tokens for other in token["alternatives"])
    assert {len(token.pop("alternatives")) for token in tokens} == {2}
    assert main(as_json) == 0
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert plain == told, "without them, no token speaks of any"
    assert main([*command, "--alternatives", "2"]) == 2
    assert "--alternatives goes with --format json" in capsys.readouterr().err
    for number in ("0", "24", "x"):
        with pytest.raises(SystemExit):
            main([*as_json, "--alternatives", number])
