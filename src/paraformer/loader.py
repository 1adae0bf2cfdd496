"""`paraformer.load`: from a name or directory to a recogniser, with the engine and parts that fit."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from paraformer import contract
from paraformer.aligner import Aligner, open_aligner
from paraformer.backends import native
from paraformer.backends.base import Backend
from paraformer.backends.companions import kind_in, on_torch, opened_companion
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.kept import opened, packed_once
from paraformer.backends.panels import Precision
from paraformer.backends.stacks import stacks
from paraformer.bundle import Bundle, is_ours
from paraformer.candidates import CANDIDATES
from paraformer.config import ChunkConfig, ModelConfig
from paraformer.errors import ConfigError, MissingExtra, ModelError, ModelNotFound, UnsupportedModel
from paraformer.hotwords import Hotwords
from paraformer.itn import KINDS, NumberWriter
from paraformer.kinds import PUNCTUATION
from paraformer.language import LanguageModel
from paraformer.punctuation import Punctuation
from paraformer.punctuation.directory import PunctuationBundle
from paraformer.punctuation.network import Network
from paraformer.recognizer import LM_WEIGHT, Recognizer, Segmenter, check_chunk
from paraformer.recordings import Speakers
from paraformer.settings import as_number, as_whole, check_choice, check_type
from paraformer.text import is_chinese
from paraformer.weights import SCALE, Stored, check_names, in_8_bits, places
from paraformer.writing import Writer

EMBEDDED, EMBEDDED_PUNCTUATION = "zh-small", "zh-marks"
BackendName = Literal["auto", "native", "onnx", "torch"]
PrecisionName = Precision | Literal["auto"]
MOST_THREADS, MOST_LM_WEIGHT = 1024, 1000.0
MOST_SPEAKERS = 100
_NUMBERED_CPU = re.compile("cpu:[0-9]+")
"""As torch numbers its devices; of CPUs there is one."""
_PRECISIONS = ("auto", *get_args(Precision))


def load(
    model: str | Path | None = None,
    *,
    backend: BackendName = "auto",
    chunk: ChunkConfig | None = None,
    precision: PrecisionName = "auto",
    threads: int = 1,
    device: str = "cpu",
    vad: bool | str | Path = True,
    lm: bool = True,
    lm_weight: float = LM_WEIGHT,
    alternatives: int = 0,
    hotwords: Hotwords | None = None,
    punctuation: bool | str | Path = False,
    itn: bool | Collection[str] = False,
    speakers: str | Path | None = None,
    speaker_count: int | None = None,
    download: bool = False,
) -> Recognizer:
    """Load a model for recognition.

    model: a native bundle or FunASR model directory, or a published name such as "paraformer-zh-streaming"; None: the
        small Mandarin model that comes with the package.
    backend: "onnx" needs the bundle's graphs and the extra [onnx], "torch" the extra [torch], "native" the package's
        own engine, which is for SAN-M models; "auto" takes the fastest that can: the engine on processors that it has
        fast products for, whatever form the directory is in, else the graphs where [onnx] is installed, else torch
        where that is, else the engine as it is.
    precision: of matrix products. "float32" computes what training computed, and FunASR's numbers; "bfloat16" and
        "int8" are the engine's, two and four times as fast, and "bfloat16" is torch's, too; "auto" is int8 where that
        is fast, else float32.
    chunk: setting of live sessions, unless `stream` is given another. threads: of one recognition, 0 for one per core.
    device: for torch, e.g. "cuda". vad: cut audio over 30 s at pauses, and leave out where nobody speaks: True by the
        package's own detector, or by FSMN-VAD, whose directory or published name, "fsmn-vad", this is; without it only
        audio over a minute is cut, and nothing left out. lm: let the language model that lies beside the
        weights, if there is one, have its say, with this weight. alternatives: for each token, so many other items that
        it may have been, at most 23, by their probability. hotwords: words to listen for, a list or the Path of a file
        with one a line, unless `transcribe` is given others; for models that have a way to.
    punctuation: True for the package's own model, which punctuates Chinese and leaves models of other languages alone,
        or the directory or published name of a CT-Transformer, "ct-punc".
    itn: numbers in digits, all kinds of `paraformer.itn.KINDS` or those named. Both change tokens and texts alike,
        whole and live.
    speakers: the directory or published name of a CAM++, "cam++", by which tokens of whole recordings tell who says
        them. speaker_count: how many there are, where that is known. download: fetch a published model if needed.

    Raises ConfigError for an option that there is not, ModelNotFound, ModelError, UnsupportedModel or MissingExtra,
    each saying what to do.
    """
    threads, lm_weight = as_whole(threads, "threads"), as_number(lm_weight, "lm_weight")
    alternatives = as_whole(alternatives, "alternatives")
    if not 0 <= alternatives < CANDIDATES:
        raise ConfigError(f"alternatives must be a number from 0 to {CANDIDATES - 1}, not {alternatives!s:.60}")
    _check_options(threads, chunk, lm_weight, {"lm": lm, "download": download})
    beside = _beside(backend, device)
    writer = _writer(punctuation, itn, download, beside)
    directory = locate(model, download=download)
    bundle, engine = open_model(directory, backend, precision=precision, device=device, threads=threads)
    if punctuation is True and not any(map(is_chinese, bundle.tokens)):
        writer = replace(writer, punctuation=None)
    return Recognizer(
        bundle,
        engine,
        _segmenter(vad, download, beside),
        chunk,
        lm=_language_model(directory, bundle) if lm else None,
        lm_weight=lm_weight,
        alternatives=alternatives,
        hotwords=hotwords,
        writer=writer,
        speakers=_speakers(speakers, speaker_count, download, beside),
    )


def load_aligner(model: str | Path = "fa-zh", *, device: str | None = None, download: bool = False) -> Aligner:
    """Load an aligner, which tells when each token of a known text was spoken: see `Aligner.align`.

    model: the directory of one, ours or FunASR's, or a published name. device: compute on it by torch;
    None: without torch. Raises as `load`.
    """
    return open_aligner(locate(model, download=download), device)


def load_punctuation(
    model: str | Path | None = None, *, device: str | None = None, download: bool = False
) -> Punctuation:
    """Load a punctuation model by itself, for texts: see `Punctuation.punctuate`.

    model: the directory of one, ours or FunASR's, or a published name such as "ct-punc"; None: the package's own.
    device: compute on it by torch; None: without torch.
    Raises ModelNotFound, ModelError, UnsupportedModel or MissingExtra, each saying what to do.
    """
    if model is None:
        directory = Path(str(files("paraformer") / "models" / EMBEDDED_PUNCTUATION))
    else:
        directory = locate(model, download=download)
    opened = opened_companion(directory, PUNCTUATION)
    with opened.naming(ModelError):
        bundle = PunctuationBundle.of(opened)
        if device is None:
            return Punctuation(bundle, Network(bundle.weights, bundle.config, stacks(_computed_in(bundle.weights))))
        return Punctuation(bundle, on_torch(PUNCTUATION, bundle.config, bundle.weights, device))


def _computed_in(weights: object) -> Precision:
    """Int8 for what is kept in 8 bits; what others publish in float32 keeps its scores."""
    return "int8" if isinstance(weights, Stored) and weights.storage == "int8" else "float32"


def is_punctuation(directory: Path) -> bool:
    """Whether a directory holds a punctuation model, ours or FunASR's, and no recogniser."""
    return kind_in(directory) is PUNCTUATION


