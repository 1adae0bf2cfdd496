"""Weights in the engine's int8 layout, packed once and kept in the user's cache: for directories that hold others.

So a model opens in less time, and processes can share one copy (`sharing`). The cache is where PARAFORMER_CACHE says,
or `paraformer` where the system has caches (~/.cache or what XDG_CACHE_HOME names, ~/Library/Caches, LOCALAPPDATA). It
holds one file for each model directory that was opened in the last month, and may be deleted at any time. What is
damaged, or was made for another layout, is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from paraformer.backends import native, panels
from paraformer.bundle import Bundle
from paraformer.errors import CheckpointError, ModelError
from paraformer.native import layout
from paraformer.paths import at_home
from paraformer.weights import Stored

Made = TypeVar("Made")
_LEFT_S, _UNUSED_S = 3600.0, 30 * 86400.0
"""After which a file that was never finished will not be, and one that nobody opened is taken away with the next."""
_shared: ContextVar[bool] = ContextVar("shared", default=False)


@contextmanager
def sharing() -> Iterator[None]:
    """Models that are opened in this block share their weights with other processes that open them so."""
    token = _shared.set(True)
    try:
        yield
    finally:
        _shared.reset(token)


def opened(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of a file in the engine's layout. Raises as `Stored`."""
    if _shared.get():
        return Stored(path, mapped=True)
    return dict(Stored(path, mapped=False, memory=panels.Room().bytes))


def packed_once(
    bundle: Bundle, read: Callable[[], Mapping[str, ArrayLike]], use: Callable[[Mapping[str, np.ndarray]], Made]
) -> Made:
    """What `use` makes of what `native.packed` makes of the weights that `read` gives, from a file once kept.

    A cache that cannot be written to goes without. Raises as `read`, `native.packed` and `use`.
    """
    path = _place(bundle)
    with suppress(OSError, ModelError):  # there is none, or it is damaged
        return _used(path, use)
    arrays = native.packed(read(), bundle.config)
    _tidy(path)  # first, for the room that it makes
    try:
        with _written(arrays, path.parent) as new:
            with suppress(OSError, ModelError):  # another process was faster: one copy for both
                return _used(path, use)
            new.replace(path)
        return use(opened(path))
    except (OSError, CheckpointError):
        return use(arrays)


def _used(path: Path, use: Callable[[Mapping[str, np.ndarray]], Made]) -> Made:
    """What `use` makes of the file, which is then known to be wanted."""
    made = use(opened(path))
    with suppress(OSError):  # a cache that others write
        os.utime(path)
    return made


@contextmanager
def _written(arrays: Mapping[str, np.ndarray], directory: Path) -> Iterator[Path]:
    """A file of these arrays, gone after the block unless it has another name by then."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f".{uuid.uuid4().hex}.new"
    try:
        panels.save(arrays, path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _tidy(path: Path) -> None:
    """Remove what stands for the directory as it was, and what no process wants any more."""
    # The first half of a name stands for the directory, the second for what was in it.
    older = f"{path.name.partition('-')[0]}-"
    for other in {*path.parent.glob("*-*.safetensors"), *path.parent.glob(".*.new")} - {path}:
        with suppress(OSError):  # gone by now, or on Windows in use
            idle_s = time.time() - other.stat().st_mtime
            if other.name.startswith(older) or idle_s > (_LEFT_S if other.suffix == ".new" else _UNUSED_S):
                other.unlink()


def _place(bundle: Bundle) -> Path:
    """One for a directory, its settings, its weights as they are now, and this layout."""
    assert bundle.directory is not None
    directory = bundle.directory.resolve()
    content = json.dumps([layout.ABI, bundle.config.to_dict(), bundle.weights, _times(directory)], sort_keys=True)
    names = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in (str(directory), content))
    return _cache() / "int8" / f"{'-'.join(names)}.safetensors"


def _times(directory: Path) -> list[tuple[str, int, int, int]]:
    """When each file was written and came there: a checksum of all weights would take longer than to pack them.

    Programs that copy and unpack set the first, but not the second.
    """
    found = [(path.name, path.stat()) for path in sorted(directory.iterdir()) if path.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found]


def _cache() -> Path:
    if own := os.environ.get("PARAFORMER_CACHE"):
        return at_home(own)
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "paraformer"
    try:
        home = Path.home()
    except RuntimeError:
        return Path(os.devnull)  # of a user who has none: nothing is kept
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home) / "paraformer" / "cache"
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "paraformer"
