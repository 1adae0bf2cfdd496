"""Prepared sets: lhotse manifests as training reads them; and speech archives to plain audio files, once.

An archive is a tar of compressed utterances with a `manifest.jsonl`: one object per utterance with `id`, `audio`,
`text` (or `label` for noise), and `speaker` or `voices`. What it says is not trusted: an id names no place. Decoding
Opus costs more than the rest of the input pipeline together, so it is done here and not in every epoch.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import tarfile
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float32
from lhotse import AudioSource, CutSet, Recording, SupervisionSegment
from lhotse.cut import Cut, MonoCut

from paraformer import audio
from paraformer.audio import SAMPLE_RATE, Samples
from paraformer.bundle import naming, replacing
from paraformer.config import BLANK_ID, EOS_ID, SOS_ID
from paraformer.data.reading import VOICED, recorded, voiced_span
from paraformer.data.recordings import cut_of, moved, recording_of
from paraformer.data.shar import is_shar, open_shar
from paraformer.data.skips import EMPTY, ENTRY, TWICE, UNREADABLE, Skipped, Skips
from paraformer.errors import DataError, attempt
from paraformer.manifests import beside, from_json

CUTS = ".cuts.jsonl.gz"
"""What the name of a prepared set's manifest ends in."""
SPECIAL_TOKENS = ("<blank>", "<s>", "</s>")
UNKNOWN = "<unk>"
_PLAIN = re.compile(r"[\w-][\w.-]{0,49}")
"""An id that is the name of a file too, and of none elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One utterance of an archive as its manifest has it. audio: of a member of the tar."""

    id: str
    audio: str
    text: str
    speaker: str


def prepare(archives: Iterable[Path], directory: Path, skips: Skips | None = None) -> dict[str, CutSet]:
    """Unpack `archives` below `directory` and write the manifests of each; returns its cuts by archive name.

    An archive whose cuts are already there is read back, not unpacked again. Utterances that cannot be read go to
    `skips`. Raises DataError for an archive that is damaged, or holds none that can, and for two of one name.
    """
    archives, skips = list(archives), Skips() if skips is None else skips
    name, count = Counter(archive.stem for archive in archives).most_common(1)[0] if archives else ("", 0)
    if count > 1:
        raise DataError(f"{count} archives are called {name!r}, as their sets would be; rename all but one")
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
    """The cuts of `cuts_in`, in memory."""
    return CutSet.from_cuts(cuts_in(path))


def cuts_in(path: Path) -> Iterator[Cut]:
    """The cuts of a manifest; file names count from its directory or, if none is there, the current one.

    Raises DataError if it is damaged.
    """
    try:
        for cut in moved(CutSet.from_file(path), lambda file: str(beside(file, path.parent))):
            if not (cut.start >= 0 and 0 < cut.duration < math.inf):
                raise DataError(
                    f"{path}: cut {cut.id} begins at {cut.start} s and lasts {cut.duration} s; mend it or drop it"
                )
            yield cut
    except DataError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a manifest of cuts, or damaged; prepare it again: {error}") from error


def open_archive(archive: Path, skips: Skips) -> Iterator[MonoCut]:
    """The cuts of a speech archive with their audio in memory; what has no readable audio goes to `skips`.

    Raises DataError for a damaged archive.
    """
    for entry, read in _members(archive, skips):
        with attempt(entry.id) as opening:
            recording = recording_of(read(), entry.id)
        if opening.error is not None:
            recording = Skipped(entry.id, UNREADABLE, str(opening.error))
        if isinstance(recording, Skipped):
            skips.add(recording)
            continue
        yield cut_of(recording, _said(entry, recording.duration, entry.text))


@dataclass(frozen=True)
class Saved:
    """What a set that was written holds."""

    utterances: int
    seconds: float


def save_cuts(cuts: Iterable[Cut], directory: Path, name: str) -> Saved:
    """Write the manifests of a prepared set as its cuts come, each file in one move, cuts last.

    Files below `directory` are named from there, so that it can be moved as a whole, others from the root. Raises
    DataError for a set without cuts; then nothing is written.
    """
    cuts = iter(cuts)
    if (first := next(cuts, None)) is None:
        raise DataError(f"no usable utterance in {name}: nothing was written")
    root, known, count, seconds = directory.resolve(), set[str](), 0, 0.0
    with (
        _made(directory),
        _lines(directory / f"{name}{CUTS}") as cut_lines,
        _lines(directory / f"{name}.supervisions.jsonl.gz") as said_lines,
        _lines(directory / f"{name}.recordings.jsonl.gz") as recording_lines,
    ):
        for cut in moved(chain([first], cuts), lambda file: _named_from(root, file)):
            for recording in (part.recording for part in recorded(cut) if part.recording.id not in known):
                known.add(recording.id)
                recording_lines(recording)
            for said in cut.supervisions:
                said_lines(said)
            cut_lines(cut)
            count, seconds = count + 1, seconds + cut.duration
    return Saved(count, seconds)


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """A directory that is there, and not left empty where the block fails."""
    new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # somebody put something there
            if new:
                directory.rmdir()
        raise


