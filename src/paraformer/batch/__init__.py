"""Many files on many machines: recognition, and the preparation of corpora, on Ray Data. Needs paraformer[ray].

Every input gets one result, whatever becomes of the workers and however often the work is started again; the results of
two runs over the same inputs are the same bytes. docs/batch.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from paraformer.audio import Channel
from paraformer.errors import MissingExtra

if find_spec("ray") is None or find_spec("pyarrow") is None:
    raise MissingExtra("Work on many files", "ray")

from paraformer.batch.parts import Form
from paraformer.batch.places import anywhere, inputs_of
from paraformer.batch.recognising import Recognition
from paraformer.batch.running import Outcome, run
from paraformer.batch.worker import PATIENCE_S, Job

__all__ = ["Form", "Outcome", "transcribe"]


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
    gpus = 0 if asked.options.get("device", "cpu") == "cpu" else 1
    job = Job(anywhere(directory), form, asked, patience_s)
    return run(inputs_of(sources), job, address=address, cpus=asked.options.get("threads", 1), gpus=gpus)
