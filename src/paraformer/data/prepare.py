"""Prepared sets: lhotse manifests as training reads them; and speech archives to plain audio files, once.

An archive is a tar of compressed utterances with a `manifest.jsonl`: one object per utterance with `id`, `audio`,
`text` (or `label` for noise), and `speaker` or `voices`. Decoding Opus costs more than the rest of the input pipeline
together, so it is done here and not in every epoch.
"""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float32
from lhotse import AudioSource, CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.cut import Cut, MonoCut

from paraformer import audio
from paraformer.audio import SAMPLE_RATE
from paraformer.config import BLANK_ID, EOS_ID, SOS_ID
from paraformer.data.reading import VOICED, voiced_span
from paraformer.data.recordings import cut_of, moved, recording_of
from paraformer.data.shar import is_shar, open_shar
from paraformer.data.skips import UNREADABLE, Skipped, Skips
from paraformer.errors import DataError, attempt
from paraformer.manifests import beside

CUTS = ".cuts.jsonl.gz"
"""What the name of a prepared set's manifest ends in."""
SPECIAL_TOKENS = ("<blank>", "<s>", "</s>")
UNKNOWN = "<unk>"


def prepare(archives: Iterable[Path], directory: Path, skips: Skips | None = None) -> dict[str, CutSet]:
    """Unpack `archives` below `directory` and write the manifests of each; returns its cuts by archive name.

    An archive whose cuts are already there is read back, not unpacked again. Utterances that cannot be read go to
    `skips`. Raises DataError for an archive that is damaged, or holds none that can.
    """
    skips = Skips() if skips is None else skips
    return {archive.stem: _prepare_one(archive, directory, skips) for archive in archives}


def load_cuts(directory: Path, name: str) -> CutSet:
    """The cuts of one prepared set, in memory; those of Shar shards in `directory`/`name`, without their audio.

    Raises DataError if there are none.
    """
    if is_shar(directory / name):
        return open_shar(directory / name)
    path = directory / f"{name}{CUTS}"
    if not path.is_file():
        raise DataError(f"no prepared speech {name!r} in {directory}: prepare it first with `paraformer data prepare`")
    return read_cuts(path)


def read_cuts(path: Path) -> CutSet:
    """The cuts of a manifest, in memory; file names count from its directory or, if none is there, the current one.

    Raises DataError if it is damaged.
    """
    try:
        return moved(CutSet.from_file(path), lambda file: str(beside(file, path.parent)))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a manifest of cuts, or damaged; prepare it again: {error}") from error


def open_archive(archive: Path, skips: Skips) -> Iterator[MonoCut]:
    """The cuts of a speech archive with their audio in memory; what has no readable audio goes to `skips`.

    Raises DataError for a damaged archive.
    """
    for entry, read in _members(archive):
        with attempt(_id(entry)) as opening:
            recording = recording_of(read(), entry["id"])
        if opening.error is not None:
            recording = Skipped(_id(entry), UNREADABLE, str(opening.error))
        if isinstance(recording, Skipped):
            skips.add(recording)
            continue
        yield cut_of(recording, _said(entry, recording.duration, entry.get("text", "")))


def save_cuts(cuts: Iterable[Cut], directory: Path, name: str) -> CutSet:
    """Write the manifests of a prepared set, cuts last and each file in one move; returns the cuts.

    Files below `directory` are named from there, so that it can be moved as a whole, others from the root. Raises
    DataError for a set without cuts.
    """
    result = CutSet.from_cuts(cuts)
    if not len(result):
        raise DataError(f"no usable utterance in {name}: nothing was written")
    directory.mkdir(parents=True, exist_ok=True)
    written = moved(result, lambda file: _named_from(directory.resolve(), file))
    recordings = {cut.recording.id: cut.recording for cut in written}
    _write(RecordingSet.from_recordings(recordings.values()), directory / f"{name}.recordings.jsonl.gz")
    supervisions = SupervisionSet.from_segments(s for cut in written for s in cut.supervisions)
    _write(supervisions, directory / f"{name}.supervisions.jsonl.gz")
    _write(written, directory / f"{name}{CUTS}")
    return result


def _named_from(directory: Path, file: str) -> str:
    """The name of a file that is right wherever a manifest in `directory` is read."""
    path = Path(file).resolve()
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


