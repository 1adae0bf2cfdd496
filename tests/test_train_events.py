"""What a run says of its speed."""

from __future__ import annotations

from pathlib import Path

import pytest
from training import MODEL

from paraformer.train import events
from paraformer.train.checkpoints import Progress
from paraformer.train.events import Reporter, Throughput, read_events, throughput


def test_every_wait_but_the_first_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first batch, processes start and an epoch is planned: that is not the pace of a run."""
    clock = [0.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: clock[0])

    def items():
        for wait in (50.0, 1.0, 3.0, 0.0):
            clock[0] += wait
            yield wait

    with Reporter(tmp_path, 4, Progress(), MODEL.frontend, bar=False, tensorboard=False) as report:
        for _, _ in zip(range(4), report.watched(items()), strict=False):
            clock[0] += 9.0
            report.recent.worked_s += clock[0] - report.came
        report.recent.speech_s = 400.0
        report.speed(Progress(step=4))
    assert report.throughput == Throughput(speech_s=400.0, waited_s=4.0, worked_s=36.0, longest_s=3.0)
    assert report.throughput.waited == pytest.approx(0.1)
    assert (
        str(report.throughput)
        == "10 hours of speech per hour, 10.0 % of the time waiting for data, at most 3.0 s at once"
    )
    assert throughput(read_events(tmp_path / "events.jsonl")) == report.throughput


def test_the_parts_of_a_run_are_added_up() -> None:
    parts = [Throughput(10.0, 1.0, 2.0, 0.5), Throughput(20.0, 1.0, 4.0, 0.7)]
    lines = [{"step": 3, "speed": vars(parts[0])}, {"step": 4, "total": 1.0}, {"step": 9, "speed": vars(parts[1])}]
    assert throughput(lines) == Throughput(30.0, 2.0, 6.0, 0.7)
    assert throughput(lines[1:2]) is None


@pytest.mark.parametrize("rest", [b'{"time": 1, "ep', b"\0" * 9, b"\xff\n"], ids=repr)
def test_half_a_line_is_no_event_and_the_next_begins_anew(rest: bytes, tmp_path: Path) -> None:
    """As a process that was killed leaves one, or a disk that was full."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + rest)
    assert read_events(path) == [{"step": 1}, {"step": 2}]
    with Reporter(tmp_path, 4, Progress(step=2), MODEL.frontend, bar=False, tensorboard=False) as report:
        report.note(Progress(step=3), {})
    assert [event["step"] for event in read_events(path)] == [1, 2, 3]
    assert len(path.read_bytes().splitlines()) == 3
