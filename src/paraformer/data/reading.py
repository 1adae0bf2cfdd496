"""The samples of a cut, 16 kHz and mono, from a file of its own, from memory, or from a shard; and where they speak."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from lhotse import AudioSource, Recording
from lhotse.audio.backend import get_current_audio_backend, set_current_audio_backend
from lhotse.augmentation import AudioTransform, Resample
from lhotse.cut import Cut, MixedCut, MonoCut, PaddingCut

from paraformer import audio
from paraformer.audio import SAMPLE_RATE, Samples
from paraformer.data.skips import EMPTY, MISSING, UNREADABLE, Skipped, Skips
from paraformer.errors import AudioError, AudioNotFound, ParaformerError, attempt
from paraformer.paths import is_file

SHARD = "shard"
"""Custom field of a cut whose audio lies in a tar: path, first byte, bytes."""

CHANNELS, MIX = "channels", "mix"
"""Custom field of a cut whose recording has several channels of which it is the mean."""
VOICED = "voiced"
"""Custom field of a cut: start and end of speech in it, seconds; joining leaves the rest out."""
_OFF_S = 0.05
"""By which the length of a file may be told otherwise, as decoders of mp3 do."""
_ENERGY_FRAME = 160
_VOICED_DB = -40.0
_VOICED_MARGIN_S = 0.1


def load(cut: Cut) -> Samples:
    """Samples of a cut, 16 kHz, as recognition hears the same file: the mean of its channels, resampled by one rule.

    A cut that names its channel itself, as those that others wrote may do, is that channel alone.
    Raises AudioError (AudioNotFound for a missing file) that names the cut and what is wrong with its audio.
    """
    samples: Samples = np.zeros(0, np.float32)
    with attempt(str(cut.id)) as reading, libsndfile():
        samples = _samples(cut)
    if reading.error is not None:
        raise _fault(cut, reading.error) from reading.error
    if not len(samples):
        raise AudioError(f"cut {cut.id} has no audio")
    return samples


def _samples(cut: Cut) -> Samples:
    """The sound of a cut; of one that was put together, each part at its place with silence between."""
    if isinstance(cut, MixedCut) and all(track.snr is None for track in cut.tracks) and not cut.transforms:
        samples = np.zeros(round(cut.duration * SAMPLE_RATE), np.float32)
        for track in cut.tracks:
            if not isinstance(track.cut, PaddingCut):
                place = samples[round(track.offset * SAMPLE_RATE) :]
                part = _samples(track.cut)[: len(place)]
                place[: len(part)] += part
        return samples
    if isinstance(cut, MonoCut):
        recording = _as_recorded(in_memory(cut).recording)
        _check_as_described(recording)
        channel = None if (cut.custom or {}).get(CHANNELS) == MIX else cut.channel
        sound = recording.load_audio(channels=channel, offset=cut.start, duration=cut.duration)
        return audio.mono(sound.T, recording.sampling_rate, str(cut.id))
    sound = cut.load_audio()
    return np.zeros(0, np.float32) if sound is None else audio.mono(sound.T, cut.sampling_rate, str(cut.id))


def _check_as_described(recording: Recording) -> None:
    """Raise AudioError for files that are no longer what the manifest says, which lhotse would not tell.

    It takes samples of any rate for those of the manifest's, and makes up half a second that is missing by mirroring.
    """
    if recording.transforms:
        return
    files = (source.source for source in recording.sources if source.type == "file")
    for file in (file for file in files if is_file(Path(file))):
        found = soundfile.info(file)
        if (
            found.samplerate != recording.sampling_rate
            or abs(found.frames - recording.num_samples) > _OFF_S * found.samplerate
        ):
            raise AudioError(
                f"{file} holds {found.duration:.2f} s at {found.samplerate} Hz, but {recording.duration:.2f} s at "
                f"{recording.sampling_rate} Hz when it was prepared; prepare it again"
            )


def _as_recorded(recording: Recording) -> Recording:
    """Without lhotse's resampling as its last change: all resampling is `paraformer.audio`'s."""
    *before, last = recording.transforms or [None]
    change = AudioTransform.from_dict(last) if isinstance(last, dict) else last
    if not isinstance(change, Resample):
        return recording
    rate = change.source_sampling_rate
    return dataclasses.replace(
        recording, sampling_rate=rate, num_samples=round(recording.duration * rate), transforms=before or None
    )


def _fault(cut: Cut, error: ParaformerError) -> AudioError:
    """What is wrong with the audio of a cut that could not be read; of one that was put together, with which part."""
    for part in _parts(cut) if isinstance(cut, MixedCut) else ():
        try:
            load(part)
        except AudioError as its:
            return its
    if path := missing_file(cut):
        return AudioNotFound(f"the audio of {cut.id} is missing: there is no file {path}")
    return AudioError(f"the audio of {cut.id} cannot be read: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """What was said first: lhotse raises errors again with advice, and with a TypeError where libsndfile has none."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return " ".join(str(error).split()) or type(error).__name__


