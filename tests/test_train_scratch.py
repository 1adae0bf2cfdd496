"""From nothing to a model: train on tones, export, and read the same text in every way there is."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_archives import CHARACTERS, RATE, sound_of, write_archive
from training import CONFIG

import paraformer
from paraformer.checkpoint import native
from paraformer.config import ChunkConfig, ModelConfig, ObjectiveConfig, SanmDecoderConfig, SanmEncoderConfig
from paraformer.data.augment import UNCHANGED, AugmentConfig
from paraformer.data.dataset import BatchConfig, JoinConfig
from paraformer.data.prepare import prepare
from paraformer.evaluate.cer import total_errors
from paraformer.export import export
from paraformer.train.config import LiveConfig, OptimiserConfig, TrainConfig
from paraformer.train.finish import finish
from paraformer.train.loop import train

LIVE = ChunkConfig(left=5, chunk=10, right=5)
MODEL = ModelConfig(
    vocab_size=0,
    encoder=SanmEncoderConfig(dim=48, ffn_dim=96, layers=3, heads=2, kernel=5, dropout=0.0, attention_dropout=0.0),
    decoder=SanmDecoderConfig(
        ffn_dim=96, layers=2, attention_layers=2, heads=2, kernel=5, shift=2, dropout=0.0, attention_dropout=0.0
    ),
    objective=ObjectiveConfig(ctc_weight=0.1, sampling_ratio=0.5, label_smoothing=0.0),
    live=LIVE,
)
PLAIN = dataclasses.replace(UNCHANGED, gain_db=(-6.0, 6.0), floor_probability=AugmentConfig.floor_probability)


def recipe() -> TrainConfig:
    return dataclasses.replace(
        CONFIG,
        model=MODEL,
        steps=300,
        held_out=0,
        augment=PLAIN,
        batch=BatchConfig(seconds=24.0, buckets=2),
        join=JoinConfig(clips=1, edge_s=(0.0, 0.3)),
        optimiser=OptimiserConfig(peak_lr=4e-3, warmup_steps=50),
        live=LiveConfig(chunks=(LIVE,), start=0.1, probability=0.5),
        precision="float32",
        measure_steps=100,
        save_s=1e9,
        log_steps=50,
        keep=1,
    )


def texts(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list(CHARACTERS), rng.integers(1, 8))) for _ in range(count)]


def live(recognizer: paraformer.Recognizer, samples: np.ndarray) -> str:
    session = recognizer.stream()
    for first in range(0, len(samples), 1234):
        session.accept(samples[first : first + 1234])
    session.finish()
    return session.text


def without_torch(bundle: Path, files: list[Path]) -> list[list[str]]:
    """Whole and live texts as a process reads them that has no torch."""
    code = (
        "import json, sys\nsys.modules['torch'] = None\nimport paraformer\nfrom paraformer import audio\n"
        "recognizer = paraformer.load(sys.argv[1])\n"
        "whole = [recognizer.transcribe(file).text for file in sys.argv[2:]]\n"
        "live = []\n"
        "for file in sys.argv[2:]:\n"
        "    session = recognizer.stream()\n"
        "    live.append(session.accept(audio.read(file)) + session.finish())\n"
        "print(json.dumps([whole, live]))\n"
    )
    command = [sys.executable, "-c", code, str(bundle), *map(str, files)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return json.loads(printed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_from_scratch_reads_its_training_texts_in_every_way(tmp_path: Path) -> None:
    spoken = texts(60)
    archives = [write_archive(tmp_path / "tones.tar", spoken), write_archive(tmp_path / "dev.tar", spoken)]
    prepare(archives, tmp_path)
    outcome = train(recipe(), tmp_path, tmp_path / "run")
    assert outcome.progress.skipped == 0
    bundle = finish(recipe(), tmp_path, tmp_path / "run", best=1)
    settings, model = native.load(bundle)
    export(model, bundle)
    settings.save(bundle)

    sounds = [sound_of(text) for text in spoken]
    torch_side = paraformer.load(bundle, backend="torch")
    whole = [torch_side.transcribe(samples).text for samples in sounds]
    assert total_errors(zip(spoken, whole, strict=True)).cer <= 0.05
    assert [live(torch_side, samples) for samples in sounds] == whole

    files = [tmp_path / f"{index}.wav" for index in range(len(sounds))]
    for file, samples in zip(files, sounds, strict=True):
        soundfile.write(file, samples, RATE, subtype="FLOAT")
    assert without_torch(bundle, files) == [whole, whole]
