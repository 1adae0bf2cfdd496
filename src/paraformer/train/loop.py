"""The training loop: one process, one visible loop, everything else in functions of a few lines."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paraformer.data.augment import AugmentConfig
from paraformer.data.dataset import JoinConfig, SpeechDataset, epoch_plan, load_batches, measuring_batches
from paraformer.data.prepare import load_cuts
from paraformer.errors import CheckpointError
from paraformer.evaluate.cer import ErrorCounts, total_errors
from paraformer.evaluate.decode import decode_batches
from paraformer.model.paraformer import Batch, Losses, Paraformer
from paraformer.train import parallel
from paraformer.train.config import OptimiserConfig, TrainConfig
from paraformer.train.dropout import use_byte_dropout
from paraformer.train.speech import Setup, Speech, set_up

LATEST = "latest.pt"
EASY_JOIN = JoinConfig(clips=1, edge_s=(0.0, 0.1))
EASY_AUGMENT = AugmentConfig(
    speed=(0.9, 1.1), reverb_probability=0.0, noise_probability=0.0, channel_db=0.0, frequency_masks=0, time_masks=0
)
"""What an easy epoch changes: hardly anything."""
Texts = list[tuple[Batch, list[str]]]
"""Batches to decode, with their transcripts."""


@dataclass
class Position:
    """Where a run stands: optimiser steps taken, epoch, batches of it used."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


def train(config: TrainConfig, data: Path, out: Path) -> Paraformer:
    """Train from the newest checkpoint in `out`, or from nothing, for config.steps steps in all.

    Leaves checkpoints, setup.json and events.jsonl in `out`. Returns the model as last trained.
    """
    parallel.join()
    out.mkdir(parents=True, exist_ok=True)
    speech = Speech.load(config, data)
    if parallel.rank() == 0:
        set_up(config, speech, out)
    parallel.wait()
    setup = set_up(config, speech, out)
    torch.manual_seed(config.seed)
    model = Paraformer(setup.model)
    torch.manual_seed(config.seed + parallel.rank())
    use_byte_dropout(model, config.seed + parallel.rank())
    optimiser = build_optimiser(model, config.optimiser)
    position = resume(out, model, optimiser)
    dev = dev_batches(config, setup, data, speech)
    events = Events(out / "events.jsonl")
    clock = Clock(config.save_s, config.measure_s)
    for batch in stream(config, setup, speech, position):
        if position.step >= config.steps:
            break
        events.batch_came()
        losses = step(model, optimiser, batch, config, position.step)
        position.step += 1
        position.batch += parallel.size()
        if parallel.rank() > 0:
            continue
        events.add(losses, batch)
        if position.step % config.log_steps == 0:
            events.log_losses(position, optimiser.param_groups[0]["lr"])
        if clock.save_due() or position.step == config.steps:
            save(out, model, optimiser, position, config.keep)
        if clock.measure_due() or position.step == config.steps:
            events.log_errors(position, measure(model, dev, setup))
    return model


def step(model: Paraformer, optimiser: torch.optim.Optimizer, batch: Batch, config: TrainConfig, number: int) -> Losses:
    """One optimiser step on one batch; `number` steps came before it. No finite gradient: the weights stay."""
    model.train()
    rate = learning_rate(number, config.steps, config.optimiser)
    for group in optimiser.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
        losses: Losses = model(batch, chunk=config.live.chunk if live_step(config, number) and config.live else None)
    optimiser.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    parallel.average_gradients(model.parameters())
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
    if torch.isfinite(norm):
        optimiser.step()
    return losses


def live_step(config: TrainConfig, number: int) -> bool:
    """Whether step `number` sees its batch in windows; the choice depends on the seed and the number alone."""
    if config.live is None or number < config.live.start * config.steps:
        return False
    return random.Random(f"{config.seed} {number}").random() < config.live.probability  # noqa: S311


