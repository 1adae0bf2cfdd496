"""What a model is evaluated on: recordings, or stretches of them, with their transcripts.

Read without lhotse or torch: its plain cuts (one stretch of one single-channel file, as `paraformer.data.prepare`
writes them), JSON lines, and tables.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from paraformer import audio
from paraformer.errors import AudioError, DataError

Samples = Float32[np.ndarray, " samples"]

_CUTS = ".cuts.jsonl.gz"
_PATH_NAMES = ("audio", "path")
"""Either may name the audio file, in JSON lines and in the first line of a table."""


@dataclass(frozen=True)
class Utterance:
    """One thing said. audio: the file it is in, from start_s on, for duration_s (None: to the end of the file)."""

    id: str
    audio: Path
    text: str
    speaker: str = ""
    start_s: float = 0.0
    duration_s: float | None = None

    def samples(self) -> Samples:
        """Its samples, 16 kHz mono. Raises AudioError if the file cannot be used or ends before it starts."""
        start = round(self.start_s * audio.SAMPLE_RATE)
        end = None if self.duration_s is None else start + round(self.duration_s * audio.SAMPLE_RATE)
        samples = audio.read(self.audio)[start:end]
        if start and not len(samples):
            raise AudioError(f"{self.audio} ends before second {self.start_s}, where utterance {self.id} begins")
        return samples


def read_utterances(data: Path) -> list[Utterance]:
    """The utterances of a manifest, in its order.

    data: lhotse cuts (`NAME.cuts.jsonl.gz`, or DIR/NAME for short), JSON lines (`audio` or `path`, `text`, and perhaps
    `id` and `speaker`), or a .tsv or .csv table of the same, its first line naming the columns or leaving them at path
    and text. File names count from the manifest's directory. Raises DataError for what is none of these, for two
    utterances of one id, and for a line that cannot be used, which it names.
    """
    manifest = _manifest(data)
    rows = _table(manifest) if manifest.suffix in (".tsv", ".csv") else _json_lines(manifest)
    utterances: dict[str, Utterance] = {}
    for number, row in rows:
        try:
            utterance = _cut(row) if "recording" in row or "tracks" in row else _plain(row, manifest.parent)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{manifest}, line {number}: {_reason(error)}") from error
        if utterances.setdefault(utterance.id, utterance) is not utterance:
            raise DataError(f"{manifest}, line {number}: the id {utterance.id!r} was there before; give each its own")
    if not utterances:
        raise DataError(f"{manifest} holds no utterances")
    return list(utterances.values())


def _manifest(data: Path) -> Path:
    """The file to read."""
    if data.is_dir():
        found = sorted(data.glob("*" + _CUTS))
        if len(found) == 1:
            return found[0]
        names = ", ".join(str(data / path.name.removesuffix(_CUTS)) for path in found) or "none of them"
        raise DataError(f"{data} should hold the cuts of one set, and holds {names}; name one file or set")
    short = data.with_name(data.name + _CUTS)
    if not data.is_file() and short.is_file():
        return short
    if not data.name.endswith((".jsonl", ".jsonl.gz", ".tsv", ".csv")):
        raise DataError(f"{data} is not a manifest: it takes a .jsonl, .jsonl.gz, .tsv or .csv file, or a prepared set")
    return data


def _lines(manifest: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, numbered from 1."""
    try:
        with (
            gzip.open(manifest, "rt", encoding="utf-8-sig")
            if manifest.suffix == ".gz"
            else manifest.open(encoding="utf-8-sig") as file
        ):
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except FileNotFoundError as error:
        raise DataError(f"there is no manifest {manifest}; check the name") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{manifest} cannot be read: {error}") from error


def _json_lines(manifest: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in _lines(manifest):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{manifest}, line {number}: this is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{manifest}, line {number}: this is not a JSON object")
        yield number, row


def _table(manifest: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a table by the names of their columns."""
    columns: list[str] = []
    for number, line in _lines(manifest):
        values = line.strip("\r\n").split("\t") if manifest.suffix == ".tsv" else next(csv.reader([line]))
        if not columns:
            named = "text" in values and any(name in values for name in _PATH_NAMES)
            columns = values if named else ["path", "text"]
            if named:
                continue
        yield number, dict(zip(columns, values, strict=False))


def _plain(row: Mapping[str, Any], directory: Path) -> Utterance:
    path, text = next((row[name] for name in _PATH_NAMES if row.get(name)), None), row.get("text")
    if not (isinstance(path, str) and isinstance(text, str)):
        raise DataError("it takes a path and a text")
    return Utterance(str(row.get("id") or path), directory / path, text, str(row.get("speaker") or ""))


def _cut(row: Mapping[str, Any]) -> Utterance:
    """A cut as lhotse writes it, if it is a stretch of one file."""
    if row.get("type") != "MonoCut" or row["recording"].get("transforms"):
        raise DataError("this cut is more than a stretch of one file; save its audio first")
    (source,) = row["recording"]["sources"]
    if source["type"] != "file" or len(source["channels"]) != 1:
        raise DataError("the audio of this cut is not a file with one channel; save its audio first")
    said = sorted(row["supervisions"], key=lambda supervision: supervision["start"])
    text = "".join(supervision.get("text") or "" for supervision in said)
    speakers = {supervision.get("speaker") or "" for supervision in said}
    speaker = "+".join(sorted(speakers))
    whole = row["start"] == 0 and row["duration"] == row["recording"]["duration"]
    span = (0.0, None) if whole else (row["start"], row["duration"])
    return Utterance(row["id"], Path(source["source"]), text, speaker, *span)


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
