"""Weights in the engine's int8 layout, packed once and kept in the user's cache: for directories that hold others.

The cache is where PARAFORMER_CACHE says, or `paraformer` where the system has caches (~/.cache or what XDG_CACHE_HOME
names, ~/Library/Caches, LOCALAPPDATA). It holds one file for each model directory, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from paraformer.backends import native, panels
from paraformer.bundle import Bundle
from paraformer.errors import CheckpointError
from paraformer.native import layout
from paraformer.weights import Stored


def packed_once(bundle: Bundle, read: Callable[[], Mapping[str, ArrayLike]]) -> Mapping[str, np.ndarray]:
    """What `native.packed` makes of the weights that `read` gives, mapped from a file once it was made.

    A cache that cannot be written to goes without. Raises as `read` and `native.packed`.
    """
    path = _place(bundle)
    if (kept := _opened(path)) is not None:
        return kept
    arrays = native.packed(read(), bundle.config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        panels.save(arrays, path)
        for older in path.parent.glob(f"{path.name.partition('-')[0]}-*"):
            if older != path:
                older.unlink(missing_ok=True)
    except OSError:
        return arrays
    return _opened(path) or arrays


def _opened(path: Path) -> Mapping[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        return Stored(path, mapped=True)
    except CheckpointError:  # damaged: made again
        return None


def _place(bundle: Bundle) -> Path:
    """One for a directory, its settings, its weights as they are now, and this layout."""
    assert bundle.directory is not None
    directory = bundle.directory.resolve()
    content = json.dumps([layout.ABI, bundle.config.to_dict(), bundle.weights, _times(directory)], sort_keys=True)
    names = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in (str(directory), content))
    return _cache() / "int8" / f"{'-'.join(names)}.safetensors"


def _times(directory: Path) -> list[tuple[str, int, int]]:
    """When each file was written, since a checksum of all weights would take longer than to pack them."""
    found = [(path.name, path.stat()) for path in sorted(directory.iterdir()) if path.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


def _cache() -> Path:
    if own := os.environ.get("PARAFORMER_CACHE"):
        return Path(own)
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "paraformer"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "paraformer" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "paraformer"
