"""`paraformer.load`: from a name or directory to a recogniser, with the engine and parts that fit."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from paraformer import contract
from paraformer.backends.base import Backend
from paraformer.bundle import CONFIG_FILE, Bundle
from paraformer.config import ChunkConfig
from paraformer.errors import ConfigError, MissingExtra
from paraformer.recognizer import Recognizer, Segmenter

EMBEDDED = "zh-small"


def load(
    model: str | Path | None = None,
    *,
    backend: Literal["auto", "onnx", "torch"] = "auto",
    chunk: ChunkConfig | None = None,
    threads: int = 1,
    device: str = "cpu",
    vad: bool = True,
    download: bool = False,
) -> Recognizer:
    """Load a model for recognition.

    model: a native bundle or FunASR model directory, or a published name such as "paraformer-zh-streaming"; None: the
        small Mandarin model that comes with the package.
    backend: "onnx" needs the bundle's graphs, "torch" the extra [torch]; "auto" takes the graphs where there are any.
    chunk: setting of live sessions, unless `stream` is given another. threads: of one recognition, 0 for one per core.
    device: for torch, e.g. "cuda". vad: cut audio over 30 s at pauses. download: fetch a published model if needed.

    Raises ModelNotFound, ModelError, UnsupportedModel or MissingExtra, each saying what to do.
    """
    if threads < 0:
        raise ConfigError(f"threads must be 0 (one per core) or more, not {threads}")
    bundle, engine = open_model(locate(model, download=download), backend, device=device, threads=threads)
    return Recognizer(bundle, engine, _segmenter() if vad else None, chunk)


def open_model(
    directory: Path, backend: Literal["auto", "onnx", "torch"], *, device: str = "cpu", threads: int = 1
) -> tuple[Bundle, Backend]:
    """A model directory's settings, and its weights on an engine; arguments and errors as those of `load`."""
    graphs = (directory / CONFIG_FILE).is_file() and (directory / contract.ENCODER).is_file()
    if backend == "onnx" or (backend == "auto" and graphs):
        return _open_onnx(directory, threads)
    return _open_torch(directory, device, threads)


def locate(model: str | Path | None, *, download: bool = False) -> Path:
    """The directory of a model: the embedded one for None, a directory itself, or a published name's cached copy."""
    if model is None or model == EMBEDDED:
        return Path(str(files("paraformer") / "models" / EMBEDDED))
    if Path(model).is_dir():
        return Path(model)
    from paraformer.hub import resolve

    return resolve(str(model), download=download)


def _open_onnx(directory: Path, threads: int) -> tuple[Bundle, Backend]:
    from paraformer.backends.onnx import OnnxBackend

    bundle = Bundle.open(directory)
    return bundle, OnnxBackend(directory, bundle.config, threads)


def _open_torch(directory: Path, device: str, threads: int) -> tuple[Bundle, Backend]:
    try:
        from paraformer.backends.torch import TorchBackend
    except ImportError as error:
        raise MissingExtra(f"{directory} has no graphs for the base install; running it", "torch") from error
    from paraformer.checkpoint import open_any

    bundle, model = open_any(directory)
    return bundle, TorchBackend(model, device, threads)


def _segmenter() -> Segmenter:
    from paraformer.segment import VoiceSegmenter

    return VoiceSegmenter()
