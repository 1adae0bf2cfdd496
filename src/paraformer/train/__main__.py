"""`python -m paraformer.train RECIPE:FUNCTION --data DIR --out DIR`: train, average, measure, write a bundle."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path

from paraformer.data.prepare import prepare
from paraformer.errors import ConfigError
from paraformer.train import parallel
from paraformer.train.config import TrainConfig
from paraformer.train.finish import finish
from paraformer.train.loop import train


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one recipe."""
    parser = argparse.ArgumentParser(prog="python -m paraformer.train", description=__doc__)
    parser.add_argument("recipe", help="module and function that returns a TrainConfig, e.g. recipes.zh_small:config")
    parser.add_argument("--data", type=Path, required=True, help="directory of the prepared speech")
    parser.add_argument("--archives", type=Path, nargs="*", default=(), help="tar files to prepare into --data first")
    parser.add_argument("--out", type=Path, required=True, help="directory of checkpoints, events and the bundle")
    parser.add_argument("--finish", action="store_true", help="only average, measure and write the bundle")
    parser.add_argument("--last", type=int, default=5, help="checkpoints to average")
    parser.add_argument("--steps", type=int, help="plan for this many steps instead of the recipe's")
    values = parser.parse_args(arguments)
    config = load_recipe(values.recipe)
    if values.steps:
        config = dataclasses.replace(config, steps=values.steps)
    parallel.join()
    with parallel.first_goes_ahead():
        prepare(values.archives, values.data)
    if not values.finish:
        train(config, values.data, values.out)
    if parallel.rank() == 0:
        finish(config, values.data, values.out, values.last)


def load_recipe(name: str) -> TrainConfig:
    """Import "module:function" and call it. Raises ConfigError if there is no such function."""
    module, _, function = name.partition(":")
    try:
        config = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"no recipe {name!r}: {error}") from error
    assert isinstance(config, TrainConfig)
    return config


if __name__ == "__main__":
    main()