def _beside(backend: str, device: str) -> str | None:
    """The device of the models that stand beside: torch's where the recogniser is torch's, else none."""
    return device if backend == "torch" or device != "cpu" else None


def _writer(punctuation: bool | str | Path, itn: bool | Collection[str], download: bool, device: str | None) -> Writer:
    if not isinstance(punctuation, bool | str | Path):
        raise ConfigError(
            f"punctuation must be true, false or the directory or name of a model, not {punctuation!r:.60}"
        )
    model = None if isinstance(punctuation, bool) else punctuation
    marks = load_punctuation(model, device=device, download=download) if punctuation is not False else None
    if isinstance(itn, str) or not isinstance(itn, Collection | bool):
        raise ConfigError(f"itn must be true, false or a list of kinds such as [{KINDS[0]!r}], not {itn!r:.60}")
    kinds = KINDS if itn is True else itn or ()
    return Writer(marks, NumberWriter(kinds) if kinds else None)


class Choice(NamedTuple):
    """What runs a model on this machine."""

    backend: Literal["native", "onnx", "torch"]
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


def choose(
    directory: Path, backend: BackendName = "auto", *, precision: PrecisionName = "auto", device: str = "cpu"
) -> Choice:
    """The engine and precision that `load` takes for a model directory here; arguments and errors as its own.

    >>> print(choose(locate(None)), choose(locate(None), "torch"))
    native int8 torch float32
    """
    device = _check_engine(backend, precision, device)
    return _choose(directory, open_settings(directory).config, backend, precision, device)


def open_settings(directory: Path) -> Bundle:
    """The settings of a model directory of either form, its weights left closed."""
    if is_ours(directory):
        return Bundle.open(directory)
    from paraformer.checkpoint import funasr_directory

    return funasr_directory.read(directory)


