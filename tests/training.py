"""A tiny run on tones, for the tests of training; also what their other processes import."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from speech_archives import write_archive
from torch import nn

from paraformer.config import ChunkConfig, ModelConfig, ObjectiveConfig, SanmDecoderConfig, SanmEncoderConfig
from paraformer.data.dataset import BatchConfig, JoinConfig
from paraformer.data.prepare import prepare
from paraformer.train.config import LiveConfig, OptimiserConfig, TrainConfig
from paraformer.train.events import Reporter

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
    batch=BatchConfig(seconds=3.0, buckets=2),
    join=JoinConfig(clips=1),
    optimiser=OptimiserConfig(peak_lr=5e-3, warmup_steps=2),
    live=LiveConfig(chunks=(ChunkConfig(left=2, chunk=4, right=2),), start=0.5, probability=0.5),
    workers=0,
    log_steps=4,
    measure_steps=5,
    save_s=0.0,
    keep=2,
    card={"note": "tones"},
)


def recipe() -> TrainConfig:
    """What the command line calls."""
    return CONFIG


def endless() -> TrainConfig:
    """A run that does not end by itself, its batches loaded by a process of their own."""
    return dataclasses.replace(CONFIG, steps=10**6, measure_steps=10**6, save_s=1e9, log_steps=1, workers=1)


def prepared(directory: Path, texts: Sequence[str] = TEXTS) -> Path:
    """`directory` with the training and the dev set in it."""
    directory.mkdir(exist_ok=True)
    archives = [write_archive(directory / "tones.tar", texts), write_archive(directory / "dev.tar", TEXTS[:2])]
    prepare(archives, directory)
    return directory


def events(out: Path) -> list[dict[str, Any]]:
    """What a run has reported so far."""
    if not (out / "events.jsonl").is_file():
        return []
    return [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]


@contextmanager
def stopping_after(count: int) -> Iterator[None]:
    """A SIGTERM comes to this process during its `count`-th step."""
    steps = iter(range(1, 1_000_000))
    taken = Reporter.taken

    def interrupted(self: Reporter, *arguments: Any) -> None:
        taken(self, *arguments)
        if next(steps) == count:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reporter, "taken", interrupted)
        yield


def same(left: nn.Module, right: nn.Module) -> bool:
    """Whether all tensors have the same bits."""
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)
