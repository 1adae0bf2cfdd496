"""The gate before a fine-tuning run: a model that knows the language learns ten utterances in a few steps.

If it does not, it has nothing to learn from, most likely because texts and sounds do not belong together. Few steps are
the point: given forty, a model learns ten wrong transcripts by heart as well. What the embedded model does on ten read
utterances of speakers that it has not heard before, cross-entropy in nats (4.6 by the frequency of each token alone):

| texts and sounds          | before | 2 steps | 4 steps | 6 steps |
|---------------------------|-------:|--------:|--------:|--------:|
| as they belong together   |   1.24 |    0.88 |    0.71 |    0.66 |
| transcripts moved by one  |  15.54 |   15.28 |   14.78 |   14.37 |
| played at twice the speed |  10.85 |    6.48 |    3.35 |    2.46 |
| played at half the speed  |  11.48 |    7.37 |    3.96 |    2.69 |
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut

from paraformer.data.check import FASTEST, SLOWEST, spoken_words
from paraformer.data.dataset import SpeechDataset, text_of
from paraformer.errors import DataError, TrainingError
from paraformer.model.objective import Batch
from paraformer.model.paraformer import Paraformer
from paraformer.text import UNKNOWN
from paraformer.train import parallel
from paraformer.train.batches import on_device
from paraformer.train.config import TrainConfig
from paraformer.train.speech import Setup, Speech, initial_weights, new_setup

UTTERANCES, LONGEST_S, STEPS = 10, 12.0, 6
LEARNT, NEARLY_NOTHING = 1 / 3, 0.5
"""Cross-entropy must fall to this share of what knowing the frequency of each token alone would give, or to so many
nats."""
FOREIGN, MISCOUNTED = 0.3, 0.4
"""Shares of tokens that the model did not know, or counted wrongly, above which this is what is wrong."""


@dataclass(frozen=True)
class Trial:
    """How ten utterances were learnt."""

    cross_entropy: tuple[float, ...]
    """Nats per token, before the first step and after each."""
    miscounted: float
    """Mean difference between the tokens heard and those of the transcript, per token, before the first step."""
    entropy: float
    """Of the frequencies of the tokens, nats."""
    foreign: float
    """Share of tokens that are unknown to the model, or were until its vocabulary was extended."""
    speed: float
    """Characters and Latin words per second."""

    @property
    def learnt(self) -> bool:
        """Whether the loss fell as it should."""
        last = self.cross_entropy[-1]
        enough = max(LEARNT * self.entropy, NEARLY_NOTHING)
        return math.isfinite(last) and last <= enough

    @property
    def fault(self) -> str:
        """What is most likely wrong, if it was not learnt."""
        if not all(map(math.isfinite, self.cross_entropy)):
            return "the loss is not finite, so the learning rate is too high or the model is damaged"
        if self.foreign > FOREIGN:
            return (
                f"the vocabulary does not fit: {100 * self.foreign:.0f} % of the characters are new to the model "
                "(another script, or figures instead of words?)"
            )
        if not SLOWEST <= self.speed <= FASTEST:
            return (
                f"nobody says {self.speed:.1f} characters per second: the transcripts are of other recordings, or the "
                "audio claims a wrong sample rate"
            )
        if self.miscounted > MISCOUNTED:
            return "the transcripts are wrong: they do not have as many characters as are heard in their recordings"
        return (
            "about as many characters are heard as the transcripts have, but others: the audio claims a wrong sample "
            "rate, or the transcripts belong to other recordings, or this is another language"
        )


def pass_gate(config: TrainConfig, cuts: Sequence[Cut], rate: float) -> Trial:
    """Try to learn ten of the utterances. Raises TrainingError that says what probably is wrong where it fails.

    rate: learning rate for all weights of config.init, whatever the run will train.
    """
    setup = new_setup(config, Speech(CutSet.from_cuts(cuts), CutSet.from_cuts([]), []))
    trial = attempt(config, setup, drawn(cuts, config.seed), rate)
    if not trial.learnt:
        first, last = trial.cross_entropy[0], trial.cross_entropy[-1]
        raise TrainingError(
            f"{UTTERANCES} utterances were not learnt in {STEPS} steps (cross-entropy {first:.2f} -> {last:.2f}): "
            f"{trial.fault}; look at the data with `paraformer data check`, or start without the gate"
        )
    return trial


def drawn(cuts: Sequence[Cut], seed: int) -> list[Cut]:
    """Ten utterances, none of them long if there are enough others; else the shortest."""
    # Long ones take more time and memory, and in six steps nothing more is learnt from them.
    short = [cut for cut in cuts if cut.duration <= LONGEST_S]
    if len(short) < UTTERANCES:
        short = sorted(cuts, key=lambda cut: cut.duration)[:UTTERANCES]
    order = np.random.default_rng(seed).permutation(len(short))[:UTTERANCES]
    return [short[index] for index in order]


def attempt(config: TrainConfig, setup: Setup, cuts: Sequence[Cut], rate: float) -> Trial:
    """STEPS of AdamW on all of the utterances at once, unchanged, without dropout, sampler and smoothing.

    Raises DataError if none of them can be used.
    """
    assert config.init is not None
    loaded = SpeechDataset(setup.symbols, setup.model.frontend, setup.cmvn)[CutSet.from_cuts(cuts)]
    if loaded.batch is None:
        raise DataError(f"none of {len(cuts)} utterances can be used: {'; '.join(map(str, loaded.skipped))}")
    plain = dataclasses.replace(
        setup.model.objective, label_smoothing=0.0, sampling_ratio=0.0, length_normalized=True
    )  # the bounds above are of tokens, whatever the run counts by
    model = Paraformer(dataclasses.replace(setup.model, objective=plain))
    model.load_state_dict(initial_weights(config.init, setup))
    optimiser = torch.optim.AdamW(model.to(parallel.device()).parameters(), lr=rate, betas=config.optimiser.betas)
    # In evaluation mode, without dropout: ten utterances are to be learnt by heart, as fast as they can be.
    cross_entropy, miscounted = _overfit(model.eval(), on_device(loaded.batch), optimiser, config)
    seconds = sum(cut.duration for cut in cuts)
    said = sum(len(spoken_words(text_of(cut))) for cut in cuts)
    return Trial(cross_entropy, miscounted, *_statistics(loaded.batch, setup), speed=said / seconds)


def _overfit(
    model: Paraformer, batch: Batch, optimiser: torch.optim.Optimizer, config: TrainConfig
) -> tuple[tuple[float, ...], float]:
    """Cross-entropy before and after each step, and the quantity loss before the first."""
    live = config.live
    # Whole, unless the model has never seen more than a chunk and would fail for that alone.
    chunk = live.chunks[0] if live is not None and live.always else None
    values, quantities = [], []
    # Once more than there are steps: measured before each, and after the last.
    for step in range(STEPS + 1):
        losses = model(batch, chunk=chunk)
        values.append(float(losses.cross_entropy.detach()))
        quantities.append(float(losses.quantity.detach()))
        if step < STEPS:
            optimiser.zero_grad()
            losses.total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
            optimiser.step()
    return tuple(values), quantities[0]


def _statistics(batch: Batch, setup: Setup) -> tuple[float, float]:
    """Entropy of the frequencies of the tokens of a batch, nats, and the share of those that the model did not know."""
    tokens = [setup.tokens[index] for index in batch.targets[batch.targets >= 0].tolist()]
    shares = [count / len(tokens) for count in Counter(tokens).values()]
    # Both kinds: with a vocabulary that is extended nothing is unknown any more, and yet was never heard.
    foreign = sum(token == UNKNOWN or token in setup.added for token in tokens)
    return -sum(share * math.log(share) for share in shares), foreign / len(tokens)