def open_model(
    directory: Path,
    backend: BackendName = "auto",
    *,
    precision: PrecisionName = "auto",
    device: str = "cpu",
    threads: int = 1,
) -> tuple[Bundle, Backend]:
    """A model directory's settings, and its weights on an engine; arguments and errors as those of `load`."""
    device = _check_engine(backend, precision, device)
    bundle = open_settings(directory)
    choice = _choose(directory, bundle.config, backend, precision, device)
    match choice.backend:
        case "native":
            return bundle, _open_native(bundle, choice.precision, threads)
        case "onnx":
            return bundle, _open_onnx(bundle, threads)
        case "torch":
            asked = backend == "torch" or device != "cpu"
            return _open_torch(directory, device, threads, choice.precision, asked=asked)


def check_model(model: object) -> None:
    """Raise ConfigError for what can be neither a directory nor a name."""
    if not isinstance(model, str | os.PathLike):
        raise ConfigError(f"model must be a directory or a published name, not {model!r:.60}")


def locate(model: str | Path | None, *, download: bool = False) -> Path:
    """The directory of a model: the embedded one for None, a directory itself, or a published name's cached copy."""
    if model is not None:
        check_model(model)
    if model is None or model == EMBEDDED:
        return Path(str(files("paraformer") / "models" / EMBEDDED))
    from paraformer.hub import resolve

    return resolve(model, download=download)


def _check_options(threads: int, chunk: object, lm_weight: float, switches: Mapping[str, object]) -> None:
    if not 0 <= threads <= MOST_THREADS:
        raise ConfigError(f"threads must be 0 (one per core) or from 1 to {MOST_THREADS}, not {threads!s:.60}")
    check_chunk(chunk)
    if not 0 <= lm_weight <= MOST_LM_WEIGHT:  # the scores that it multiplies are kept in float32
        raise ConfigError(f"lm_weight must be a number from 0 to {MOST_LM_WEIGHT:g}, not {lm_weight!r:.60}")
    for name, value in switches.items():
        check_type(value, bool, name)


def _check_engine(backend: str, precision: str, device: str) -> str:
    """Whether there are such options, and whether they go together; returns the device, a numbered CPU as "cpu"."""
    check_choice(backend, get_args(BackendName), "backend")
    check_choice(precision, _PRECISIONS, "precision")
    if not isinstance(device, str):
        raise ConfigError(f"device must be a name such as 'cpu' or 'cuda', not {device!r:.60}")
    if _NUMBERED_CPU.fullmatch(device):
        device = "cpu"
    if backend == "onnx" and precision not in ("auto", "float32"):
        raise ConfigError(f"the {backend} backend computes in float32 only; leave backend out for {precision}")
    if backend == "torch" and precision == "int8":
        raise ConfigError("the torch backend computes in float32 or bfloat16; leave backend out for int8")
    if device != "cpu":
        if backend in ("onnx", "native") or precision == "int8":
            asked = f"backend {backend!r}" if backend in ("onnx", "native") else f"precision {precision!r}"
            raise ConfigError(f"{asked} computes on the CPU only; for device {device!r} leave it out")
        try:
            from paraformer.backends.torch import check_device
        except ImportError as error:
            raise MissingExtra(f"device {device!r}", "torch") from error
        check_device(device)
    return device


def _choose(directory: Path, config: ModelConfig, backend: str, precision: str, device: str) -> Choice:
    packed = is_ours(directory) and not (directory / contract.WEIGHTS).is_file()
    if packed and (backend in ("onnx", "torch") or precision in ("float32", "bfloat16") or device != "cpu"):
        raise ModelError(
            f"{directory} holds int8 weights only, for the package's own engine; leave backend, precision and device "
            "out, or take the directory that it was exported from"
        )
    if packed and not native.available("int8"):
        raise UnsupportedModel(
            f"{directory} holds int8 weights only, which this processor or build cannot compute with; take the "
            "directory that it was exported from"
        )
    if packed:
        return Choice("native", "int8")
    if backend == "native" and precision == "auto":
        return Choice("native", "int8" if native.fast("int8") else "float32")
    if backend == "torch" or device != "cpu":
        return Choice("torch", "bfloat16" if precision == "bfloat16" else "float32")
    if backend == "native" or precision in ("bfloat16", "int8"):
        return Choice("native", cast("Precision", precision))
    if backend == "onnx":
        return Choice("onnx", "float32")
    return _fastest(directory, config, "int8" if precision == "auto" else "float32")


def _fastest(directory: Path, config: ModelConfig, precision: Precision) -> Choice:
    """The engine where it is fast, else another runtime that is installed, in float32, else the engine as it is."""
    known = native.supports(config)
    if known and native.fast(precision):
        return Choice("native", precision)
    graphs = is_ours(directory) and (directory / contract.ENCODER).is_file()
    if graphs and find_spec("onnxruntime"):
        return Choice("onnx", "float32")
    if known and native.available("float32") and not find_spec("torch"):
        return Choice("native", "float32")
    return Choice("onnx" if graphs and not find_spec("torch") else "torch", "float32")


