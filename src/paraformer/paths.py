"""Paths that people name: what is there, and the home in them, without an error for a name that no file can have."""

from __future__ import annotations

import os
from pathlib import Path


def is_file(path: Path) -> bool:
    """Whether there is such a file; no, where the name is too long for one or may not be looked up."""
    return os.path.isfile(path)  # noqa: PTH113  a Path raises an error then


def is_directory(path: str | Path) -> bool:
    """As `is_file`, of a directory."""
    return os.path.isdir(path)  # noqa: PTH112


def is_there(path: Path) -> bool:
    """As `is_file`, of anything."""
    return os.path.exists(path)  # noqa: PTH110


def at_home(path: str | Path) -> Path:
    """A path in which ~ is the home, as it is where there is no such user or home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111
