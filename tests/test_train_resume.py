"""Stopping, going on and failing to save: no step is lost or done twice."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from training import CONFIG, TEXTS, events, prepared, same, stopping_after

from paraformer.cli import main
from paraformer.errors import CheckpointError, ConfigError
from paraformer.train.checkpoints import best_weights, newest, read_weights
from paraformer.train.config import differences
from paraformer.train.loop import train

CONFIG = dataclasses.replace(CONFIG, steps=7, save_s=1e9)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("speech"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stop_and_resume_equals_going_straight_on(precision: str, data: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, precision=precision, accumulate=2)
    straight = train(config, data, tmp_path / "straight")
    with stopping_after(4):  # in the middle of the second epoch
        stopped = train(config, data, tmp_path / "stopped")
    assert stopped.signal == signal.SIGTERM
    assert (stopped.progress.step, stopped.progress.epoch) == (4, 1)
    resumed = train(config, data, tmp_path / "stopped")
    assert resumed.progress == straight.progress
    assert same(resumed.model, straight.model)
    stripped = [
        [{k: v for k, v in event.items() if k not in ("time", "waited", "hours_per_hour")} for event in events(out)]
        for out in (tmp_path / "straight", tmp_path / "stopped")
    ]
    assert [e for e in stripped[0] if "cer" in e] == [e for e in stripped[1] if "cer" in e]


def test_a_signal_ends_the_command_with_its_exit_code(data: Path, tmp_path: Path, capfd) -> None:
    command = ["train", "training:recipe", "--data", str(data), "--out", str(tmp_path)]
    with stopping_after(2):
        assert main(command) == 128 + signal.SIGTERM == 143
    assert "stopped by SIGTERM; saved" in capfd.readouterr().err
    assert newest(tmp_path).name == "step-0000002"
    assert not (tmp_path / "bundle").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_a_signal_to_the_whole_group_ends_the_command_well(data: Path, tmp_path: Path) -> None:
    """As Ctrl-C, schedulers and service managers send it: to the processes that load batches as well."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-m", "paraformer.cli", "train", "training:endless"]
    process = subprocess.Popen(
        [*command, "--data", str(data), "--out", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    while process.poll() is None and not [event for event in events(tmp_path) if "total" in event]:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert newest(tmp_path) is not None


def test_another_run_is_not_continued(data: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(CONFIG, steps=2), data, tmp_path)
    louder = dataclasses.replace(CONFIG.optimiser, peak_lr=1.0)
    with pytest.raises(ConfigError, match=r"optimiser\.peak_lr: 0\.005 -> 1\.0; seed: 0 -> 1"):
        train(dataclasses.replace(CONFIG, optimiser=louder, seed=1), data, tmp_path)
    with pytest.raises(ConfigError, match="steps: 2 -> 1"):
        train(dataclasses.replace(CONFIG, steps=1), data, tmp_path)
    longer = dataclasses.replace(CONFIG, steps=3, log_steps=1, keep=1)
    assert train(longer, data, tmp_path).progress.step == 3
    assert [event["changed"] for event in events(tmp_path) if "changed" in event][-1] == {
        "steps": "2 -> 3",
        "log_steps": "4 -> 1",
        "keep": "2 -> 1",
    }


def test_a_run_on_other_speech_is_not_continued(tmp_path: Path) -> None:
    train(dataclasses.replace(CONFIG, steps=1), prepared(tmp_path, TEXTS), tmp_path / "run")
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match=r"speech\.utterances: 11 -> 10"):
        train(dataclasses.replace(CONFIG, steps=1), prepared(tmp_path / "other", TEXTS[1:]), tmp_path / "run")
    (tmp_path / "corrected").mkdir()
    corrected = prepared(tmp_path / "corrected", [TEXTS[0][::-1], *TEXTS[1:]])
    with pytest.raises(ConfigError, match=r"speech\.digest"):
        train(dataclasses.replace(CONFIG, steps=1), corrected, tmp_path / "run")


def test_a_newer_version_with_more_settings_goes_on(data: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(CONFIG, steps=1), data, tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for holder, name in ((settings["optimiser"], "schedule"), (settings, "augment")):  # as if they were new
        holder.pop(name)
    path.write_text(json.dumps(settings), encoding="utf-8")
    train(dataclasses.replace(CONFIG, steps=1), data, tmp_path)
    del settings["optimiser"]["peak_lr"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"optimiser\.peak_lr: None -> 0\.005"):  # not its default
        train(dataclasses.replace(CONFIG, steps=1), data, tmp_path)


def test_differences_are_named_by_their_path() -> None:
    old, new = {"a": {"b": 1, "c": [1, 2]}, "gone": 3}, {"a": {"b": 2, "c": [1, 2]}, "come": 4}
    assert dict(differences(old, new)) == {"a.b": (1, 2), "gone": (3, None), "come": (None, 4)}


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["HuggingFaceStorageWriter.write_data", "_sync"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(place: str, data: Path, tmp_path: Path, monkeypatch) -> None:
    straight = train(CONFIG, data, tmp_path / "straight")
    with stopping_after(2):
        train(CONFIG, data, tmp_path)
    greedy = dataclasses.replace(CONFIG, save_s=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(f"paraformer.train.checkpoints.{place}", full)
        with pytest.raises(CheckpointError, match=r"No space left.*goes on from step-0000002$"):
            train(greedy, data, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]
    assert same(train(CONFIG, data, tmp_path).model, straight.model)


def test_a_full_disk_leaves_the_last_weights_whole(data: Path, tmp_path: Path, monkeypatch) -> None:
    with stopping_after(6):  # of which the fifth was measured
        train(CONFIG, data, tmp_path)
    before = read_weights(best_weights(tmp_path)[0])

    def half(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("paraformer.train.checkpoints.save_file", half)
        with pytest.raises(CheckpointError, match=r"step-0000007\.safetensors could not be saved: .*No space left"):
            train(CONFIG, data, tmp_path)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["step-0000005.safetensors"]
    assert all(torch.equal(before[name], tensor) for name, tensor in read_weights(best_weights(tmp_path)[0]).items())
    assert train(CONFIG, data, tmp_path).progress.step == CONFIG.steps


def test_a_damaged_checkpoint_is_refused(data: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(CONFIG, steps=1), data, tmp_path)
    (shard,) = newest(tmp_path).glob("*.safetensors")
    content = shard.read_bytes()
    shard.write_bytes(content[:-8])
    with pytest.raises(CheckpointError, match="step-0000001 is damaged"):
        train(CONFIG, data, tmp_path)
    shard.write_bytes(content.replace(b"model.encoder.norm.bias", b"model.encoder.norm.xxxx"))
    with pytest.raises(CheckpointError, match=r"encoder\.norm\.bias"):
        train(CONFIG, data, tmp_path)
