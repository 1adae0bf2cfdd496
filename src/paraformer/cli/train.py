"""`paraformer train`: a recipe, found from the current directory, to a model directory.

Under torchrun: `torchrun --nproc-per-node N -m paraformer.cli train ...`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import sys
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from paraformer.cli.complain import complain
from paraformer.errors import ConfigError, MissingExtra

SIGNALLED = 128
"""Exit code of a run that a signal stopped and that saved before: this plus the signal's number, 143 for SIGTERM."""


def train(options: argparse.Namespace) -> int:
    """Train until the recipe's end, then average, measure and write the bundle, whose path is printed."""
    sys.path.insert(0, "")  # as `python -m` does: recipes lie beside the user, not in the package
    check_recipe(options.recipe)
    try:
        from paraformer.train import parallel
        from paraformer.train.config import load_recipe
        from paraformer.train.finish import finish
        from paraformer.train.loop import train as run
    except ImportError as error:
        raise MissingExtra("Training", "train") from error
    config = load_recipe(options.recipe)
    if options.steps:
        config = dataclasses.replace(config, steps=options.steps)
    with parallel.joined():
        if not options.finish:
            outcome = run(config, options.data, options.out, bar=True, tensorboard=options.tensorboard)
            if parallel.rank() == 0:
                print(f"{outcome.progress.step} steps, {outcome.throughput}", file=sys.stderr)
            if outcome.signal:
                complain(f"stopped by {outcome.signal.name}; saved, and the same command goes on from there")
                return SIGNALLED + outcome.signal
        if parallel.rank() == 0:
            print(finish(config, options.data, options.out, options.average or config.keep))
    return 0


def check_recipe(name: str) -> None:
    """Whether there is such a recipe, told by its file alone, since to import one takes seconds.

    Raises ConfigError that says what is there instead.
    """
    module, _, function = name.partition(":")
    if not (module and function):
        raise ConfigError(
            f"{name!r} does not name a recipe; write MODULE:FUNCTION, for example recipes.zh_small:further"
        )
    if module.endswith(".py"):  # the name of a file, whose module would be imported to look for a part `py` of it
        raise ConfigError(
            f"there is no module {module!r}; name it as Python does, {module.removesuffix('.py')}:{function}"
        )
    if module in sys.modules:
        return  # to import it costs nothing
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # a package above it is missing, or the name is none
        spec = None
    if spec is None:
        raise ConfigError(f"there is no module {module!r} for recipe {name!r}; recipes are found from {Path.cwd()}")
    if spec.origin is None or not spec.origin.endswith(".py"):
        return  # only importing it tells
    nodes = list(ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"), spec.origin)))
    functions = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
    others = [node.asname or node.name for node in nodes if isinstance(node, ast.alias)]
    others += [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    if function not in functions and not {function, "*"}.intersection(others):
        public = [one for one in functions if not one.startswith("_")]
        near = get_close_matches(function, public, n=1) or public
        raise ConfigError(f"{spec.origin} has no function {function!r}; it has {', '.join(near) or 'none'}")
