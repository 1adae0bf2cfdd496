from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from speech_archives import write_archive
from torch import nn

from paraformer.checkpoint import native
from paraformer.config import ChunkConfig, ModelConfig, ObjectiveConfig, SanmDecoderConfig, SanmEncoderConfig
from paraformer.data.dataset import BatchConfig, JoinConfig
from paraformer.data.prepare import prepare
from paraformer.errors import CheckpointError, ConfigError
from paraformer.train.__main__ import load_recipe, main
from paraformer.train.average import average
from paraformer.train.checkpoints import LATEST, checkpoints
from paraformer.train.config import LiveConfig, OptimiserConfig, TrainConfig
from paraformer.train.dropout import ByteDropout, use_byte_dropout
from paraformer.train.finish import finish
from paraformer.train.loop import learning_rate, live_step, train

TEXTS = ["一二", "二三", "三四", "四一", "一三", "二四", "三", "四", "一二三", "四三二", "一", "二一二三"]
MODEL = ModelConfig(
    vocab_size=0,
    encoder=SanmEncoderConfig(dim=16, ffn_dim=32, layers=2, heads=2, kernel=5),
    decoder=SanmDecoderConfig(ffn_dim=32, layers=1, attention_layers=1, heads=2, kernel=5, shift=2),
    objective=ObjectiveConfig(ctc_weight=0.3),
)
CONFIG = TrainConfig(
    model=MODEL,
    train_sets=("tones",),
    dev_set="dev",
    steps=12,
    held_out=1,
    batch=BatchConfig(seconds=6.0, buckets=2),
    join=JoinConfig(clips=2, total_s=1.5, alone_s=0.5),
    optimiser=OptimiserConfig(peak_lr=5e-3, warmup_steps=2),
    live=LiveConfig(chunk=ChunkConfig(left=2, chunk=4, right=2), start=0.5, probability=0.5),
    workers=0,
    log_steps=4,
    save_s=0.0,
    keep=3,
    card={"note": "tones"},
)


def tiny_recipe() -> TrainConfig:
    return CONFIG


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("speech")
    archives = [write_archive(directory / "tones.tar", TEXTS), write_archive(directory / "dev.tar", TEXTS[:2])]
    prepare(archives, directory)
    return directory


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    main(["test_train:tiny_recipe", "--data", str(data), "--out", str(out), "--last", "2"])
    return out


def events(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def test_training_lowers_the_loss_and_measures(run: Path) -> None:
    totals = [event["total"] for event in events(run) if "total" in event]
    assert len(totals) == 3
    assert totals[-1] < totals[0]
    assert [event for event in events(run) if "cer" in event]
    assert [path.name for path in checkpoints(run)] == [f"step-{step:07d}.pt" for step in (10, 11, 12)]


def test_the_bundle_opens_and_tells_its_sources(run: Path) -> None:
    bundle, model = native.load(run / "bundle")
    assert bundle.tokens[:3] == ("<blank>", "<s>", "</s>")
    assert len(bundle.tokens) == model.config.vocab_size == 8
    assert bundle.card["note"] == "tones"
    assert "dev, whole" in bundle.card["errors"]
    assert "dev, live" in bundle.card["errors"]


def test_a_stopped_run_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(CONFIG, steps=3), data, tmp_path)
    before = torch.load(tmp_path / LATEST, weights_only=True)
    model = train(dataclasses.replace(CONFIG, steps=3), data, tmp_path)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before["model"].items())
    train(dataclasses.replace(CONFIG, steps=5), data, tmp_path)
    assert torch.load(tmp_path / LATEST, weights_only=True)["step"] == 5


def test_a_run_can_start_from_a_bundle(run: Path, data: Path, tmp_path: Path) -> None:
    bundle = run / "bundle"
    further = dataclasses.replace(CONFIG, init=str(bundle), optimiser=OptimiserConfig(peak_lr=0.0), steps=1)
    model = train(further, data, tmp_path)
    _, before = native.load(bundle)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.state_dict().items())
    wider = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, ffn_dim=48))
    with pytest.raises(ConfigError, match="other sizes"):
        train(dataclasses.replace(further, model=wider), data, tmp_path / "wider")


def test_a_checkpoint_of_another_model_is_refused(data: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(CONFIG, steps=1), data, tmp_path)
    path = tmp_path / LATEST
    values = torch.load(path, weights_only=True)
    values["model"].pop("encoder.norm.weight")
    torch.save(values, path)
    with pytest.raises(CheckpointError, match=r"encoder\.norm\.weight"):
        train(CONFIG, data, tmp_path)


def test_finishing_without_checkpoints_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        finish(CONFIG, data, tmp_path, last=2)


def test_learning_rate_rises_and_falls() -> None:
    config = OptimiserConfig(peak_lr=1.0, warmup_steps=10)
    rates = [learning_rate(number, 110, config) for number in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_live_steps_start_late_and_keep_their_share() -> None:
    config = dataclasses.replace(CONFIG, steps=4000, live=LiveConfig(start=0.25, probability=0.3))
    live = [live_step(config, number) for number in range(4000)]
    assert not any(live[:1000])
    assert sum(live[1000:]) / 3000 == pytest.approx(0.3, abs=0.03)
    assert not live_step(dataclasses.replace(config, live=None), 3999)


def test_average_is_the_mean() -> None:
    weights = [{"w": torch.full((2, 3), float(value)), "n": torch.tensor([value])} for value in (1, 2, 6)]
    mean = average(weights)
    assert torch.equal(mean["w"], torch.full((2, 3), 3.0))
    assert mean["n"].dtype == torch.int64
    with pytest.raises(CheckpointError, match="different models"):
        average([weights[0], {"w": torch.zeros(3)}])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_byte_dropout_drops_its_share_and_keeps_the_mean(dtype: torch.dtype) -> None:
    dropout = ByteDropout(0.25, np.random.Generator(np.random.SFC64(0)))
    x = torch.ones(101, 999, dtype=dtype, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    assert torch.equal(x.grad, y)
    assert (y == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert y.detach().float().mean() == pytest.approx(1.0, abs=0.02)
    assert dropout.eval()(x) is x


def test_byte_dropout_replaces_every_dropout() -> None:
    model = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2)))
    use_byte_dropout(model, 0)
    assert not [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [m.threshold for m in model.modules() if isinstance(m, ByteDropout)] == [26, 51]


def test_impossible_settings_and_recipes_are_refused() -> None:
    with pytest.raises(ConfigError, match="steps"):
        dataclasses.replace(CONFIG, steps=0)
    with pytest.raises(ConfigError, match="buckets"):
        BatchConfig(buckets=1)
    with pytest.raises(ConfigError, match="train_sets"):
        dataclasses.replace(CONFIG, train_sets=())
    with pytest.raises(ConfigError, match="nowhere"):
        load_recipe("nowhere:config")


@pytest.mark.slow
def test_two_processes_train_one_model(data: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"),
        *("paraformer.train", "test_train:tiny_recipe", "--data", str(data), "--out", str(tmp_path), "--steps", "4"),
    ]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path}, timeout=120)
    assert (tmp_path / "bundle").is_dir()
    assert [event["step"] for event in events(tmp_path) if "total" in event] == [4]
