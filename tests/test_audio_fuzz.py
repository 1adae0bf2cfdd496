"""Damaged files of every format give samples or one error: no crash, no hang, no other exception."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import audio_fuzz
import pytest

BATCH = 250
"""Files that one process hears."""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of sound files."""
    pytest.importorskip("av")
    directory = tmp_path_factory.mktemp("seeds")
    for name, data in audio_fuzz.seeds():
        (directory / name).write_bytes(data)
    return directory


def outcomes(seeds: Path, first: int, last: int) -> dict[int, str]:
    """What became of some files, by their numbers; a process that dies is replaced after the file that killed it."""
    found: dict[int, str] = {}
    while first < last:
        command = [sys.executable, audio_fuzz.__file__, str(seeds), str(first), str(last)]
        child = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        lines = [line.split(" ", 1) for line in child.stdout.splitlines() if " " in line]
        found |= {int(number): what for number, what in lines}
        first += len(lines)
        if child.returncode or "Traceback" in child.stderr:
            found[first if child.returncode else first - 1] = f"BAD end {child.returncode}: {child.stderr[-600:]}"
            first += 1
    return found


def hear(seeds: Path, first: int, last: int) -> None:
    """All of them end well, and both ends occur."""
    found = outcomes(seeds, first, last)
    files = [(path.name, path.read_bytes()) for path in sorted(seeds.glob("*-*"))]
    names = {number: audio_fuzz.damaged(files, number)[0] for number in found}
    bad = [f"{number} ({names[number]}): {what}" for number, what in found.items() if what.startswith("BAD")]
    assert not bad, "\n".join(bad)
    assert sorted(found) == list(range(first, last))
    kinds = [what.split()[0] for what in found.values()]
    assert min(kinds.count("heard"), kinds.count("refused:")) > 0.1 * len(kinds)


def test_sound_files_are_heard(seeds: Path) -> None:
    for path in seeds.glob("*-*"):
        assert audio_fuzz.outcome(path.name, path.read_bytes(), 0, seeds).startswith("heard"), path.name


@pytest.mark.parametrize("first", range(0, 500, BATCH))
def test_damaged_files(seeds: Path, first: int) -> None:
    hear(seeds, first, first + BATCH)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(500, 20_500, 1000))
def test_many_damaged_files(seeds: Path, first: int) -> None:
    for start in range(first, first + 1000, BATCH):
        hear(seeds, start, start + BATCH)
