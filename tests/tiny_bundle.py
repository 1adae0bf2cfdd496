"""The tiny model as a whole directory, as `paraformer.load` takes it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import tiny

from paraformer.bundle import Bundle


@cache
def directory() -> Path:
    """A bundle with weights, graphs and settings; tests must not write to it."""
    cmvn = tiny.engine().frontend.cmvn
    Bundle(
        None,
        tiny.config(),
        tiny.TOKENS,
        cmvn,
        {},
        {"name": "tiny", "errors": {"nothing, live": "0 %"}, "averaged": ["a", "b"]},
    ).save(tiny.directory())
    return tiny.directory()
