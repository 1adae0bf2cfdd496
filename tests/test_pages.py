"""README and site, walked as a newcomer: every block of a page in order, in an empty directory, as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pages
import pytest
import soundfile
from pages import CHINESE, PAGES, ROOT, Block

SAMPLES = ROOT / "src" / "paraformer" / "samples"
RUN = ("sh", "python")
PRINTED = "text"
PORTS = ("10095", "10096")


def walked(page: Path, *, slow: bool) -> list[Block]:
    """What of a page is run: with the slow tests all of it that can be, in its order, so that each finds its files."""
    found = pages.blocks(page)
    runs = [one.language in RUN and one.how != "not run" and (slow or one.how != "slow") for one in found]
    printed = [one.language == PRINTED and before for one, before in zip(found, [False, *runs], strict=False)]
    chosen = [one for one, run, says in zip(found, runs, printed, strict=True) if run or says]
    return chosen if not slow or any(one.how == "slow" for one in chosen) else []


def fill(directory: Path) -> None:
    """The files that pages take for granted: recordings, their texts, words, texts."""
    texts = json.loads((SAMPLES / "texts.json").read_text(encoding="utf-8"))
    lines = ["path\ttext\tspeaker"]
    for name, known in texts.items():
        samples, rate = soundfile.read(SAMPLES / name)
        wav = name.replace(".flac", ".wav")
        soundfile.write(directory / wav, samples, rate)
        lines.append(f"{wav}\t{known['text']}\t{known['voice']}")
    for name in ("talk.wav", "lecture.wav"):
        shutil.copy(directory / "meeting.wav", directory / name)
    (directory / "my-talks.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (directory / "words.txt").write_text("准时参加\n地铁站\n", encoding="utf-8")
    sentences = "".join(f"{known['text']}\n" for known in texts.values()) * 5
    for name in ("texts.txt", "more.txt", "like-mine.txt"):
        (directory / name).write_text(sentences, encoding="utf-8")


def environment(directory: Path, ports: dict[str, str]) -> dict[str, str]:
    """A newcomer's: nothing set but the way to the command; servers listen where no other test does."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PARAFORMER_CACHE": str(directory / ".cache"),
        "PARAFORMER_PORT": ports[PORTS[0]],
        "PARAFORMER_ADMIN_PORT": ports[PORTS[1]],
    }


def free_ports() -> dict[str, str]:
    with socket.socket() as one, socket.socket() as two:
        for door in (one, two):
            door.bind(("127.0.0.1", 0))
        return dict(zip(PORTS, (str(door.getsockname()[1]) for door in (one, two)), strict=True))


@contextmanager
def serving(code: str, directory: Path, ports: dict[str, str]) -> Iterator[None]:
    """A block that runs until it is ended, from when it says that it is ready."""
    command = ["bash", "-c", "exec " + pages.installed(code)[0].strip()]
    process = subprocess.Popen(command, cwd=directory, env=environment(directory, ports), stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{ports[PORTS[1]]}/ready", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, f"{code.strip()} ended at once"
                time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def run(block: Block, directory: Path, ports: dict[str, str]) -> str:
    """What one block prints; its failure is the test's."""
    code = block.code
    for usual, free in ports.items():
        code = code.replace(usual, free)
    if block.title:
        (directory / block.title).write_text(code, encoding="utf-8")
    if block.language == "sh":
        code, extras = pages.installed(code)
        assert extras <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    command = [sys.executable, "-c", code] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(
        command, cwd=directory, env=environment(directory, ports), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def walk(todo: list[Block], directory: Path) -> None:
    """All blocks of a page. Where one is followed by what it prints, the first line of that must be so."""
    fill(directory)
    ports = free_ports()
    printed = ""
    with ExitStack() as servers:
        for block in todo:
            if block.language == PRINTED:
                assert block.code.splitlines()[0] in printed.splitlines()
            elif block.how == "background":
                servers.enter_context(serving(block.code, directory, ports))
            else:
                printed = run(block, directory, ports)


@pytest.mark.parametrize("page", [one for one in PAGES if walked(one, slow=False)], ids=lambda page: page.stem)
def test_every_block_of_a_page_runs_in_its_order(page: Path, tmp_path: Path) -> None:
    walk(walked(page, slow=False), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [one for one in PAGES if walked(one, slow=True)], ids=lambda page: page.stem)
def test_so_do_the_long_ones(page: Path, tmp_path: Path) -> None:
    walk(walked(page, slow=True), tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_no_code_that_nobody_runs(page: Path) -> None:
    """Code is `sh` or `python`; what is run elsewhere, or printed, says what it is: text, json, toml ..."""
    assert not [one.code for one in pages.blocks(page) if one.language in {"", "py", "bash", "shell", "console"}]
    indented = re.findall(
        r"^    (?:paraformer|pip|python) .*", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    assert not indented


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.stem)
def test_a_chinese_page_has_the_blocks_of_the_english_one(page: Path) -> None:
    """So that what runs there runs here; only comments and what is printed may differ."""
    english = page.with_name(page.name.replace(".zh.md", ".md"))
    theirs, ours = ([one for one in pages.blocks(which) if one.language in RUN] for which in (english, page))
    assert [pages.bare(one.code) for one in ours] == [pages.bare(one.code) for one in theirs]
    assert [one.how for one in ours] == [one.how for one in theirs]


@pytest.mark.parametrize("page", [*PAGES, *CHINESE], ids=lambda page: page.name)
def test_links_and_pictures_of_a_page_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_site_has_every_page() -> None:
    shown = set(re.findall(r'"([\w/.-]+\.md)"', (ROOT / "zensical.toml").read_text()))
    there = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md") if ".zh." not in page.name}
    assert shown == there | {"CHANGELOG.md", "CONTRIBUTING.md"}


def test_readme_shows_code_on_its_first_screen() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 25
    assert sum(line.startswith("|") for line in lines[:60]) > 3
