"""Carry out an experiment, which is some recipes that differ in one thing, and write down what it shows.

    python -m recipes.experiment recipes.paper --data speech --docs docs

trains what is not trained yet, one run after the other, in runs/EXPERIMENT/RUN below the current directory; then
measures all runs in one go and writes DOCS/EXPERIMENT.json, .png and the table in .md. A command that was stopped goes
on when it is given again. It computes on a GPU where there is one; RTF is then the GPU's, and that of a CPU where the
command is given once more after `export CUDA_VISIBLE_DEVICES=`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut

from paraformer.data.dataset import SpeechDataset, measuring_batches
from paraformer.data.prepare import load_cuts
from paraformer.errors import DataError, TrainingError
from paraformer.evaluate.cer import ErrorCounts, count_errors
from paraformer.evaluate.significance import Comparison, cer_interval, compare
from paraformer.model.objective import Trainable
from paraformer.train import parallel
from paraformer.train.batches import on_device
from paraformer.train.checkpoints import PROGRESS, best_weights, newest
from paraformer.train.config import TrainConfig
from paraformer.train.events import EVENTS, read_events, throughput
from paraformer.train.finish import AVERAGED, averaged, finish
from paraformer.train.loop import train
from paraformer.train.measure import decode_batches
from paraformer.train.speech import SETUP, Setup, Speech, read_setup
from recipes.autoregressive import Autoregressive
from recipes.experiment_report import draw, write_page

RUNS = Path("runs")
TIMED = 100
"""Utterances that are decoded one by one for RTF, after some to warm up."""
WARM_UP = 5
BEAMS = 10
"""Of an autoregressive system's search, once it is trained."""
HELD_OUT = "held out"


@dataclass(frozen=True)
class Run:
    """One run. name: of its directory. label: in tables. x: where it stands on a curve.

    of: the experiment whose run it is, where that is another one.
    """

    name: str
    label: str
    recipe: Callable[[], TrainConfig]
    x: float | None = None
    of: str | None = None


@dataclass(frozen=True)
class Experiment:
    """Some runs that are measured on the same speech.

    first: runs that others start from, trained before them and not measured.
    beside: the run that the others are compared with. judged: the run of which something is claimed. x_label: of a
    curve; without one, runs are drawn as bars.
    """

    name: str
    title: str
    runs: tuple[Run, ...]
    beside: str
    first: tuple[Run, ...] = ()
    judged: str | None = None
    x_label: str | None = None

    def directory(self, run: Run) -> Path:
        """Where a run is."""
        return RUNS / (run.of or self.name) / run.name


@dataclass(frozen=True)
class Measured:
    """What a run has come to. references, errors: of each set, utterance by utterance."""

    run: Run
    facts: dict[str, Any]
    references: dict[str, list[str]]
    errors: dict[str, list[ErrorCounts]]


def train_all(experiment: Experiment, data: Path, times: int) -> None:
    """Train and finish every run that is not done. Raises TrainingError where a signal ends one."""
    for run in (*experiment.first, *experiment.runs):
        config, out = planned(run, times), experiment.directory(run)
        if is_done(config, out):
            continue
        print(f"{experiment.name}: {run.label}", file=sys.stderr)
        outcome = train(config, data, out, bar=True)
        if outcome.signal:
            raise TrainingError(f"stopped by {outcome.signal.name}; saved, and the same command goes on from there")
        print(f"{outcome.progress.step} steps, {outcome.throughput}", file=sys.stderr)
        finish(config, data, out, config.keep)


def planned(run: Run, times: int) -> TrainConfig:
    """The settings of a run with `times` as many steps as its recipe has."""
    config = run.recipe()
    return dataclasses.replace(config, steps=times * config.steps, measure_steps=times * config.measure_steps)


def is_done(config: TrainConfig, out: Path) -> bool:
    """Whether a run has all its steps and what it leaves at its end."""
    checkpoint = newest(out)
    if checkpoint is None or not ((out / "bundle").is_dir() or (out / AVERAGED).is_file()):
        return False
    return int(json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))["step"]) >= config.steps


