"""Tiny speech archives for tests of data and training: each character is a chord of its own."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
CHARACTERS = "一二三四"


def sound_of(text: str) -> np.ndarray:
    """0.3 s of tones per character, with 0.1 s of silence around."""
    time = np.arange(int(0.3 * RATE)) / RATE
    tones = [np.sin(2 * np.pi * f * time) for f in (300 * (CHARACTERS.index(c) + 1) for c in text)]
    silence = np.zeros(RATE // 10)
    return (0.3 * np.concatenate([silence, *tones, silence])).astype(np.float32)


def write_entries(path: Path, entries: Sequence[object], sounds: Mapping[str, bytes]) -> Path:
    """A tar of these lines and members."""
    with tarfile.open(path, "w") as tar:
        _add(tar, "manifest.jsonl", "\n".join(map(json.dumps, entries)).encode())
        for name, data in sounds.items():
            _add(tar, name, data)
    return path


def flac(samples: np.ndarray, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return buffer.getvalue()


def write_archive(path: Path, texts: Sequence[str], rate: int = RATE) -> Path:
    """A tar as `paraformer.data.prepare` reads it, one FLAC utterance for each text."""
    entries = [
        {"id": f"{path.stem}-{i}", "audio": f"{i}.flac", "text": t, "speaker": "tones"} for i, t in enumerate(texts)
    ]
    return write_entries(path, entries, {f"{i}.flac": flac(sound_of(t), rate) for i, t in enumerate(texts)})


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
