"""Files by path or URL, on a disk or in a bucket, by pyarrow's file systems and, where it has none, fsspec's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, FSSpecHandler, LocalFileSystem, PyFileSystem

from paraformer.errors import DataError
from paraformer.manifests import AUDIO_NAMES, beside, json_rows, lines, table_rows

SOUNDS = (
    *(".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp3", ".mp4"),
    *(".oga", ".ogg", ".opus", ".wav", ".webm", ".wma"),
)
"""What a file of a directory or bucket ends in that is taken for a recording; lists may name any."""
LISTS = (".csv", ".tsv", ".jsonl", ".txt", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".txt.gz")
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Input:
    """What is to be worked on. name: as its result is called; place: path, URL, or all that there is; size: bytes."""

    name: str
    place: str
    size: int


def anywhere(place: str) -> str:
    """A path from the root, as it is right in any process; a URL as it is."""
    return place if "://" in place else str(Path(place).absolute())


def opened(place: str) -> tuple[FileSystem, str]:
    """The file system of a path or URL, and the path in it. Raises DataError for a URL that cannot be opened."""
    if "://" not in place:
        return LocalFileSystem(), anywhere(place)
    scheme, _, rest = place.partition("://")
    host, _, path = rest.partition("/")
    try:
        system, root = _system(f"{scheme}://{host}")
    except (ArrowException, ImportError, OSError, ValueError) as error:
        raise DataError(f"{place} cannot be opened: {error}") from error
    return system, "/".join(part for part in (root.rstrip("/"), path) if part) if host else f"/{path}"


@cache
def _system(url: str) -> tuple[FileSystem, str]:
    """A file system and its root, of a URL without path."""
    try:
        found: tuple[FileSystem, str] = FileSystem.from_uri(url if url != "file://" else "file:///")
    except ArrowException:
        import fsspec

        system, root = fsspec.core.url_to_fs(url)
        return PyFileSystem(FSSpecHandler(system)), root
    return found


def inputs_of(sources: Iterable[str]) -> list[Input]:
    """The recordings of directories, buckets, lists of names, and files, in order, each once.

    A list is a table with a column for the path, JSON lines, or text with one name a line; names count from where the
    list is, or are URLs. What lies in a directory comes in the order of its names. Raises DataError.
    """
    found: dict[str, Input] = {}
    for source in sources:
        for one in _inputs(source):
            found.setdefault(one.name, one)
    if not found:
        raise DataError("there is nothing to recognise: no recording was found in what was named")
    return list(found.values())


def _inputs(source: str) -> Iterator[Input]:
    if "://" not in source and source.endswith(LISTS):
        yield from _sized(_listed(Path(source)))
        return
    system, path = opened(source)
    if _info(system, [path])[0].type != FileType.Directory:
        yield from _sized([(source, source)])
        return
    files = [file for file in _info(system, FileSelector(path, recursive=True)) if file.type == FileType.File]
    for file in sorted(files, key=lambda file: file.path):
        if Path(file.path).suffix.lower() in SOUNDS:
            name = f"{source.rstrip('/')}/{file.path[len(path) :].lstrip('/')}"
            yield Input(name, name if "://" in source else file.path, file.size or 0)


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    """The names in a list, and where each is."""
    if path.name.removesuffix(".gz").endswith(".txt"):
        names = ((number, line.strip()) for number, line in lines(path))
    else:
        rows = json_rows(path) if ".jsonl" in path.suffixes else table_rows(path)
        names = ((number, _audio(row)) for number, row in rows)
    for number, name in names:
        if not name:
            raise DataError(f"{path}, line {number}: it names no audio; one column is to be {', '.join(AUDIO_NAMES)}")
        yield name, name if "://" in name else str(beside(name, path.parent))


def _audio(row: Any) -> str:
    values = {str(name).lower().strip(): value for name, value in row.items()}
    found = next((values[name] for name in AUDIO_NAMES if name in values), None)
    return found.strip() if isinstance(found, str) else ""


def _sized(names: Iterable[tuple[str, str]]) -> Iterator[Input]:
    """Inputs with their sizes, many asked for at a time; 0 for what is not there, which is told when it is read."""
    named = list(names)
    for start in range(0, len(named), _AT_ONCE):
        some = named[start : start + _AT_ONCE]
        places: dict[int, tuple[list[int], list[str], FileSystem]] = {}
        for index, (_, place) in enumerate(some):
            system, path = opened(place)
            indices, paths, _ = places.setdefault(id(system), ([], [], system))
            indices.append(index)
            paths.append(path)
        sizes = {
            index: info.size or 0
            for indices, paths, system in places.values()
            for index, info in zip(indices, _info(system, paths), strict=True)
        }
        yield from (Input(name, anywhere(place), sizes[index]) for index, (name, place) in enumerate(some))


def _info(system: FileSystem, what: Sequence[str] | FileSelector) -> list[FileInfo]:
    try:
        found: list[FileInfo] = system.get_file_info(what)
    except (OSError, ArrowException) as error:
        raise DataError(f"a file system cannot be asked for its files: {error}") from error
    return found
