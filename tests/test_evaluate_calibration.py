"""Curves that are learnt: less error on what they have not seen, and the same whoever is surer than he should be."""

from __future__ import annotations

import json
import shutil
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
from paraformer.cli import main
from paraformer.confidence import Calibration, Curve
from paraformer.errors import DataError
from paraformer.evaluate.calibration import Judged, calibration_error, fit, fitted, judge
from paraformer.evaluate.normalise import Normalizer
from paraformer.types import Token


def judged(confidences: np.ndarray, truth: Curve, seed: int = 0) -> Judged:
    """Tokens that are right as often as a curve says of their confidences."""
    right = np.random.default_rng(seed).random(len(confidences)) < truth(confidences)
    return Judged(confidences, right)


def spread(count: int, seed: int = 1) -> np.ndarray:
    """Confidences of which most are high."""
    return np.random.default_rng(seed).beta(3, 1, count).astype(np.float32)


@given(st.floats(0.2, 2.0), st.floats(0.2, 2.0), st.floats(-1.5, 1.5), st.integers(0, 5))
def test_the_error_falls_on_tokens_that_were_not_seen(rise: float, fall: float, shift: float, seed: int) -> None:
    truth = Curve(rise, fall, shift)
    known, unseen = (judged(spread(6000, seed + n), truth, seed + n) for n in (10, 20))
    curve = fitted(known)
    after = calibration_error(Judged(curve(unseen.confidences), unseen.right))
    assert after < 0.03
    assert after < calibration_error(unseen) + 0.01
    assert np.abs(curve(unseen.confidences) - truth(unseen.confidences)).mean() < 0.02


def test_who_is_right_as_often_as_he_says_is_left_alone() -> None:
    curve = fitted(judged(spread(20_000), Curve()))
    np.testing.assert_allclose(curve(spread(100)), spread(100), atol=0.03)
    nothing = fitted(Judged(np.zeros(0, np.float32), np.zeros(0, bool)))
    assert nothing == Curve()


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=40))
def test_a_curve_never_falls_whatever_it_is_fitted_to(tokens: list[tuple[float, bool]]) -> None:
    confidences, right = (np.array(column) for column in zip(*tokens, strict=True))
    curve = fitted(Judged(confidences.astype(np.float32), right))
    assert curve.rise >= 0 and curve.fall >= 0
    assert (np.diff(curve(np.linspace(0, 1, 50, dtype=np.float32))) >= 0).all()


def test_what_is_least_right_where_it_is_surest_becomes_a_flat_curve() -> None:
    confidences = np.linspace(0.01, 0.99, 400, dtype=np.float32)
    right = np.random.default_rng(0).random(400) < 1 - confidences
    curve = fitted(Judged(confidences, right))
    assert curve.rise == curve.fall == 0
    np.testing.assert_allclose(curve(confidences), right.mean(), atol=0.001)


def test_expected_calibration_error_by_hand() -> None:
    """Two bins: 0.9 sure and half right, 0.1 sure and never right."""
    some = Judged(np.array([0.9, 0.9, 0.1, 0.1], np.float32), np.array([True, False, False, False]))
    assert calibration_error(some) == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)
    assert calibration_error(Judged(np.ones(3, np.float32), np.ones(3, bool))) == 0
    assert calibration_error(Judged(np.zeros(0, np.float32), np.zeros(0, bool))) == 0


def tokens(*texts: str) -> list[Token]:
    return [Token(text, i, i + 1, 0.5) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("heard", "said", "right"),
    [
        (("今", "天", "好"), "今天好", [1, 1, 1]),
        (("今", "添", "好"), "今天好", [1, 0, 1]),
        (("今", "天", "很", "好"), "今天好", [1, 1, 0, 1]),
        (("天", "好"), "今天好！", [1, 1]),
        (("hel@@", "lo", "天"), "Hello 天", [1, 1, 1]),
        (("hel@@", "la", "天"), "hello 天", [1, 0, 1]),
        (("一", "百", "二", "十"), "120", [1, 1, 1, 1]),
        (("一", "二", "零"), "120", [1, 1, 1]),
        ((), "今天", []),
        (("今",), "", [0]),
    ],
)
def test_a_token_is_right_if_all_its_characters_were_said(heard: tuple[str, ...], said: str, right: list[int]) -> None:
    assert judge(tokens(*heard), said, Normalizer()).right.astype(int).tolist() == right


