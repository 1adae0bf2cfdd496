"""The samples of a cut, 16 kHz and mono, from a file of its own, from memory, or from a shard; and where they speak."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32
from lhotse import AudioSource
from lhotse.audio.backend import get_current_audio_backend, set_current_audio_backend
from lhotse.audio.utils import AudioLoadingError, DurationMismatchError
from lhotse.cut import Cut, MixedCut, MonoCut, PaddingCut

from paraformer.config import FrontendConfig
from paraformer.data.skips import MISSING, UNREADABLE, Skipped, Skips
from paraformer.errors import AudioError, AudioNotFound

SAMPLE_RATE = FrontendConfig().sample_rate
SHARD = "shard"
"""Custom field of a cut whose audio lies in a tar: path, first byte, bytes."""

VOICED = "voiced"
"""Custom field of a cut: start and end of speech in it, seconds; joining leaves the rest out."""
_ENERGY_FRAME = 160
_VOICED_DB = -40.0
_VOICED_MARGIN_S = 0.1

Samples = Float32[np.ndarray, "samples"]

_FAULTS = (
    AudioLoadingError,
    DurationMismatchError,
    soundfile.SoundFileError,
    AssertionError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What lhotse and libsndfile raise for files that are damaged, cut short, or other than their manifest says."""


def load(cut: Cut) -> Samples:
    """Samples of a cut, 16 kHz; of several channels the first.

    Raises AudioError (AudioNotFound for a missing file) that names the cut and what is wrong with its audio.
    """
    try:
        with libsndfile():
            audio = at_rate(in_memory(cut)).load_audio()
    except _FAULTS as error:
        for part in _parts(cut) if isinstance(cut, MixedCut) else ():
            load(part)  # one of them raises the error that names it
        if path := missing_file(cut):
            raise AudioNotFound(f"the audio of {cut.id} is missing: there is no file {path}") from error
        raise AudioError(f"the audio of {cut.id} cannot be read: {_reason(error)}") from error
    if audio is None or audio.shape[-1] == 0:
        raise AudioError(f"cut {cut.id} has no audio")
    if not np.isfinite(audio[0]).all():
        raise AudioError(f"the audio of {cut.id} holds samples that are not finite numbers")
    return np.ascontiguousarray(audio[0], dtype=np.float32)


def _reason(error: BaseException) -> str:
    """What was said first: lhotse raises errors again with advice, and with a TypeError where libsndfile has none."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return " ".join(str(error).split()) or type(error).__name__


def readable(cuts: Iterable[Cut], skips: Skips) -> Iterator[tuple[Cut, Samples]]:
    """The cuts whose audio can be read, with their samples; the others go to `skips`."""
    for cut in cuts:
        try:
            samples = load(cut)
        except AudioError as error:
            skips.add(skipped(cut, error))
        else:
            yield cut, samples


def measured(cuts: Iterable[Cut], skips: Skips) -> Iterator[Cut]:
    """The readable cuts, each with the custom field that joining needs."""
    for cut, samples in readable(cuts, skips):
        cut.custom = {**(cut.custom or {}), VOICED: list(voiced_span(samples))}
        yield cut


def skipped(cut: Cut, error: AudioError) -> Skipped:
    """What `load` said of a cut, for a report."""
    return Skipped(name_of(cut), MISSING if isinstance(error, AudioNotFound) else UNREADABLE, str(error))


def at_rate(cut: Cut) -> Cut:
    """The cut at 16 kHz, resampled by lhotse whenever it is loaded; as it is if that is its rate."""
    return cut if cut.sampling_rate == SAMPLE_RATE else cut.resample(SAMPLE_RATE)


def in_memory(cut: Cut) -> Cut:
    """The cut with the bytes of its shards read, ready to be decoded; as it is if it is not from a shard."""
    if isinstance(cut, MixedCut):
        tracks = [dataclasses.replace(track, cut=in_memory(track.cut)) for track in cut.tracks]
        return dataclasses.replace(cut, tracks=tracks)
    if not isinstance(cut, MonoCut) or SHARD not in (cut.custom or {}):
        return cut
    path, offset, size = cut.custom[SHARD]
    with Path(path).open("rb") as file:
        file.seek(offset)
        source = AudioSource(type="memory", channels=[cut.channel], source=file.read(size))
    return dataclasses.replace(cut, recording=dataclasses.replace(cut.recording, sources=[source]))


def missing_file(cut: Cut) -> str | None:
    """The first file of a cut that is not there."""
    sources = [source for part in _parts(cut) if part.has_recording for source in part.recording.sources]
    paths = [source.source for source in sources if source.type == "file"]
    return next((path for path in paths if not Path(path).is_file()), None)


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
