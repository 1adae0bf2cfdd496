"""The shipped model hears the shipped recordings, on every engine, family of processors and precision."""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import paraformer
from paraformer import native
from paraformer.audio import read
from paraformer.backends.native import available
from paraformer.backends.panels import Precision

SAMPLES = Path(str(files("paraformer") / "samples"))
TEXTS = {name: about["text"] for name, about in json.loads((SAMPLES / "texts.json").read_text("utf-8")).items()}
PRECISIONS = [name for name in get_args(Precision) if available(name)]
OTHERS = {"onnx": "onnxruntime", "torch": "torch"}
BACKENDS = [*(name for name, package in OTHERS.items() if find_spec(package)), *PRECISIONS]
"""Those that are installed: what is tried in a wheel alone is the engine."""
NATIVE = [(family, name) for family in native.families() for name in PRECISIONS]


def opened(name: str, threads: int = 1) -> paraformer.Recognizer:
    native_: dict[str, Any] = {"backend": "native", "precision": name}
    return paraformer.load(threads=threads, **({"backend": name} if name in OTHERS else native_))


@cache
def sound(name: str) -> np.ndarray:
    return read(SAMPLES / name)


def live(recognizer: paraformer.Recognizer, name: str) -> str:
    session = recognizer.stream()
    session.accept(sound(name))
    session.finish()
    return session.text


@pytest.mark.parametrize("name", BACKENDS)
def test_whole(name: str) -> None:
    for threads in (1, 3):
        recognizer = opened(name, threads)
        assert {sample: recognizer.transcribe(sound(sample)).text for sample in TEXTS} == TEXTS


@pytest.mark.parametrize(("family", "name"), NATIVE)
def test_whole_on_every_family_of_processors(family: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAFORMER_ISA", family)
    if not available(name):
        pytest.skip(f"{family} of this processor has no {name}")
    recognizer = opened(name)
    assert {sample: recognizer.transcribe(sound(sample)).text for sample in TEXTS} == TEXTS


def test_numpy_chooses_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compiled code does, of what the decoder heard."""
    monkeypatch.setattr(native, "code", lambda: None)
    recognizer = opened(BACKENDS[0])
    assert {sample: recognizer.transcribe(sound(sample)).text for sample in TEXTS} == TEXTS


@cache
def heard_live() -> dict[str, str]:
    recognizer = opened(BACKENDS[0])
    return {sample: live(recognizer, sample) for sample in TEXTS}


def test_live_text_is_near() -> None:
    """A live model sees no more than a third of a second ahead, and may mishear one character in twenty."""
    edits = sum(
        max(end - start, other_end - other)
        for sample, text in TEXTS.items()
        for kind, start, end, other, other_end in SequenceMatcher(None, text, heard_live()[sample]).get_opcodes()
        if kind != "equal"
    )
    assert edits <= sum(map(len, TEXTS.values())) / 20


@cache
def smallest() -> paraformer.Recognizer:
    return opened(PRECISIONS[-1])


@pytest.mark.parametrize("start", range(0, 9600, 1600))
@pytest.mark.parametrize("name", TEXTS)
def test_what_was_said_before_a_pause_comes_in_it(name: str, start: int) -> None:
    """The last character too, wherever chunks begin, and with the time at which it was said."""
    speech = sound(name)[start:]
    noise = np.random.default_rng(start).standard_normal(4 * 16_000).astype(np.float32) * 3e-4
    session = smallest().stream()
    said = session.accept(np.concatenate([speech, noise]))
    ended_s = session.tokens[-1].end_s
    assert said and not session.finish()
    assert ended_s < len(speech) / 16_000 + 0.2


@pytest.mark.parametrize("name", BACKENDS[1:])
def test_live_text_is_the_same_on_every_engine(name: str) -> None:
    recognizer = opened(name)
    assert {sample: live(recognizer, sample) for sample in TEXTS} == heard_live()


@pytest.mark.parametrize("family", native.families())
def test_live_text_is_the_same_on_every_family_of_processors(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = heard_live()
    monkeypatch.setenv("PARAFORMER_ISA", family)
    assert live(opened("int8"), "weather.flac") == expected["weather.flac"]


@pytest.mark.parametrize("hotwords", [None, ["地铁"]])
@pytest.mark.parametrize("second_pass", [False, True])
def test_live_marks_stand_between_words(hotwords: list[str] | None, second_pass: bool) -> None:
    """Tokens that wait for those beside them were said: there is no silence in their place."""
    gap = np.zeros(16_000, np.float32)
    heard = np.concatenate([gap, *(part for name in sorted(TEXTS) for part in (sound(name), gap))])
    session = paraformer.load(punctuation=True, hotwords=hotwords).stream(second_pass=second_pass)
    for start in range(0, len(heard), 9600):
        session.accept(heard[start : start + 9600])
    session.finish()
    assert "公司去年的收入增长了" in session.text
    assert "会议改到明天下午三" in session.text
    assert "最近的地铁站怎么走？" in session.text
    assert sum(token.mark != "" for token in session.tokens) < 12
