"""The predictor of a model learns that noises hold no words, and goes on saying of speech what it said before.

    python -m recipes.quiet runs/mean runs/quiet --data speech

It learns from what the encoder makes of a few hundred clips, whole and in live steps, computed once: some six minutes
of a core in all. Of the noises half are kept aside, and what it makes of them is told at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from lhotse.cut import Cut
from torch import Tensor, nn

from paraformer.audio import Samples
from paraformer.checkpoint import native
from paraformer.config import ChunkConfig
from paraformer.data.augment import add_noise, coloured_noise
from paraformer.data.prepare import load_cuts
from paraformer.data.reading import load
from paraformer.frontend import Frontend
from paraformer.model.paraformer import Paraformer
from recipes.whisper_zh import LIVE, TRAIN_SETS

NOISES = "noise_esc10"
SPEECH, COPIES, COLOURED = 300, 4, 60
"""Utterances, pieces of each noise, and steady noises of some colour."""
SHORTEST = 8
"""Windows; less of a chunk teaches nothing."""
TOKEN = 0.55
"""What a predictor has to count before its tail makes a token of it."""
Heard = Float[Tensor, "windows dim"]


@dataclass(frozen=True)
class Clips:
    """What the encoder makes of noises and of speech; said: how much of a token the predictor saw in each window."""

    noises: list[Heard]
    speech: list[Heard]
    said: list[Tensor]


def pieces(noises: Sequence[Samples], rng: np.random.Generator) -> list[Samples]:
    """Random parts of noises at random levels, and steady noises."""
    found = []
    for noise in [noise for noise in noises for _ in range(COPIES)]:
        size = int(rng.uniform(0.3, 1.0) * len(noise))
        first = int(rng.integers(len(noise) - size + 1))
        found.append(noise[first : first + size] * np.float32(10 ** rng.uniform(-1.0, 0.4)))
    levels = 10 ** rng.uniform(-2.5, -0.5, COLOURED)
    steady = [coloured_noise(float(rng.uniform(0, 1.5)), rng) * np.float32(level) for level in levels]
    return [np.clip(one, -1, 1) for one in found + steady]


def with_noise(speech: Sequence[Samples], noises: Sequence[Samples], rng: np.random.Generator) -> list[Samples]:
    """Each utterance as it is and over a noise."""
    noisy = [add_noise(one, noises[rng.integers(len(noises))], float(rng.uniform(5, 20)), rng) for one in speech]
    return [np.clip(one, -1, 1) for one in [*speech, *noisy]]


@torch.no_grad()
def heard(
    model: Paraformer, frontend: Frontend, clips: Sequence[Samples], chunk: ChunkConfig | None, size: int = 8
) -> list[Heard]:
    """What the encoder makes of the clips: of each all its windows, or those of each live step."""
    found = []
    order = sorted(clips, key=len)
    for first in range(0, len(order), size):
        rows = [torch.from_numpy(frontend.whole(clip).copy()) for clip in order[first : first + size]]
        lengths = torch.tensor([len(row) for row in rows])
        with torch.autocast("cpu", torch.bfloat16):
            encoded = model.encode(nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths, chunk)
        hidden = encoded.hidden.float()
        if chunk is None:
            found += [one[:length].clone() for one, length in zip(hidden, lengths.tolist(), strict=True)]
            continue
        steps = hidden.view(*encoded.rows.shape, -1).flatten(0, 1)
        counts = encoded.rows.sum(-1).flatten().tolist()
        found += [one[:count].clone() for one, count in zip(steps, counts, strict=True) if count > SHORTEST]
    return found


def padded(clips: Sequence[Heard]) -> tuple[Float[Tensor, "clips windows dim"], Bool[Tensor, "clips windows"]]:
    """One batch, and where it holds something."""
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    return batch, torch.arange(batch.shape[1]) < lengths[:, None]


def weights_of(predictor: nn.Module, clips: Sequence[Heard]) -> Float[Tensor, "clips windows"]:
    """How much of a token the predictor sees in each window."""
    batch, mask = padded(clips)
    weights: Tensor = predictor(batch, mask)[:, : batch.shape[1]] * mask
    return weights


def loss_of(predictor: nn.Module, clips: Clips, rng: np.random.Generator) -> Tensor:
    """Half of what it counts in noises, and how far it is in speech from what it said, window by window and in all."""
    noises = [clips.noises[index] for index in rng.integers(len(clips.noises), size=12)]
    chosen = rng.integers(len(clips.speech), size=16)
    weights = weights_of(predictor, [clips.speech[index] for index in chosen])
    said = nn.utils.rnn.pad_sequence([clips.said[index] for index in chosen], batch_first=True)
    apart = (weights - said).abs().sum(-1) + (weights.sum(-1) - said.sum(-1)).abs()
    return 0.5 * weights_of(predictor, noises).sum(-1).mean() + apart.mean()


@torch.no_grad()
def taken_for_speech(predictor: nn.Module, noises: Sequence[Heard]) -> float:
    """The share of noises in which there is a token."""
    counts = [float(weights_of(predictor, [one]).sum()) for one in noises]
    return float(np.mean([count > TOKEN for count in counts]))


def learn(
    predictor: nn.Module, sets: Sequence[Clips], steps: int, rng: np.random.Generator, rate: float = 5e-4
) -> None:
    """Steps of AdamW on all of the sets; the rate rises over 20 steps and falls to nothing."""
    optimiser = torch.optim.AdamW(predictor.parameters(), lr=rate, weight_decay=0)
    predictor.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - step / steps)
        loss = torch.stack([loss_of(predictor, clips, rng) for clips in sets]).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(predictor.parameters(), 5.0)
        optimiser.step()
    predictor.eval()


def quiet(start: Path, out: Path, data: Path, steps: int, seed: int = 1) -> tuple[float, float]:
    """Write the model; returns the share of the noises kept aside in which there was a token, before and after."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    bundle, model = native.load(start)
    model = model.float().eval()
    frontend = Frontend(bundle.config.frontend, bundle.cmvn)
    cuts: list[Cut] = [cut for name in TRAIN_SETS for cut in load_cuts(data, name)]
    drawn = rng.permutation(len(cuts))[:SPEECH]
    noises = [load(cut) for cut in load_cuts(data, NOISES)]
    aside = heard(model, frontend, noises[::2], None)
    silent = pieces(noises[1::2], rng)
    spoken = with_noise([load(cuts[index]) for index in drawn], noises[1::2], rng)
    sets = []
    for chunk, every in ((None, 1), (LIVE, 3)):
        speech = heard(model, frontend, spoken[::every], chunk)
        with torch.no_grad():
            said = [weights_of(model.predictor, [one])[0] for one in speech]
        sets.append(Clips(heard(model, frontend, silent[::every], chunk), speech, said))
    before = taken_for_speech(model.predictor, aside)
    learn(model.predictor, sets, steps, rng)
    native.save(dataclasses.replace(bundle, directory=None, seal={}, weights=None), model, out)
    return before, taken_for_speech(model.predictor, aside)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Teach a model's predictor that noises hold no words")
    parser.add_argument("start", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=900)
    options = parser.parse_args(arguments)
    before, after = quiet(options.start, options.out, options.data, options.steps)
    print(f"of the noises kept aside {before:.1%} were taken for speech before, {after:.1%} are now")


if __name__ == "__main__":
    main()
