"""The commands of the project are sound shell, and the Python of its documents runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import soundfile
import tiny
import tiny_bundle

from paraformer import loader

ROOT = Path(__file__).parent.parent
NAMES = ("test", "check", "demo", "environment", "peers", "mutate", "sanitise")
SCRIPTS = [*(ROOT / "scripts" / name for name in NAMES), ROOT / ".ci" / "run"]
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(block, id=f"{name}:{number}")
    for name in ("README.md", "docs/usage.md")
    for number, block in enumerate(PYTHON.findall((ROOT / name).read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    if script.name != "environment":  # is sourced
        assert os.access(script, os.X_OK)
        assert "set -euo pipefail" in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("block", BLOCKS)
def test_documented_python_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "talk.wav", tiny.signal(40_000), 16_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loader, "locate", lambda name, **_: tiny_bundle.directory())
    exec(compile(block, "document", "exec"), {})


def test_readme_shows_code_on_its_first_screen() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 25
    assert sum(line.startswith("|") for line in lines[:60]) > 3
