from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training import CONFIG, MODEL, events, prepared

from paraformer.checkpoint import native
from paraformer.cli import main
from paraformer.config import ChunkConfig
from paraformer.data.dataset import BatchConfig, epoch_plan, says_nothing, text_of
from paraformer.errors import CheckpointError, ConfigError
from paraformer.model.paraformer import Paraformer
from paraformer.train.checkpoints import Progress, average, best_weights, read_weights, save_weights
from paraformer.train.config import LiveConfig, OptimiserConfig, load_recipe
from paraformer.train.finish import finish
from paraformer.train.loop import train
from paraformer.train.speech import Speech
from paraformer.train.step import ByteDropout, chunking, learning_rate, seed_all, use_byte_dropout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert main(["train", "training:recipe", "--data", str(data), "--out", str(out), "--tensorboard"]) == 0
    return out


def test_training_lowers_the_loss_and_measures(run: Path) -> None:
    totals = [event["total"] for event in events(run) if "total" in event]
    assert len(totals) == 3
    assert totals[-1] < totals[0]
    measured = [event for event in events(run) if "cer" in event]
    assert [event["step"] for event in measured] == [5, 10, 12]
    assert measured[0]["cer"].keys() == {"dev", "held_out"}
    assert all(event["hours_per_hour"] > 0 and 0 <= event["waited"] <= 1 for event in events(run) if "total" in event)


def test_the_run_says_how_long_it_waited_for_data(run: Path) -> None:
    [speed] = [event["speed"] for event in events(run) if "speed" in event][:1]
    assert speed["speech_s"] > 0 and speed["worked_s"] > 0
    assert 0 <= speed["longest_s"] <= speed["waited_s"]
    assert "waiting for data" in native.load(run / "bundle")[0].card["speed"]


def test_the_run_directory_holds_what_it_should(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.json", "setup.json", "events.jsonl", "curves.png", "tensorboard", "bundle", "weights"}
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((run / "tensorboard").iterdir())
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["optimiser"]["peak_lr"] == 5e-3
    assert len(best_weights(run)) == CONFIG.keep
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-0000011", "step-0000012"]


def test_the_bundle_opens_and_tells_its_sources(run: Path) -> None:
    bundle, model = native.load(run / "bundle")
    assert bundle.tokens[:3] == ("<blank>", "<s>", "</s>")
    assert len(bundle.tokens) == model.config.vocab_size == 8
    assert bundle.card["note"] == "tones"
    assert bundle.card["averaged"] == [path.name for path in best_weights(run)]
    assert {"dev, whole", "dev, live"} <= set(bundle.card["errors"])


def test_the_command_says_how_fast_it_was(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["train", "training:recipe", "--data", str(data), "--out", str(run), "--average", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{run / 'bundle'}\n"
    assert "12 steps, 0 hours of speech per hour" in printed.err  # nothing was left to do
    assert len(native.load(run / "bundle")[0].card["averaged"]) == 1


def test_a_run_can_start_from_a_bundle_or_a_file_of_weights(run: Path, data: Path, tmp_path: Path) -> None:
    plain = run / "old.pt"
    torch.save({"model": read_weights(best_weights(run)[0]), "step": 5}, plain)
    still = dataclasses.replace(CONFIG, optimiser=OptimiserConfig(peak_lr=0.0), steps=1)
    for init in (run / "bundle", best_weights(run)[0], plain):
        model = train(dataclasses.replace(still, init=str(init)), data, tmp_path / init.name).model
        weights = native.load(init)[1].state_dict() if init.is_dir() else read_weights(init)
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())
    wider = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, ffn_dim=48))
    with pytest.raises(ConfigError, match="other sizes"):
        train(dataclasses.replace(still, init=str(plain), model=wider), data, tmp_path / "wider")
    with pytest.raises(ConfigError, match=r"setup\.json"):
        train(dataclasses.replace(still, init=str(tmp_path / "x" / "y" / "lonely.pt")), data, tmp_path / "lonely")


def test_a_run_can_start_from_the_encoder_alone(run: Path, data: Path, tmp_path: Path) -> None:
    still = dataclasses.replace(CONFIG, optimiser=OptimiserConfig(peak_lr=0.0), steps=1, seed=7)
    other = dataclasses.replace(MODEL, decoder=dataclasses.replace(MODEL.decoder, ffn_dim=48))
    config = dataclasses.replace(still, init_encoder=str(run / "bundle"), model=other)
    found, given = train(config, data, tmp_path / "run").model.state_dict(), native.load(run / "bundle")[1].state_dict()
    same = {name for name in found if name in given and torch.equal(found[name], given[name])}
    assert {name for name in found if name.startswith(("encoder.", "ctc."))} <= same
    assert "decoder.embedding.weight" not in same
    wider = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, ffn_dim=48))
    with pytest.raises(ConfigError, match="other sizes"):
        train(dataclasses.replace(config, model=wider), data, tmp_path / "wider")
    with pytest.raises(ConfigError, match="name one model"):
        dataclasses.replace(config, init=str(run / "bundle"))


