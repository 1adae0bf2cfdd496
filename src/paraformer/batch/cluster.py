"""Parts shared out among workers by Ray Data, which starts them, keeps them busy, and starts again those that die."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from paraformer import errors
from paraformer.batch.parts import Planned
from paraformer.batch.worker import Job, Worker
from paraformer.errors import ParaformerError

MOST_BLOCKS = 10_000
"""In which Ray hands out the parts: so many, and few parts in each."""


def work(parts: Sequence[Planned], job: Job, *, address: str | None, cpus: int, gpus: int) -> Iterator[dict[str, Any]]:
    """Do a job on every part; yields what `Worker` returns, in the order in which parts are finished.

    address: of a cluster that runs; None: the one that RAY_ADDRESS names or that runs here, else one of this machine.
    cpus, gpus: of each worker; there are as many workers as the cluster has room for, now or later.
    Raises ParaformerError for what no worker can mend.
    """
    if not parts:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent home unless somebody asked for it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray.data

    _connect(address)
    room = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fitting = int(min([room.get("CPU", 0) // cpus, *([room.get("GPU", 0) // gpus] if gpus else [])]))
    if fitting < 1:
        raise ParaformerError(f"the cluster has no room for a worker of {cpus} CPUs and {gpus} GPUs; ask for fewer")
    rows = [{"part": part.to_json()} for part in parts]
    found = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map(
        Hand,  # type: ignore[arg-type]  # is made in each process
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(min_size=min(fitting, len(parts)), max_size=len(parts)),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )
    try:
        yield from map(handed_on, found.iter_rows())
    except ray.exceptions.RayError as error:
        raise ParaformerError(f"the cluster could not go on: {str(error).strip().splitlines()[-1]}") from error


class Hand:
    """A worker as Ray keeps one: what stops it is handed on, since Ray tells of an error no more than that it came."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._worker: Worker | None = None

    def __call__(self, row: Mapping[str, str]) -> dict[str, str]:
        """Do a part, as `Planned.to_json` has it; what `Worker` returns, or "stopped", as JSON."""
        done: dict[str, Any]
        try:
            self._worker = self._worker or Worker(self._job)
            done = self._worker(Planned.from_json(row["part"]))
        except ParaformerError as error:
            done = {"stopped": [type(error).__name__, *error.args]}
        except OSError as error:
            done = {"stopped": ["OSError", error.errno, error.strerror or str(error), error.filename]}
        return {"done": json.dumps(done)}


def handed_on(row: Mapping[str, str]) -> dict[str, Any]:
    """What `Hand` returned. Raises what stopped it."""
    done: dict[str, Any] = json.loads(row["done"])
    if "stopped" not in done:
        return done
    kind, *told = done["stopped"]
    raise (OSError if kind == "OSError" else getattr(errors, kind))(*told)


def _connect(address: str | None) -> None:
    """Join a cluster, or make one of this machine, without Ray's own bars and reports."""
    import ray
    from ray.data import DataContext

    if not ray.is_initialized():
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it raises is told in one sentence
    DataContext.get_current().enable_progress_bars = False
