"""Lists of files and texts to cuts: Kaldi directories, FunASR's JSON lines, tables with a header.

A relative path is looked for beside its list, then from the current directory. Nothing is decoded here, only headers
are read; what has no file or no readable header is left out and reported, so that one bad line does not hide the rest
(lhotse.kaldi stops at the first one, and takes one sample rate for all files).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lhotse import Recording, SupervisionSegment
from lhotse.cut import MonoCut

from paraformer.data.recordings import cut_of, recording_of
from paraformer.data.skips import ENTRY, TWICE, Skipped, Skips
from paraformer.errors import DataError
from paraformer.manifests import TEXT_NAMES, Row, beside, json_rows, lines, listed, table_rows

_RECENT = 1000
"""Recordings that are remembered, since the lines of one stand together; not all of a corpus would fit into memory."""
_OVERSHOOT_S = 0.5
"""A stretch may end so long after its recording: Kaldi's own limit (extract-segments, --max-overshoot)."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One line of a list. end_s: None for the end of the file."""

    id: str
    audio: Path
    text: str
    speaker: str | None = None
    start_s: float = 0.0
    end_s: float | None = None


def kaldi(directory: Path) -> Iterator[Utterance]:
    """Utterances of a directory with wav.scp and text, perhaps segments and utt2spk; FunASR's pairs are such too.

    Raises DataError for lines that are not as Kaldi has them, and for commands in wav.scp: none is run.
    """
    files = _pairs(directory / "wav.scp")
    speakers = _pairs(directory / "utt2spk") if (directory / "utt2spk").is_file() else {}
    spans = _segments(directory / "segments") if (directory / "segments").is_file() else None
    for id_, text in _pairs(directory / "text").items():
        recording, start, end = spans.get(id_, (None, 0.0, None)) if spans is not None else (id_, 0.0, None)
        if (file := files.get(recording or "")) is None:
            raise DataError(
                f"{directory}/text has {id_!r}, of which wav.scp and segments know no audio; add or drop it"
            )
        if file.endswith("|"):
            raise DataError(f"{directory}/wav.scp has a command for {recording!r}; run it and list the file it makes")
        audio = beside(file, directory)
        yield Utterance(id=id_, audio=audio, text=text, speaker=speakers.get(id_), start_s=start, end_s=end)


def _pairs(path: Path) -> dict[str, str]:
    """The first word of each line and the rest of it. Raises DataError for an id that comes twice."""
    pairs: dict[str, str] = {}
    for number, line in lines(path):
        key, *rest = line.split(maxsplit=1)
        if key in pairs:
            raise DataError(f"{path}, line {number}: {key!r} was there before; give each utterance an id of its own")
        pairs[key] = "".join(rest).strip()
    return pairs


def _segments(path: Path) -> dict[str, tuple[str, float, float | None]]:
    """Recording, start and end of each utterance; an end of -1 is that of the recording."""
    spans: dict[str, tuple[str, float, float | None]] = {}
    for id_, rest in _pairs(path).items():
        try:
            recording, *times = rest.split()
            start, end = map(float, times)
            if not (math.isfinite(start) and math.isfinite(end)):
                raise ValueError("no time")
            spans[id_] = recording, start, None if end == -1 else end
        except ValueError as error:
            raise DataError(
                f"{path}: {id_!r} needs a recording, a start and an end in seconds, not {rest!r:.60}"
            ) from error
    return spans


def json_lines(path: Path) -> Iterator[Utterance]:
    """Utterances of JSON lines: FunASR's `key`, `source` and `target`, or other usual names.

    Raises DataError for a line that is no such object.
    """
    return (_utterance(row, path, number) for number, row in json_rows(path))


def table(path: Path) -> Iterator[Utterance]:
    """Utterances of a .csv or .tsv file whose first line names its columns. Raises DataError for missing columns."""
    return (_utterance(row, path, number) for number, row in table_rows(path))


def _utterance(row: Row, path: Path, number: int) -> Utterance:
    """An utterance of named values."""
    one = listed(row, path, number)
    if one.text is None:
        raise DataError(f"{path}, line {number}: needs a text (one of {', '.join(TEXT_NAMES)})")
    named = Path(one.written)
    id_ = one.id or (named.with_suffix("") if named.name else named).as_posix().lstrip("/") or one.written
    return Utterance(id=id_, audio=one.audio, text=one.text, speaker=one.speaker)


def to_cuts(utterances: Iterable[Utterance], skips: Skips) -> Iterator[MonoCut]:
    """A cut for each utterance whose file can be read; the others go to `skips`."""
    recordings: dict[Path, Recording | Skipped] = {}
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.audio not in recordings:
            if len(recordings) == _RECENT:
                del recordings[next(iter(recordings))]
            recordings[utterance.audio] = recording_of(utterance.audio, utterance.id)
        recording = recordings[utterance.audio]
        if utterance.id in seen:
            skips.add(Skipped(utterance.id, TWICE, str(utterance.audio)))
        elif isinstance(recording, Skipped):
            skips.add(Skipped(utterance.id, recording.reason, recording.detail))
        elif wrong := _beyond(utterance, recording.duration):
            skips.add(Skipped(utterance.id, ENTRY, wrong))
        else:
            seen.add(utterance.id)
            yield _cut(utterance, recording)


def _beyond(utterance: Utterance, duration: float) -> str:
    """What is wrong with the times of an utterance in a recording of so many seconds, nothing if they are within it."""
    start, end = utterance.start_s, duration if utterance.end_s is None else utterance.end_s
    if 0 <= start < min(end, duration) and end <= duration + _OVERSHOOT_S:
        return ""
    return f"{utterance.audio} is {duration:.2f} s long, which seconds {start:g} to {end:g} are no part of"


def _cut(utterance: Utterance, recording: Recording) -> MonoCut:
    """The cut of a line; its recording may be that of other lines too."""
    end = recording.duration if utterance.end_s is None else min(utterance.end_s, recording.duration)
    said = SupervisionSegment(
        id=utterance.id,
        recording_id=recording.id,
        start=utterance.start_s,
        duration=end - utterance.start_s,
        text=utterance.text,
        speaker=utterance.speaker,
        language="cmn",
    )
    return cut_of(recording, said)
