"""What a machine carries: the plan follows from the measurement; the commands; a soak in small."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import logged, serving

from paraformer.cli import main
from paraformer.serve import plan
from paraformer.serve.config import Limits
from paraformer.serve.engine import Capacity
from paraformer.serve.plan import Measured, free_memory, late, plans, speech, too_little
from paraformer.serve.scheduler import Step

FAST = Measured(step_s=0.015, chunk_s=0.6, whole=0.015, session_bytes=3_000_000, threads=1)


@settings(max_examples=10)
@given(st.floats(0.005, 0.5), st.integers(1, 8))
def test_one_stream_alone_waits_for_nobody(step_s: float, cores: int) -> None:
    measured = replace(FAST, step_s=step_s)
    assert late(measured, 1) == pytest.approx(step_s)
    rows = list(plans(measured, cores, 0.3))
    assert [row.workers for row in rows] == [n for n in (1, 2, 4, 8) if n <= cores]
    for row in rows:
        assert row.streams == row.workers * rows[0].streams
        assert rows[0].streams <= max(1.0, 0.8 * measured.limit)
        assert row.latency_s <= 0.3 or rows[0].streams == 1


def test_more_streams_wait_longer_and_less_time_carries_fewer() -> None:
    waits = [late(FAST, streams) for streams in (1, 8, 16, 24, 32)]
    assert waits == sorted(waits)
    tight, loose = (next(plans(FAST, 1, latency_s)).streams for latency_s in (0.05, 0.3))
    assert 1 <= tight < loose <= 27


def test_capacity_keeps_up_with_what_steps_take() -> None:
    capacity = Capacity(0.015, 0.6, 0)
    assert capacity.streams == 32
    for _ in range(1000):
        capacity.observe(Step(4, 0.24, 0.3))  # four times as long
    assert 8 <= capacity.streams <= 9
    assert Capacity(0.015, 0.6, 5).streams == 5
    assert Capacity(9.0, 0.6, 0).streams == 1


def test_streams_that_memory_has_no_room_for_are_told_of_at_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plan, "free_memory", lambda: 60_000_000)
    assert too_little(FAST, 5, workers=2) is None
    with logged() as log, serving(limits=Limits(streams=500)) as running:
        assert running.process.engine.capacity.streams == 500
    (told,) = [line["message"] for line in map(json.loads, log.getvalue().splitlines()) if "memory" in line["message"]]
    assert "500 live streams take" in told and "0.1 GB are free: lower --streams to " in told


def test_the_least_that_machine_and_container_say_is_free(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable: 500 kB\n")
    assert free_memory(tmp_path) == 512_000
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("100\n")
    (group / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 512_000
    (group / "memory.max").write_text("300\n")
    assert free_memory(tmp_path) == 200


def test_noise_to_measure_with_is_the_same_each_time() -> None:
    assert (speech(0.1) == speech(0.1)).all()
    assert len(speech(0.1)) == 1600


def test_the_command_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = tmp_path / "values.yaml"
    assert main(["plan", "--seconds", "0.5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["plans"][0]["streams"] >= 1
    assert said["measured"]["chunk_s"] == pytest.approx(0.6)
    assert main(["plan", "--seconds", "0.5", "--values", str(values)]) == 0
    assert "live streams" in capsys.readouterr().out
    assert yaml.safe_load(values.read_text())["server"]["streams"] >= 1


def test_the_command_checks_its_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check"]) == 0
    assert main(["serve", "--check", "--host", "0.0.0.0"]) == 1
    assert "needs keys" in capsys.readouterr().err
    keys = tmp_path / "keys"
    keys.write_text("a\n")
    assert main(["serve", "--check", "--host", "0.0.0.0", "--keys", str(keys)]) == 0
    config = tmp_path / "serve.toml"
    config.write_text("workerz = 2\n")
    assert main(["serve", "--check", "--config", str(config)]) == 1
    assert "did you mean workers" in capsys.readouterr().err
    assert main(["serve", "--check", "--self-signed", str(tmp_path / "tls")]) == 0
    assert (tmp_path / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_trouble_of_all_kinds_loses_and_mixes_up_nothing() -> None:
    script = Path(__file__).parents[1] / "scripts" / "soak.py"
    done = subprocess.run([sys.executable, script, "--seconds", "20"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
