from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("ray") is None:
    pytest.skip("paraformer[ray] is not installed", allow_module_level=True)

from paraformer.batch.places import Input, inputs_of, opened
from paraformer.errors import DataError


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    directory = tmp_path / "sounds"
    (directory / "二").mkdir(parents=True)
    for name, size in {"b.wav": 3, "a.FLAC": 2, "二/c d.mp3": 4, "notes.txt": 9}.items():
        (directory / name).write_bytes(bytes(size))
    return directory


def test_a_directory_gives_its_recordings_in_order(sounds: Path) -> None:
    found = inputs_of([f"{sounds}/"])
    assert [(one.name, one.size) for one in found] == [
        (f"{sounds}/a.FLAC", 2),
        (f"{sounds}/b.wav", 3),
        (f"{sounds}/二/c d.mp3", 4),
    ]
    assert all(Path(one.place).is_file() for one in found)


@pytest.mark.parametrize("scheme", ["file", "local"])  # by pyarrow and by fsspec
def test_a_bucket_is_a_directory_by_url(scheme: str, sounds: Path) -> None:
    url = f"{scheme}://{sounds}"
    found = inputs_of([url])
    assert [one.name for one in found] == [f"{url}/a.FLAC", f"{url}/b.wav", f"{url}/二/c d.mp3"]
    for one in found:
        system, path = opened(one.place)
        assert len(system.open_input_file(path).read()) == one.size


def test_memory_of_fsspec_is_a_bucket(sounds: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe("/bucket/x/1.wav", b"12")
    try:
        assert inputs_of(["memory://bucket/x"]) == [Input("memory://bucket/x/1.wav", "memory://bucket/x/1.wav", 2)]
    finally:
        system.rm("/bucket", recursive=True)


@pytest.mark.parametrize("name", ["list.jsonl", "list.tsv", "list.txt"])
def test_lists_name_recordings_from_where_they_are(name: str, sounds: Path) -> None:
    names = ["b.wav", "notes.txt", f"file://{sounds}/a.FLAC", "missing.wav", "b.wav"]
    heads = {"list.jsonl": [], "list.tsv": ["audio\tx"], "list.txt": []}
    lines = {
        "list.jsonl": [json.dumps({"audio": one}) for one in names],
        "list.tsv": [f"{one}\t0" for one in names],
        "list.txt": names,
    }
    (sounds / name).write_text("\n".join([*heads[name], *lines[name]]))
    found = inputs_of([str(sounds / name)])
    assert [(one.name, one.size) for one in found] == [
        ("b.wav", 3),
        ("notes.txt", 9),
        (f"file://{sounds}/a.FLAC", 2),
        ("missing.wav", 0),
    ]


def test_files_are_named_one_by_one_too(sounds: Path) -> None:
    assert [one.size for one in inputs_of([str(sounds / "b.wav"), str(sounds)])] == [3, 2, 4]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere://x/y", "nowhere://x/y cannot be opened"),
        ("list.jsonl", "list.jsonl, line 1: it names no audio"),
        ("empty", "no recording was found"),
        ("none.txt", "there is no file none.txt"),
    ],
)
def test_mistakes_are_told(source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.jsonl").write_text('{"sound": "a.wav"}')
    with pytest.raises(DataError, match=message):
        inputs_of([source])
