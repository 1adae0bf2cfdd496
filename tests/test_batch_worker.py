from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest
import recordings
import tiny_bundle

if find_spec("ray") is None:
    pytest.skip("paraformer[ray] is not installed", allow_module_level=True)

import paraformer
from paraformer.batch.cluster import Hand, handed_on
from paraformer.batch.parts import Form, Planned, Shelf, parts_of, with_former
from paraformer.batch.places import Input, inputs_of
from paraformer.batch.recognising import Recognising, Recognition
from paraformer.batch.worker import Job, Worker, digest_of_file, state_of_file
from paraformer.errors import ConfigError, InputFailed, MissingExtra, ModelError
from paraformer.records import record

CHILD = Path(__file__).parent / "batch_worker.py"


class Spelling:
    """Says what a file is called, and remembers which it was asked for."""

    asked: ClassVar[list[str]] = []

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive

    def state(self, one: Input) -> object:
        return state_of_file(one.place)

    def key(self, one: Input) -> str:
        return digest_of_file(one, self._alive)

    def results(self, inputs: Iterable[Input]) -> Iterator[Any]:
        for one in inputs:
            self.asked.append(Path(one.name).stem)
            yield InputFailed("no") if "bad" in one.name else {"text": Path(one.name).stem}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "in"
    directory.mkdir()
    for name in "abcdef":
        (directory / f"{name}.wav").write_text(name)
    return directory


def work(files: Path, out: Path, most: int = 4, make: Any = Spelling, form: Form = "json") -> list[dict[str, Any]]:
    """A run without a cluster; returns all rows."""
    shelf = Shelf(str(out), form)
    shelf.open()
    Spelling.asked = []
    worker = Worker(Job(str(out), form, make))
    parts = with_former([shelf.plan(part) for part in parts_of(inputs_of([str(files)]), most=most)], shelf)
    done = [worker(part) for part in parts]
    shelf.finish(parts, {"parts": done})
    assert [part.name for part in parts] == shelf.names()
    return rows_of(out, form)


def rows_of(out: Path, form: Form = "json") -> list[dict[str, Any]]:
    shelf = Shelf(str(out), form)
    return [row for name in shelf.names() for row in shelf.rows(name)]


def test_each_input_has_one_row_in_order(files: Path, tmp_path: Path) -> None:
    rows = work(files, tmp_path / "out")
    assert [row["text"] for row in rows] == Spelling.asked == list("abcdef")


def test_what_is_finished_is_not_done_again_unless_its_content_has_changed(files: Path, tmp_path: Path) -> None:
    before = work(files, tmp_path / "out")
    assert work(files, tmp_path / "out") == before
    assert Spelling.asked == []
    (files / "c.wav").write_text("other")
    assert [row["file"] for row in work(files, tmp_path / "out")] == [row["file"] for row in before]
    assert Spelling.asked == ["c"]


def test_what_comes_between_moves_the_others_and_they_are_not_done_again(files: Path, tmp_path: Path) -> None:
    work(files, tmp_path / "out")
    (files / "a2.wav").write_text("a2")
    (files / "e.wav").unlink()
    rows = work(files, tmp_path / "out")
    assert ([row["text"] for row in rows], Spelling.asked) == (["a", "a2", "b", "c", "d", "f"], ["a2"])


def test_what_fails_has_its_reason_and_is_finished_but_what_cannot_be_read_is_tried_again(
    files: Path, tmp_path: Path
) -> None:
    (files / "bad.wav").write_text("?")
    (files / "gone.wav").symlink_to(files / "nowhere")
    (tmp_path / "list.txt").write_text("in/a.wav\nin/bad.wav\nin/gone.wav\n")
    rows = work(tmp_path / "list.txt", tmp_path / "out")
    assert [row["error"] for row in rows[:2]] == [None, "no"]
    assert "there is no file" in rows[2]["error"]
    (files / "nowhere").write_text("found")
    assert work(tmp_path / "list.txt", tmp_path / "out")[2]["text"] == "gone"
    assert Spelling.asked == ["gone"]


class Written(Spelling):
    """Somebody writes to the inputs after their content was digested."""

    def results(self, inputs: Iterable[Input]) -> Iterator[Any]:
        for one in inputs:
            if "b" in Path(one.name).stem:
                Path(one.place).write_text("half of b")
            yield from super().results([one])


def test_what_is_written_to_while_it_is_read_has_no_result(files: Path, tmp_path: Path) -> None:
    """Else the text of half a file would be taken for that of the whole, once it is there again."""
    rows = work(files, tmp_path / "out", make=Written)
    assert [row["error"] is None for row in rows] == [True, False, True, True, True, True]
    assert "b.wav was changed while it was read; run this again" in rows[1]["error"] and rows[1]["key"] is None
    (files / "b.wav").write_text("b")
    assert [row["text"] for row in work(files, tmp_path / "out")] == list("abcdef")
    assert Spelling.asked == ["b"]


