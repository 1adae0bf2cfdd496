from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import tiny

import paraformer
from paraformer import audio
from paraformer.bundle import Bundle
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.hotwords import LONGEST, MOST, listed
from paraformer.recognizer import Recognizer


def test_a_list_and_a_file_of_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff达摩院\n\n  GPT\t four \n达摩院\r\n", encoding="utf-8")
    assert listed(path) == listed(["达摩院", "", "GPT four", "达摩院"]) == ("达摩院", "GPT four")


def test_weights_as_funasrs_runtime_has_them_are_no_part_of_the_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "words.txt"
    path.write_text("达摩院 20\n\nGPT four\t-3\n", encoding="utf-8")
    assert listed(path) == ("达摩院", "GPT four")
    assert "words.txt gives each hotword a weight" in caplog.text
    path.write_text("三体 2\n达摩院\n", encoding="utf-8")  # a name, since the other has none
    assert listed(path) == ("三体 2", "达摩院")


@pytest.mark.parametrize("data", ["达摩院".encode("utf-16"), "达摩院".encode("gb18030"), b"\0" * 9], ids=str)
def test_what_is_no_text_in_utf_8(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(data)
    with pytest.raises(ConfigError, match=r"words.txt holds no hotwords .* one word a line"):
        listed(tmp_path / "words.txt")


def test_words_that_cannot_be_heard_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """A list in other characters, with punctuation or letters would else do nothing, and nobody know."""
    recognizer = paraformer.load().with_hotwords(["准时 参加", "准时参加", "準時參加", "GPT", "准时参加。", "准"])
    assert "left out 4 of 6 hotwords" in caplog.text and "準時參加, GPT, 准时参加。, 准;" in caplog.text
    samples = audio.read(str(files("paraformer") / "samples" / "meeting.flac"))
    assert recognizer.transcribe(samples).text == "会议改到明天下午三点请大家准时参加"


@pytest.mark.parametrize("empty", [[], (), ["", " \u3000"]])
def test_nothing_to_listen_for(empty: list[str]) -> None:
    assert listed(empty) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("达摩院 通义", "a list of texts"),
        (["达摩院", 7], "a list of texts"),
        (7, "a list of texts"),
        ([str(n) for n in range(MOST + 1)], "too many"),
        (["好" * (LONGEST + 1)], "65 characters"),
        (Path("nowhere.txt"), "cannot be read from nowhere.txt"),
    ],
)
def test_what_is_no_list(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        listed(given)  # type: ignore[arg-type]


def test_a_model_without_a_way_to_listen_says_so() -> None:
    """It knows no Chinese character, so it cannot go by their sound either."""
    letters = tuple(token if token.startswith("<") else f"x{place}" for place, token in enumerate(tiny.TOKENS))
    recognizer = Recognizer(Bundle(None, tiny.config(), letters), tiny.backend("torch"))
    noise = np.zeros(16000, np.float32)
    for call in (
        lambda: recognizer.with_hotwords(["好"]),
        lambda: recognizer.transcribe(noise, hotwords=["好"]),
        lambda: recognizer.stream(hotwords=["好"]),
    ):
        with pytest.raises(UnsupportedModel, match="sound of Chinese characters, which this model has none of"):
            call()
    assert recognizer.transcribe(noise, hotwords=[]) == recognizer.transcribe(noise)


def test_a_saved_session_listens_for_what_it_listened_for() -> None:
    """Whatever the words of the recogniser are that takes it up again: else the rest of its text would be another."""
    recognizer = paraformer.load()
    samples = audio.read(str(files("paraformer") / "samples" / "subway.flac"))
    whole, session = recognizer.stream(hotwords=["地贴战"]), recognizer.stream()
    whole.accept(samples)
    whole.finish()
    session.listen_for(["地贴战"])
    session.accept(samples[:9600])
    session = recognizer.with_hotwords(["通义千问"]).restore(session.save())
    assert session.hotwords == ("地贴战",)
    session.accept(samples[9600:])
    session.finish()
    assert session.text == whole.text
    nothing = recognizer.with_hotwords(["地贴战"]).restore(recognizer.stream().save())
    assert nothing.hotwords == ()
