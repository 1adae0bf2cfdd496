"""What a model is evaluated on: recordings, or stretches of them, with their transcripts.

Read without lhotse and the torch that it requires: its plain cuts (a stretch of a single-channel file, as
`paraformer.data.prepare` writes them), JSON lines, and tables.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from paraformer import audio
from paraformer.errors import AudioError, DataError

Samples = Float32[np.ndarray, " samples"]

_CUTS = ".cuts.jsonl.gz"
_SUFFIXES = (".jsonl", ".jsonl.gz", ".tsv", ".csv")
_NAMES = {
    "audio": ("audio", "path", "source"),
    "text": ("text", "target"),
    "id": ("id", "key"),
    "speaker": ("speaker",),
}
"""What each value may be called; `source`, `target` and `key` are FunASR's."""


@dataclass(frozen=True)
class Utterance:
    """One thing said."""

    id: str
    text: str
    speaker: str
    load: Callable[[], Samples]
    """Its samples, 16 kHz mono. Raises AudioError if they cannot be had."""


def is_plain(data: Path) -> bool:
    """Whether `read_utterances` is for this kind of data. Of cuts the first one tells. Raises DataError as it does."""
    if not (data.name.endswith(_SUFFIXES) or _manifest(data).is_file()):
        return False
    if _is_table(data):
        return True
    first = next(_json_lines(_manifest(data)), (0, {}))[1]
    return not _is_cut(first) or _is_stretch(first)


def read_utterances(data: Path) -> list[Utterance]:
    """The utterances of a manifest, in its order.

    data: lhotse cuts (DIR/NAME.cuts.jsonl.gz, or DIR/NAME for short), each a stretch of one file with one channel; JSON
    lines (`audio` and `text`, perhaps `id` and `speaker`; FunASR's `source`, `target`, `key`); or a .tsv or .csv table
    of the same, its first line naming the columns or leaving them at audio and text. File names count from the
    manifest's directory, those of cuts from the current one. Raises DataError for what is none of these, for two
    utterances of one id, and for a line that cannot be used, which it names.
    """
    manifest = _manifest(data)
    rows = _table(manifest) if _is_table(manifest) else _json_lines(manifest)
    utterances: dict[str, Utterance] = {}
    for number, row in rows:
        try:
            utterance = _cut(row) if _is_cut(row) else _plain(row, manifest.parent)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{manifest}, line {number}: {_reason(error)}") from error
        if utterances.setdefault(utterance.id, utterance) is not utterance:
            raise DataError(f"{manifest}, line {number}: the id {utterance.id!r} was there before; give each its own")
    if not utterances:
        raise DataError(f"{manifest} holds no utterances")
    return list(utterances.values())


def _manifest(data: Path) -> Path:
    """The file to read: DIR/NAME stands for the cuts of a prepared set."""
    return data if data.name.endswith(_SUFFIXES) else data.with_name(data.name + _CUTS)


def _is_table(manifest: Path) -> bool:
    return manifest.suffix in (".tsv", ".csv")


def _is_cut(row: Mapping[str, Any]) -> bool:
    """Whether lhotse wrote it, for whom a MixedCut has tracks."""
    return "supervisions" in row or "tracks" in row


def _is_stretch(row: Mapping[str, Any]) -> bool:
    """Whether a cut is all or part of one file with one channel."""
    recording = row.get("recording", {})
    sources = recording.get("sources", [])
    files = [source for source in sources if source["type"] == "file" and len(source["channels"]) == 1]
    return row.get("type") == "MonoCut" and not recording.get("transforms") and len(files) == len(sources) == 1


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
            named = all(set(_NAMES[name]) & set(values) for name in ("audio", "text"))
            columns = values if named else ["audio", "text"]
            if named:
                continue
        yield number, dict(zip(columns, values, strict=False))


def _plain(row: Mapping[str, Any], directory: Path) -> Utterance:
    """An utterance of named values."""
    found = {name: next((row[n] for n in names if n in row), "") for name, names in _NAMES.items()}
    if not (isinstance(found["audio"], str) and found["audio"] and isinstance(found["text"], str)):
        raise DataError("it takes the name of an audio file and a text")
    path = directory / found["audio"]
    return Utterance(
        str(found["id"] or found["audio"]), found["text"], str(found["speaker"]), partial(audio.read, path)
    )


def _cut(row: Mapping[str, Any]) -> Utterance:
    """A cut as lhotse writes it."""
    if not _is_stretch(row):
        raise DataError("this cut is not a stretch of one file with one channel, as the first one is")
    recording = row["recording"]
    said = sorted(row["supervisions"], key=lambda one: one["start"])
    text = " ".join(one.get("text") or "" for one in said)
    speaker = "+".join(sorted({one.get("speaker") or "" for one in said}))
    whole = row["start"] == 0 and row["duration"] == recording["duration"]
    path = Path(recording["sources"][0]["source"])
    load = partial(audio.read, path) if whole else partial(_stretch, path, row["start"], row["duration"])
    return Utterance(row["id"], text, speaker, load)


def _stretch(path: Path, start_s: float, duration_s: float) -> Samples:
    """Part of a file. Raises AudioError if the file ends before it."""
    start, count = round(start_s * audio.SAMPLE_RATE), round(duration_s * audio.SAMPLE_RATE)
    samples = audio.read(path)[start : start + count]
    if not len(samples):
        raise AudioError(f"{path} ends before second {start_s:g}, where this utterance begins")
    return samples


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
