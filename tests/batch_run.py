"""A run on a cluster of its own, as a process that tests can kill: SOURCE OUT PIDS.

Two workers, twenty files in a part. Each worker leaves its process id in the directory PIDS, so that it can be killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ray

from paraformer import batch
from paraformer.batch import running
from paraformer.batch.recognising import Recognising, Recognition


class Watched(Recognition):
    def __call__(self, alive: Callable[[], None]) -> Recognising:
        work = super().__call__(alive)
        (Path(os.environ["PIDS"]) / str(os.getpid())).touch()
        return work


if __name__ == "__main__":
    source, directory, os.environ["PIDS"] = sys.argv[1:]
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    batch.Recognition = Watched  # type: ignore[misc]
    running.parts_of = partial(running.parts_of, most=20)
    outcome = batch.transcribe([source], directory, form="json")
    print("done:", outcome.sha256, outcome.inputs, outcome.failed)