def test_frozen_parts_stay_as_they_were(run: Path, data: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, init=str(run / "bundle"), frozen=("encoder.blocks.1",), steps=2)
    found, given = train(config, data, tmp_path / "run").model.state_dict(), native.load(run / "bundle")[1].state_dict()
    moved = {name for name in given if not torch.equal(found[name], given[name])}
    assert not any(name.startswith("encoder.blocks.1.") for name in moved)
    assert {"encoder.blocks.0.feed_forward.up.weight", "decoder.output.weight"} <= moved
    with pytest.raises(ConfigError, match=r"encoder\.block, but"):
        train(dataclasses.replace(config, frozen=("encoder.block",)), data, tmp_path / "other")


def test_noises_are_utterances_as_often_as_asked(data: Path) -> None:
    """In every batch plan the same, whatever else is trained on; what is said in them is nothing."""
    config = dataclasses.replace(CONFIG, noise_set="dev", noise_copies=3)
    words, noises = Speech.load(CONFIG, data), Speech.load(config, data)
    silent = [cut for cut in noises.train if says_nothing(cut)]
    assert len(silent) == 3 * len(noises.noises) == len(noises.train) - len(words.train)
    assert {text_of(cut) for cut in silent} == {""}
    plan = epoch_plan(noises.train, config.join, config.batch, 0)
    assert sum(len(cuts) for cuts in plan) == len(noises.train)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    for name, content in (("a.pt", b"nothing"), ("b.safetensors", b"nothing")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read_weights(tmp_path / name)


def test_a_run_that_no_longer_gets_better_ends(data: Path, tmp_path: Path) -> None:
    still = OptimiserConfig(peak_lr=0.0)
    config = dataclasses.replace(CONFIG, optimiser=still, measure_steps=1, patience=2, save_s=1e9)
    assert train(config, data, tmp_path).progress.step == 3  # one measurement to beat, and two that do not
    assert len(best_weights(tmp_path)) == CONFIG.keep
    assert train(config, data, tmp_path).progress.step == 3


def test_the_weights_with_the_lowest_error_rate_are_kept(tmp_path: Path) -> None:
    model = Paraformer(dataclasses.replace(MODEL, vocab_size=8))
    for step, cer in enumerate((0.5, 0.2, 0.9, 0.2, 0.3)):
        save_weights(tmp_path, model, Progress(step=step), cer, keep=3)
    assert [path.stem for path in best_weights(tmp_path)] == ["step-0000003", "step-0000001", "step-0000004"]


def test_finishing_without_weights_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        finish(CONFIG, data, tmp_path, best=2)


def test_learning_rate_rises_and_falls() -> None:
    config = OptimiserConfig(peak_lr=1.0, warmup_steps=10)
    rates = [learning_rate(number, 110, config) for number in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    root = dataclasses.replace(config, schedule="inverse_root")
    assert [learning_rate(number, 1, root) for number in (0, 9, 39)] == pytest.approx([0.1, 1.0, 0.5])


def test_live_steps_start_late_and_keep_their_share() -> None:
    config = dataclasses.replace(CONFIG, steps=4000, live=LiveConfig(start=0.25, probability=0.3))
    live = [chunking(config, number) is not None for number in range(4000)]
    assert not any(live[:1000])
    assert sum(live[1000:]) / 3000 == pytest.approx(0.3, abs=0.03)
    assert chunking(dataclasses.replace(config, live=None), 3999) is None


def test_every_chunk_setting_is_drawn_equally_often() -> None:
    chunks = tuple(ChunkConfig(left=0, chunk=size, encoder_look_back=back) for size in (5, 10) for back in (-1, 0, 4))
    config = dataclasses.replace(CONFIG, steps=4000, live=LiveConfig(chunks=chunks, start=0.0, probability=0.6))
    drawn = Counter(chunking(config, number) for number in range(4000))
    for chunk in chunks:
        assert drawn[chunk] / 4000 == pytest.approx(0.1, abs=0.02)


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
    use_byte_dropout(model)
    assert not [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [m.threshold for m in model.modules() if isinstance(m, ByteDropout)] == [26, 51]


def test_random_numbers_depend_on_the_seed_alone() -> None:
    generator = np.random.Generator(np.random.SFC64(1))
    seed_all((3, 1, 4), generator)
    first = (torch.rand(3).tolist(), generator.random(3).tolist())
    generator.random(5)
    seed_all((3, 1, 4), generator)
    assert (torch.rand(3).tolist(), generator.random(3).tolist()) == first
    seed_all((3, 1, 5), generator)
    assert torch.rand(3).tolist() != first[0]


def test_impossible_settings_and_recipes_are_refused() -> None:
    for name in ("steps", "accumulate", "keep"):
        with pytest.raises(ConfigError, match=name):
            dataclasses.replace(CONFIG, **{name: 0})
    with pytest.raises(ConfigError, match="buckets"):
        BatchConfig(buckets=1)
    with pytest.raises(ConfigError, match="train_sets"):
        dataclasses.replace(CONFIG, train_sets=())
    for recipe in ("nowhere:config", "training", "training:none"):
        with pytest.raises(ConfigError, match=recipe):
            load_recipe(recipe)
    with pytest.raises(ConfigError, match="dict"):
        load_recipe("builtins:dict")