def _write(manifest: CutSet | RecordingSet | SupervisionSet, path: Path) -> None:
    with NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".jsonl.gz", delete=False) as file:
        temporary = Path(file.name)
    try:
        manifest.to_file(temporary)
        temporary.chmod(0o644)  # a temporary file is its owner's alone
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def spoken_text(text: str) -> str:
    """What is spoken of a transcript: letters in lower case and digits, without punctuation, symbols and white space.

    One space stays between words of Latin letters.

    >>> spoken_text("你好，World 2！"), spoken_text("it's ok")
    ('你好world2', 'its ok')
    """
    characters = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")
    words = "".join(c if unicodedata.category(c)[0] in "LN" else " " for c in characters).split()
    return "".join(word + " " * _apart(word, after) for word, after in pairwise((*words, "")))


def _apart(word: str, after: str) -> bool:
    return bool(after) and word[-1].isascii() and word[-1].isalpha() and after[0].isascii() and after[0].isalpha()


def vocabulary(texts: Iterable[str]) -> tuple[str, ...]:
    """Tokens of a character model: the special ones, every character of `texts` in code order, the unknown one last.

    >>> vocabulary(["二一", "一"])
    ('<blank>', '<s>', '</s>', '一', '二', '<unk>')
    """
    characters = {character for text in texts for character in text if not character.isspace()}
    tokens = (*SPECIAL_TOKENS, *sorted(characters), UNKNOWN)
    assert (tokens[BLANK_ID], tokens[SOS_ID], tokens[EOS_ID]) == SPECIAL_TOKENS
    return tokens


def _prepare_one(archive: Path, directory: Path, skips: Skips) -> CutSet:
    if (directory / f"{archive.stem}{CUTS}").is_file():
        return load_cuts(directory, archive.stem)
    audio_directory = directory / "audio" / archive.stem
    audio_directory.mkdir(parents=True, exist_ok=True)
    cuts = []
    for entry, read in _members(archive):
        with attempt(_id(entry)) as unpacking:
            cuts.append(_unpack(entry, read(), audio_directory))
        if unpacking.error is not None:
            skips.add(Skipped(_id(entry), UNREADABLE, str(unpacking.error)))
    return save_cuts(cuts, directory, archive.stem)


def _id(entry: Mapping[str, Any]) -> str:
    """What to call an entry in a report."""
    return str(entry.get("id", entry))


def _members(archive: Path) -> Iterator[tuple[Mapping[str, Any], Callable[[], bytes]]]:
    """Manifest entries of an archive, each with what reads the bytes of its audio file."""
    try:
        with tarfile.open(archive) as tar:
            for line in _read_member(tar, "manifest.jsonl").decode().splitlines():
                entry = json.loads(line)
                yield entry, partial(_audio_of, tar, entry)
    except (OSError, KeyError, tarfile.TarError, json.JSONDecodeError) as error:
        raise DataError(f"{archive} is not a speech archive: {error}") from error


def _audio_of(tar: tarfile.TarFile, entry: Mapping[str, Any]) -> bytes:
    return _read_member(tar, entry["audio"])


def _read_member(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    if member is None:
        raise DataError(f"{name} in {tar.name!r} is not a file")
    return member.read()


def _unpack(entry: Mapping[str, Any], data: bytes, directory: Path) -> MonoCut:
    """Decode one utterance to a 16-bit wave file and describe it."""
    samples = audio.read(io.BytesIO(data))
    if not len(samples):
        raise DataError(f"utterance {entry['id']} holds no samples")
    path = directory / f"{entry['id']}.wav"
    soundfile.write(path, np.clip(samples, -1, 1), SAMPLE_RATE, subtype="PCM_16")
    return _describe(entry, path, samples)


def _describe(entry: Mapping[str, Any], path: Path, samples: Float32[np.ndarray, "samples"]) -> MonoCut:
    duration = len(samples) / SAMPLE_RATE
    recording = Recording(
        id=entry["id"],
        sources=[AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=SAMPLE_RATE,
        num_samples=len(samples),
        duration=duration,
    )
    supervision = _said(entry, duration, spoken_text(entry.get("text", "")))
    return MonoCut(
        id=entry["id"],
        start=0.0,
        duration=duration,
        channel=0,
        recording=recording,
        supervisions=[supervision],
        custom={VOICED: list(voiced_span(samples))},
    )


def _said(entry: Mapping[str, Any], duration: float, text: str) -> SupervisionSegment:
    return SupervisionSegment(
        id=entry["id"],
        recording_id=entry["id"],
        start=0.0,
        duration=duration,
        text=text,
        speaker=entry.get("speaker") or _voice_name(entry.get("voices", {})),
        language="cmn",
    )


def _voice_name(voices: Mapping[str, float]) -> str:
    return "+".join(voices) or "unknown"
