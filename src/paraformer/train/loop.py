"""The training loop, all of it in sight; every part is a function of a few lines."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import numpy as np
import torch
from torch import nn

from paraformer.data.dataset import text_of
from paraformer.errors import ConfigError
from paraformer.model.objective import Trainable
from paraformer.model.paraformer import Paraformer
from paraformer.text import Vocabulary
from paraformer.train import parallel
from paraformer.train.adapt import add_adapters
from paraformer.train.batches import Piece, steps
from paraformer.train.checkpoints import Progress, newest, resume, save, save_weights
from paraformer.train.config import TrainConfig, keep_config, new_model
from paraformer.train.events import Reporter, Throughput
from paraformer.train.measure import Texts, dev_batches, measure
from paraformer.train.speech import Setup, Speech, encoder_weights, initial_weights, set_up
from paraformer.train.step import Stepper, build_optimiser, judge, use_byte_dropout

STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """`with StopRequest() as stop`: the first SIGTERM or SIGINT only sets stop.signal; a second one ends the process.

    Outside of the main thread, where no handler can be set, it does nothing.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._come) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _come(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        # At once, so that who asks a second time need not wait for the step.
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}


@dataclass(frozen=True)
class Trained:
    """How a run, or this part of it, ended: the model as last trained, where, how fast, and by which signal if any."""

    model: Trainable
    progress: Progress
    throughput: Throughput
    signal: signal.Signals | None


def train(config: TrainConfig, data: Path, out: Path, *, bar: bool = False, tensorboard: bool = False) -> Trained:
    """Train from the last checkpoint in `out`, else another model or nothing, until steps, patience or a signal end it.

    Leaves checkpoints, weights, settings and events in `out`. bar: show progress, where standard error is a terminal.
    All processes call it. Raises ConfigError where `out` holds another run, TrainingError where bad steps end it, and
    CheckpointError where a checkpoint cannot be read or written.
    """
    out.mkdir(parents=True, exist_ok=True)
    speech = Speech.load(config, data)
    with parallel.first_goes_ahead():
        changes = keep_config(config, [(cut.id, text_of(cut)) for cut in speech.train], out)
        setup = set_up(config, speech, out)
    stepper = start(config, setup, fresh=newest(out) is None)
    progress = resume(out, stepper.model, stepper.optimiser)
    dev = dev_batches(config, setup, data, speech)
    with (
        Reporter(out, config.steps, progress, setup.model.frontend, bar=bar, tensorboard=tensorboard) as report,
        closing(steps(config, setup, speech, progress)) as stream,  # ends the processes that load batches, now
    ):
        report.note(progress, {"processes": parallel.size(), "changed": changes})
        run = Run(config, out, stepper, progress, report, setup.symbols.vocabulary, dev)
        number = run.follow(stream)
        report.speed(progress)
    return Trained(parallel.whole(stepper.model), progress, report.throughput, number)


def start(config: TrainConfig, setup: Setup, *, fresh: bool) -> Stepper:
    """The model before its first step, distributed, with its optimiser. fresh: no checkpoint has its weights."""
    # The same in all processes, which must begin with the same weights.
    torch.manual_seed(config.seed)
    model = new_model(config.system, setup.model)
    if config.init and fresh:
        model.load_state_dict(initial_weights(config.init, setup))
    elif config.init_encoder and fresh:
        # What is not the encoder's stays random; that all of the encoder is there was checked when it was read.
        model.load_state_dict(encoder_weights(config.init_encoder, setup), strict=False)
    freeze(model, config.frozen)
    if config.lora_rank is not None and isinstance(model, Paraformer):
        add_adapters(model, config.lora_rank, whole_rows=bool(setup.added))
    # Masks that torch draws on a CPU take a third of a small model's step; a GPU's cost next to nothing.
    on_cpu = parallel.device().type == "cpu"
    generator = use_byte_dropout(model) if on_cpu else np.random.Generator(np.random.SFC64(0))
    distributed = parallel.distribute(model, sharded=config.sharded)
    return Stepper(config, distributed, build_optimiser(distributed, config.optimiser), generator)


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Take the weights of these parts out of training. Raises ConfigError for a part that the model lacks."""
    for part in parts:
        found = [weight for name, weight in model.named_parameters() if f"{name}.".startswith(f"{part}.")]
        if not found:
            raise ConfigError(f"frozen names {part}, but the model has no such part")
        for weight in found:
            weight.requires_grad_(False)


@dataclass
class Run:
    """A run on its way, and the loop that it follows."""

    config: TrainConfig
    out: Path
    stepper: Stepper
    progress: Progress
    report: Reporter
    vocabulary: Vocabulary
    dev: Mapping[str, Texts]
    saved: float = field(default_factory=time.monotonic)

    def follow(self, stream: Iterator[Sequence[Piece]]) -> signal.Signals | None:
        """Step after step, with measurements and checkpoints when it is time; returns the signal that ended it."""
        stream = self.report.watched(stream)
        with StopRequest() as stop:
            while not self.ended():
                self.take(next(stream))
                if self.progress.step % self.config.measure_steps == 0 or self.ended():
                    self.measure()
                # Asked of all, since each has its own clock and signals, and saving waits for every one of them.
                stopped, due = parallel.any_of(stop.signal is not None, self._save_due())
                if stopped or due or self.ended():
                    self.save()
                if stopped:
                    return stop.signal or signal.SIGTERM
        return None

    def ended(self) -> bool:
        """Whether the planned steps are done, or the error rate has not fallen for too long."""
        patience = self.config.patience
        return self.progress.step >= self.config.steps or (patience is not None and self.progress.stale >= patience)

    def take(self, pieces: Sequence[Piece]) -> None:
        """One step, and what is to be said of it. Raises TrainingError where it was one bad step too many."""
        taken = self.stepper.step(pieces, self.progress)
        self.report.taken(taken, pieces)
        if taken.suspects:
            self.report.bad_step(self.progress, taken)
            judge(taken, self.progress, self.config.on_bad_step)
        # After a bad step too: the same batch again would be as bad.
        self.progress.step += 1
        self.progress.batch += len(pieces) * parallel.size()
        if self.progress.step % self.config.log_steps == 0:
            self.report.losses(self.progress, taken)

    def measure(self) -> None:
        """Decode the dev sets; the first one's error rate decides which weights are kept and when to stop."""
        model = parallel.whole(self.stepper.model)
        # A model that hears nothing but live steps would be judged, and stopped, by what it is not asked to do.
        live = self.config.live
        chunk = live.chunks[0] if live is not None and live.always else None
        errors = {name: measure(model, batches, self.vocabulary, chunk) for name, batches in self.dev.items()}
        cer = errors[self.config.dev_set].cer
        if self.progress.best_cer is None or cer < self.progress.best_cer:
            self.progress.best_cer, self.progress.stale = cer, 0
        else:
            self.progress.stale += 1
        save_weights(self.out, self.stepper.model, self.progress, cer, self.config.keep)
        self.report.errors(self.progress, errors)

    def save(self) -> None:
        """Write a checkpoint to go on from."""
        save(self.out, self.stepper.model, self.stepper.optimiser, self.progress)
        # From its end on: a disk that takes longer than save_s must not make the next one due at once.
        self.saved = time.monotonic()

    def _save_due(self) -> bool:
        return time.monotonic() - self.saved >= self.config.save_s
