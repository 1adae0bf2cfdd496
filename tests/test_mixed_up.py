"""A model of every kind, in either form, wherever a model is asked for: the right one works, others are told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_bundle
from companion_dirs import WRITERS, companion_dir
from funasr_dirs import write_funasr
from test_segment_fsmn import samples

import paraformer
from paraformer import checkpoint
from paraformer.backends.companions import kind_in
from paraformer.cli import main
from paraformer.compat import AutoModel
from paraformer.errors import AudioError, ConfigError, DataError, UnsupportedModel
from paraformer.kinds import ALIGNER, DETECTOR, PUNCTUATION, RECOGNISER, VOICES, Kind
from paraformer.segment import FsmnVad
from paraformer.train.finetune import Finetuning, finetune

MODELS = [f"{name}, {form}" for name in ("recogniser", *WRITERS) for form in ("FunASR's", "ours")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of every kind in either form."""
    root = tmp_path_factory.mktemp("models")
    found = {"recogniser, ours": tiny_bundle.directory()}
    found["recogniser, FunASR's"] = write_funasr(root / "recogniser", "offline_A")
    for name in WRITERS:
        found[f"{name}, FunASR's"] = companion_dir(root / name, name)
        found[f"{name}, ours"] = checkpoint.convert(found[f"{name}, FunASR's"], root / f"{name}-ours")
    return found


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "talk.wav"
    soundfile.write(path, samples()[14400:62400], 16000)
    return path


PLACES: Mapping[str, tuple[Kind, Callable[[Path], object]]] = {
    "load": (RECOGNISER, paraformer.load),
    "load(punctuation=)": (PUNCTUATION, lambda model: paraformer.load(punctuation=model)),
    "load(vad=)": (DETECTOR, lambda model: paraformer.load(vad=model)),
    "load(speakers=)": (VOICES, lambda model: paraformer.load(speakers=model)),
    "load_punctuation": (PUNCTUATION, paraformer.load_punctuation),
    "load_aligner": (ALIGNER, paraformer.load_aligner),
    "AutoModel(vad_model=)": (DETECTOR, lambda model: AutoModel("zh-small", vad_model=str(model))),
    "AutoModel(punc_model=)": (PUNCTUATION, lambda model: AutoModel("zh-small", punc_model=str(model))),
}
"""Where a model is asked for, of which kind, and how."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_in_every_place(name: str, place: str, models: dict[str, Path]) -> None:
    (wanted, use), given = PLACES[place], models[name]
    found = kind_in(given)
    if found is wanted:
        assert use(given) is not None
        return
    with pytest.raises(UnsupportedModel) as raised:
        use(given)
    check_sentence(str(raised.value), given, found, wanted)


def check_sentence(told: str, given: Path, found: Kind, wanted: Kind) -> None:
    """One sentence: which, what it is, what it is not, what to do with it."""
    assert str(given) in told
    assert f"{found.what} and not {wanted.what}; {found.use}" in told
    assert "\n" not in told
    assert len(told.replace(str(given), "")) < 160


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_funasr_would_run_by_itself(name: str, models: dict[str, Path]) -> None:
    """`AutoModel(model=...)` recognises or punctuates."""
    given, found = models[name], kind_in(models[name])
    if found in (RECOGNISER, PUNCTUATION):
        assert AutoModel(str(given)) is not None
        return
    with pytest.raises(UnsupportedModel) as raised:
        AutoModel(str(given))
    check_sentence(str(raised.value), given, found, RECOGNISER)
    with pytest.raises(UnsupportedModel) as raised:
        finetune(Finetuning(model=given, data=given, out=given / "out"))
    check_sentence(str(raised.value), given, found, RECOGNISER)


COMMANDS: Mapping[str, tuple[Kind, Callable[[Path, Path], list[str]]]] = {
    "--model": (RECOGNISER, lambda model, sound: ["transcribe", "--model", str(model), str(sound)]),
    "--punctuate": (PUNCTUATION, lambda model, sound: ["transcribe", "--punctuate", str(model), str(sound)]),
    "--speakers": (VOICES, lambda model, sound: ["transcribe", "--speakers", str(model), str(sound)]),
    "align": (ALIGNER, lambda model, sound: ["align", "--model", str(model), str(sound), "一丁七"]),
    "export": (RECOGNISER, lambda model, _: ["export", str(model), str(model.parent / "exported")]),
}


@pytest.mark.parametrize("place", COMMANDS)
@pytest.mark.parametrize("name", MODELS[::2])
def test_the_command(
    name: str, place: str, models: dict[str, Path], recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (wanted, arguments), given = COMMANDS[place], models[name]
    found = kind_in(given)
    if found is wanted:
        if place != "export":
            assert main(arguments(given, recording)) == 0
        return
    assert main(arguments(given, recording)) != 0
    check_sentence(capsys.readouterr().err.strip(), given, found, wanted)


@pytest.mark.parametrize("wrong", [None, 5, b"x", [], ["\u4e07", 5], {"a": 1}])
def test_what_is_no_text_has_no_marks_and_no_times(wrong: Any, models: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="a punctuation model takes a text, not"):
        paraformer.load_punctuation(models["punctuation, FunASR's"]).punctuate(wrong)
    with pytest.raises(DataError, match="what is said must be a text, not"):
        paraformer.load_aligner(models["aligner, FunASR's"]).align(samples(), wrong)
    with pytest.raises(DataError, match="pre_text of cache must be the list that the call before left there"):
        AutoModel(str(models["realtime, FunASR's"])).generate(input="\u4e07", cache={"pre_text": wrong or [5]})


@pytest.mark.parametrize("wrong", [None, 5, "x", np.stack([samples(), samples()], 1), samples() * 32768])
def test_a_detector_hears_what_a_session_hears(wrong: Any, models: dict[str, Path]) -> None:
    detector = FsmnVad.open(models["detector, FunASR's"])
    with pytest.raises(AudioError):
        detector.spans(wrong)
    whole = (samples() * 32767).astype(np.int16)
    assert detector.spans(whole) == detector.spans(whole.astype(np.float32) / np.float32(32768))


@pytest.mark.parametrize("wrong", [{"end_silence_ms": "x"}, {"end_silence_ms": -1}, {"nonsense": 1}, {"extend": 1}])
def test_rules_of_a_detector_are_checked(wrong: dict[str, Any], models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FsmnVad.open(models["detector, FunASR's"]).with_endpoints(**wrong)


def test_a_model_for_texts_has_a_path_too(models: dict[str, Path]) -> None:
    for name in ("punctuation, FunASR's", "recogniser, ours"):
        assert AutoModel(str(models[name])).model_path == str(models[name])
