"""What a run reports while it goes: events.jsonl, and from the same numbers a bar, curves and TensorBoard."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tqdm import tqdm

from paraformer.bundle import naming, replacing
from paraformer.config import FrontendConfig
from paraformer.errors import MissingExtra
from paraformer.evaluate.cer import ErrorCounts
from paraformer.train import parallel
from paraformer.train.batches import Piece
from paraformer.train.checkpoints import Progress
from paraformer.train.step import NAMES, Taken

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


EVENTS, CURVES, TENSORBOARD = "events.jsonl", "curves.png", "tensorboard"
SPEED = "speed"
"""The event at the end of each part of a run."""
T = TypeVar("T")


@dataclass
class Throughput:
    """Speech that was trained on, seconds, and the wall-clock time of this process that it took: waiting and working.

    Time for measuring and saving is not in it, nor the wait for the first batch, before which processes must start.
    longest_s: the longest of the waits.
    """

    speech_s: float = 0.0
    waited_s: float = 0.0
    worked_s: float = 0.0
    longest_s: float = 0.0

    def __add__(self, other: Throughput) -> Throughput:
        return Throughput(
            self.speech_s + other.speech_s,
            self.waited_s + other.waited_s,
            self.worked_s + other.worked_s,
            max(self.longest_s, other.longest_s),
        )

    @property
    def hours_per_hour(self) -> float:
        """Hours of speech, of all processes, that one hour trains on."""
        return self.speech_s / max(self.waited_s + self.worked_s, 1e-9)

    @property
    def waited(self) -> float:
        """Share of the time in which the loop waited for data."""
        return self.waited_s / max(self.waited_s + self.worked_s, 1e-9)

    def wait(self, seconds: float) -> None:
        """Count one wait."""
        self.waited_s += seconds
        self.longest_s = max(self.longest_s, seconds)

    def __str__(self) -> str:
        waited = f"{100 * self.waited:.1f} % of the time waiting for data, at most {self.longest_s:.1f} s at once"
        return f"{self.hours_per_hour:.0f} hours of speech per hour, {waited}"


class Reporter:
    """Collects what the steps of a run did and writes it down, in the first process; the others only add their part."""

    def __init__(
        self, out: Path, steps: int, progress: Progress, frontend: FrontendConfig, *, bar: bool, tensorboard: bool
    ) -> None:
        first = parallel.rank() == 0
        self.path = out / EVENTS if first else None
        self.window_s = frontend.window_samples / frontend.sample_rate
        self.throughput, self.recent = Throughput(), Throughput()
        self.sums, self.steps = dict.fromkeys(NAMES, 0.0), 0
        self.came = time.monotonic()
        self.board = _board(out / TENSORBOARD, progress.step) if first and tensorboard else None
        # disable=None: on a terminal only.
        self.bar = tqdm(total=steps, initial=progress.step, unit="step", disable=None if bar and first else True)
        if self.path is not None:
            _drop_events_after(self.path, progress.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if self.board is not None:
            self.board.close()

    def watched(self, items: Iterator[T]) -> Iterator[T]:
        """The same items, with the time that each but the first takes to come."""
        for number in count():
            asked = time.monotonic()
            item = next(items)
            self.came = time.monotonic()
            # The first is slow for another reason: the processes that load are only starting.
            if number > 0:
                self.recent.wait(self.came - asked)
            yield item

    def taken(self, taken: Taken, pieces: Sequence[Piece]) -> None:
        """Count one step."""
        self.recent.worked_s += time.monotonic() - self.came
        self.recent.speech_s += sum(int(piece.batch.lengths.sum()) for piece in pieces) * self.window_s
        # A loss that is not finite would make the mean of all the good ones so.
        if not taken.suspects:
            self.sums = {name: total + taken.losses[name] for name, total in self.sums.items()}
            self.steps += 1
        self.bar.update()

    def losses(self, progress: Progress, taken: Taken) -> None:
        """Write the means since the last call, and the speed. All processes must call it."""
        # Each process has its part of a loss, so that sums over processes are the loss itself and no multiple of it.
        sums = parallel.total(list(self.sums.values()))
        means = {name: round(total / max(1, self.steps), 4) for name, total in zip(self.sums, sums, strict=True)}
        recent = self._recent()
        speed = {
            "hours_per_hour": round(recent.hours_per_hour, 1),
            "waited": round(recent.waited, 3),
            "longest_wait_s": round(recent.longest_s, 3),
        }
        self._write(progress, {"lr": taken.rate, **means, "norm": round(taken.norm, 4), **speed})
        self.bar.set_postfix(loss=means["total"], cer=progress.best_cer)
        self.sums, self.steps = dict.fromkeys(NAMES, 0.0), 0

    def speed(self, progress: Progress) -> None:
        """Write how fast this part of the run was, at its end. All processes must call it."""
        self._recent()
        self._write(progress, {SPEED: dataclasses.asdict(self.throughput)})

    def _recent(self) -> Throughput:
        """What was counted since the last call, the speech of all processes; it is now in the whole."""
        recent = self.recent
        # Speech adds up over processes, time does not: they work side by side.
        [recent.speech_s] = parallel.total([recent.speech_s])
        self.throughput, self.recent = self.throughput + recent, Throughput()
        return recent

    def bad_step(self, progress: Progress, taken: Taken) -> None:
        """Write what was wrong with a step that was skipped."""
        # As text: JSON has no numbers for what is not finite.
        self._write(progress, {"bad_norm": repr(taken.norm), "utterances": taken.suspects})

    def errors(self, progress: Progress, errors: Mapping[str, ErrorCounts]) -> None:
        """Write one measurement and draw the curves anew."""
        self._write(progress, {"cer": {name: round(100 * counts.cer, 2) for name, counts in errors.items()}})
        if self.path is not None:
            draw(read_events(self.path), self.path.with_name(CURVES))

    def note(self, progress: Progress, values: Mapping[str, Any]) -> None:
        """Write anything else, such as how the run goes on."""
        self._write(progress, values)

    def _write(self, progress: Progress, values: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        line = {"time": round(time.time()), "epoch": progress.epoch, "step": progress.step, **values}
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if self.board is not None:
            for name, value in _flat(values):
                self.board.add_scalar(name, value, progress.step)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The lines of an events.jsonl, oldest first; none where there is no such file.

    What is no event, as half a line of a process that was killed or whose disk was full, is left out.
    """
    if not path.is_file():
        return []
    return [event for line in path.read_bytes().splitlines() if (event := _event(line)) is not None]


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "step" in event else None


