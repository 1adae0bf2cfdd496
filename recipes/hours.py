"""The data curve: the error rate on real speech against the hours of (synthetic) training speech.

Data: 2, 4, 8 and all of 13.1 hours of the training sets that the embedded model learns from, drawn utterance by
utterance so that less is always part of more, and for each the same 4000 steps. The vocabulary is that of the texts, so
less speech also means characters that cannot be written.
Measured on 300 held-out sentences of train_kokoro_0, in voices that are trained on, and on dev_aishell_sample.
Cost: 27 minutes for each of four runs on two cores, by 1400 steps of the first (0.4 s each); `--times 4` for a GPU.
Result: docs/hours.md.
Command, `speech` being the prepared sets (see recipes/zh_small.py):

    python -m recipes.experiment recipes.hours --data speech --docs docs
"""

from __future__ import annotations

from functools import partial

from paraformer.config import ModelConfig, ObjectiveConfig, SanmDecoderConfig, SanmEncoderConfig
from paraformer.data.dataset import BatchConfig
from paraformer.train.config import OptimiserConfig, TrainConfig
from recipes.experiment import Experiment, Run
from recipes.paper import WORKERS

SETS = ("train_kokoro_0", "train_kokoro_1", "train_hsk_sentences", "train_words_audio_cmn")
STEPS = 4000


def config(train_h: float | None = None) -> TrainConfig:
    """A small Paraformer of 3.4 million parameters with all augmentation that the embedded model is trained with."""
    model = ModelConfig(
        vocab_size=0,
        encoder=SanmEncoderConfig(dim=144, ffn_dim=576, layers=6, attention_dropout=0.0),
        decoder=SanmDecoderConfig(ffn_dim=576, layers=3, attention_layers=3, shift=5, attention_dropout=0.0),
        objective=ObjectiveConfig(ctc_weight=0.03, middle_ctc_weight=0.015, sampling_ratio=0.5),
    )
    return TrainConfig(
        model=model,
        train_sets=SETS,
        train_h=train_h,
        noise_set="noise_esc10",
        dev_set="dev_aishell_sample",
        steps=STEPS,
        held_out=300,
        batch=BatchConfig(seconds=60.0),
        optimiser=OptimiserConfig(peak_lr=2e-3, warmup_steps=400),
        live=None,
        workers=WORKERS,
        measure_steps=STEPS // 8,
        keep=3,
    )


EXPERIMENT = Experiment(
    name="hours",
    title="Errors against hours of training speech",
    runs=(
        *(Run(f"{hours}h", f"{hours} hours", partial(config, float(hours)), x=hours) for hours in (2, 4, 8)),
        Run("all", "all, 13.1 hours", config, x=13.1),
    ),
    beside="all",
    x_label="hours of training speech",
)
