"""The paper's experiment at our scale: what a Paraformer gives up, and what it gains, beside a system that writes token
after token. Source: Gao et al., "Paraformer" (Interspeech 2022), sections 3 and 4.

Runs, the same encoder, data, batches and 3000 steps in each:
a. `autoregressive`: a Transformer decoder, causal over tokens, with beam search of 10;
b. `vanilla`: the same decoder, bidirectional, on the vectors of integrate-and-fire, in one pass;
c. `sampler`: b with the glancing sampler; its first 2400 steps are the run `start`, the others go on from it;
d. `mwer`: as c, but the last 600 steps with MWER loss: negative samples, gamma 0.01.
Data: 4.7 hours, train_hsk_sentences (CosyVoice2) and train_words_audio_cmn (one woman, single words). Measured on 300
sentences that were held out, of which nothing is used in training, and on dev_aishell_sample, real speech that chooses
between the weights of a run.
Cost: 10 to 17 minutes for each of a to d on two cores: a step of 54 s of speech took 0.34 s in 300 steps with one
thread and one worker (whole runs are not measured yet); `--times 4` for a GPU.
Result: docs/paper.md.
Command, `speech` being the prepared sets (see recipes/zh_small.py):

    python -m recipes.experiment recipes.paper --data speech --docs docs

Each run alone, in this order, is `paraformer train recipes.paper:start --data speech --out runs/paper/start`.
"""

from __future__ import annotations

import dataclasses
import os

from paraformer.config import ModelConfig, ObjectiveConfig, SanmEncoderConfig, TransformerDecoderConfig
from paraformer.data.dataset import BatchConfig, JoinConfig
from paraformer.train.batches import EASY_AUGMENT
from paraformer.train.config import OptimiserConfig, TrainConfig
from recipes.experiment import Experiment, Run

STEPS, FURTHER = 3000, 600
"""Of each system, and how many of them are with MWER loss."""
GAMMA = 0.01
"""Weight of cross-entropy beside the MWER loss."""
CTC = 0.03
"""Weight of CTC on the encoder's rows; it is a sum over the utterance, where cross-entropy is a mean over tokens."""
WORKERS = max(1, len(os.sched_getaffinity(0)) - 1)
"""Processes that load batches; their number changes no result."""


def base(objective: ObjectiveConfig) -> TrainConfig:
    """What all systems share: 3.7 million parameters, six encoder and three decoder blocks of width 144."""
    model = ModelConfig(
        vocab_size=0,
        encoder=SanmEncoderConfig(dim=144, ffn_dim=576, layers=6, attention_dropout=0.0),
        decoder=TransformerDecoderConfig(ffn_dim=576, layers=3),
        objective=objective,
    )
    return TrainConfig(
        model=model,
        train_sets=("train_hsk_sentences", "train_words_audio_cmn"),
        dev_set="dev_aishell_sample",
        steps=STEPS,
        held_out=300,
        batch=BatchConfig(seconds=60.0),
        join=JoinConfig(clips=2, total_s=4.0, alone_s=1.0),
        augment=dataclasses.replace(EASY_AUGMENT, frequency_masks=1, time_masks=1),
        optimiser=OptimiserConfig(peak_lr=2e-3, warmup_steps=300),
        live=None,
        workers=WORKERS,
        measure_steps=STEPS // 6,
        keep=3,
    )


def autoregressive() -> TrainConfig:
    """System a."""
    return dataclasses.replace(base(ObjectiveConfig(ctc_weight=CTC)), system="autoregressive")


def vanilla() -> TrainConfig:
    """System b."""
    return base(ObjectiveConfig(ctc_weight=CTC, sampling_ratio=0.0))


def start() -> TrainConfig:
    """What systems c and d have in common."""
    return dataclasses.replace(base(ObjectiveConfig(ctc_weight=CTC)), steps=STEPS - FURTHER)


def sampler() -> TrainConfig:
    """System c, from `start` on."""
    return further(ObjectiveConfig(ctc_weight=CTC))


def mwer() -> TrainConfig:
    """System d, from `start` on."""
    return further(ObjectiveConfig(ctc_weight=CTC, cross_entropy_weight=GAMMA, mwer_weight=1.0))


def further(objective: ObjectiveConfig) -> TrainConfig:
    """The last steps, at a rate that falls from a tenth of the peak."""
    return dataclasses.replace(
        base(objective),
        init="runs/paper/start/bundle",
        steps=FURTHER,
        optimiser=OptimiserConfig(peak_lr=2e-4, warmup_steps=50),
        measure_steps=FURTHER // 3,
    )


EXPERIMENT = Experiment(
    name="paper",
    title="The paper's experiment",
    runs=(
        Run("autoregressive", "(a) autoregressive, beam 10", autoregressive),
        Run("vanilla", "(b) no sampler", vanilla),
        Run("start", "(c) and (d) before their last steps", start),
        Run("sampler", "(c) Paraformer with sampler", sampler),
        Run("mwer", "(d) and with MWER", mwer),
    ),
    beside="autoregressive",
    judged="mwer",
)
