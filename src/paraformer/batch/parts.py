"""Results in parts: each written whole or not at all, and what is in one is not computed again.

A part holds the results of a few consecutive inputs in a file that is called after them, so it is always the same for
the same inputs, whoever writes it and however often. A result is known by its key, a digest of all that it depends on.
What the inputs of a part are lies in a file, too, until all are done: of millions, no process holds more than a part's.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet
from pyarrow.fs import FileSelector, FileType

from paraformer.batch.places import Input, opened
from paraformer.bundle import naming

Form = Literal["json", "parquet"]
Row = dict[str, Any]
"""What became of an input: `file`, its name; `key`; `error`, None if there is a result; and the result."""
SUFFIXES: Mapping[Form, str] = {"json": ".jsonl", "parquet": ".parquet"}
PART_BYTES, PART_INPUTS = 20_000_000, 200
"""At which a part is full: ten minutes of sound in 16 bits, which is what a worker that dies takes along."""
WORKING = "_working"
"""Directory beside the parts for what is not finished; its name is one that readers of data sets pass over."""
PLAN = ".inputs"
"""What the name of a file in it ends in that holds the inputs of a part."""
SUMMARY = "_summary.json"

_TEXT, _NUMBER = pa.string(), pa.float64()
_STRETCH = [("text", _TEXT), ("start_s", _NUMBER), ("end_s", _NUMBER)]
_TOKEN = [*_STRETCH, ("confidence", _NUMBER), ("mark", _TEXT), ("speaker", pa.int64())]
_LISTS = {"segments": [*_STRETCH, ("tokens", pa.list_(pa.struct(_TOKEN)))], "sentences": _STRETCH}
SCHEMA = pa.schema(
    [
        *((name, _TEXT) for name in ("file", "key", "error", "text")),
        *((name, _NUMBER) for name in ("duration_s", "confidence")),
        *((name, pa.list_(pa.struct(fields))) for name, fields in _LISTS.items()),
    ]
)
"""The columns of a table of transcripts. Lines of JSON hold the same and, of tokens, all that there is."""


@dataclass(frozen=True)
class Part:
    """Consecutive inputs."""

    name: str
    inputs: Sequence[Input]


@dataclass(frozen=True)
class Planned:
    """A part whose inputs, so many and of so many bytes, lie in a file of the shelf.

    former: other parts, of an earlier plan, that may hold results of some of them.
    """

    name: str
    inputs: int
    size: int
    former: Sequence[str] = ()

    def to_json(self) -> str:
        """As a worker is sent it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Planned:
        """The inverse of `to_json`."""
        return cls(**json.loads(text))


def parts_of(inputs: Iterable[Input], most_bytes: int = PART_BYTES, most: int = PART_INPUTS) -> Iterator[Part]:
    """The parts of all inputs, in order. What is added at the end leaves all full ones as they are."""
    group: list[Input] = []
    number, size = 0, 0
    for one in inputs:
        if group and (len(group) == most or size + one.size > most_bytes):
            yield _part(number, group)
            group, number, size = [], number + 1, 0
        group.append(one)
        size += one.size
    if group:
        yield _part(number, group)


def _part(number: int, inputs: Sequence[Input]) -> Part:
    return Part(f"part-{number:06d}-{_digest(inputs)}", inputs)


def _digest(inputs: Sequence[Input]) -> str:
    return hashlib.sha256("\n".join(one.name for one in inputs).encode("utf-8", "surrogatepass")).hexdigest()[:8]


