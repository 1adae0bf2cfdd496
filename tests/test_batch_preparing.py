"""Preparation in parts, without a cluster; tests/test_batch.py has one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import soundfile
from speech_archives import RATE, sound_of

if find_spec("ray") is None:
    pytest.skip("paraformer[ray] is not installed", allow_module_level=True)

from paraformer.batch import preparing, running
from paraformer.batch.parts import PART_INPUTS, Planned
from paraformer.batch.worker import Job, Worker
from paraformer.cli import main
from paraformer.data.prepare import load_cuts, save_cuts
from paraformer.data.skips import Skips
from paraformer.data.sources import open_data

TEXTS = ["一二", "三四", "一二三", "四"]
asked: list[list[str]] = []


def work_here(parts: Iterable[Planned], job: Job, **_: Any) -> Iterator[dict[str, Any]]:
    worker = Worker(job)
    for part in parts:
        yield worker(part)


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


def test_a_part_of_the_cuts_is_in_memory_and_no_more(listed: Path, tmp_path: Path) -> None:
    (told,) = open_data(listed).subset(first=1)
    alive, count = list[ref[Any]](), 3 * PART_INPUTS

    def cuts() -> Iterator[Any]:
        for number in range(count):
            cut = told.with_id(str(number))
            alive[:] = [one for one in [*alive, ref(cut)] if one() is not None]
            assert len(alive) <= 2
            yield cut

    saved = save_cuts(preparing.measured_by_many(cuts(), Skips(), str(tmp_path / "parts"), None), tmp_path, "many")
    assert saved.utterances == count


def test_a_recording_of_many_cuts_is_read_for_its_digest_once(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digest = preparing.digest_of_file
    monkeypatch.setattr(preparing, "digest_of_file", lambda one, alive: (read.append(one.name), digest(one, alive))[1])
    cuts = [cut.with_id(f"{cut.id} {part}") for cut in open_data(listed) for part in range(3)]
    assert len(list(preparing.measured_by_many(cuts, Skips(), str(tmp_path / "parts"), None))) == 12
    assert [Path(name).name for name in read] == ["0.wav", "1.wav", "2.wav", "3.wav"]


def test_parts_that_are_gone_are_no_shorter_set(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing.Shelf, "names", lambda _: [])
    assert prepare(listed, "out", "--ray") == 1
    assert not list(Path("out").glob("*.jsonl.gz"))


def test_archives_are_unpacked_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "archive", str(tmp_path / "a.tar"), str(tmp_path / "out"), "--ray"]) == 1
    assert "leave out --ray" in capsys.readouterr().err
