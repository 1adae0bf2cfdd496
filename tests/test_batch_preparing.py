"""Preparation in parts, without a cluster; tests/test_batch.py has one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import soundfile
from speech_archives import RATE, sound_of

if find_spec("ray") is None:
    pytest.skip("paraformer[ray] is not installed", allow_module_level=True)

from paraformer.batch import preparing, running
from paraformer.batch.parts import Part
from paraformer.batch.worker import Job, Worker
from paraformer.cli import main
from paraformer.data.prepare import load_cuts

TEXTS = ["一二", "三四", "一二三", "四"]
asked: list[list[str]] = []


def work_here(parts: Iterable[Part], job: Job, **_: Any) -> Iterator[dict[str, Any]]:
    worker = Worker(job)
    for part in parts:
        yield worker({"part": part.to_json()})


class Noted(preparing.Listening):
    def results(self, inputs: Iterable[Any]) -> Iterator[Any]:
        inputs = list(inputs)
        asked.append([one.name for one in inputs])
        return super().results(inputs)


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(running, "work", work_here)
    monkeypatch.setattr(preparing, "Listening", Noted)
    monkeypatch.chdir(tmp_path)
    asked.clear()
    for number, text in enumerate(TEXTS):
        soundfile.write(f"{number}.wav", sound_of(text), RATE)
    rows = "".join(f"{number}.wav,{text}\n" for number, text in enumerate(TEXTS))
    Path("talks.csv").write_text("path,text\n" + rows, encoding="utf-8")
    return Path("talks.csv")


def prepare(listed: Path, out: str, *more: str) -> int:
    return main(["data", "prepare", "other", str(listed), out, *more])


def test_a_set_is_the_same_by_many(listed: Path) -> None:
    assert prepare(listed, "one") == prepare(listed, "many", "--ray") == 0
    one, many = load_cuts(Path("one"), "talks"), load_cuts(Path("many"), "talks")
    assert [cut.to_dict() for cut in one] == [cut.to_dict() for cut in many]


def test_what_is_finished_is_not_listened_to_again(listed: Path) -> None:
    assert prepare(listed, "out", "--ray") == 0
    soundfile.write("1.wav", sound_of("四三"), RATE)
    assert prepare(listed, "out", "--ray") == 0
    assert asked == [["0", "1", "2", "3"], ["1"]]


def test_what_cannot_be_read_is_left_out_and_named(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write("2.wav", sound_of("一二三"), RATE, format="FLAC")
    data = Path("2.wav").read_bytes()
    Path("2.wav").write_bytes(data[:100] + bytes(len(data) - 100))
    with listed.open("a", encoding="utf-8") as file:
        file.write("gone.wav,一\n")
    whole = prepare(listed, "one"), capsys.readouterr().out
    assert (prepare(listed, "many", "--ray"), capsys.readouterr().out) == whole
    assert whole == (1, "talks: 3 utterances, 0.00 h\n2 left out (1 missing file, 1 unreadable audio)\n")


def test_archives_are_unpacked_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "archive", str(tmp_path / "a.tar"), str(tmp_path / "out"), "--ray"]) == 1
    assert "leave out --ray" in capsys.readouterr().err