def test_a_recording_that_goes_away_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = recordings.write(tmp_path / "in", 4)
    key = Recognising.key

    def gone_after_it(self: Recognising, one: Input) -> str:
        found = key(self, one)
        if one.name == names[-1]:
            Path(names[1]).unlink()
        return found

    monkeypatch.setattr(Recognising, "key", gone_after_it)
    asked = Recognition.of(None, {}, tokens=False, channel="mix", batch_s=60.0)
    rows = work(tmp_path / "in", tmp_path / "out", make=asked)
    assert [row["error"] is None for row in rows] == [True, False, True, True]
    assert rows[1]["error"] == f"there is no file {names[1]}; check the name" and rows[1]["key"] is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_what_no_worker_survives_is_put_aside_after_two_tries(files: Path, tmp_path: Path) -> None:
    killed = "killed, perhaps for its memory"
    reasons = {"crash": "Segmentation fault", "killed": killed, "memory": killed, "hang": "no progress for 0.5 s"}
    for name in reasons:
        (files / f"c{name}.wav").write_text("!")
    command = [sys.executable, CHILD, files, tmp_path / "out", "0.5"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert int(told.stdout) == 1 + 2 * 4 + 1  # all together, each twice by itself, then without them
    rows = rows_of(tmp_path / "out")
    assert [Path(row["file"]).stem for row in rows] == [
        "a",
        "b",
        "c",
        *(f"c{name}" for name in sorted(reasons)),
        *"def",
    ]
    assert {Path(row["file"]).stem[1:]: row["error"] for row in rows if row["error"]} == {
        name: f"{files}/c{name}.wav stopped its worker 2 times: {reason}; {reason}" for name, reason in reasons.items()
    }


def asked(model: str | None = None, **changes: Any) -> Recognition:
    values = {"options": {"precision": "float32"}, "tokens": True, "channel": "mix", "batch_s": 60.0} | changes
    return Recognition.of(model or str(tiny_bundle.directory()), values.pop("options"), **values)


def test_rows_are_what_the_recogniser_says(tmp_path: Path) -> None:
    names = recordings.write(tmp_path / "in", 12)
    recognizer = paraformer.load()
    rows = work(
        tmp_path / "in", tmp_path / "out", make=Recognition.of(None, {}, tokens=True, channel="mix", batch_s=60)
    )
    for name, row, said in zip(names, rows, recognizer.transcribe_each(names), strict=True):
        assert row == {"file": name, "key": row["key"], "error": None, **record(said, tokens=True)}  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_run_in_another_place_has_the_same_bytes(form: Form, tmp_path: Path) -> None:
    recordings.write(tmp_path / "in", 6)
    for out in ("one", "two"):
        work(tmp_path / "in", tmp_path / out, make=asked(), form=form)
    one, two = ([path.read_bytes() for path in sorted((tmp_path / out).glob("part-*"))] for out in ("one", "two"))
    assert one == two
    assert len(one) == 2


def test_a_result_depends_on_model_and_options_but_not_on_threads_and_batches() -> None:
    base = asked()
    assert asked().identity == base.identity
    assert asked(options={"precision": "float32", "threads": 2}, batch_s=5.0).identity == base.identity
    others = [
        asked(tokens=False),
        asked(channel=1),
        asked(options={"precision": "float32", "hotwords": ["一"]}),
        Recognition.of(None, {}, tokens=True, channel="mix", batch_s=60.0),
    ]
    assert len({base.identity, *(other.identity for other in others)}) == 5


def test_another_model_on_another_machine_is_refused(tmp_path: Path) -> None:
    moved = tmp_path / "model"
    moved.mkdir()
    for path in tiny_bundle.directory().iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    recognition = asked(str(moved))
    (moved / "notes.txt").write_text("changed")
    with pytest.raises(ModelError, match="not the same on all machines"):
        recognition(lambda: None)


@pytest.mark.parametrize(
    "error",
    [ModelError("another model"), MissingExtra("Work", "ray"), OSError(28, "No space left on device", "out/part-0")],
    ids=repr,
)
def test_what_stops_a_worker_stops_the_run_in_the_same_words(error: Exception, tmp_path: Path) -> None:
    def cannot(alive: Callable[[], None]) -> Any:
        raise error

    row = Hand(Job(str(tmp_path), "json", cannot))({"part": Planned("part-0", 1, 1).to_json()})
    with pytest.raises(type(error)) as raised:
        handed_on(row)
    assert str(raised.value) == str(error)
    assert handed_on({"done": '{"part": "part-0"}'}) == {"part": "part-0"}


def test_threads_are_counted_on_a_cluster() -> None:
    with pytest.raises(ConfigError, match="threads must be at least 1"):
        asked(options={"threads": 0})
