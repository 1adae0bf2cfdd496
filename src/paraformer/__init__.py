"""Paraformer speech recognition: whole files and live streams.

>>> import paraformer
>>> recognizer = paraformer.load()
>>> recognizer.transcribe("speech.wav").text  # doctest: +SKIP

Names are imported when first used: `import paraformer` alone loads neither numpy nor an inference engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paraformer.aligner import Aligner
    from paraformer.config import ChunkConfig
    from paraformer.errors import (
        AudioError,
        AudioNotFound,
        CheckpointError,
        ConfigError,
        DataError,
        InputFailed,
        MissingExtra,
        ModelError,
        ModelNotFound,
        ParaformerError,
        SessionError,
        TrainingError,
        Unpicklable,
        UnsupportedModel,
    )
    from paraformer.loader import load, load_aligner, load_punctuation
    from paraformer.recognizer import Recognizer
    from paraformer.second_pass import SecondPass, revised
    from paraformer.session import Session
    from paraformer.types import Alternative, Revision, Segment, Sentence, Token, Transcript

__version__ = "0.1.0"

__all__ = [
    "Aligner",
    "Alternative",
    "AudioError",
    "AudioNotFound",
    "CheckpointError",
    "ChunkConfig",
    "ConfigError",
    "DataError",
    "InputFailed",
    "MissingExtra",
    "ModelError",
    "ModelNotFound",
    "ParaformerError",
    "Recognizer",
    "Revision",
    "SecondPass",
    "Segment",
    "Sentence",
    "Session",
    "SessionError",
    "Token",
    "TrainingError",
    "Transcript",
    "Unpicklable",
    "UnsupportedModel",
    "load",
    "load_aligner",
    "load_punctuation",
    "revised",
]

_HOMES = {
    "Aligner": "aligner",
    "Alternative": "types",
    "ChunkConfig": "config",
    "Recognizer": "recognizer",
    "Revision": "types",
    "SecondPass": "second_pass",
    "Segment": "types",
    "Sentence": "types",
    "Session": "session",
    "Token": "types",
    "Transcript": "types",
    "load": "loader",
    "load_aligner": "loader",
    "load_punctuation": "loader",
    "revised": "second_pass",
}
"""The module of each public name; the errors live in `errors`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'paraformer' has no attribute {name!r}")
    value = getattr(import_module(f"paraformer.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
