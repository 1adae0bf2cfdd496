"""The training loop, all of it in sight; every part is a function of a few lines."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import torch

from paraformer.checkpoint import native
from paraformer.data.augment import AugmentConfig
from paraformer.data.dataset import JoinConfig, SpeechDataset, epoch_plan, load_batches, measuring_batches
from paraformer.data.prepare import load_cuts
from paraformer.evaluate.cer import ErrorCounts, total_errors
from paraformer.model.paraformer import Batch, Losses, Paraformer
from paraformer.train import parallel
from paraformer.train.checkpoints import Position, resume, save
from paraformer.train.config import OptimiserConfig, TrainConfig
from paraformer.train.decode import decode_batches
from paraformer.train.dropout import use_byte_dropout
from paraformer.train.events import Clock, Events
from paraformer.train.speech import Setup, Speech, set_up

EASY_JOIN = JoinConfig(clips=1, edge_s=(0.0, 0.1))
EASY_AUGMENT = AugmentConfig(
    speed=(0.9, 1.1),
    pace=(0.9, 1.1),
    rhythm=0.0,
    tract=(1.0, 1.0),
    reverb_probability=0.0,
    noise_probability=0.0,
    channel_db=0.0,
    frequency_masks=0,
    time_masks=0,
)
"""What an easy epoch changes: hardly anything."""
Texts = list[tuple[Batch, list[str]]]
"""Batches to decode, with their transcripts."""


def train(config: TrainConfig, data: Path, out: Path) -> Paraformer:
    """Train from the newest checkpoint in `out`, or from config.init or nothing, for config.steps steps in all.

    Leaves checkpoints, setup.json and events.jsonl in `out`. Returns the model as last trained.
    """
    out.mkdir(parents=True, exist_ok=True)
    speech = Speech.load(config, data)
    with parallel.first_goes_ahead():
        setup = set_up(config, speech, out)
    torch.manual_seed(config.seed)
    model = Paraformer(setup.model)
    if config.init:
        model.load_state_dict(native.load(config.init)[1].state_dict())
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
