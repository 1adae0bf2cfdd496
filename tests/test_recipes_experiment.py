"""Experiments: every run of a recipe is planned as it says, and a tiny one goes all the way to its page."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from functools import partial
from pathlib import Path

import pytest
from training import CONFIG, MODEL, TEXTS, prepared

from paraformer.cli import main as command
from paraformer.config import ModelConfig, ObjectiveConfig, TransformerDecoderConfig
from paraformer.errors import ConfigError
from paraformer.train.config import TrainConfig, differences, new_model
from recipes import augmentation, experiment, hours, paper
from recipes.experiment import Experiment, Run

AUTOREGRESSIVE = "recipes.autoregressive:Autoregressive"
TINY = dataclasses.replace(MODEL, decoder=TransformerDecoderConfig(ffn_dim=32, layers=1, heads=2))


def tiny(system: str = "paraformer", train_h: float | None = None, **objective: float) -> TrainConfig:
    model = dataclasses.replace(TINY, objective=ObjectiveConfig(ctc_weight=0.3, **objective))
    return dataclasses.replace(
        CONFIG, model=model, system=system, train_h=train_h, live=None, steps=4, measure_steps=2, held_out=4, save_s=1e9
    )


def from_encoder(system: str = "paraformer", **objective: float) -> TrainConfig:
    return dataclasses.replace(tiny(system, **objective), init_encoder="runs/toy/encoder/bundle")


def mwer() -> TrainConfig:
    return dataclasses.replace(tiny(mwer_weight=1.0, cross_entropy_weight=0.01), init="runs/toy/sampler/bundle")


TOY = Experiment(
    name="toy",
    title="A toy",
    first=(Run("encoder", "the encoder", partial(tiny, cross_entropy_weight=0.0, quantity_weight=0.0)),),
    runs=(
        Run("autoregressive", "(a) one by one", partial(from_encoder, AUTOREGRESSIVE)),
        Run("vanilla", "(b) no sampler", partial(from_encoder, sampling_ratio=0.0)),
        Run("sampler", "(c) sampler", from_encoder),
        Run("mwer", "(d) MWER", mwer),
    ),
    beside="autoregressive",
    judged="mwer",
)
CURVE = Experiment(
    name="curve",
    title="A curve",
    runs=(Run("some", "some", partial(tiny, train_h=0.0015), x=0.0015), Run("all", "all", tiny, x=0.002)),
    beside="all",
    x_label="hours",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("speech"), TEXTS)


def carry_out(one: Experiment, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Path:
    module = type(sys)("toy_experiment")
    module.EXPERIMENT = one
    monkeypatch.setitem(sys.modules, "toy_experiment", module)
    monkeypatch.chdir(tmp_path)
    experiment.main(["toy_experiment", "--data", str(data), "--docs", str(tmp_path / "docs"), *more])
    return tmp_path / "docs" / f"{one.name}.md"


def test_the_papers_four_systems_become_a_table_and_a_plot(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = carry_out(TOY, data, tmp_path, monkeypatch)
    text = page.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| (")]
    assert [row.split(" | ")[0] for row in rows] == [f"| {run.label}" for run in TOY.runs]
    assert "(d) MWER beside (a) one by one: " in text and "times as fast" in text
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    for run in found["runs"]:
        assert run["sets"].keys() == {"held out", "dev"}
        assert run["encoder_rtf"] > 0 and run["rtf"] > 0
        assert all(values["interval"][0] <= values["cer"] <= values["interval"][1] for values in run["sets"].values())
        assert run["training"]["speech_s"] > 0
    assert (tmp_path / "runs/toy/autoregressive/averaged.safetensors").is_file()

    page.write_text(text.replace("# A toy\n", "# A toy\n\nIn words.\n") + "\nAfter it.\n", encoding="utf-8")
    monkeypatch.setattr(experiment, "train", None)  # nothing is trained again
    carry_out(TOY, data, tmp_path, monkeypatch)
    again = page.read_text(encoding="utf-8")
    assert "In words." in again and again.endswith("After it.\n")
    assert again.count("| (a) one by one") == 1


def test_a_curve_and_more_steps(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = carry_out(CURVE, data, tmp_path, monkeypatch, "--times", "2")
    some, everything = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["runs"]
    assert (some["steps"], everything["steps"]) == (8, 8)
    assert 0 < some["hours"] < everything["hours"]
    assert page.with_suffix(".png").is_file()


def test_the_runs_of_the_paper_share_data_encoder_and_budget() -> None:
    first, start = paper.EXPERIMENT.first
    configs = {run.name: run.recipe() for run in (*paper.EXPERIMENT.first, *paper.EXPERIMENT.runs)}
    assert {configs[name].steps for name in ("encoder", "autoregressive", "vanilla")} == {paper.STEPS}
    for name in ("autoregressive", "vanilla", "start"):
        assert configs[name].init_encoder == str(paper.EXPERIMENT.directory(first) / "bundle")
    for name in ("sampler", "mwer"):
        assert configs["start"].steps + configs[name].steps == paper.STEPS
        assert configs[name].init == str(paper.EXPERIMENT.directory(start) / "bundle")
    allowed = {"system", "init", "init_encoder", "steps", "optimiser", "model"}
    for config in configs.values():
        changed = dict(differences(vars(configs["vanilla"]), vars(config)))
        assert {name.partition(".")[0] for name in changed} <= allowed
        assert config.model.encoder == configs["vanilla"].model.encoder
        assert config.model.decoder == configs["vanilla"].model.decoder
    assert configs["mwer"].model.objective.mwer_weight == 1
    assert configs["vanilla"].model.objective.sampling_ratio == 0


def test_the_runs_of_a_curve_differ_in_their_hours_alone() -> None:
    for runs in (hours.EXPERIMENT.first, hours.EXPERIMENT.runs):
        configs = [run.recipe() for run in runs]
        assert [config.train_h for config in configs] == [2.0, 4.0, 8.0, None]
        assert len({dataclasses.replace(config, train_h=None, init_encoder=None, card=()) for config in configs}) == 1
    for first, run in zip(hours.EXPERIMENT.first, hours.EXPERIMENT.runs, strict=True):
        assert run.recipe().init_encoder == str(hours.EXPERIMENT.directory(first) / "bundle")


def test_each_augmentation_is_left_out_once() -> None:
    full, *others = [run.recipe() for run in augmentation.EXPERIMENT.runs]
    assert full == hours.config()
    changed = [set(dict(differences(vars(full.augment), vars(one.augment)))) for one in others]
    assert len(set.union(*changed)) == sum(map(len, changed)), "none is left out twice"
    assert all(dataclasses.replace(one, augment=full.augment) == full for one in others)
    (first,) = augmentation.EXPERIMENT.first
    assert full.init_encoder == str(augmentation.EXPERIMENT.directory(first) / "bundle")
    unchanged = dict(differences(vars(full.augment), vars(first.recipe().augment)))
    assert unchanged.keys() == set.union(*changed), "what is left out is all that there is"


@pytest.mark.parametrize("module", ["paper", "hours", "augmentation"])
def test_every_run_is_a_model_of_a_few_million_parameters(module: str) -> None:
    planned = importlib.import_module(f"recipes.{module}").EXPERIMENT
    for run in (*planned.first, *planned.runs):
        config = run.recipe()
        model: ModelConfig = dataclasses.replace(config.model, vocab_size=3300)
        size = sum(parameter.numel() for parameter in new_model(config.system, model).parameters())
        assert 3.0e6 < size < 4.5e6


def test_an_autoregressive_run_is_trained_by_the_command(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = "test_recipes_experiment_recipe"
    module = type(sys)(recipe)
    module.config = partial(tiny, AUTOREGRESSIVE)
    sys.modules[recipe] = module
    try:
        arguments = ["train", f"{recipe}:config", "--data", str(data), "--out", str(tmp_path)]
        assert command(arguments) == 0
    finally:
        del sys.modules[recipe]
    assert capsys.readouterr().out == f"{tmp_path / 'averaged.safetensors'}\n"
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card["errors"].keys() == {"dev, whole"}
    assert not (tmp_path / "bundle").exists()


def test_a_system_is_a_trainable_that_can_be_imported() -> None:
    strangers = (("recipes.nothing:Model", "no system"), ("recipes.paper:Nothing", "no system"))
    for name, said in (*strangers, ("collections:Counter", "not a Trainable")):
        with pytest.raises(ConfigError, match=said):
            new_model(name, TINY)
    with pytest.raises(ConfigError, match="init_encoder"):
        dataclasses.replace(tiny(AUTOREGRESSIVE), init="elsewhere")
