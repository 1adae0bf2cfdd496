"""What goes from process to process: values whole, engines and sessions never, and with words that say what to do."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_bundle
from companion_dirs import companion_dir

import paraformer
from paraformer.errors import ParaformerError, Unpicklable
from paraformer.language import LanguageModel
from paraformer.lexicon import Lexicon
from paraformer.recognizer import Recognizer
from paraformer.segment.fsmn import FsmnVad
from paraformer.speakers import VoiceEncoder, VoiceSpeakers

SIGNAL = tiny.signal(40_000)
WAYS: tuple[Callable[[Any], Any], ...] = (lambda value: pickle.loads(pickle.dumps(value)), deepcopy)


def recognizer(engine: str) -> Recognizer:
    backend, _, precision = {"bfloat16": "native bfloat16", "int8": "native int8"}.get(engine, engine).partition(" ")
    return paraformer.load(tiny_bundle.directory(), backend=backend, precision=precision or "float32", vad=False)


@pytest.mark.parametrize("engine", tiny.ENGINES)
def test_a_loaded_model_stays_in_its_process(engine: str) -> None:
    loaded = recognizer(engine)
    for value in (loaded, [loaded], loaded._model, loaded.transcribe):
        with pytest.raises(Unpicklable, match="load it in each process"):
            pickle.dumps(value)


@pytest.mark.parametrize("engine", tiny.ENGINES)
def test_copies_of_a_recogniser_recognise_as_it_does(engine: str) -> None:
    loaded = recognizer(engine)
    for twin in (copy(loaded), deepcopy(loaded)):
        assert twin.transcribe(SIGNAL) == loaded.transcribe(SIGNAL)


@pytest.mark.parametrize("way", [copy, deepcopy, pickle.dumps])
def test_a_session_is_saved_instead(way: Callable[[Any], Any]) -> None:
    session = recognizer("onnx").stream()
    session.accept(SIGNAL)
    with pytest.raises(Unpicklable, match=r"save\(\).*Recognizer\.restore"):
        way(session)


@pytest.mark.parametrize("way", WAYS)
def test_a_language_model_goes_whole(way: Callable[[Any], Any]) -> None:
    counted = LanguageModel.count([[3, 4, 5, 6], [7, 8, 9]], 30, least_bigram=1, least_trigram=1)
    lexicon = Lexicon.count([(3, 1), (4, 1), (5, 2)], 30, 4)
    model, rng = counted.reading(lexicon), np.random.default_rng(3)
    scores, units = rng.standard_normal((6, 30), np.float32), rng.standard_normal((6, 4), np.float32)

    def chosen(one: LanguageModel) -> list[int]:
        candidates = one.candidates(scores, units)
        ids, _ = candidates.chosen(one.best(candidates, weight=0.5))
        return ids.tolist()

    expected = chosen(model)  # after which there are addresses in it
    assert chosen(way(model)) == expected
    assert way(lexicon).arrays.keys() == model.lexicon.arrays.keys()


OPEN: dict[str, Callable[[Path, str | None], Any]] = {
    "punctuation": lambda path, device: paraformer.load_punctuation(path, device=device),
    "aligner": lambda path, device: paraformer.load_aligner(path, device=device),
    "detector": FsmnVad.open,
    "voices": lambda path, device: VoiceSpeakers(VoiceEncoder.open(path, device)),
}
USE: dict[str, Callable[[Any], Any]] = {
    "punctuation": lambda one: one.punctuate("今天天气很好我们出去走走吧"),
    "aligner": lambda one: one.align(SIGNAL, "a"),
    "detector": lambda one: one.spans(SIGNAL),
    "voices": lambda one: [voice[2].tolist() for voice in one.hear(0.0, SIGNAL)],
}


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("name", OPEN)
def test_what_stands_beside_a_recogniser_goes_whole(tmp_path: Path, name: str, device: str | None) -> None:
    opened = OPEN[name](companion_dir(tmp_path / name, name), device)
    expected = USE[name](opened)
    for way in WAYS:
        assert USE[name](way(opened)) == expected


def test_transcripts_settings_and_errors_go_whole() -> None:
    loaded = recognizer("onnx")
    heard = loaded.transcribe(SIGNAL)
    for value in (heard, loaded.config, loaded.bundle.config, loaded.chunk):
        assert pickle.loads(pickle.dumps(value)) == value
    for kind in (*ParaformerError.__subclasses__(), *paraformer.ModelError.__subclasses__()):
        error = kind("one", "two") if kind is paraformer.MissingExtra else kind("one")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (kind, str(error))
