from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile

import jaxtyping
import shapes
from hypothesis import Phase, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
if "PARAFORMER_CACHE" not in os.environ:  # what tests keep goes with them
    os.environ["PARAFORMER_CACHE"] = tempfile.mkdtemp(prefix="paraformer-")
    atexit.register(shutil.rmtree, os.environ["PARAFORMER_CACHE"], ignore_errors=True)
jaxtyping.jaxtyped = shapes.directly  # what its import hook decorates with
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start jobs in the background with it ignored

settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile(
    "mutants", max_examples=30, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """What all tests are made of stays, so collections of garbage need not look through it: half a second each."""
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Models and inputs that a test draws without a seed are the same in every run."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
