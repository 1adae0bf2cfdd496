"""FunASR itself opens what we save, and recognises the same. Run with -m peers where funasr is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from funasr_dirs import GOLDEN, write_funasr

import paraformer
from paraformer import checkpoint

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
CHUNK = 9600


def speech() -> np.ndarray:
    with np.load(GOLDEN / "frontend_offline.npz") as arrays:
        return arrays["wav_int16"].astype(np.float32) / 32768


def packets() -> Iterator[np.ndarray]:
    samples = speech()
    return (samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK))


def saved(path: Path, name: str) -> Path:
    """A golden model in FunASR's form as we write it."""
    return checkpoint.convert(checkpoint.convert(write_funasr(path / "given", name), path / "ours"), path / "saved")


def funasr_model(directory: Path):
    funasr = pytest.importorskip("funasr")
    return funasr.AutoModel(model=str(directory), device="cpu", ncpu=1, disable_update=True, disable_pbar=True)


@pytest.mark.parametrize("name", ["offline_A", "offline_B", "aishell_conformer"])
def test_whole(tmp_path, name):
    directory = saved(tmp_path, name)
    theirs = funasr_model(directory).generate(input=speech())[0]["text"]
    assert theirs
    assert paraformer.load(directory, backend="torch", vad=False).transcribe(speech()).text == theirs


def test_live(tmp_path):
    directory = saved(tmp_path, "online")
    theirs, cache = funasr_model(directory), {}
    parts = list(packets())
    texts = [
        theirs.generate(input=part, cache=cache, is_final=index == len(parts) - 1, chunk_size=[5, 10, 5])[0]["text"]
        for index, part in enumerate(parts)
    ]
    session = paraformer.load(directory, backend="torch", vad=False).stream(paraformer.ChunkConfig())
    ours = "".join(session.accept(part) for part in parts) + session.finish()
    assert ours == "".join(texts) != ""