def test_what_stands_for_no_sound_is_not_judged() -> None:
    assert judge(tokens("今", "<unk>", "，"), "今", Normalizer()).right.tolist()[:1] == [True]
    assert len(judge(tokens("，"), "今", Normalizer()).right) == 0


def test_too_little_is_said_to_be_too_little() -> None:
    for few in (judged(spread(20), Curve()), Judged(spread(500), np.ones(500, bool))):
        with pytest.raises(DataError, match="do not tell how sure a live result is"):
            fit([few], "live")


def test_the_error_after_is_of_curves_that_did_not_see_it() -> None:
    utterances = [judged(spread(40, seed), Curve(shift=-1.5), seed) for seed in range(60)]
    found = fit(utterances, "whole")
    assert found.tokens == 2400 and found.after < 0.04 < found.before
    halves = [fitted(Judged.of(utterances[start::2])) for start in (0, 1)]
    unseen = [Judged(halves[1 - n % 2](one.confidences), one.right) for n, one in enumerate(utterances)]
    assert found.after == pytest.approx(calibration_error(Judged.of(unseen)))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Recordings of which the tiny model hears every third token wrong."""
    recognizer = paraformer.load(tiny_bundle.directory(), vad=False)
    rows = []
    for seed in range(12):
        signal = tiny.signal(60_000, seed)
        soundfile.write(tmp_path / f"{seed}.wav", signal, 16_000, "FLOAT")
        text = "".join("的" if n % 3 == 0 else c for n, c in enumerate(recognizer.transcribe(signal).text))
        rows.append(json.dumps({"audio": f"{seed}.wav", "text": text}))
    (tmp_path / "speech.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path / "speech.jsonl"


def test_the_command_writes_curves_that_recognition_uses(
    tmp_path: Path, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bundle.directory(), model)
    before = paraformer.load(model).transcribe(tiny.signal(60_000))
    assert main(["calibrate", str(model), "--data", str(speech)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["whole", "live"]
    errors = [[float(word) for word in line.replace(",", "").split() if word[0] == "0"] for line in lines]
    assert errors[0][1] < errors[0][0]
    bundle = Bundle.open(model)
    bundle.verify()
    assert bundle.confidence.whole is not None and bundle.confidence.live is not None
    after = paraformer.load(model).transcribe(tiny.signal(60_000))
    assert after.text == before.text and after.confidence != before.confidence
    raw = np.array([token.confidence for token in before.tokens], np.float32)
    found = [token.confidence for token in after.tokens]
    np.testing.assert_allclose(found, bundle.confidence.whole(raw), atol=1e-5)
    again = bundle.confidence
    assert main(["calibrate", str(model), "--data", str(speech), "--batch", "1"]) == 0, (
        "what is there is left out of account"
    )
    assert Bundle.open(model).confidence == again != Calibration()


def test_the_command_names_what_failed(tmp_path: Path, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bundle.directory(), model)
    with speech.open("a", encoding="utf-8") as file:
        file.write('\n{"audio": "gone.wav", "text": "一"}')
    assert main(["calibrate", str(model), "--data", str(speech)]) == 1
    assert capsys.readouterr().err.count("gone.wav") == 1
    assert Bundle.open(model).confidence.whole is not None


def test_what_failed_is_told_where_too_little_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech = tmp_path / "speech.jsonl"
    speech.write_text('{"audio": "gone.wav", "text": "一"}', encoding="utf-8")
    assert main(["calibrate", str(tiny_bundle.directory()), "--data", str(speech)]) == 1
    assert "gone.wav" in capsys.readouterr().err