def throughput(events: Sequence[Mapping[str, Any]]) -> Throughput | None:
    """Of all parts of a run together; None where none of them came to an end."""
    parts = [Throughput(**event[SPEED]) for event in events if SPEED in event]
    return sum(parts[1:], parts[0]) if parts else None


def _drop_events_after(path: Path, step: int) -> None:
    """A run that goes on from an older checkpoint reports the steps since then again."""
    kept = [event for event in read_events(path) if event["step"] <= step]
    lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept).encode()
    if path.is_file() and path.read_bytes() != lines:
        with replacing(path) as temporary:
            temporary.write_bytes(lines)


def _board(directory: Path, step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("Writing for TensorBoard", "tensorboard") from error
    # What the board has of steps that are taken once more is dropped, as from events.jsonl.
    return SummaryWriter(str(directory), purge_step=step + 1)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers among the values of an event, with those one level below."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in _flat(value))
        elif isinstance(value, int | float):
            yield name, value


LOSSES = ("total", "cross_entropy", "quantity", "ctc", "mwer")


def draw(events: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write `path`, a PNG of losses and character error rates over steps, from the lines of events.jsonl."""
    try:
        from matplotlib.figure import Figure  # not pyplot: that would keep figures and choose a window system
    except ImportError as error:
        raise MissingExtra("Drawing curves", "train") from error
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in LOSSES:
        # A loss of 0 is one that the objective does not have, and has no place on a logarithmic axis.
        points = [(event["step"], event[name]) for event in events if event.get(name)]
        if points:
            left.plot(*zip(*points, strict=True), label=name)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    measured = [event for event in events if "cer" in event]
    for name in dict.fromkeys(name for event in measured for name in event["cer"]):
        points = [(event["step"], event["cer"][name]) for event in measured if name in event["cer"]]
        right.plot(*zip(*points, strict=True), marker="o", label=name)
    right.set(xlabel="step", ylabel="character error rate, %", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
