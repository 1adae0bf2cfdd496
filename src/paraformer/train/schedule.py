"""What changes from step to step: the learning rate, and the form in which utterances are seen."""

from __future__ import annotations

import math
import random

import torch
from torch import nn

from paraformer.model.paraformer import Chunking
from paraformer.train.config import OptimiserConfig, TrainConfig


def learning_rate(number: int, steps: int, config: OptimiserConfig) -> float:
    """The rate of step `number` (from 0) of `steps`: a linear rise over warmup_steps, then the fall of `schedule`."""
    if number < config.warmup_steps:
        return config.peak_lr * (number + 1) / config.warmup_steps
    if config.schedule == "inverse_root":
        return config.peak_lr * math.sqrt(max(1, config.warmup_steps) / (number + 1))
    done = (number - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.peak_lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def chunking(config: TrainConfig, number: int) -> Chunking:
    """How step `number` sees its batches; the choice depends on the seed and the number alone."""
    if config.live is None or number < config.live.start * config.steps:
        return None
    generator = random.Random(f"{config.seed} {number}")  # noqa: S311
    return generator.choice(config.live.chunks) if generator.random() < config.live.probability else None


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW on what is not frozen; weight decay for matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=config.betas, fused=True)
