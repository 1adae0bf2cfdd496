"""What a run reports while it goes, one JSON object a line, and when it is time to save and to measure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from paraformer.evaluate.cer import ErrorCounts
from paraformer.model.paraformer import Batch, Losses
from paraformer.train import parallel
from paraformer.train.checkpoints import Position


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

    names = ("total", "cross_entropy", "quantity", "ctc", "mwer", "accuracy")

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
