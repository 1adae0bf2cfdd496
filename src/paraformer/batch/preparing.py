"""Listening to a corpus as the work of many: where each utterance speaks, and which cannot be read. Needs [train]."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from paraformer.audio import SAMPLE_RATE
from paraformer.batch.parts import Shelf
from paraformer.batch.places import Input, anywhere
from paraformer.batch.running import run
from paraformer.batch.worker import Job, digest_of_file, state_of_file
from paraformer.data.reading import files_of, measured
from paraformer.data.recordings import moved
from paraformer.data.skips import MISSING, UNREADABLE, Skipped, Skips
from paraformer.errors import DataError, ParaformerError

_RECORDINGS = 16
"""Whose digests a worker remembers."""


def measured_by_many(cuts: Iterable[Cut], skips: Skips, directory: str, address: str | None) -> Iterator[Cut]:
    """What `data.reading.measured` gives, by a cluster: the readable cuts in order; the others go to `skips`.

    Of the cuts none is held here, only their ids. directory: for what is finished, so that it is not done again; may be
    deleted. address, errors: see `batch.run`; DataError if what was finished is gone before it is read.
    """
    outcome = run(_inputs(cuts), Job(anywhere(directory), "json", Listening), address=address)
    shelf, count = Shelf(directory, "json"), 0
    for row in (row for name in shelf.names() for row in shelf.rows(name)):
        count += 1
        if row["error"] is None:
            yield deserialize_item(row["cut"])
        else:
            skips.add(Skipped(row["file"], UNREADABLE if row["key"] else MISSING, row["error"]))
    if count != outcome.inputs:
        raise DataError(
            f"{directory} was changed meanwhile: it holds {count} of {outcome.inputs} utterances; run this again"
        )


def _inputs(cuts: Iterable[Cut]) -> Iterator[Input]:
    """Each cut is all that there is of it; those of one id are told apart by their number."""
    seen: Counter[str] = Counter()
    for cut in moved(cuts, anywhere):
        seen[cut.id] += 1
        name = cut.id if seen[cut.id] == 1 else f"{cut.id} ({seen[cut.id]})"
        yield Input(name, json.dumps(cut.to_dict(), ensure_ascii=False), round(cut.duration * SAMPLE_RATE * 2))


class Listening:
    """Measures utterances."""

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive
        # Of a recording of an hour, hundreds of cuts come one after the other.
        self._digest = lru_cache(_RECORDINGS)(self._digest_of)

    def state(self, one: Input) -> object:
        """Of the files."""
        return [state_of_file(file) for file in files_of(_cut(one))]

    def key(self, one: Input) -> str:
        """Of the files and of what is said of them. Raises AudioNotFound."""
        files = [self._digest(file, state_of_file(file)) for file in files_of(_cut(one))]
        return hashlib.sha256("\n".join([*files, one.place]).encode("utf-8", "surrogatepass")).hexdigest()

    def _digest_of(self, file: str, _: object) -> str:
        return digest_of_file(Input(file, file, 0), self._alive)

    def results(self, inputs: Iterable[Input]) -> Iterator[Mapping[str, Any] | ParaformerError]:
        """See Work.results."""
        for one in inputs:
            self._alive()
            skips = Skips(named=0)
            found = [{"cut": cut.to_dict()} for cut in measured([_cut(one)], skips)]
            yield found[0] if found else DataError(skips.found[0].detail)


def _cut(one: Input) -> Cut:
    cut: Cut = deserialize_item(json.loads(one.place))
    return cut
