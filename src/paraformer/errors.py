"""What can go wrong through no fault of this package.

ParaformerError
├── AudioError            (ValueError)         a file or array that holds no usable speech signal
│   └── AudioNotFound     (FileNotFoundError)  no such file
├── ModelError            (ValueError)         a model directory or checkpoint that cannot be used
│   ├── ModelNotFound     (FileNotFoundError)  no such directory, name or file in it
│   ├── CheckpointError                        a tensor missing, unexpected or of the wrong shape; a file refused
│   └── UnsupportedModel                       a known kind of model that this version does not run
├── ConfigError           (ValueError)         an unknown, missing or impossible setting
├── DataError             (ValueError)         a manifest, transcript or shard that cannot be used
├── TrainingError         (RuntimeError)       a run that went wrong and cannot go on by itself
├── SessionError          (RuntimeError)       a live session used out of order, or a saved one that does not fit
└── MissingExtra          (ImportError)        a feature whose optional dependency is not installed

Every message is one sentence or two: what is wrong, where, and what to do.
"""

from __future__ import annotations


class ParaformerError(Exception):
    """Root of every error that this package raises on purpose."""


class AudioError(ParaformerError, ValueError):
    """The audio cannot be read or is not a usable signal."""


class AudioNotFound(AudioError, FileNotFoundError):
    """There is no audio file at the given path."""


class ModelError(ParaformerError, ValueError):
    """The model directory or checkpoint cannot be used."""


class ModelNotFound(ModelError, FileNotFoundError):
    """There is no model, or no needed file of it, where one was asked for."""


class CheckpointError(ModelError):
    """A checkpoint was refused or does not hold exactly the tensors of its configuration."""


class UnsupportedModel(ModelError):
    """The model is of a kind that this version does not run."""


class ConfigError(ParaformerError, ValueError):
    """A setting is unknown, missing or impossible."""


class DataError(ParaformerError, ValueError):
    """A manifest, transcript or shard cannot be used."""


class TrainingError(ParaformerError, RuntimeError):
    """A training run went wrong and cannot go on by itself."""


class SessionError(ParaformerError, RuntimeError):
    """A live session was used out of order, or saved bytes do not belong to this model."""


class MissingExtra(ParaformerError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'paraformer[{extra}]'")