def learning_rate(number: int, steps: int, config: OptimiserConfig) -> float:
    """Linear rise over warmup_steps, then half a cosine down to 0 at `steps`."""
    if number < config.warmup_steps:
        return config.peak_lr * (number + 1) / config.warmup_steps
    done = (number - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.peak_lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimiser(model: Paraformer, config: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW; weight decay for matrices only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=config.betas, fused=True)


def stream(config: TrainConfig, setup: Setup, speech: Speech, position: Position) -> Iterator[Batch]:
    """Batches without end, epoch after epoch from `position`, which it moves to each new epoch's start."""
    while True:
        easy = position.epoch < config.easy_epochs
        join, augment = (EASY_JOIN, EASY_AUGMENT) if easy else (config.join, config.augment)
        dataset = SpeechDataset(
            setup.symbols, setup.model.frontend, setup.cmvn, augment, speech.noises, seed=position.epoch
        )
        plan = epoch_plan(speech.train, join, config.batch, position.epoch)
        yield from load_batches(parallel.share(plan[position.batch :]), dataset, config.workers)
        position.epoch, position.batch = position.epoch + 1, 0


def dev_batches(config: TrainConfig, setup: Setup, data: Path, speech: Speech) -> dict[str, Texts]:
    """What `measure` decodes during training: the first utterances of dev_set, and the held-out training ones."""
    dataset = SpeechDataset(setup.symbols, setup.model.frontend, setup.cmvn)
    order = random.Random(config.seed)  # noqa: S311
    dev = load_cuts(data, config.dev_set).shuffle(order).subset(first=config.dev_utterances)
    sets = {config.dev_set: dev, "held_out": speech.held_out}
    return {name: list(measuring_batches(cuts, dataset)) for name, cuts in sets.items() if len(cuts)}


def measure(model: Paraformer, sets: dict[str, Texts], setup: Setup) -> dict[str, ErrorCounts]:
    """Errors on each set, whole utterances."""
    vocabulary = setup.symbols.vocabulary
    return {name: total_errors(decode_batches(model, batches, vocabulary)) for name, batches in sets.items()}


def save(out: Path, model: Paraformer, optimiser: torch.optim.Optimizer, position: Position, keep: int) -> None:
    """Write latest.pt (everything) and step-N.pt (weights), each in one move; drop all but `keep` of the latter."""
    weights = {"model": model.state_dict(), "step": position.step}
    _write(weights, out / f"step-{position.step:07d}.pt")
    _write(
        {**weights, "optimiser": optimiser.state_dict(), "epoch": position.epoch, "batch": position.batch}, out / LATEST
    )
    for old in checkpoints(out)[:-keep]:
        old.unlink()


def _write(values: dict[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(values, partial)
    partial.replace(path)


def checkpoints(out: Path) -> list[Path]:
    """Weight checkpoints of a run, oldest first."""
    return sorted(out.glob("step-*.pt"))


def resume(out: Path, model: Paraformer, optimiser: torch.optim.Optimizer) -> Position:
    """Load latest.pt if there is one. Raises CheckpointError if it belongs to another model."""
    path = out / LATEST
    if not path.is_file():
        return Position()
    values = torch.load(path, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(values["model"])
    except RuntimeError as error:
        raise CheckpointError(f"{path} belongs to another model: {error}") from error
    optimiser.load_state_dict(values["optimiser"])
    return Position(values["step"], values["epoch"], values["batch"])


@dataclass
class Clock:
    """Says when wall-clock time has come to save and to measure."""

    save_s: float
    measure_s: float
    saved: float = field(default_factory=time.monotonic)
    measured: float = field(default_factory=time.monotonic)

    def save_due(self) -> bool:
        """True once every save_s seconds."""
        if due := time.monotonic() - self.saved >= self.save_s:
            self.saved = time.monotonic()
        return due

    def measure_due(self) -> bool:
        """True once every measure_s seconds."""
        if due := time.monotonic() - self.measured >= self.measure_s:
            self.measured = time.monotonic()
        return due


class Events:
    """Running means of the losses, and the lines of events.jsonl."""

    names = ("total", "cross_entropy", "quantity", "ctc", "accuracy")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sums: list[float] = []
        self.steps = self.windows = 0
        self._reset()

    def add(self, losses: Losses, batch: Batch) -> None:
        """Count one step."""
        values: Iterable[Tensor] = (getattr(losses, name).detach() for name in self.names)
        self.sums = [total + float(value) for total, value in zip(self.sums, values, strict=True)]
        self.steps += 1
        self.windows += int(batch.lengths.sum())
        self.idle = time.monotonic()

    def batch_came(self) -> None:
        """Count the time since the last step as waiting for data."""
        self.waited += time.monotonic() - self.idle

    def log_losses(self, position: Position, rate: float) -> None:
        """Write the means since the last call, and the speed in seconds of speech per second."""
        means = {name: round(total / self.steps, 4) for name, total in zip(self.names, self.sums, strict=True)}
        speed = self.windows * 0.06 * parallel.size() / (time.monotonic() - self.started)
        waited = round(self.waited / (time.monotonic() - self.started), 3)
        values = {"lr": rate, **means, "speech_per_s": round(speed), "waited": waited}
        self._write({"epoch": position.epoch, "step": position.step, **values})
        self._reset()

    def log_errors(self, position: Position, errors: dict[str, ErrorCounts]) -> None:
        """Write one measurement."""
        rates = {name: round(100 * counts.cer, 2) for name, counts in errors.items()}
        self._write({"epoch": position.epoch, "step": position.step, "cer": rates})

    def _write(self, values: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time()), **values}) + "\n")

    def _reset(self) -> None:
        self.sums, self.steps, self.windows, self.waited = [0.0] * len(self.names), 0, 0, 0.0
        self.started = self.idle = time.monotonic()
