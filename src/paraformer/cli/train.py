"""`paraformer train`: the training command, its recipe found from the current directory."""

from __future__ import annotations

import argparse
import sys

from paraformer.errors import MissingExtra


def train(options: argparse.Namespace) -> int:
    """Run `paraformer.train` with its own command line."""
    try:
        from paraformer.train.__main__ import main
    except ImportError as error:
        raise MissingExtra("Training", "train") from error
    sys.path.insert(0, "")  # as `python -m` does: recipes lie beside the user, not in the package
    main(options.arguments)
    return 0