class Shelf:
    """A directory of parts, by path or URL."""

    def __init__(self, directory: str, form: Form) -> None:
        self.form = form
        self.system, self.directory = opened(directory)
        self.working = self._path(WORKING)

    def open(self) -> None:
        """Make it, ready to be written to; what tells that it is complete is gone until it is. Raises OSError."""
        self.system.create_dir(self.working, recursive=True)
        self._delete(SUMMARY)

    def plan(self, part: Part) -> Planned:
        """Keep the inputs of a part, for whoever will work on it. Raises OSError."""
        told, path = json.dumps([[one.name, one.place, one.size] for one in part.inputs]), self._planned(part.name)
        with naming(Path(path)), self.system.open_output_stream(path) as stream:
            stream.write(zlib.compress(told.encode(), 1))
        return Planned(part.name, len(part.inputs), sum(one.size for one in part.inputs))

    def part(self, name: str) -> Part:
        """One that was planned. Raises OSError."""
        with self.system.open_input_file(self._planned(name)) as file:
            return Part(name, [Input(*one) for one in json.loads(zlib.decompress(file.read()))])

    def names(self) -> list[str]:
        """The parts that are there."""
        files = self.system.get_file_info(FileSelector(self.directory))
        names = sorted(file.base_name for file in files if file.type == FileType.File)
        suffix = SUFFIXES[self.form]
        return [name.removesuffix(suffix) for name in names if name.startswith("part-") and name.endswith(suffix)]

    def rows(self, name: str) -> list[Row]:
        """What a part holds; nothing where there is none, or a damaged one."""
        try:
            with self.system.open_input_file(self._path(name + SUFFIXES[self.form])) as file:
                data = file.read()
            if self.form == "json":
                return [json.loads(line) for line in data.decode().splitlines()]
            rows: list[Row] = parquet.read_table(pa.BufferReader(data)).to_pylist()
        except (OSError, ValueError, pa.ArrowException):
            return []
        return rows

    def put(self, name: str, rows: Sequence[Row]) -> str:
        """Write a part in one move, over what was there; returns the digest of its bytes. Raises OSError."""
        return self._put(name + SUFFIXES[self.form], self._bytes(rows))

    def finish(self, parts: Iterable[Planned], summary: Mapping[str, Any]) -> None:
        """Take away what is of no plan any more, and say that all is there."""
        planned = {part.name for part in parts}
        for name in self.names():
            if name not in planned:
                self._delete(name + SUFFIXES[self.form])
        self._put(SUMMARY, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
        self.system.delete_dir(self.working)

    def _bytes(self, rows: Sequence[Row]) -> bytes:
        if self.form == "json":
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return "".join(lines).encode("utf-8", "surrogateescape")
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(list(rows), SCHEMA), sink, compression="zstd")
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def _put(self, file: str, data: bytes) -> str:
        temporary = posixpath.join(self.working, uuid.uuid4().hex)
        with naming(Path(self._path(file)), Path(temporary)):
            with self.system.open_output_stream(temporary) as stream:
                stream.write(data)
            self.system.move(temporary, self._path(file))
        return hashlib.sha256(data).hexdigest()

    def _planned(self, name: str) -> str:
        return posixpath.join(self.working, name + PLAN)

    def _delete(self, file: str) -> None:
        if self.system.get_file_info([self._path(file)])[0].type == FileType.File:
            self.system.delete_file(self._path(file))

    def _path(self, file: str) -> str:
        return posixpath.join(self.directory, file)


def with_former(parts: Sequence[Planned], shelf: Shelf) -> Sequence[Planned]:
    """The same parts, each knowing which others, left by an earlier plan, hold results of its inputs."""
    planned = {part.name for part in parts}
    former: dict[str, str] = {}
    for name in shelf.names():
        if name not in planned:
            former |= dict.fromkeys((row["file"] for row in shelf.rows(name)), name)
    if not former:
        return parts
    return [
        replace(part, former=sorted({former[one.name] for one in shelf.part(part.name).inputs if one.name in former}))
        for part in parts
    ]


def digest_of(digests: Mapping[str, str], form: Form) -> str:
    """One digest of all parts, given theirs by name: that of the list which `sha256sum part-*` prints."""
    listed = "".join(f"{digest}  {name}{SUFFIXES[form]}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(listed.encode()).hexdigest()
