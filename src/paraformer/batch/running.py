"""A whole run: from inputs to parts, told how far it is, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from paraformer.batch.cluster import work
from paraformer.batch.parts import Form, Planned, Shelf, digest_of, parts_of, with_former
from paraformer.batch.places import Input
from paraformer.batch.worker import Job

NAMED = 20
"""Failures that an outcome names."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run: how many inputs, how many without a result, the first of these with the reasons.

    sha256: the same for two runs with the same results, as `(cd OUT; sha256sum part-*) | sha256sum` prints it.
    """

    inputs: int
    failed: int
    failures: tuple[tuple[str, str], ...]
    sha256: str


def run(inputs: Iterable[Input], job: Job, *, address: str | None, cpus: int = 1, gpus: int = 0) -> Outcome:
    """Do a job on all inputs, as far as it is not done already; arguments and errors as those of `cluster.work`."""
    shelf = Shelf(job.directory, job.form)
    shelf.open()
    parts = with_former([shelf.plan(part) for part in parts_of(inputs)], shelf)
    outcome = _counted(parts, work(parts, job, address=address, cpus=cpus, gpus=gpus), job.form)
    shelf.finish(parts, asdict(outcome))
    return outcome


def _counted(parts: Sequence[Planned], found: Iterable[Mapping[str, Any]], form: Form) -> Outcome:
    """Count finished parts as they come, on a bar with the time that is left."""
    total = sum(part.size for part in parts)
    digests: dict[str, str] = {}
    failures: list[tuple[str, str]] = []
    failed = 0
    with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for part in found:
            digests[part["part"]] = part["sha256"]
            failed += len(part["failed"])
            failures = sorted([*failures, *((name, why) for name, why in part["failed"])])[:NAMED]
            bar.update(part["bytes"])
    return Outcome(sum(part.inputs for part in parts), failed, tuple(failures), digest_of(digests, form))
