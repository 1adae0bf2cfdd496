"""Many files on many machines: recognition, and the preparation of corpora, on Ray Data. Needs paraformer[ray].

Every input gets one result, whatever becomes of the workers and however often the work is started again; the results of
two runs over the same inputs are the same bytes. docs/batch.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm

from paraformer.audio import Channel
from paraformer.errors import MissingExtra

if find_spec("ray") is None or find_spec("pyarrow") is None:
    raise MissingExtra("Work on many files", "ray")

from paraformer.batch.cluster import work
from paraformer.batch.parts import SUFFIXES, Form, Part, Shelf, digest_of, planned, with_former
from paraformer.batch.places import inputs_of
from paraformer.batch.recognising import Recognition
from paraformer.batch.worker import PATIENCE_S, Job

__all__ = ["SUFFIXES", "Form", "Outcome", "transcribe"]


@dataclass(frozen=True)
class Outcome:
    """What became of a run: how many inputs, how many without a result, the first of these with the reasons.

    sha256: the same for two runs with the same results, as `(cd OUT; sha256sum part-*) | sha256sum` prints it.
    """

    inputs: int
    failed: int
    failures: tuple[tuple[str, str], ...]
    sha256: str


NAMED = 20
"""Failures that an outcome names."""


def transcribe(
    sources: Sequence[str],
    directory: str,
    model: str | None = None,
    *,
    form: Form = "parquet",
    tokens: bool = False,
    channel: Channel = "mix",
    batch_s: float = 60.0,
    options: Mapping[str, Any] | None = None,
    address: str | None = None,
    patience_s: float = PATIENCE_S,
) -> Outcome:
    """Recognise all recordings of `sources` on a cluster, and write their texts to files part-* in `directory`.

    sources: recordings, directories, buckets by URL, and lists of names, as docs/batch.md says. directory: a path that
    all machines share, or a URL. form: of the parts, tables or lines of JSON; tokens: with all of them. channel and
    batch_s: as of `Recognizer.transcribe`; options: of `paraformer.load`. address: of the cluster; None: the one that
    RAY_ADDRESS names or that runs here, else one is made of this machine. patience_s: after so long without a sign of
    life a worker is taken to hang.

    Called again, it goes on: what is finished is known by its content, the model and the options, and is not recognised
    again. Raises DataError, what `load` raises, MissingExtra, and ParaformerError if the cluster cannot go on.
    """
    options = options or {}
    asked = Recognition.of(model, options, tokens=tokens, channel=channel, batch_s=batch_s)
    shelf = Shelf(directory, form)
    shelf.open()
    parts = with_former(planned(inputs_of(sources)), shelf)
    gpus = 0 if asked.options.get("device", "cpu") == "cpu" else 1
    job = Job(directory, form, asked, patience_s)
    found = work(parts, job, address=address, cpus=asked.options.get("threads", 1), gpus=gpus)
    outcome = _counted(parts, found, form)
    shelf.finish(parts, {**asdict(outcome), "identity": asked.identity})
    return outcome


def _counted(parts: Sequence[Part], found: Iterable[Mapping[str, Any]], form: Form) -> Outcome:
    """Count finished parts as they come, on a bar with the time that is left."""
    total = sum(one.size for part in parts for one in part.inputs)
    digests: dict[str, str] = {}
    failures: list[tuple[str, str]] = []
    failed = 0
    with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for part in found:
            digests[part["part"]] = part["sha256"]
            failed += len(part["failed"])
            failures += [(name, why) for name, why in part["failed"]]
            failures = sorted(failures)[:NAMED]
            bar.update(part["bytes"])
    return Outcome(sum(len(part.inputs) for part in parts), failed, tuple(failures), digest_of(digests, form))
