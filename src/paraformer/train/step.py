"""One step of the optimiser: batches to losses to gradients to weights, and what to do where that goes wrong."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paraformer.errors import TrainingError
from paraformer.model.encoded import Chunking
from paraformer.model.objective import Batch, Losses
from paraformer.train import parallel
from paraformer.train.batches import Piece, on_device
from paraformer.train.checkpoints import Progress
from paraformer.train.config import BadStepConfig, OptimiserConfig, TrainConfig

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
        in_training(self.model)
        rate = learning_rate(progress.step, self.config.steps, self.config.optimiser)
        # Set anew at every step from its number alone, so that no state of a scheduler must be saved.
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # None and not zero: what has no gradient in this step is not moved by momentum and decay either.
        self.optimiser.zero_grad(set_to_none=True)
        losses = self._accumulate(pieces, progress.step)
        norm = parallel.number(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimiser.clip_norm))
        # The norm before clipping; the weights have not seen the gradient yet.
        if bad(norm, progress.norm, self.config.on_bad_step.divergence):
            progress.bad, progress.skipped = progress.bad + 1, progress.skipped + 1
            return Taken(losses, rate, norm, tuple(parallel.gathered(self._suspects(pieces, progress.step))))
        # A bad step never enters the running mean, or the next bad one would look usual.
        self.optimiser.step()
        progress.bad = 0
        progress.norm = norm if progress.norm is None else NORM_MEMORY * progress.norm + (1 - NORM_MEMORY) * norm
        return Taken(losses, rate, norm)

    def _accumulate(self, pieces: Sequence[Piece], number: int) -> dict[str, float]:
        """Add up the gradients of the step; returns this process's part of the losses.

        Each piece counts by its share of the step's tokens and utterances, so that the gradient is that of one batch
        made of all pieces of all processes, however they are divided.
        """
        # Of all processes, so that a loss per token weighs the same wherever its utterance was drawn to.
        tokens, utterances = parallel.total([sum(map(self._tokens, pieces)), sum(map(_utterances, pieces))])
        chunk, sums = chunking(self.config, number), dict.fromkeys(NAMES, 0.0)
        for piece in pieces:
            # A batch of cuts that say nothing has no tokens at all.
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


def in_training(model: nn.Module) -> None:
    """Training mode, but for the parts of which every weight is frozen: dropout would only blur what they say."""
    model.train()
    for module in model.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()


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
    rows: dict[str, Any] = {name: value[row : row + 1] for name, value in values.items() if isinstance(value, Tensor)}
    return dataclasses.replace(batch, **rows)


def _utterances(piece: Piece) -> int:
    return len(piece.batch.lengths)


def learning_rate(number: int, steps: int, config: OptimiserConfig) -> float:
    """The rate of step `number` (from 0) of `steps`: a linear rise over warmup_steps, then the fall of `schedule`.

    >>> c = OptimiserConfig(peak_lr=1.0, warmup_steps=2)
    >>> [round(learning_rate(number, 6, c), 2) for number in range(7)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if number < config.warmup_steps:
        return config.peak_lr * (number + 1) / config.warmup_steps
    if config.schedule == "inverse_root":
        return config.peak_lr * math.sqrt(max(1, config.warmup_steps) / (number + 1))
    # Never above 1: a run may go on a few steps past its plan, at a rate of 0 and not of a cosine that rises again.
    done = (number - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.peak_lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def chunking(config: TrainConfig, number: int) -> Chunking:
    """How step `number` sees its batches; the choice depends on the seed and the number alone."""
    if config.live is None or number < config.live.start * config.steps:
        return None
    # From the step's number, so that all processes choose alike and a resumed run chooses as it would have.
    generator = random.Random(f"{config.seed} {number}")  # noqa: S311
    return generator.choice(config.live.chunks) if generator.random() < config.live.probability else None


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW on what is not frozen; weight decay for matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    # Decay is for what mixes: it would pull the gains of norms to 0, and they begin at 1.
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=config.betas, fused=True)


_BITS = {2: np.int16, 4: np.int32, 8: np.int64}


class ByteDropout(nn.Module):
    """Zero elements with probability round(256 p) / 256 and scale the others, in training only.

    A mask costs one random byte per element. torch draws CPU masks with one call of a serial generator per element, a
    third of the time of a training step of a small model; numpy's SFC64 fills 64 bits at a time.
    """

    def __init__(self, p: float, generator: np.random.Generator) -> None:
        super().__init__()
        self.threshold = round(256 * p)
        self.p = self.threshold / 256
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape and type."""
        if not self.training or self.threshold == 0:
            return x
        words = self.generator.integers(0, 1 << 64, size=(x.numel() + 7) // 8, dtype=np.uint64)
        kept = words.view(np.uint8)[: x.numel()] >= self.threshold
        # A kept element's factor is written as its bit pattern: integer products are vectorised, conversions are not.
        one = torch.tensor(256 / (256 - self.threshold), dtype=x.dtype)
        bits = _BITS[x.element_size()]
        pattern = one.view(getattr(torch, np.dtype(bits).name)).numpy()
        return x * torch.from_numpy(np.multiply(kept, pattern, dtype=bits)).view(x.dtype).view(x.shape)


def use_byte_dropout(model: nn.Module) -> np.random.Generator:
    """Replace every nn.Dropout inside `model` by a ByteDropout of the same rate; returns the generator of all."""
    generator = np.random.Generator(np.random.SFC64(0))
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, ByteDropout(child.p, generator))
    return generator


def seed_all(seed: Sequence[int], generator: np.random.Generator) -> None:
    """Start the random numbers of torch and of `generator` anew, from whole numbers that say what they are for.

    Where every batch does this, what it draws depends on nothing that came before it, and no state need be saved.
    """
    words = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    torch.manual_seed(int(words[0]))
    generator.bit_generator.state = np.random.SFC64(int(words[1])).state
