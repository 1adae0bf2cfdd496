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
├── InputFailed           (RuntimeError)       one input of many that failed in a way nobody foresaw
├── Unpicklable           (TypeError)          a loaded model or a live session that was to leave its process
└── MissingExtra          (ImportError)        a feature whose optional dependency is not installed

Every message is one sentence or two: what is wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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


class InputFailed(ParaformerError, RuntimeError):
    """One input of many failed in a decoder, a library or an engine, with an error that is not of this package."""


class Unpicklable(ParaformerError, TypeError):
    """A loaded model or a live session was to be pickled: both belong to the process that made them."""


class MissingExtra(ParaformerError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(feature, extra)  # pickled as these two: a pool hands a worker's errors on

    def __str__(self) -> str:
        feature, extra = self.args
        return f"{feature} needs an optional dependency: pip install 'paraformer[{extra}]'"


@dataclass
class Attempt:
    """What became of the work on one input: error is None where all went well."""

    error: ParaformerError | None = None


@contextmanager
def attempt(name: str) -> Iterator[Attempt]:
    """Work on one input of many: whatever fails in the block is kept in `error`, and the other inputs can go on.

    The one place that knows what counts as the failure of an input: every Exception but MemoryError, which is the whole
    process's trouble, as KeyboardInterrupt and SystemExit are. Errors of this package are kept as they are; an OSError
    and any other become an InputFailed that names the input and has the original as its cause.

    >>> with attempt("talk.wav") as result:
    ...     raise IndexError("frame 7")
    >>> result.error
    InputFailed('talk.wav failed: IndexError: frame 7')
    """
    result = Attempt()
    try:
        yield result
    except ParaformerError as error:
        result.error = error
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  that is what this function is for
        result.error = InputFailed(f"{name} failed: {_reason(error)}")
        result.error.__cause__ = error


def _reason(error: Exception) -> str:
    """The first line of an error of another package, with its kind where the words alone may say nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    try:
        words = str(error).strip().split("\n")[0]
    except Exception:  # noqa: BLE001  errors whose words themselves fail: soundfile's, once lhotse has raised them again
        words = ""
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
