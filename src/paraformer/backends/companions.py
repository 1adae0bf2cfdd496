"""Opening the models that stand beside a recogniser, of either form of directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paraformer.bundle import FUNASR_FILES, is_ours
from paraformer.companions import Companion, kind_of, open_directory
from paraformer.errors import MissingExtra
from paraformer.kinds import RECOGNISER, Kind


def opened_companion(directory: Path, kind: Kind) -> Companion:
    """A model of this kind, from a directory of ours or of FunASR's.

    Raises ModelNotFound (a file is missing), UnsupportedModel (another kind of model), ConfigError
    (settings), CheckpointError (tensors that do not fit, or a file that holds more than tensors) or ModelError.
    """
    if is_ours(directory):
        return open_directory(directory, kind)
    from paraformer.checkpoint import funasr_companions

    return funasr_companions.load(directory, kind)


def kind_in(directory: Path) -> Kind:
    """The kind of model in a directory of either form. Raises as `opened_companion`."""
    if is_ours(directory):
        return kind_of(directory) or RECOGNISER
    if not (directory / FUNASR_FILES[0]).is_file():
        return RECOGNISER
    from paraformer.checkpoint import funasr_companions

    return funasr_companions.kind_of(directory)


def on_torch(kind: Kind, config: Any, weights: Mapping[str, np.ndarray], device: str) -> Any:
    """The plain form of a companion's network, on a device of torch's.

    Raises MissingExtra, ConfigError for a device that there is not, CheckpointError where weights do not fit.
    """
    try:
        from paraformer.backends.torch import NETWORKS
    except ImportError as error:
        raise MissingExtra(f"device {device!r}", "torch") from error
    return NETWORKS[kind](config, weights, device)
