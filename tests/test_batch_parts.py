from __future__ import annotations

import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if find_spec("ray") is None:
    pytest.skip("paraformer[ray] is not installed", allow_module_level=True)

from paraformer.batch.parts import SUMMARY, WORKING, Form, Part, Planned, Shelf, digest_of, parts_of, with_former
from paraformer.batch.places import Input

FORMS: list[Form] = ["json", "parquet"]
SIZES = st.lists(st.integers(0, 40), max_size=30)


def inputs(sizes: list[int]) -> list[Input]:
    return [Input(f"{number}.wav", f"/{number}.wav", size) for number, size in enumerate(sizes)]


def row(file: str, **values: Any) -> dict[str, Any]:
    return {"file": file, "key": "0a", "error": None, "text": "你好", "duration_s": 1.5, "confidence": 0.5} | values


@given(SIZES)
def test_parts_hold_all_inputs_in_order_and_none_is_too_large(sizes: list[int]) -> None:
    parts = list(parts_of(inputs(sizes), 50, 4))
    assert [one for part in parts for one in part.inputs] == inputs(sizes)
    assert [part.name for part in parts] == sorted({part.name for part in parts})
    for part in parts:
        assert 1 <= len(part.inputs) <= 4
        assert len(part.inputs) == 1 or sum(one.size for one in part.inputs) <= 50


@given(SIZES, SIZES)
def test_what_is_added_leaves_full_parts_alone(sizes: list[int], more: list[int]) -> None:
    before, after = (list(parts_of(inputs(some), 50, 4)) for some in (sizes, sizes + more))
    assert before[:-1] == after[: max(0, len(before) - 1)]


def test_a_part_travels_by_name_and_its_inputs_lie_on_the_shelf(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), "json")
    shelf.open()
    part = Part("part-1", [*inputs([3, 4]), Input("half \udcff", "/half \udcff", 5)])
    planned = shelf.plan(part)
    assert Planned.from_json(planned.to_json()) == replace(planned, former=[]) == Planned("part-1", 3, 12, [])
    assert shelf.part("part-1") == part
    assert shelf.names() == []


@pytest.mark.parametrize("form", FORMS)
def test_what_was_put_is_there_and_nothing_else(form: Form, tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path / "out"), form)
    shelf.open()
    segments = [{"text": "你好", "start_s": 0.1, "end_s": 0.2}]
    digest = shelf.put("part-000000-x", [row("a", segments=segments), row("b", text=None, error="no")])
    assert shelf.names() == ["part-000000-x"]
    first, second = shelf.rows("part-000000-x")
    assert (first["file"], first["segments"][0]["end_s"], second["error"]) == ("a", 0.2, "no")
    assert shelf.put("part-000000-x", shelf.rows("part-000000-x")) == digest
    assert list((tmp_path / "out" / WORKING).iterdir()) == []


@pytest.mark.parametrize("form", FORMS)
def test_damage_and_absence_are_no_results(form: Form, tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), form)
    shelf.open()
    shelf.put("part-000000-x", [row("a"), row("b")])
    (path,) = tmp_path.glob("part-*")
    path.write_bytes(path.read_bytes()[:-9])
    assert shelf.rows("part-000000-x") == shelf.rows("part-000001-y") == []


def test_a_finished_shelf_holds_its_plan_and_says_so_until_it_is_opened_again(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), "json")
    shelf.open()
    parts = [shelf.plan(part) for part in parts_of(inputs([1, 1, 1]), 50, 2)]
    for name in (*(part.name for part in parts), "part-000009-old"):
        shelf.put(name, [])
    (tmp_path / "notes.txt").touch()
    shelf.finish(parts, {"failed": 0})
    expected = {*(f"{part.name}.jsonl" for part in parts), SUMMARY, "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    shelf.open()
    assert not (tmp_path / SUMMARY).exists()


def test_results_of_another_plan_are_found_by_name(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), "json")
    shelf.open()
    for part in parts_of(inputs([1, 1, 1, 1]), 50, 2):
        shelf.put(part.name, [row(one.name) for one in part.inputs])
    new = [shelf.plan(part) for part in parts_of([Input("first.wav", "", 1), *inputs([1, 1, 1, 1])], 50, 2)]
    assert [len(part.former) for part in with_former(new, shelf)] == [1, 2, 1]


def test_the_digest_is_that_of_the_shell(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), "json")
    shelf.open()
    digests = {f"part-{number}": shelf.put(f"part-{number}", [row(str(number))]) for number in range(3)}
    printed = subprocess.run(
        "sha256sum part-* | sha256sum", shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split()[0] == digest_of(digests, "json")