def readable(cuts: Iterable[Cut], skips: Skips) -> Iterator[tuple[Cut, Samples]]:
    """The cuts whose audio can be read, with their samples; the others go to `skips`."""
    for cut in cuts:
        samples: Samples = np.zeros(0, np.float32)
        with attempt(name_of(cut)) as reading:
            samples = load(cut)
        if reading.error is None:
            yield cut, samples
        else:
            skips.add(skipped(cut, reading.error))


def spoken(cuts: Iterable[Cut], skips: Skips) -> Iterator[Cut]:
    """The cuts in which something is said, if their texts are right; the others go to `skips`."""
    for cut in cuts:
        if any((said.text or "").strip() for said in cut.supervisions):
            yield cut
        else:
            skips.add(Skipped(name_of(cut), EMPTY))


def measured(cuts: Iterable[Cut], skips: Skips) -> Iterator[Cut]:
    """The readable cuts, each with the custom field that joining needs."""
    for cut, samples in readable(cuts, skips):
        cut.custom = {**(cut.custom or {}), VOICED: list(voiced_span(samples))}
        yield cut


def skipped(cut: Cut, error: ParaformerError) -> Skipped:
    """What `attempt` found wrong with a cut, for a report."""
    return Skipped(name_of(cut), MISSING if isinstance(error, AudioNotFound) else UNREADABLE, str(error))


def at_rate(cut: Cut) -> Cut:
    """The cut at 16 kHz, resampled by lhotse whenever it is loaded; as it is if that is its rate."""
    return cut if cut.sampling_rate == SAMPLE_RATE else cut.resample(SAMPLE_RATE)


def in_memory(cut: MonoCut) -> MonoCut:
    """The cut with the bytes of its shard read, ready to be decoded; as it is if it is not from a shard."""
    if SHARD not in (cut.custom or {}):
        return cut
    path, offset, size = cut.custom[SHARD]
    with Path(path).open("rb") as file:
        file.seek(offset)
        source = AudioSource(type="memory", channels=[cut.channel], source=file.read(size))
    return dataclasses.replace(cut, recording=dataclasses.replace(cut.recording, sources=[source]))


def files_of(cut: Cut) -> list[str]:
    """The files in which the sound of a cut is."""
    parts = recorded(cut)
    shards = [part.custom[SHARD][0] for part in parts if SHARD in (part.custom or {})]
    sources = [source for part in parts for source in part.recording.sources]
    return [*shards, *(source.source for source in sources if source.type == "file")]


def in_files(cut: Cut) -> bool:
    """Whether a manifest can name where the sound of a cut is; that of some comes with the data itself."""
    return all(source.type != "memory" for part in recorded(cut) for source in part.recording.sources)


def recorded(cut: Cut) -> list[Cut]:
    """The cuts of recordings that a cut was put together from: of most, itself."""
    return [part for part in _parts(cut) if part.has_recording]


def missing_file(cut: Cut) -> str | None:
    """The first file of a cut that is not there."""
    return next((path for path in files_of(cut) if not is_file(Path(path))), None)


def _parts(cut: Cut) -> list[Cut]:
    """The cuts that a cut was put together from, without silences."""
    parts = [track.cut for track in cut.tracks] if isinstance(cut, MixedCut) else [cut]
    return [part for part in parts if not isinstance(part, PaddingCut)]


def name_of(cut: Cut) -> str:
    """What to call a cut in reports: the ids of what was joined into it, whose own id is random."""
    return "+".join(said.id for said in cut.supervisions) or str(cut.id)


@contextmanager
def libsndfile() -> Iterator[None]:
    """Let lhotse decode with libsndfile alone: it would start FFmpeg for .opus, which libsndfile reads by itself."""
    before = get_current_audio_backend()
    set_current_audio_backend("LibsndfileBackend")
    try:
        yield
    finally:
        set_current_audio_backend(before)


def voiced_span(samples: Samples) -> tuple[float, float]:
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
