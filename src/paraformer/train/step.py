"""One step of the optimiser: batches to losses to gradients to weights, and what to do where that goes wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from paraformer.errors import TrainingError
from paraformer.model.paraformer import Batch, Chunking, Losses
from paraformer.train import parallel
from paraformer.train.batches import Piece, on_device
from paraformer.train.checkpoints import Progress
from paraformer.train.config import BadStepConfig, TrainConfig
from paraformer.train.dropout import seed_all
from paraformer.train.schedule import chunking, learning_rate

NAMES = ("total", "cross_entropy", "quantity", "ctc", "mwer", "accuracy")
"""The losses that are reported."""
NORM_MEMORY = 0.98
"""Weight of the past in the running mean of the gradient norm."""


@dataclass(frozen=True)
class Taken:
    """What a step did. losses: this process's part of each; their sum over the processes is the step's loss.

    suspects: where the step was bad, the utterances to blame.
    """

    losses: Mapping[str, float]
    rate: float
    norm: float
    suspects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stepper:
    """A model in training: as it is distributed, with its optimiser and the random numbers of its dropout."""

    config: TrainConfig
    model: nn.Module
    optimiser: torch.optim.Optimizer
    generator: np.random.Generator

    def step(self, pieces: Sequence[Piece], progress: Progress) -> Taken:
        """One step on the pieces of all processes; `progress` learns the gradient norm, or that the step was bad.

        A bad step leaves weights and optimiser as they were; whoever calls decides whether the run goes on.
        """
        self.model.train()
        rate = learning_rate(progress.step, self.config.steps, self.config.optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        losses = self._accumulate(pieces, progress.step)
        norm = parallel.number(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimiser.clip_norm))
        if bad(norm, progress.norm, self.config.on_bad_step.divergence):
            progress.bad, progress.skipped = progress.bad + 1, progress.skipped + 1
            return Taken(losses, rate, norm, tuple(parallel.gathered(self._suspects(pieces, progress.step))))
        self.optimiser.step()
        progress.bad = 0
        progress.norm = norm if progress.norm is None else NORM_MEMORY * progress.norm + (1 - NORM_MEMORY) * norm
        return Taken(losses, rate, norm)

    def _accumulate(self, pieces: Sequence[Piece], number: int) -> dict[str, float]:
        """Add up the gradients of the step; returns this process's part of the losses.

        Each piece counts by its share of the step's tokens and utterances, so that the gradient is that of one batch
        made of all pieces of all processes, however they are divided.
        """
        tokens, utterances = parallel.total([sum(map(self._tokens, pieces)), sum(map(_utterances, pieces))])
        chunk, sums = chunking(self.config, number), dict.fromkeys(NAMES, 0.0)
        for piece in pieces:
            by_token, by_utterance = self._tokens(piece) / max(1, tokens), _utterances(piece) / utterances
            with parallel.gradients(self.model, shared=piece is pieces[-1]):
                losses = self._losses(piece, chunk)
                loss = losses.per_token * by_token + (losses.total - losses.per_token) * by_utterance
                # The exchange of gradients takes their mean; wanted is the sum.
                (loss * parallel.size()).backward()  # type: ignore[no-untyped-call]
            for name in NAMES:
                sums[name] += float(getattr(losses, name).detach()) * by_utterance
        return sums

    def _losses(self, piece: Piece, chunk: Chunking) -> Losses:
        """The forward pass, all random choices from a seed of the piece's own."""
        seed_all((self.config.seed, piece.epoch, piece.index), self.generator)
        return self._forward(self.model, on_device(piece.batch), chunk)

    def _forward(self, model: nn.Module, batch: Batch, chunk: Chunking) -> Losses:
        with torch.autocast(parallel.device().type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            losses: Losses = model(batch, chunk=chunk)
        return losses

    def _tokens(self, piece: Piece) -> int:
        """Tokens that the losses of a piece are means over."""
        ends = _utterances(piece) if parallel.plain(self.model).config.objective.predict_eos else 0
        return int(piece.batch.target_lengths.sum()) + ends

    @torch.no_grad()
    def _suspects(self, pieces: Sequence[Piece], number: int) -> list[str]:
        """The utterances of this process whose loss is not finite, or else the one with the largest."""
        if self.config.sharded and parallel.size() > 1:  # nobody can compute alone here
            return [name for piece in pieces for name in piece.names]
        model, chunk = parallel.plain(self.model), chunking(self.config, number)
        found = {}
        for piece in pieces:
            for row, name in enumerate(piece.names):
                found[name] = float(self._forward(model, on_device(one(piece.batch, row)), chunk).total)
        return [name for name, loss in found.items() if not math.isfinite(loss)] or [max(found, key=found.__getitem__)]


def bad(norm: float, usual: float | None, divergence: float) -> bool:
    """Whether a gradient norm is not finite, or `divergence` times the usual one."""
    return not math.isfinite(norm) or (usual is not None and norm > divergence * usual)


def judge(taken: Taken, progress: Progress, policy: BadStepConfig) -> None:
    """Raise TrainingError where a bad step ends the run."""
    if policy.action == "skip" and progress.bad < policy.in_a_row:
        return
    times = f"{progress.bad} bad steps in a row, the last" if progress.bad > 1 else "a bad step"
    raise TrainingError(
        f"{times} after step {progress.step}: the gradient norm is {taken.norm:.3g}; look at "
        f"{', '.join(taken.suspects)}, or lower the learning rate; the last checkpoint is from before"
    )


def one(batch: Batch, row: int) -> Batch:
    """The batch of one utterance of `batch`, its padding left on."""
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    rows = {name: value[row : row + 1] for name, value in values.items() if isinstance(value, Tensor)}
    return dataclasses.replace(batch, **rows)


def _utterances(piece: Piece) -> int:
    return len(piece.batch.lengths)
