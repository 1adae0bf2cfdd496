"""The paper's experiment at our scale: what a Paraformer gives up, and what it gains, beside a system that writes token
after token. Source: Gao et al., "Paraformer" (Interspeech 2022), sections 3 and 4.

All start from one encoder, the run `encoder`, which has learnt syllables by CTC alone in 3000 steps: from nothing, a
decoder that writes token after token finds no alignment in so few steps (in an earlier form of this experiment it did
not, at 92 % errors beside 63 to 71). Then the same data, batches and 3000 steps in each:
a. `autoregressive`: a Transformer decoder, causal over tokens, with beam search of 10;
b. `vanilla`: the same decoder, bidirectional, on the vectors of integrate-and-fire, in one pass;
c. `sampler`: b with the glancing sampler; its first 2400 steps are the run `start`, the others go on from it;
d. `mwer`: as c, but the last 600 steps with MWER loss: negative samples, gamma 0.01.
Data: 4.9 hours, train_hsk_sentences (CosyVoice2) and train_words_audio_cmn (one woman, single words). Measured on 300
sentences that were held out, of which nothing is used in training, and on dev_aishell_sample, real speech; the weights
are those of the last step, so neither chooses anything.
Cost: 10 minutes for the encoder and for each of a to d where two cores are idle; `--times 4` for a GPU.
Result: errors on held-out sentences a 87.0, b 39.6, c 43.0, d 47.5 %; d decodes 4.4 times as fast as a, 10.8 times what
follows the encoder. docs/paper.md has the rest.
Command, `speech` being the prepared sets (see recipes/zh_small.py):

    python -m recipes.experiment recipes.paper --data speech --docs docs

Each run alone, `encoder` first, is `paraformer train recipes.paper:encoder --data speech --out runs/paper/encoder`.
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
CTC_ALONE = ObjectiveConfig(ctc_weight=1.0, cross_entropy_weight=0.0, quantity_weight=0.0, sampling_ratio=0.0)
"""What an encoder learns that others start from."""
SHORT = JoinConfig(clips=2, total_s=4.0, alone_s=1.0)
"""Short utterances, in which alignment is soon found."""
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
        join=SHORT,
        augment=dataclasses.replace(EASY_AUGMENT, frequency_masks=1, time_masks=1),
        init_encoder="runs/paper/encoder/bundle",
        optimiser=OptimiserConfig(peak_lr=1e-3, warmup_steps=300),
        live=None,
        workers=WORKERS,
        measure_steps=STEPS,
        keep=1,
    )


def encoder() -> TrainConfig:
    """The encoder that all systems start from."""
    rates = OptimiserConfig(peak_lr=2e-3, warmup_steps=300)
    return dataclasses.replace(base(CTC_ALONE), init_encoder=None, optimiser=rates)


def autoregressive() -> TrainConfig:
    """System a."""
    return dataclasses.replace(base(ObjectiveConfig(ctc_weight=CTC)), system="recipes.autoregressive:Autoregressive")


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
        init_encoder=None,
        steps=FURTHER,
        optimiser=OptimiserConfig(peak_lr=2e-4, warmup_steps=50),
    )


EXPERIMENT = Experiment(
    name="paper",
    title="The paper's experiment",
    first=(Run("encoder", "the encoder", encoder), Run("start", "(c) and (d) before their last steps", start)),
    runs=(
        Run("autoregressive", "(a) autoregressive, beam 10", autoregressive),
        Run("vanilla", "(b) no sampler", vanilla),
        Run("sampler", "(c) Paraformer with sampler", sampler),
        Run("mwer", "(d) and with MWER", mwer),
    ),
    beside="autoregressive",
    judged="mwer",
)
