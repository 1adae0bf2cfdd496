"""What one worker does with a part: skip what is finished, work on the rest, put aside what it cannot survive."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from pyarrow import ArrowException, NativeFile
from pyarrow.fs import FileType

from paraformer.batch.parts import Form, Part, Planned, Row, Shelf
from paraformer.batch.places import Input, opened
from paraformer.batch.tries import MOST, Tries
from paraformer.errors import AudioNotFound, InputFailed, ParaformerError, attempt

PATIENCE_S = 300.0
"""A worker that reads nothing for so long is taken to hang."""


class Work(Protocol):
    """What is done with inputs."""

    def state(self, one: Input) -> object:
        """What is another when somebody has written to an input, at the cost of a look. Raises any error."""
        ...

    def key(self, one: Input) -> str:
        """A digest of all that the result of an input depends on. Raises any error where it cannot be read."""
        ...

    def results(self, inputs: Iterable[Input]) -> Iterator[Mapping[str, Any] | ParaformerError]:
        """For each input, in order, what its row is to hold, or why there is none."""
        ...


@dataclass(frozen=True)
class Job:
    """What all workers share. work: makes what does it, given what is to be called at each sign of life."""

    directory: str
    form: Form
    work: Callable[[Callable[[], None]], Work]
    patience_s: float = PATIENCE_S


class Worker:
    """Works on parts, one after the other; what it holds, such as a model, is loaded once."""

    def __init__(self, job: Job) -> None:
        self._shelf = Shelf(job.directory, job.form)
        self._tries = Tries(self._shelf.system, self._shelf.working, job.patience_s)
        self._work = job.work(self._tries.alive)

    def __call__(self, planned: Planned) -> dict[str, Any]:
        """Finish a part; returns its name, digest, bytes of its inputs, and who failed.

        Raises OSError and ParaformerError for what is no fault of an input.
        """
        part = self._shelf.part(planned.name)
        rows = self._rows(part, planned.former)
        return {
            "part": part.name,
            "sha256": self._shelf.put(part.name, rows),
            "bytes": planned.size,
            "failed": [[row["file"], row["error"]] for row in rows if row["error"] is not None],
        }

    def _rows(self, part: Part, former: Iterable[str]) -> list[Row]:
        """The rows of all inputs of a part, in order. former: parts that may hold some."""
        held = {row["file"]: row for name in (*former, part.name) for row in self._shelf.rows(name)}
        rows: dict[str, Row] = {}
        open_: list[_Found] = []
        for one in part.inputs:
            with attempt(one.name) as reading:
                found = _Found(one, state=self._work.state(one), key=self._work.key(one))
                if (old := held.get(one.name)) is not None and old["key"] == found.key:
                    rows[one.name] = old
                else:
                    open_.append(found)
            if reading.error is not None:
                rows[one.name] = _row(one, None, reading.error)
        alone = bool(self._tries.deaths(part.name))
        rows |= self._each_alone(open_) if alone else self._together(part.name, open_)
        return [rows[one.name] for one in part.inputs]

    def _together(self, name: str, inputs: Sequence[_Found]) -> dict[str, Row]:
        with self._tries.on(name):
            results = self._work.results(found.one for found in inputs)
            return {found.one.name: self._done(found, result) for found, result in zip(inputs, results, strict=True)}

    def _each_alone(self, inputs: Sequence[_Found]) -> dict[str, Row]:
        """One by one, since somebody has died over them; those who did so by themselves too often are left."""
        rows: dict[str, Row] = {}
        for found in inputs:
            one, work = found.one, found.one.name + found.key
            deaths = self._tries.deaths(work)
            if len(deaths) >= MOST:
                error = InputFailed(f"{one.name} stopped its worker {len(deaths)} times: {'; '.join(deaths)}")
                rows[one.name] = _row(one, found.key, error)
                continue
            with self._tries.on(work):
                (rows[one.name],) = (self._done(found, result) for result in self._work.results([one]))
        return rows

    def _done(self, found: _Found, result: Mapping[str, Any] | ParaformerError) -> Row:
        """The row of an input, of which nobody knows what it is the result of if somebody wrote to it meanwhile."""
        one = found.one
        if self._work.state(one) == found.state:
            return _row(one, found.key, result)
        changed = InputFailed(f"{one.name} was changed while it was read; run this again when nobody writes to it")
        return _row(one, None, result if isinstance(result, ParaformerError) else changed)


@dataclass(frozen=True)
class _Found:
    """An input as it was before anything was done with it."""

    one: Input
    key: str
    state: object


def _row(one: Input, key: str | None, result: Mapping[str, Any] | ParaformerError) -> Row:
    """One without a key, since it is not known what its content is, is never taken to be finished."""
    told: Mapping[str, Any] = {} if isinstance(result, ParaformerError) else result
    return {"file": one.name, "key": key, "error": str(result) if isinstance(result, ParaformerError) else None, **told}


class Reading(io.RawIOBase):
    """An input's bytes, on a disk or in a bucket; each reading of them is a sign of life.

    Opened when they are first asked for, so that whoever reads them learns what is wrong with them: AudioNotFound,
    InputFailed.
    """

    def __init__(self, one: Input, alive: Callable[[], None]) -> None:
        self.name, self._alive = one.name, alive
        self._one = one

    @cached_property
    def _file(self) -> NativeFile:
        return _opened(self._one)

    def readable(self) -> bool:
        """They are read."""
        return True

    def seekable(self) -> bool:
        """In any order."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes; returns how many."""
        self._alive()
        count: int = self._file.readinto(buffer)
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place; returns it."""
        place: int = self._file.seek(offset, whence)
        return place

    def tell(self) -> int:
        """The place of what is read next."""
        place: int = self._file.tell()
        return place

    def close(self) -> None:
        """Let go of the file."""
        if "_file" in vars(self):
            self._file.close()
        super().close()


def _opened(one: Input) -> NativeFile:
    system, path = opened(one.place)
    try:
        return system.open_input_file(path)
    except (OSError, ArrowException) as error:
        if system.get_file_info([path])[0].type == FileType.NotFound:
            raise AudioNotFound(f"there is no file {one.place}; check the name") from error
        raise InputFailed(f"{one.place} cannot be opened: {error}") from error


def state_of_file(place: str) -> tuple[int | None, int | None]:
    """Its size and when it was last written; of a file that is not there, neither."""
    system, path = opened(place)
    found = system.get_file_info([path])[0]
    return found.size, found.mtime_ns


def digest_of_file(one: Input, alive: Callable[[], None]) -> str:
    """That of all its bytes."""
    with closing(Reading(one, alive)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
