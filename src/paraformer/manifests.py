"""Lists of recordings and what is said in them: JSON lines, and tables with named columns. Nothing is decoded here.

Values may be called by any of the usual names, in any case: FunASR's `source`, `target` and `key` among them.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Float32

from paraformer.errors import DataError
from paraformer.paths import is_file

AUDIO_NAMES = ("path", "audio", "audio_path", "audio_filepath", "file", "filename", "wav", "source")
TEXT_NAMES = ("text", "sentence", "transcript", "transcription", "target")
ID_NAMES = ("id", "key", "utt_id")
SPEAKER_NAMES = ("speaker", "spk", "speaker_id", "client_id")
START_NAMES = ("offset", "start", "start_time", "begin", "begin_time")
"""Where in its file something is said, as NeMo's lists have it; here a line stands for a whole file."""
_USUAL = frozenset((*AUDIO_NAMES, *TEXT_NAMES, *ID_NAMES, *SPEAKER_NAMES))
_NOBODY = ("", "unknown")

Row = Mapping[str, Any]
Samples = Float32[np.ndarray, " samples"]


@dataclass(frozen=True)
class Utterance:
    """One thing said, as evaluation takes it. speaker: nothing where nobody is named."""

    id: str
    text: str
    speaker: str
    load: Callable[[], Samples]
    """Its samples, 16 kHz mono. Raises AudioError if they cannot be had."""


@dataclass(frozen=True)
class Listed:
    """What a line says of an utterance; None where it says nothing."""

    audio: Path
    """Beside the list or, if it is not there, from the current directory."""
    written: str
    """The name of the audio as the line has it."""
    text: str | None
    id: str | None
    speaker: str | None


def json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The object in each line that holds something, after the line's number. Raises DataError for anything else."""
    for number, line in lines(path):
        try:
            row = from_json(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object")
        yield number, row


def from_json(line: str) -> Any:
    """What a line of JSON says. Raises ValueError if it is none, or says one thing twice: which was meant is not known.

    >>> from_json('{"text": "一", "text": "二"}')
    Traceback (most recent call last):
    ValueError: 'text' is there twice
    """
    return json.loads(line, object_pairs_hook=_object)


def _object(pairs: Sequence[tuple[str, Any]]) -> Row:
    if twice := _twice(name for name, _ in pairs):
        raise ValueError(f"{twice!r} is there twice")
    return dict(pairs)


def _twice(names: Iterable[str]) -> str | None:
    """The first name that comes again."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def table_rows(path: Path, unnamed: Sequence[str] = ()) -> Iterator[tuple[int, Row]]:
    """The rows of a table, .csv or .tsv, by the names of its columns, and the numbers of their lines.

    The first line names the columns; unnamed: what they are called where it names none, but has an audio file and a
    text. In a .tsv, quotation marks mean nothing. Raises DataError where it is neither, where two columns have one of
    the usual names, and for a line that has more values than there are columns, as by a comma in a text without quotes.
    """
    names: Sequence[str] = ()
    with opened(path) as file:
        tabs = ".tsv" in path.suffixes
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(file)
        for values in filter(None, rows):
            if not names:
                names = values if _names_all(values) or not unnamed else unnamed
                if names is unnamed and not Path(values[0].strip()).suffix:
                    raise DataError(f"{path}, line {rows.line_num}: {_lacking(values)}")
                if twice := _twice(filter(_USUAL.__contains__, map(_plain, names))):
                    raise DataError(f"{path}, line {rows.line_num}: two columns are called {twice!r}; rename one")
                if names is values:
                    continue
            if any(value.strip() for value in values[len(names) :]):
                raise DataError(
                    f"{path}, line {rows.line_num}: {len(values)} values for {len(names)} columns; "
                    + ("a tab stands in one" if tabs else "put quotation marks around a value with commas in it")
                )
            yield rows.line_num, dict(zip(names, values, strict=False))


def _names_all(values: Sequence[str]) -> bool:
    columns = {_plain(value) for value in values}
    return not columns.isdisjoint(AUDIO_NAMES) and not columns.isdisjoint(TEXT_NAMES)


def listed(row: Row, path: Path, number: int) -> Listed:
    """What a row of a list says.

    Raises DataError, naming the line, where it names no audio, has no text but else, says one of these twice, or is
    about a part of its file.
    """
    if twice := _twice(filter(_USUAL.__contains__, map(_plain, row))):
        raise DataError(f"{path}, line {number}: {twice!r} is there twice; drop one")
    values = {_plain(name): value for name, value in row.items()}
    audio, text = _first(values, AUDIO_NAMES), _first(values, TEXT_NAMES)
    if not (isinstance(audio, str) and audio.strip() and isinstance(text, str | None)):
        raise DataError(f"{path}, line {number}: {_lacking(values)}")
    if part := next((name for name in START_NAMES if _begins_later(values.get(name))), None):
        raise DataError(
            f"{path}, line {number}: {part} is {values[part]!r:.60}, but a line stands for a whole file; cut the "
            "files, or give cuts or a Kaldi directory with segments"
        )
    id_, speaker = (_first(values, names) for names in (ID_NAMES, SPEAKER_NAMES))
    return Listed(
        audio=beside(audio.strip(), path.parent),
        written=audio.strip(),
        text=None if text is None else text.strip(),
        id=None if id_ in (None, "") else str(id_).strip(),
        speaker=None if speaker is None else str(speaker).strip(),
    )


def _lacking(names: Iterable[str]) -> str:
    return (
        f"needs a path (one of {', '.join(AUDIO_NAMES)}) and a text (one of {', '.join(TEXT_NAMES)}), "
        f"but has {', '.join(names) or 'nothing'}"
    )


def beside(audio: str, directory: Path) -> Path:
    """A file by its name in a list: in the list's directory or, if it is not there, from the current one."""
    there = directory / audio  # the file itself where its name counts from the root
    return there if Path(audio).is_absolute() or is_file(there) or not is_file(Path(audio)) else Path(audio)


def speakers(names: Iterable[str | None]) -> str:
    """Who speaks, as one name; nothing where nobody is named.

    >>> speakers(["li", None, "an", "li"]), speakers(["unknown"])
    ('an+li', '')
    """
    return "+".join(sorted({name for name in names if name and name not in _NOBODY}))


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, numbered from 1. Raises DataError as `opened` does."""
    with opened(path) as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A text file, perhaps compressed. Raises DataError if it is missing or not text."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig", newline="") as file
        ):
            yield file
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; check the name") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


def _begins_later(start: Any) -> bool:
    """Whether a value says that something begins elsewhere than where its file does; other words say nothing."""
    try:
        return float(start) != 0
    except (TypeError, ValueError):
        return False


def _plain(name: str) -> str:
    return name.lower().strip()


def _first(values: Row, names: Iterable[str]) -> Any:
    return next((values[name] for name in names if name in values), None)
