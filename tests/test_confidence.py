"""From probabilities to confidences: in order, between 0 and 1, unchanged without a curve, whole and live apart."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import paraformer
from paraformer.audio import read
from paraformer.bundle import Bundle
from paraformer.certificate.checks import recognizers
from paraformer.certificate.golden import Golden, recordings
from paraformer.certificate.record import EXACT, Difference, Form
from paraformer.certificate.verify import run_checks
from paraformer.confidence import Calibration, Curve
from paraformer.errors import ConfigError, ModelError, SessionError
from paraformer.language import LanguageModel

CURVES = st.builds(Curve, st.floats(0, 1000), st.floats(0, 1000), st.floats(-1000, 1000))
PROBABILITIES = hnp.arrays(np.float32, st.integers(0, 30), elements=st.floats(0, 1, width=32))
HALVED = Curve(rise=0.5, fall=0.5)
DOUBTED = Curve(shift=-2.0)


@given(CURVES, PROBABILITIES)
def test_a_surer_token_stays_surer_and_all_are_probabilities(curve: Curve, probabilities: np.ndarray) -> None:
    confidences = curve(np.sort(probabilities))
    assert confidences.dtype == np.float32
    assert ((confidences >= 0) & (confidences <= 1)).all()
    assert (np.diff(confidences) >= 0).all()


@given(PROBABILITIES)
def test_without_a_curve_nothing_changes_and_the_neutral_one_changes_nothing(probabilities: np.ndarray) -> None:
    assert Calibration().apply("whole", probabilities) is probabilities
    np.testing.assert_allclose(Curve()(probabilities), probabilities, atol=2e-6)


@given(st.floats(0.0078125, 0.9921875, width=32), st.floats(0.25, 4, width=32))
def test_the_logit_is_what_it_weighs(probability: float, slope: float) -> None:
    odds = probability / (1 - probability)
    expected = odds**slope * np.e / (1 + odds**slope * np.e)
    found = Curve(slope, slope, 1.0)(np.array([probability], np.float32))
    np.testing.assert_allclose(found, [expected], rtol=1e-4)


@given(st.builds(Calibration, st.none() | CURVES, st.none() | CURVES, st.floats(0, 1)))
def test_settings_are_read_as_they_were_written(calibration: Calibration) -> None:
    assert Calibration.from_dict(calibration.to_dict()) == calibration


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"life": {}}, "unknown setting in confidence: life; did you mean live"),
        ({"live": {"rise": 1.0, "fall": 1.0}}, "missing setting in confidence.live: shift"),
        ({"live": {"rise": 1.0, "fall": 1.0, "shift": 0.0, "drop": 1}}, "unknown setting in confidence.live: drop"),
        ({"live": [1.0]}, r"confidence\.live must hold settings by name"),
        ({"whole": {"rise": -0.5, "fall": 1.0, "shift": 0.0}}, r"rise must be at least 0\.0, not -0\.5"),
        ({"whole": {"rise": float("nan"), "fall": 1.0, "shift": 0.0}}, "rise must be at least"),
        ({"whole": {"rise": "1", "fall": 1.0, "shift": 0.0}}, "must be a number"),
    ],
)
def test_curves_that_are_none_are_named(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Calibration.from_dict(values)


def saved(directory: Path, calibration: Calibration, *, lm: bool = False) -> Path:
    """The tiny model with curves in its settings."""
    shutil.copytree(tiny_bundle.directory(), directory)
    if lm:
        LanguageModel.count([[3, 4, 5]] * 4, len(tiny.TOKENS)).save(directory / "lm.safetensors")
    replace(Bundle.open(directory), confidence=calibration).save(directory)
    return directory


def confidences(recognizer: paraformer.Recognizer) -> tuple[np.ndarray, np.ndarray]:
    """Of whole and of live tokens."""
    signal = tiny.signal(60_000)
    session = recognizer.stream()
    session.accept(signal)
    session.finish()
    both = recognizer.transcribe(signal).tokens, session.tokens
    whole, live = (np.array([token.confidence for token in tokens], np.float32) for tokens in both)
    return whole, live


@pytest.mark.parametrize("lm", [False, True])
def test_whole_and_live_have_each_their_curve(tmp_path: Path, lm: bool) -> None:
    plain = confidences(paraformer.load(saved(tmp_path / "plain", Calibration(), lm=lm), vad=False))
    assert all(len(some) > 5 for some in plain)
    for mode, curves in (("whole", (HALVED, None)), ("live", (None, DOUBTED))):
        recognizer = paraformer.load(saved(tmp_path / mode, Calibration(*curves), lm=lm), vad=False)
        for got, expected, curve in zip(confidences(recognizer), plain, curves, strict=True):
            np.testing.assert_allclose(got, expected if curve is None else curve(expected), atol=1e-5)
    both = Calibration(HALVED, DOUBTED)
    recognizer = paraformer.load(tmp_path / "plain", vad=False).calibrated(both)
    assert recognizer.bundle.confidence == both
    for got, expected, curve in zip(confidences(recognizer), plain, (HALVED, DOUBTED), strict=True):
        np.testing.assert_allclose(got, curve(expected), atol=1e-5)


def test_a_certificate_is_about_the_network_alone(tmp_path: Path) -> None:
    """Goldens hold probabilities of the decoder, with which tokens of sessions are compared, too."""
    directory = saved(tmp_path / "m", Calibration(HALVED, DOUBTED))
    backend = paraformer.load(directory, backend="onnx")._model.backend
    golden = Golden(recordings(), Bundle.open(directory).cmvn, {})
    feats = golden.feats(backend.config.frontend)
    modes = recognizers(backend, Form())
    outcomes = {mode: tuple(recognize([rows])[0] for rows in feats) for mode, recognize in modes.items()}
    found = run_checks(directory, Form(), backend.config, replace(golden, outcomes=outcomes))
    assert found["packets, live"].within(Difference(0, EXACT))


def test_curves_are_sealed_with_the_weights(tmp_path: Path) -> None:
    directory = saved(tmp_path / "m", Calibration(whole=HALVED))
    settings = directory / "config.json"
    settings.write_text(settings.read_text("utf-8").replace('"rise": 0.5', '"rise": 0.6'), "utf-8")
    with pytest.raises(ModelError, match="changed since it was saved: confidence"):
        paraformer.load(directory)


def test_a_saved_session_goes_on_under_the_same_curve_only(tmp_path: Path) -> None:
    recognizer = paraformer.load(saved(tmp_path / "m", Calibration(live=DOUBTED)))
    session = recognizer.stream()
    session.accept(tiny.signal(30_000))
    state = session.save()
    assert recognizer.restore(state).tokens == session.tokens
    with pytest.raises(SessionError, match="calibration"):
        recognizer.calibrated(Calibration()).restore(state)


def test_what_is_heard_less_clearly_than_speech_has_no_text() -> None:
    """By the settings alone: a model that hears no units, or that was not calibrated, leaves nothing out."""
    recognizer, samples = (
        paraformer.load(lm=False, vad=False),
        read(Path(paraformer.__file__).parent / "samples" / "subway.flac"),
    )
    clarity, text = recognizer.clarity(samples), recognizer.calibrated(Calibration()).transcribe(samples).text
    assert 0 < clarity < 1
    assert text
    for speech, expected in ((0.99 * clarity, text), (1.01 * clarity, "")):
        assert recognizer.calibrated(Calibration(speech=speech)).transcribe(samples).text == expected
