"""Hugging Face audio data sets on this machine to cuts: saved by `save_to_disk`, or directories of parquet files.

lhotse.hf takes data sets whose audio is inside them only, and gives two equal recordings one id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lhotse import Recording, SupervisionSegment
from lhotse.cut import MonoCut

from paraformer.data.recordings import cut_of, recording_of
from paraformer.data.skips import MISSING, UNREADABLE, Skipped, Skips
from paraformer.errors import DataError, MissingExtra, attempt
from paraformer.manifests import ID_NAMES, SPEAKER_NAMES, TEXT_NAMES


def is_hugging_face(directory: Path) -> bool:
    """Whether a directory holds what `save_to_disk` writes, or parquet files."""
    saved = any((directory / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))
    return directory.is_dir() and (saved or any(directory.glob("**/*.parquet")))


def open_directory(directory: Path, skips: Skips) -> Iterator[MonoCut]:
    """The cuts of all splits in a directory. Raises DataError if it is no audio data set."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(f"reading {directory}", "hf") from error
    try:
        if list(directory.glob("dataset_*.json")):
            found = datasets.load_from_disk(str(directory))
        else:
            files = [str(path) for path in sorted(directory.glob("**/*.parquet"))]
            found = datasets.Dataset.from_parquet(files)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{directory} cannot be read as a Hugging Face data set: {error}") from error
    splits = found if isinstance(found, datasets.DatasetDict) else {"": found}
    for name, split in splits.items():
        yield from from_hugging_face(split, skips, prefix=f"{name}-" if name else "")


def from_hugging_face(dataset: Any, skips: Skips, prefix: str = "") -> Iterator[MonoCut]:
    """The cuts of a `datasets.Dataset`, streamed or not.

    prefix: of the number by which a row is called that has no id, or one that was there before: some data sets have ids
    of sentences, which several people read. Raises DataError if it has no column of audio, or none of text.
    """
    import datasets

    columns = dict(dataset.features or {})
    audio = next((name for name, kind in columns.items() if isinstance(kind, datasets.Audio)), None)
    text, speaker, id_ = (_column(columns, names) for names in (TEXT_NAMES, SPEAKER_NAMES, ID_NAMES))
    if audio is None or text is None:
        raise DataError(
            f"the data set has the columns {', '.join(columns) or '(unknown)'}, but training needs one of type Audio "
            f"and a text ({', '.join(TEXT_NAMES)}); cast or rename them"
        )
    taken: set[str] = set()
    for number, row in enumerate(dataset.cast_column(audio, datasets.Audio(decode=False))):
        name, place = str(row[id_]) if id_ else "", f"{prefix}{number:08d}"
        name = place if not name else f"{name}-{place}" if name in taken else name
        taken.add(name)
        recording: Recording | Skipped = Skipped(name, MISSING, "the row is empty")
        with attempt(name) as reading:
            recording = _recording(row[audio] or {}, name)
        if reading.error is not None:
            recording = Skipped(name, UNREADABLE, str(reading.error))
        if isinstance(recording, Skipped):
            skips.add(recording)
            continue
        said = SupervisionSegment(
            id=name,
            recording_id=name,
            start=0.0,
            duration=recording.duration,
            text=str(row[text] or ""),
            speaker=str(row[speaker]) if speaker else None,
            language="cmn",
        )
        yield cut_of(recording, said)


def _column(columns: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The column that has one of the usual names, in any case."""
    usual = {column.lower(): column for column in columns}
    return next((usual[name] for name in names if name in usual), None)


def _recording(audio: dict[str, Any], name: str) -> Recording | Skipped:
    """What one row holds: bytes of a file, or the path of one."""
    data, path = audio.get("bytes"), audio.get("path")
    if data is not None:
        return recording_of(data, name)
    return recording_of(Path(path), name) if path else Skipped(name, MISSING, "the row is empty")
