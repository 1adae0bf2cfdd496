"""Weights on disk: our own bundles, FunASR's directories, and the way between them. Needs the extra [torch]."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paraformer.bundle import CONFIG_FILE, Bundle
from paraformer.errors import MissingExtra, ModelError, ModelNotFound

if TYPE_CHECKING:
    from paraformer.model.paraformer import Paraformer

try:
    from paraformer.checkpoint import funasr, native
except ImportError as error:
    if error.name not in ("torch", "yaml"):
        raise
    raise MissingExtra("Opening the weights of a model", "torch") from error


def open_any(directory: str | Path) -> tuple[Bundle, Paraformer]:
    """Open a model directory of either form; see `native.load` and `funasr.load` for the errors."""
    directory = Path(directory)
    return funasr.load(directory) if is_funasr(directory) else native.load(directory)


def convert(source: str | Path, target: str | Path) -> Path:
    """Write a FunASR directory as one of our bundles, or a bundle as a FunASR directory. Returns the target.

    Raises ModelError if the target holds anything already, and what `open_any` raises.
    """
    source, target = Path(source), Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target} is not empty; name a new directory to convert {source} into")
    bundle, model = open_any(source)
    form = native if is_funasr(source) else funasr
    form.save(bundle, model, target)
    return target


def is_funasr(directory: Path) -> bool:
    """Whether a directory is in FunASR's form. Raises ModelNotFound if it is in neither or does not exist."""
    if not directory.is_dir():
        raise ModelNotFound(f"there is no model directory {directory}")
    if any((directory / name).is_file() for name in (funasr.SETTINGS_FILE, funasr.METADATA_FILE)):
        return True
    if not (directory / CONFIG_FILE).is_file():
        raise ModelNotFound(f"{directory} is not a model directory: it has neither {CONFIG_FILE} nor config.yaml")
    return False