def _open_native(bundle: Bundle, precision: Precision, threads: int) -> Backend:
    def engine(weights: Mapping[str, Any]) -> Backend:
        return GraphBackend(native.NativeEngine(weights, bundle.config, precision, threads), bundle.config)

    assert bundle.directory is not None
    read: Callable[[], Mapping[str, Any]]
    if is_ours(bundle.directory):
        _check_tensors(bundle)
        if precision == "int8" and (packed := bundle.directory / contract.PACKED).is_file():
            bundle.check(contract.PACKED)
            return engine(opened(packed))
        bundle.check(contract.WEIGHTS)
        read = partial(Stored, bundle.directory / contract.WEIGHTS, mapped=False)
    else:
        from paraformer.checkpoint import funasr_directory

        read = partial(funasr_directory.load_weights, bundle, native.shapes(bundle.config))
    return packed_once(bundle, read, engine) if precision == "int8" else engine(read())


def _open_onnx(bundle: Bundle, threads: int) -> Backend:
    from paraformer.backends.onnx import OnnxRunner

    assert bundle.directory is not None
    if not is_ours(bundle.directory):
        raise ModelNotFound(
            f"{bundle.directory} is a FunASR directory, without graphs for the onnx backend: leave backend out, or "
            f"make a directory with them by `paraformer convert --graphs {bundle.directory} NEW`"
        )
    bundle.check(contract.WEIGHTS, *(graph.file for graph in contract.graphs(bundle.config)))
    _check_tensors(bundle)
    runner = OnnxRunner(bundle.directory, bundle.config, threads, sealed="model" in bundle.seal)
    return GraphBackend(runner, bundle.config)


def _check_tensors(bundle: Bundle) -> None:
    """Raise CheckpointError unless the weights are exactly those of the settings, as torch would see.

    Neither the engine nor a graph asks for what it does not use. Of kinds that are not the engine's, torch alone knows.
    """
    assert bundle.directory is not None
    path = bundle.directory / contract.WEIGHTS
    if path.is_file() and native.supports(bundle.config):
        found = places(path)
        scales = {name + SCALE for name in in_8_bits(found)}
        shapes = {name: place.shape for name, place in found.items() if name not in scales}
        check_names(native.shapes(bundle.config), shapes, str(path))


def _open_torch(
    directory: Path, device: str, threads: int, precision: Precision, *, asked: bool
) -> tuple[Bundle, Backend]:
    try:
        from paraformer.backends.torch import TorchBackend, set_threads
    except ImportError as error:
        if asked:
            raise MissingExtra("The torch backend", "torch") from error
        raise MissingExtra(
            f"Running {directory}, which has no graphs and is not for the engine here,", "torch"
        ) from error
    from paraformer.checkpoint import open_any

    set_threads(threads)  # before anything is computed, since threads that were made once stay
    bundle, model = open_any(directory)
    return bundle, TorchBackend(model, device, precision="bfloat16" if precision == "bfloat16" else "float32")


def _language_model(directory: Path, bundle: Bundle) -> LanguageModel | None:
    path = directory / contract.LM
    if (contract.LM in bundle.seal or os.path.lexists(path)) and not path.is_file():
        raise ModelNotFound(f"{path}, with which the model was saved, is gone; get it again, or load with lm=False")
    if not path.is_file():
        return None
    bundle.check(contract.LM)
    return LanguageModel.open(path, bundle.config.vocab_size, bundle.config.units)


def _speakers(model: str | Path | None, count: int | None, download: bool, device: str | None) -> Speakers | None:
    if count is not None and not 1 <= as_whole(count, "speaker_count") <= MOST_SPEAKERS:
        raise ConfigError(f"speaker_count must be a number from 1 to {MOST_SPEAKERS}, not {count!s:.60}")
    if model is None:
        if count is not None:
            raise ConfigError('speaker_count needs speakers, the model that tells them apart, such as "cam++"')
        return None
    from paraformer.speakers import VoiceEncoder, VoiceSpeakers

    return VoiceSpeakers(VoiceEncoder.open(locate(model, download=download), device), count)


def _segmenter(vad: object, download: bool, device: str | None) -> Segmenter:
    from paraformer.segment import VoiceSegmenter, split

    if isinstance(vad, bool):
        return VoiceSegmenter() if vad else split
    if not isinstance(vad, str | Path):
        raise ConfigError(f"vad must be true, false or the directory or name of a detector of speech, not {vad!r:.60}")
    from paraformer.segment.fsmn import FsmnVad

    return FsmnVad.open(locate(vad, download=download), device)
