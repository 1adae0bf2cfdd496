"""The data curve: the error rate on real speech against the hours of (synthetic) training speech.

Data: 2, 4, 8 and all of 13.1 hours of the training sets that the embedded model learns from, drawn utterance by
utterance so that less is always part of more. For each, an encoder learns syllables by CTC alone from unchanged clips,
and a Paraformer goes on from it with all augmentation, always in the same number of steps. The vocabulary is that of
the texts, so less speech also means characters that cannot be written.
Measured on 300 held-out sentences of train_kokoro_0, in voices that are trained on, and on dev_aishell_sample, by the
weights of the last step, so neither chooses anything.
Cost: 9 minutes for each encoder and 12 to 18 for each run, two at a time on two cores; `--times 10` for a GPU.
Result: held out 67.6, 64.5, 66.1 and 64.2 %, on real speech 79.3, 78.1, 78.4 and 78.7 % errors with 2, 4, 8 and all
hours: in so few steps it is steps that lack, not speech. docs/hours.md has the rest.
Command, `speech` being the prepared sets (see recipes/zh_small.py):

    python -m recipes.experiment recipes.hours --data speech --docs docs
"""

from __future__ import annotations

import dataclasses
from functools import partial

from paraformer.config import ModelConfig, ObjectiveConfig, SanmDecoderConfig, SanmEncoderConfig
from paraformer.data.augment import UNCHANGED
from paraformer.data.dataset import BatchConfig
from paraformer.train.config import OptimiserConfig, TrainConfig
from recipes.experiment import Experiment, Run
from recipes.paper import CTC_ALONE, SHORT, WORKERS

SETS = ("train_kokoro_0", "train_kokoro_1", "train_hsk_sentences", "train_words_audio_cmn")
ENCODER_STEPS, STEPS = 2000, 2000


def name_of(train_h: float | None) -> str:
    """What a run with so many hours is called."""
    return "all" if train_h is None else f"{train_h:g}h"


def config(train_h: float | None = None) -> TrainConfig:
    """A small Paraformer of 3.4 million parameters with all augmentation that the embedded model is trained with."""
    model = ModelConfig(
        vocab_size=0,
        encoder=SanmEncoderConfig(dim=144, ffn_dim=576, layers=6, attention_dropout=0.0),
        decoder=SanmDecoderConfig(ffn_dim=576, layers=3, attention_layers=3, shift=5, attention_dropout=0.0),
        objective=ObjectiveConfig(ctc_weight=0.03, sampling_ratio=0.0),
    )
    return TrainConfig(
        model=model,
        train_sets=SETS,
        train_h=train_h,
        noise_set="noise_esc10",
        dev_set="dev_aishell_sample",
        init_encoder=f"runs/hours/encoder_{name_of(train_h)}/bundle",
        steps=STEPS,
        held_out=300,
        batch=BatchConfig(seconds=60.0),
        optimiser=OptimiserConfig(peak_lr=1e-3, warmup_steps=200),
        live=None,
        workers=WORKERS,
        measure_steps=STEPS,
        keep=1,
    )


def encoder(train_h: float | None = None) -> TrainConfig:
    """The encoder that a run starts from; clips are short, in which alignment is soon found."""
    full = config(train_h)
    return dataclasses.replace(
        full,
        model=dataclasses.replace(full.model, objective=CTC_ALONE),
        init_encoder=None,
        steps=ENCODER_STEPS,
        measure_steps=ENCODER_STEPS,
        join=SHORT,
        augment=UNCHANGED,
        optimiser=OptimiserConfig(peak_lr=2e-3, warmup_steps=200),
    )


HOURS = (2.0, 4.0, 8.0, None)
EXPERIMENT = Experiment(
    name="hours",
    title="Errors against hours of training speech",
    first=tuple(Run(f"encoder_{name_of(h)}", f"the encoder, {name_of(h)}", partial(encoder, h)) for h in HOURS),
    runs=(
        *(Run(name_of(h), f"{h:g} hours", partial(config, h), x=h) for h in HOURS if h),
        Run("all", "all, 13.1 hours", config, x=13.1),
    ),
    beside="all",
    x_label="hours of training speech",
)
