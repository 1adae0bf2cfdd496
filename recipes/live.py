"""A model learns to hear live, and in noise, what it hears whole and without.

    python -m recipes.live runs/mean runs/live --data speech
    python -m recipes.live runs/mean runs/further --data speech --begin runs/live

A copy that hears in live steps, in noise and in rooms, is taught by the model as it was, which hears the same whole
utterances without: what the encoder makes of each window, how much of a token each window holds, and how likely each
unit of a token is. Texts are not needed. A part of the steps are whole.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from paraformer.audio import Samples
from paraformer.bundle import Bundle
from paraformer.checkpoint import native
from paraformer.config import ChunkConfig
from paraformer.data.augment import UNCHANGED, Noise, augment_frames, augment_samples
from paraformer.data.dataset import BatchConfig, JoinConfig, SpeechDataset, Symbols, epoch_plan
from paraformer.data.prepare import load_cuts
from paraformer.data.reading import load
from paraformer.errors import DataError
from paraformer.model import cif
from paraformer.model.encoded import Encoded
from paraformer.model.layers import length_mask
from paraformer.model.objective import Batch
from paraformer.model.paraformer import Paraformer
from paraformer.text import Vocabulary
from recipes.quiet import NOISES
from recipes.whisper_zh import CHUNKS, LIVE, TRAIN_SETS, WIDER

DRAWN_FROM = (LIVE, LIVE, *CHUNKS)
"""One is drawn for every live step."""
WHOLE = 0.2
"""Share of the steps that are whole."""
WARM = 25
"""Steps in which the rate rises."""
KEPT = 0.97
"""Of the running mean of the weights, at each step."""
MEASURED = 77
"""Seed of the batches that are measured with."""
HELD = (
    "encoder.front",
    "encoder.blocks.0.",
    "encoder.blocks.1.",
    "decoder.text",
    "decoder.output",
    "decoder.embed",
    "ctc",
)
"""What stays: what hears too little around it for steps to matter, and what writes."""
DRAWN = 2500
"""Utterances of which batches are made at a time."""
AUGMENT = dataclasses.replace(
    WIDER, noise_probability=0.4, floor_snr_db=(5.0, 50.0), level_probability=0.0, frequency_masks=0, time_masks=0
)
"""Of the student."""
CLEAN = dataclasses.replace(UNCHANGED, floor_probability=0.6, floor_snr_db=(30.0, 60.0))
"""Of the teacher, to whom samples are otherwise as they were; speed, pace and voice are the same for both."""


@dataclass(frozen=True)
class Seen:
    """What a model makes of a batch: of each window, in the order of time, rows of the encoder before its last blocks
    (B, T, rows), after them (B, T, D), and how much of a token it holds (B, T); units (B, L, units): scores.
    """

    rows: Tensor
    hidden: Tensor
    weights: Tensor
    units: Tensor


class Listener:
    """A model, and what its encoder has at its last norm."""

    def __init__(self, model: Paraformer) -> None:
        self.model = model
        self.rows: Tensor | None = None
        model.encoder.norm.register_forward_hook(self._keep)

    def _keep(self, _module: object, _given: object, rows: Tensor) -> None:
        self.rows = rows

    def hear(
        self, feats: Tensor, lengths: Tensor, chunk: ChunkConfig | None, counts: Tensor | None = None
    ) -> tuple[Seen, Tensor]:
        """counts (B,): tokens that each utterance has, by default as many as the model finds; returned beside."""
        model = self.model
        encoded = model.encode(feats, lengths, chunk)
        assert self.rows is not None
        weights = encoded.weights.float()
        if counts is None:
            counts = weights.detach().sum(-1).round().long().clamp(min=1)
        scaled = cif.scale_to_targets(weights, counts)
        embeds = cif.integrate(encoded.hidden.float(), scaled, int(counts.max()))
        _, units = model.scores(encoded, scaled, embeds, length_mask(counts, embeds.shape[1]), chunk)
        assert units is not None
        rows = self.rows.reshape(*encoded.hidden.shape[:2], -1)
        if chunk is not None:
            order = in_time(encoded, lengths, chunk)
            rows, hidden, weights = (_taken(one, order) for one in (rows, encoded.hidden, weights[..., None]))
            return Seen(rows.float(), hidden.float(), weights[..., 0], units.float()), counts
        return Seen(rows.float(), encoded.hidden.float(), weights, units.float()), counts


def in_time(encoded: Encoded, lengths: Tensor, chunk: ChunkConfig) -> Tensor:
    """Places (B, T) of the committed windows among those of all steps, in the order of time."""
    # The first step commits as many windows of the time before the audio as it looks ahead.
    return encoded.committed_places(lengths, chunk)[0][:, chunk.right :]


def _taken(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[2]))


def apart(student: Seen, teacher: Seen, lengths: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """How far what the student hears is from what the teacher does, each part a mean over windows or tokens."""
    windows, tokens = length_mask(lengths, teacher.hidden.shape[1]), length_mask(counts, teacher.units.shape[1])
    said = F.log_softmax(student.units[tokens], -1)
    meant = F.log_softmax(teacher.units[tokens], -1)
    amounts = (student.weights - teacher.weights).abs() * windows
    totals = ((student.weights - teacher.weights) * windows).sum(-1).abs()
    return {
        "rows": _relative(student.rows[windows], teacher.rows[windows]),
        "hidden": _relative(student.hidden[windows], teacher.hidden[windows]),
        "weights": amounts.sum() / counts.sum() + totals.sum() / counts.sum(),
        "units": F.kl_div(said, meant, reduction="batchmean", log_target=True),
    }


def _relative(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean() / teacher.var()


SHARES: Mapping[str, float] = {"rows": 0.5, "hidden": 1.0, "weights": 1.0, "units": 1.0}


class Pairs(SpeechDataset):
    """Windows of what the student hears and of what the teacher hears, side by side."""

    def windows(self, samples: Samples, rng: np.random.Generator, voices: Sequence[Noise] = ()) -> np.ndarray:
        """(windows, 2 * dim)."""
        speed = float(rng.uniform(*AUGMENT.speed))
        seed = int(rng.integers(1 << 32))
        made = []
        for config, noises, others in ((AUGMENT, self.noises, voices), (CLEAN, (), ())):
            # Changes of time and of voice are drawn alike for both.
            frames = self.frontend.frames(augment_samples(samples, speed, config, noises, rng, others))
            made.append(self.frontend.windows(augment_frames(frames, speed, AUGMENT, np.random.default_rng(seed))))
        return np.concatenate(made, axis=1)


@dataclass(frozen=True)
class Batches(IterableDataset[Batch]):
    """Augmented batches, without end; planned and loaded where this is iterated, a part of the utterances at a time.

    seconds: of speech in a batch.
    """

    bundle: Bundle
    data: Path
    seconds: float
    seed: int

    def __iter__(self) -> Iterator[Batch]:
        bundle, rng = self.bundle, np.random.default_rng(self.seed)
        cuts: list[Cut] = [cut for name in TRAIN_SETS for cut in load_cuts(self.data, name)]
        noises = [load(cut) for cut in load_cuts(self.data, NOISES)]
        for part in itertools.count(self.seed * 1000):
            drawn = CutSet.from_cuts(cuts[index] for index in rng.permutation(len(cuts))[:DRAWN])
            dataset = Pairs(
                Symbols(Vocabulary(bundle.tokens)), bundle.config.frontend, bundle.cmvn, None, noises, seed=part
            )
            usable = 0
            for planned in epoch_plan(drawn, JoinConfig(), BatchConfig(seconds=self.seconds), part):
                if (batch := dataset[planned].batch) is not None:
                    usable += 1
                    yield batch
            if not usable:
                raise DataError(f"no utterance of {self.data} can be used; see `paraformer data check`")


@dataclass(frozen=True)
class Lesson:
    """What a student is told by its teacher of a batch of `Batches`."""

    teacher: Listener
    student: Listener

    def __call__(self, batch: Batch, chunk: ChunkConfig | None) -> dict[str, Tensor]:
        """`apart` of the two."""
        heard, clean = batch.feats.chunk(2, dim=-1)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                meant, counts = self.teacher.hear(clean, batch.lengths, None)
            said, _ = self.student.hear(heard, batch.lengths, chunk, counts)
        return apart(said, meant, batch.lengths, counts)

    @torch.no_grad()
    def measured(self, batches: Sequence[Batch], chunk: ChunkConfig | None) -> str:
        """The parts of it, over the batches."""
        found = [self(batch, chunk) for batch in batches]
        return " ".join(f"{name} {np.mean([one[name].item() for one in found]):.4f}" for name in SHARES)


def teach(start: Path, begin: Path, out: Path, batches: Batches, steps: int, rate: float) -> None:
    """Write what `begin` has become after so many steps under `start`, and now and then as it is until then.

    What is written is a running mean of the weights: single steps are noisy.
    """
    rng = np.random.default_rng(batches.seed)
    bundle = dataclasses.replace(batches.bundle, directory=None, seal={}, weights=None)
    teacher, student = (Listener(native.load(path)[1].float().eval().requires_grad_(False)) for path in (start, begin))
    lesson = Lesson(teacher, student)
    learnt = [
        value.requires_grad_(True) for name, value in student.model.named_parameters() if not name.startswith(HELD)
    ]
    mean = [value.detach().clone() for value in learnt]
    optimiser = torch.optim.AdamW(learnt, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    kept_aside = list(itertools.islice(dataclasses.replace(batches, seed=MEASURED), 4))
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=8)
    for step, batch in enumerate(itertools.islice(loader, steps), 1):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, step / WARM) * 0.5 * (1 + math.cos(math.pi * step / steps))
        parts = lesson(batch, None if rng.random() < WHOLE else DRAWN_FROM[rng.integers(len(DRAWN_FROM))])
        optimiser.zero_grad()
        torch.stack([SHARES[name] * loss for name, loss in parts.items()]).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        with torch.no_grad():
            for kept, value in zip(mean, learnt, strict=True):
                kept.lerp_(value, max(1 - KEPT, 1 / (step + 1)))
        if step % 25 == 0 or step == steps:
            latest = [value.detach().clone() for value in learnt]
            _put(learnt, mean)
            native.save(bundle, student.model, out)
            for name, chunk in (("live", LIVE), ("whole", None)):
                print(f"{step} of {steps}, {name}: {lesson.measured(kept_aside, chunk)}", flush=True)
            _put(learnt, latest)


@torch.no_grad()
def _put(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Teach a model to hear live, and in noise, what it hears whole")
    parser.add_argument("start", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--begin", type=Path, help="what learns (default: START itself)")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rate", type=float, default=8e-5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of speech in a step")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    batches = Batches(native.load(options.start)[0], options.data, options.seconds, options.seed)
    teach(options.start, options.begin or options.start, options.out, batches, options.steps, options.rate)


if __name__ == "__main__":
    main()
