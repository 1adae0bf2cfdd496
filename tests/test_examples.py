"""The examples run, with a tiny model in place of the embedded one."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import tiny

from paraformer import loader
from paraformer.bundle import Bundle
from paraformer.checkpoint import native
from paraformer.export import export

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    native.save(Bundle(None, tiny.config(), tiny.TOKENS, tiny.engine().frontend.cmvn), tiny.model(), directory)
    export(tiny.model(), directory)
    return directory


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(
    example: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loader, "locate", lambda name, **_: model)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    arguments = [str(model)] if example.stem == "modelscope_card" else []
    monkeypatch.setattr(sys, "argv", [str(example), *arguments])
    runpy.run_path(str(example), run_name="__main__")
    assert len(capsys.readouterr().out) > 10


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_names_what_it_needs(example: Path) -> None:
    lines = example.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# /// script"
    assert '# dependencies = ["paraformer"]' in lines[:5]
    assert len(lines) <= 60
