"""`paraformer train`: a recipe, found from the current directory, to a model directory.

Under torchrun: `torchrun --nproc-per-node N -m paraformer.cli train ...`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

from paraformer.cli.complain import complain
from paraformer.errors import MissingExtra

SIGNALLED = 128
"""Exit code of a run that a signal stopped and that saved before: this plus the signal's number, 143 for SIGTERM."""


def train(options: argparse.Namespace) -> int:
    """Train until the recipe's end, then average, measure and write the bundle, whose path is printed."""
    try:
        from paraformer.train import parallel
        from paraformer.train.config import load_recipe
        from paraformer.train.finish import finish
        from paraformer.train.loop import train as run
    except ImportError as error:
        raise MissingExtra("Training", "train") from error
    sys.path.insert(0, "")  # as `python -m` does: recipes lie beside the user, not in the package
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