def measure(run: Run, config: TrainConfig, data: Path, out: Path) -> Measured:
    """Errors on what was held out and on the dev set, and the speed of decoding, of the averaged weights of a run."""
    setup, speech = read_setup(out / SETUP), Speech.load(config, data)
    model = averaged(config.system, setup, best_weights(out)[: config.keep]).eval()
    if isinstance(model, Autoregressive):
        model.beams = BEAMS
    dataset = SpeechDataset(setup.symbols, setup.model.frontend, setup.cmvn)
    sets = {HELD_OUT: list(speech.held_out), config.dev_set: list(load_cuts(data, config.dev_set))}
    pairs = {
        name: decode_batches(model, measuring_batches(cuts, dataset), setup.symbols.vocabulary)
        for name, cuts in sets.items()
    }
    spent = throughput(read_events(out / EVENTS))
    facts = {
        "name": run.name,
        "label": run.label,
        "x": run.x,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": config.steps,
        "hours": round(sum(cut.duration for cut in speech.train) / 3600, 4),
        "training": None if spent is None else {**dataclasses.asdict(spent), "waited": spent.waited},
        **decoding(model, setup, sets[HELD_OUT][: WARM_UP + TIMED], dataset),
    }
    references = {name: [reference for reference, _ in said] for name, said in pairs.items()}
    return Measured(run, facts, references, {name: [count_errors(*p) for p in said] for name, said in pairs.items()})


@torch.no_grad()
def decoding(model: Trainable, setup: Setup, cuts: Sequence[Cut], dataset: SpeechDataset) -> dict[str, float]:
    """Seconds for a second of speech, one utterance at a time on one thread: features to ids, and the encoder's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batches = [on_device(batch) for batch, _ in measuring_batches(cuts, dataset, size=1)]
    taken, encoding, frames = 0.0, 0.0, 0
    for number, batch in enumerate(batches):
        began = time.perf_counter()
        hidden, _ = model.encoder(batch.feats, batch.lengths)
        hidden.sum().item()  # waits for a GPU
        between = time.perf_counter()
        model.read(batch)
        if number >= min(WARM_UP, len(batches) - 1):
            encoding, taken = encoding + between - began, taken + time.perf_counter() - between
            frames += int(batch.lengths.sum())
    torch.set_num_threads(threads)
    speech_s = frames * setup.model.frontend.window_samples / setup.model.frontend.sample_rate
    return {"rtf": taken / speech_s, "encoder_rtf": encoding / speech_s}


def report(experiment: Experiment, measured: Sequence[Measured]) -> dict[str, Any]:
    """All figures as plain values. Raises DataError where runs were measured on different utterances."""
    beside = next(one for one in measured if one.run.name == experiment.beside)
    if any(one.references != beside.references for one in measured):
        raise DataError("the runs were measured on different utterances, so they cannot be compared")
    return {
        "name": experiment.name,
        "title": experiment.title,
        "beside": beside.run.label,
        "judged": experiment.judged,
        "x_label": experiment.x_label,
        "device": device_name(),
        "torch": torch.__version__,
        "runs": [
            {**one.facts, "sets": {name: figures(one.errors[name], beside.errors[name]) for name in one.errors}}
            for one in measured
        ],
    }


def figures(errors: Sequence[ErrorCounts], beside: Sequence[ErrorCounts]) -> dict[str, Any]:
    """An error rate with its interval, and how it differs from that of another run."""
    total, interval = sum(errors, ErrorCounts()), cer_interval(errors)
    comparison: Comparison = compare(beside, errors)
    return {
        "cer": total.cer,
        "interval": [interval.low, interval.high],
        **dataclasses.asdict(total),
        "change": [comparison.change.low, comparison.change.high],
        "verdict": comparison.verdict,
    }


def device_name() -> str:
    """What decodes."""
    device = parallel.device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "one thread of a CPU"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the runs of an experiment, measure them and write it down")
    parser.add_argument("experiment", help="module with an EXPERIMENT, as recipes.paper")
    parser.add_argument("--data", type=Path, required=True, help="prepared speech")
    parser.add_argument("--docs", type=Path, required=True, help="where table, figures and plot go")
    parser.add_argument("--times", type=int, default=1, help="so many times the recipes' steps, for a fast machine")
    options = parser.parse_args(arguments)
    experiment: Experiment = importlib.import_module(options.experiment).EXPERIMENT
    train_all(experiment, options.data, options.times)
    found = [
        measure(run, planned(run, options.times), options.data, experiment.directory(run)) for run in experiment.runs
    ]
    result = report(experiment, found)
    options.docs.mkdir(parents=True, exist_ok=True)
    page = options.docs / f"{experiment.name}.md"
    page.with_suffix(".json").write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    draw(result, page.with_suffix(".png"))
    write_page(result, page)
    print(page)


if __name__ == "__main__":
    main()
