"""One model in the directories that each system opens: the same weights for all, exported by FunASR's own recipe.

A model that FunASR does not know, as one with a front, is not for it, and goes to the others as we export it.

In one folder, a directory each: `paraformer`; `funasr` and `funasr-live`, which funasr-onnx opens as well;
`sherpa-onnx` and `sherpa-onnx-live`, with FunASR's graphs and the metadata that sherpa-onnx wants.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import soundfile
from large import large, make

import paraformer
from paraformer import loader
from paraformer.audio import SAMPLE_RATE, read
from paraformer.bundle import CONFIG_FILE, Bundle, checksum
from paraformer.certificate.record import Form, Runtime
from paraformer.checkpoint import funasr_writer, native
from paraformer.errors import UnsupportedModel
from paraformer.export.directories import sherpa_onnx_settings, write

BENCHMARKS = Path(__file__).parent.parent
SAMPLES = Path(paraformer.__file__).parent / "samples"
FILE_SECONDS = (3, 5, 7, 9, 12, 15)
"""Lengths of the files of a batch, by turns."""
GRAPHS = {"model": "model.onnx", "encoder": "model.onnx", "decoder": "decoder.onnx"}
"""Names of graphs for sherpa-onnx -> those that FunASR gives."""


def directory(shape: str, folder: Path) -> Path:
    """Our model of a shape: the one that comes with the package, or a random one under the folder."""
    return loader.locate(None) if shape == "embedded" else folder / "paraformer"


def prepare(shape: str, folder: Path, python: Path | None) -> None:
    """Make what is missing. python: of the peers; None: only ours is made."""
    ours = directory(shape, folder)
    if shape == "large":
        once(ours, "", lambda: make(large(), ours))
    if python is None:
        return
    model = checksum(ours / CONFIG_FILE)  # in which the checksum of the weights stands
    for live in (False, True):
        theirs, sherpa = (folder / f"{name}{'-live' * live}" for name in ("funasr", "sherpa-onnx"))
        if not known_to_funasr(ours):
            once(theirs, model, lambda theirs=theirs, live=live: _write_ours(ours, theirs, "funasr-onnx", live))
            once(sherpa, model, lambda sherpa=sherpa, live=live: _write_ours(ours, sherpa, "sherpa-onnx", live))
            continue
        once(theirs, model, lambda theirs=theirs, live=live: _write_funasr(ours, theirs, live, python))
        once(sherpa, model, lambda theirs=theirs, sherpa=sherpa, live=live: _write_sherpa(ours, theirs, sherpa, live))


def known_to_funasr(ours: Path) -> bool:
    """Whether its format has a place for all of the model."""
    try:
        funasr_writer.check_parts(Bundle.open(ours).config)
    except UnsupportedModel:
        return False
    return True


def once(target: Path, of: str, write_it: Callable[[], None]) -> None:
    """Write a directory unless it was written to its end before, of the same."""
    made = target / "made"
    if made.is_file() and made.read_text(encoding="utf-8") == of:
        return
    print(f"making {target}", flush=True)
    made.unlink(missing_ok=True)
    write_it()
    made.write_text(of, encoding="utf-8")


def _write_ours(ours: Path, target: Path, runtime: Runtime, live: bool) -> None:
    """Our own export, in float32 and int8."""
    for precision in ("fp32", "int8"):
        write(*native.load(ours), target, Form(runtime=runtime, live=live, precision=precision))


def _write_funasr(ours: Path, theirs: Path, live: bool, python: Path) -> None:
    """FunASR's directory, and in it its own export in float32 and int8."""
    write(*native.load(ours), theirs, Form(runtime="funasr", live=live))
    subprocess.run([python, BENCHMARKS / "comparison" / "peers_export.py", theirs], check=True)


def _write_sherpa(ours: Path, theirs: Path, sherpa: Path, live: bool) -> None:
    """FunASR's graphs, the first with metadata, and the vocabulary (spec 8.4)."""
    bundle = Bundle.open(ours)
    sherpa.mkdir(parents=True, exist_ok=True)
    metadata = sherpa_onnx_settings(bundle, sherpa, live=live)
    for name in ("encoder", "decoder") if live else ("model",):
        for suffix, theirs_suffix in (("", ""), (".int8", "_quant")):
            graph = onnx.load(theirs / GRAPHS[name].replace(".onnx", f"{theirs_suffix}.onnx"))
            onnx.helper.set_model_props(graph, {} if name == "decoder" else metadata)
            onnx.save(graph, sherpa / f"{name}{suffix}.onnx")


def write_audio(folder: Path, longest_s: float, batch_s: float) -> None:
    """speech.npy, longest_s seconds of the sample clips end to end, and files/*.wav, batch_s seconds in all."""
    clips = np.concatenate([read(path) for path in sorted(SAMPLES.glob("*.flac"))])
    (folder / "files").mkdir(parents=True, exist_ok=True)
    np.save(folder / "speech.npy", np.resize(clips, round(longest_s * SAMPLE_RATE)))
    for path in (folder / "files").glob("*.wav"):
        path.unlink()
    left, start, number = round(batch_s * SAMPLE_RATE), 0, 0
    while left > 0:
        size = min(left, FILE_SECONDS[number % len(FILE_SECONDS)] * SAMPLE_RATE)
        piece = np.resize(np.roll(clips, -start), size)
        soundfile.write(folder / "files" / f"{number:05}.wav", piece, SAMPLE_RATE, subtype="PCM_16")
        left, start, number = left - size, start + size, number + 1
