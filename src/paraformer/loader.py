"""`paraformer.load`: from a name or directory to a recogniser, with the engine and parts that fit."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from paraformer import contract
from paraformer.backends import native, panels
from paraformer.backends.base import Backend
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.panels import Precision
from paraformer.bundle import CONFIG_FILE, Bundle
from paraformer.config import ChunkConfig
from paraformer.errors import ConfigError, MissingExtra, ModelError
from paraformer.language import LanguageModel
from paraformer.recognizer import LM_WEIGHT, Recognizer, Segmenter

EMBEDDED = "zh-small"
BackendName = Literal["auto", "native", "onnx", "torch"]


def load(
    model: str | Path | None = None,
    *,
    backend: BackendName = "auto",
    chunk: ChunkConfig | None = None,
    precision: Precision | Literal["auto"] = "auto",
    threads: int = 1,
    device: str = "cpu",
    vad: bool = True,
    lm: bool = True,
    lm_weight: float = LM_WEIGHT,
    download: bool = False,
) -> Recognizer:
    """Load a model for recognition.

    model: a native bundle or FunASR model directory, or a published name such as "paraformer-zh-streaming"; None: the
        small Mandarin model that comes with the package.
    backend: "onnx" needs the bundle's graphs, "torch" the extra [torch], "native" the package's own engine, which is
        for SAN-M models on processors with AVX-512; "auto" takes the first of native, onnx and torch that can.
    precision: of matrix products. "float32" computes what training computed; "bfloat16" and "int8" are native only and
        two and four times as fast; "auto" is int8 where it can be.
    chunk: setting of live sessions, unless `stream` is given another. threads: of one recognition, 0 for one per core.
    device: for torch, e.g. "cuda". vad: cut audio over 30 s at pauses, and leave out where nobody speaks; without it
        only audio over a minute is cut, and nothing left out. lm: let the language model that lies beside the
        weights, if there is one, have its say, with this weight. download: fetch a published model if needed.

    Raises ModelNotFound, ModelError, UnsupportedModel or MissingExtra, each saying what to do.
    """
    if threads < 0:
        raise ConfigError(f"threads must be 0 (one per core) or more, not {threads}")
    directory = locate(model, download=download)
    bundle, engine = open_model(directory, backend, precision=precision, device=device, threads=threads)
    return Recognizer(
        bundle,
        engine,
        _segmenter(vad),
        chunk,
        lm=_language_model(directory, bundle) if lm else None,
        lm_weight=lm_weight,
    )


def open_model(
    directory: Path,
    backend: BackendName = "auto",
    *,
    precision: Precision | Literal["auto"] = "auto",
    device: str = "cpu",
    threads: int = 1,
) -> tuple[Bundle, Backend]:
    """A model directory's settings, and its weights on an engine; arguments and errors as those of `load`."""
    ours = (directory / CONFIG_FILE).is_file()
    if backend in ("onnx", "torch") and precision not in ("auto", "float32"):
        raise ConfigError(f"the {backend} backend computes in float32 only; leave backend out for {precision}")
    if backend == "native" or precision in ("bfloat16", "int8"):
        return _open_native(directory, "int8" if precision == "auto" else precision, threads)
    if backend == "auto" and precision == "auto" and device == "cpu" and ours and _best(directory):
        return _open_native(directory, "int8", threads)
    if backend == "onnx" or (backend == "auto" and ours and (directory / contract.ENCODER).is_file()):
        return _open_onnx(directory, threads)
    return _open_torch(directory, device, threads)


def _best(directory: Path) -> bool:
    """Whether a directory of ours is made for int8 on the package's own engine, or runs fastest so here."""
    config = Bundle.open(directory).config
    only = not (directory / contract.WEIGHTS).is_file()
    return only or (native.fast("int8") and native.supports(config))


def locate(model: str | Path | None, *, download: bool = False) -> Path:
    """The directory of a model: the embedded one for None, a directory itself, or a published name's cached copy."""
    if model is None or model == EMBEDDED:
        return Path(str(files("paraformer") / "models" / EMBEDDED))
    if Path(model).is_dir():
        return Path(model)
    from paraformer.hub import resolve

    return resolve(str(model), download=download)


def _open_native(directory: Path, precision: Precision, threads: int) -> tuple[Bundle, Backend]:
    if (directory / CONFIG_FILE).is_file():
        bundle = Bundle.open(directory)
        name = contract.PACKED if precision == "int8" and (directory / contract.PACKED).is_file() else contract.WEIGHTS
        if not (directory / name).is_file():
            raise ModelError(f"{directory} holds int8 weights only and cannot compute in {precision}")
        weights: Mapping[str, Any] = panels.Stored(directory / name, mapped=name == contract.PACKED)
    else:
        from paraformer.checkpoint import open_any

        bundle, model = open_any(directory)
        weights = model.state_dict()
    return bundle, GraphBackend(native.NativeEngine(weights, bundle.config, precision, threads), bundle.config)


def _open_onnx(directory: Path, threads: int) -> tuple[Bundle, Backend]:
    from paraformer.backends.onnx import OnnxEngine

    bundle = Bundle.open(directory)
    return bundle, GraphBackend(OnnxEngine(directory, bundle.config, threads), bundle.config)


def _open_torch(directory: Path, device: str, threads: int) -> tuple[Bundle, Backend]:
    try:
        from paraformer.backends.torch import TorchBackend
    except ImportError as error:
        raise MissingExtra(f"{directory} has no graphs for the base install; running it", "torch") from error
    from paraformer.checkpoint import open_any

    bundle, model = open_any(directory)
    return bundle, TorchBackend(model, device, threads)


def _language_model(directory: Path, bundle: Bundle) -> LanguageModel | None:
    path = directory / contract.LM
    return LanguageModel.open(path, bundle.config.vocab_size) if path.is_file() else None


def _segmenter(vad: bool) -> Segmenter:
    from paraformer.segment import VoiceSegmenter, split

    return VoiceSegmenter() if vad else split
