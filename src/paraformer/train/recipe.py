"""A recipe is a function that returns a TrainConfig; it is named "module:function"."""

from __future__ import annotations

import importlib

from paraformer.errors import ConfigError
from paraformer.train.config import TrainConfig


def load_recipe(name: str) -> TrainConfig:
    """Import "module:function" and call it. Raises ConfigError if there is no such function, or it returns else."""
    module, _, function = name.partition(":")
    try:
        config = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"no recipe {name!r}: {error}; name it as module:function") from error
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"recipe {name!r} returned {type(config).__name__}, not a TrainConfig")
    return config