@contextmanager
def _lines(path: Path) -> Iterator[Callable[[Any], None]]:
    """What writes lhotse's things to a file that is there when the block ends well. Equal things: equal bytes."""
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as text,
    ):
        yield lambda one: print(json.dumps(one.to_dict(), ensure_ascii=False), file=text)


def _named_from(directory: Path, file: str) -> str:
    """The name of a file that is right wherever a manifest in `directory` is read."""
    path = Path(file).resolve()
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


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
    cuts: list[MonoCut] = []
    names: set[str] = set()
    for entry, read in _members(archive, skips):
        samples = np.zeros(0, np.float32)
        with attempt(entry.id) as unpacking:
            samples = _decoded(entry, read())
        if unpacking.error is not None:
            skips.add(Skipped(entry.id, UNREADABLE, str(unpacking.error)))
            continue
        name = _file_name(entry.id, names)
        names.add(name.casefold())
        path = audio_directory / f"{name}.wav"
        _write_wave(samples, path)
        cuts.append(_describe(entry, path, samples))
    save_cuts(cuts, directory, archive.stem)
    return CutSet.from_cuts(cuts)


def _file_name(id_: str, taken: AbstractSet[str]) -> str:
    """What to call the file of an utterance, without suffix: as its id if that is a plain name, and a number else.

    taken: by others, in small letters: not every file system tells capitals apart.
    """
    plain = _PLAIN.fullmatch(id_) and unicodedata.is_normalized("NFC", id_)
    return id_ if plain and id_.casefold() not in taken else f"={len(taken):06d}"


def _members(archive: Path, skips: Skips) -> Iterator[tuple[Entry, Callable[[], bytes]]]:
    """The usable entries of an archive, no id twice, each with what reads the bytes of its audio; others to `skips`."""
    seen: set[str] = set()
    try:
        with tarfile.open(archive) as tar:
            for number, line in enumerate(_read_member(tar, "manifest.jsonl").decode("utf-8-sig").split("\n"), 1):
                entry = _entry(from_json(line), f"{archive.name}, line {number}") if line.strip() else None
                if isinstance(entry, Entry) and entry.id in seen:
                    entry = Skipped(entry.id, TWICE, f"{archive.name}, line {number}")
                if isinstance(entry, Skipped):
                    skips.add(entry)
                elif entry is not None:
                    seen.add(entry.id)
                    yield entry, partial(_read_member, tar, entry.audio)
    except DataError:
        raise
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{archive} is not a speech archive: {error}") from error


def _entry(values: Any, where: str) -> Entry | Skipped:
    """An entry of a manifest, or why it is none."""
    if not isinstance(values, dict):
        return Skipped(where, ENTRY, "it is not a JSON object")
    id_, text = values.get("id"), values.get("text")
    if isinstance(id_, bool) or not isinstance(id_, str | int) or id_ == "":
        return Skipped(where, ENTRY, "it has no id" if id_ in (None, "") else f"its id is {id_!r}")
    if not isinstance(values.get("audio"), str):
        return Skipped(str(id_), ENTRY, f"{where}: it names no audio")
    if not isinstance(text, str | None):
        return Skipped(str(id_), ENTRY, f"{where}: its text is {text!r}")
    if not text and "label" not in values:
        return Skipped(str(id_), EMPTY, where)
    if any("\ud800" <= character <= "\udfff" for character in f"{id_}{text}"):
        return Skipped(where, ENTRY, "its id or text holds half a character")
    speaker = values.get("speaker") or "+".join(map(str, values.get("voices") or ())) or "unknown"
    return Entry(id=str(id_), audio=values["audio"], text=text or "", speaker=str(speaker))


def _read_member(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    if member is None:
        raise DataError(f"{name} in {tar.name!r} is not a file")
    return member.read()


def _decoded(entry: Entry, data: bytes) -> Samples:
    """The samples of one utterance."""
    channels = [np.concatenate([np.zeros(0, np.float32), *blocks()]) for blocks in audio.channels_of(io.BytesIO(data))]
    samples = audio.mono(np.stack(channels, axis=1), SAMPLE_RATE, entry.id)
    if not len(samples):
        raise DataError(f"utterance {entry.id} holds no samples")
    return samples


def _write_wave(samples: Samples, path: Path) -> None:
    """In 16 bits. Raises OSError, which libsndfile would not tell from a sound that it cannot write."""
    wave = io.BytesIO()
    soundfile.write(wave, np.clip(samples, -1, 1), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    with naming(path):
        path.write_bytes(wave.getbuffer())


def _describe(entry: Entry, path: Path, samples: Float32[np.ndarray, "samples"]) -> MonoCut:
    duration = len(samples) / SAMPLE_RATE
    recording = Recording(
        id=entry.id,
        sources=[AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=SAMPLE_RATE,
        num_samples=len(samples),
        duration=duration,
    )
    return MonoCut(
        id=entry.id,
        start=0.0,
        duration=duration,
        channel=0,
        recording=recording,
        supervisions=[_said(entry, duration, spoken_text(entry.text))],
        custom={VOICED: list(voiced_span(samples))},
    )


def _said(entry: Entry, duration: float, text: str) -> SupervisionSegment:
    return SupervisionSegment(
        id=entry.id,
        recording_id=entry.id,
        start=0.0,
        duration=duration,
        text=text,
        speaker=entry.speaker,
        language="cmn",
    )
