"""On a real cluster of this machine, in processes that are killed."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import recordings

if find_spec("ray") is None:
    pytest.skip("paraformer[ray] is not installed", allow_module_level=True)

from paraformer.batch.parts import SUMMARY, Shelf, digest_of, parts_of
from paraformer.batch.places import inputs_of
from paraformer.batch.recognising import Recognition
from paraformer.batch.worker import Job, Worker

CHILD = Path(__file__).parent / "batch_run.py"
IN_A_PART = 20


def run_alone(source: Path, out: Path) -> str:
    """The digest of the same work in this process, without a cluster."""
    shelf = Shelf(str(out), "json")
    shelf.open()
    worker = Worker(Job(str(out), "json", Recognition.of(None, {}, tokens=False, channel="mix", batch_s=60.0)))
    parts = [shelf.plan(part) for part in parts_of(inputs_of([str(source)]), most=IN_A_PART)]
    done = [worker(part) for part in parts]
    return digest_of({part["part"]: part["sha256"] for part in done}, "json")


class Run:
    """One start of the driver, with its workers."""

    def __init__(self, source: Path, out: Path, pids: Path) -> None:
        pids.mkdir()
        self.out, self.pids = out, pids
        command = [sys.executable, CHILD, source, out, pids]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def wait_for(self, parts: int) -> None:
        """Until there are so many parts, or the end."""
        while len(list(self.out.glob("part-*"))) < parts and self.process.poll() is None:
            time.sleep(0.05)

    def kill_a_worker(self) -> None:
        """Any, at any moment of a part."""
        time.sleep(random.random() * 0.3)
        alive = [pid for pid in (int(path.name) for path in self.pids.iterdir()) if Path(f"/proc/{pid}").exists()]
        with suppress(ProcessLookupError, IndexError):
            os.kill(random.choice(alive), signal.SIGKILL)

    def kill(self) -> None:
        """The driver."""
        self.process.kill()
        self.process.communicate()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")
@pytest.mark.timeout(600)
def test_each_file_has_one_result_whoever_dies(tmp_path: Path) -> None:
    count = 2000
    names = recordings.write(tmp_path / "in", count)
    size = count // IN_A_PART
    first = Run(tmp_path / "in", tmp_path / "out", tmp_path / "first")
    for share in (0.1, 0.3):
        first.wait_for(round(share * size))
        first.kill_a_worker()
    first.wait_for(round(0.5 * size))
    first.kill()
    assert not (tmp_path / "out" / SUMMARY).exists()
    second = Run(tmp_path / "in", tmp_path / "out", tmp_path / "second")
    second.wait_for(round(0.8 * size))
    second.kill_a_worker()
    told, _ = second.process.communicate()
    digest = run_alone(tmp_path / "in", tmp_path / "alone")
    said = [line.split()[1:] for line in told.splitlines() if line.startswith("done: ")]  # Ray's own words come between
    assert said == [[digest, str(count), "0"]]
    parts = sorted((tmp_path / "out").glob("part-*"))
    rows = [json.loads(line) for path in parts for line in path.read_text().splitlines()]
    assert [row["file"] for row in rows] == names
    assert (tmp_path / "out" / SUMMARY).is_file()


@pytest.mark.slow
def test_a_corpus_is_prepared_by_many(tmp_path: Path) -> None:
    names = recordings.write(tmp_path / "in", 250)
    (tmp_path / "in.csv").write_text("path,text\n" + "".join(f"{name},一\n" for name in names), encoding="utf-8")
    for more in ((), ("--ray",)):
        command = [
            sys.executable,
            "-m",
            "paraformer.cli",
            "data",
            "prepare",
            "other",
            "in.csv",
            f"out{len(more)}",
            *more,
        ]
        subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    one, many = (gzip.decompress((tmp_path / f"out{n}" / "in.cuts.jsonl.gz").read_bytes()) for n in (0, 1))
    assert one == many
