"""Speech archives to plain audio files and lhotse manifests, once, before training.

An archive is a tar of compressed utterances with a `manifest.jsonl`: one object per utterance with `id`, `audio`,
`text` (or `label` for noise), and `speaker` or `voices`. Decoding Opus costs more than the rest of the input pipeline
together, so it is done here and not in every epoch.
"""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float32
from lhotse import AudioSource, CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.cut import MonoCut

from paraformer.config import BLANK_ID, EOS_ID, SOS_ID
from paraformer.errors import DataError

SAMPLE_RATE = 16000
SPECIAL_TOKENS = ("<blank>", "<s>", "</s>")
UNKNOWN = "<unk>"
_ENERGY_FRAME = 160
_VOICED_DB = -40.0
_VOICED_MARGIN_S = 0.1


def prepare(archives: Iterable[Path], directory: Path) -> dict[str, CutSet]:
    """Unpack `archives` below `directory` and write the manifests of each; returns its cuts by archive name.

    An archive whose cuts are already there is read back, not unpacked again. Raises DataError for a damaged one.
    """
    return {archive.stem: _prepare_one(archive, directory) for archive in archives}


def load_cuts(directory: Path, name: str) -> CutSet:
    """The cuts that `prepare` wrote for one archive, in memory. Raises DataError if there are none."""
    path = directory / f"{name}.cuts.jsonl.gz"
    if not path.is_file():
        raise DataError(f"no prepared speech {name!r} in {directory}: run prepare on its archive first")
    return CutSet.from_file(path).to_eager()


def spoken_text(text: str) -> str:
    """What is spoken of a transcript: punctuation, symbols and white space removed, letters in lower case."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if unicodedata.category(c)[0] in "LN")


def vocabulary(texts: Iterable[str]) -> tuple[str, ...]:
    """Tokens of a character model: the special ones, every character of `texts` in code order, the unknown one last."""
    tokens = (*SPECIAL_TOKENS, *sorted({character for text in texts for character in text}), UNKNOWN)
    assert (tokens[BLANK_ID], tokens[SOS_ID], tokens[EOS_ID]) == SPECIAL_TOKENS
    return tokens


def voiced_span(samples: Float32[np.ndarray, "samples"]) -> tuple[float, float]:
    """Start and end, seconds, of what is within 40 dB of the loudest 10 ms, with 100 ms on either side."""
    duration = len(samples) / SAMPLE_RATE
    frames = len(samples) // _ENERGY_FRAME
    if frames == 0:
        return 0.0, duration
    energy = np.square(samples[: frames * _ENERGY_FRAME]).reshape(frames, _ENERGY_FRAME).mean(axis=1)
    voiced = np.flatnonzero(energy >= energy.max() * 10 ** (_VOICED_DB / 10))
    step = _ENERGY_FRAME / SAMPLE_RATE
    start, end = voiced[0] * step - _VOICED_MARGIN_S, (voiced[-1] + 1) * step + _VOICED_MARGIN_S
    return max(0.0, float(start)), min(duration, float(end))


def _prepare_one(archive: Path, directory: Path) -> CutSet:
    if (directory / f"{archive.stem}.cuts.jsonl.gz").is_file():
        return load_cuts(directory, archive.stem)
    audio_directory = directory / "audio" / archive.stem
    audio_directory.mkdir(parents=True, exist_ok=True)
    cuts = [_unpack(entry, data, audio_directory) for entry, data in _members(archive)]
    recordings = RecordingSet.from_recordings(cut.recording for cut in cuts)
    supervisions = SupervisionSet.from_segments(s for cut in cuts for s in cut.supervisions)
    recordings.to_file(directory / f"{archive.stem}.recordings.jsonl.gz")
    supervisions.to_file(directory / f"{archive.stem}.supervisions.jsonl.gz")
    result = CutSet.from_cuts(cuts)
    result.to_file(directory / f"{archive.stem}.cuts.jsonl.gz")
    return result


def _members(archive: Path) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Manifest entries of an archive, each with the bytes of its audio file."""
    try:
        with tarfile.open(archive) as tar:
            for line in _read_member(tar, "manifest.jsonl").decode().splitlines():
                entry = json.loads(line)
                yield entry, _read_member(tar, entry["audio"])
    except (OSError, KeyError, tarfile.TarError, json.JSONDecodeError) as error:
        raise DataError(f"{archive} is not a speech archive: {error}") from error


def _read_member(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    if member is None:
        raise DataError(f"{name} in {tar.name!r} is not a file")
    return member.read()


def _unpack(entry: Mapping[str, Any], data: bytes, directory: Path) -> MonoCut:
    """Decode one utterance to a 16-bit wave file and describe it."""
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    except soundfile.LibsndfileError as error:
        raise DataError(f"utterance {entry['id']} does not decode: {error}") from error
    if rate != SAMPLE_RATE or samples.ndim != 1 or not len(samples):
        raise DataError(f"utterance {entry['id']} is not 16 kHz mono speech")
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
    supervision = SupervisionSegment(
        id=entry["id"],
        recording_id=entry["id"],
        start=0.0,
        duration=duration,
        text=spoken_text(entry.get("text", "")),
        speaker=entry.get("speaker") or _voice_name(entry.get("voices", {})),
        language="cmn",
    )
    return MonoCut(
        id=entry["id"],
        start=0.0,
        duration=duration,
        channel=0,
        recording=recording,
        supervisions=[supervision],
        custom={"voiced": list(voiced_span(samples))},
    )


def _voice_name(voices: Mapping[str, float]) -> str:
    return "+".join(voices) or "unknown"
