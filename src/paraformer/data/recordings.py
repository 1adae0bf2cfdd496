"""Audio files and what is said in them, as lhotse describes them. Only headers are read."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import soundfile
from lhotse import AudioSource, Recording, SupervisionSegment
from lhotse.cut import Cut, MixedCut, MonoCut

from paraformer.audio import Channel
from paraformer.data.reading import CHANNELS, MIX
from paraformer.data.skips import MISSING, UNREADABLE, Skipped, Skips
from paraformer.errors import attempt
from paraformer.paths import is_file


def recording_of(audio: Path | bytes, name: str) -> Recording | Skipped:
    """The recording in a file, or in the bytes of one; or why there is none."""
    where = str(audio) if isinstance(audio, Path) else "its audio"
    header = None
    with attempt(where) as reading:
        header = soundfile.info(str(audio) if isinstance(audio, Path) else io.BytesIO(audio))
    if header is None:
        if isinstance(audio, Path) and not is_file(audio):
            return Skipped(name, MISSING, where)
        reason = getattr(reading.error.__cause__, "error_string", reading.error) if reading.error else ""
        return Skipped(name, UNREADABLE, f"{where}: {reason}")
    if header.frames <= 0:
        return Skipped(name, UNREADABLE, f"{where} holds no samples")
    channels = list(range(header.channels))
    kind, held = ("file", where) if isinstance(audio, Path) else ("memory", audio)
    return Recording(
        id=name,
        sources=[AudioSource(type=kind, channels=channels, source=held)],
        sampling_rate=header.samplerate,
        num_samples=header.frames,
        duration=header.frames / header.samplerate,
    )


def cut_of(recording: Recording, said: SupervisionSegment) -> MonoCut:
    """The stretch of a recording in which something is said, as a cut of that id; their mean, of several channels."""
    start, end = max(0.0, said.start), min(said.end, recording.duration)
    inside = dataclasses.replace(said, start=0.0, duration=end - start, channel=0)
    custom = {CHANNELS: MIX} if recording.num_channels > 1 else None
    return MonoCut(
        id=said.id,
        start=start,
        duration=end - start,
        channel=0,
        recording=recording,
        supervisions=[inside],
        custom=custom,
    )


def on_channel(cuts: Iterable[Cut], channel: Channel, skips: Skips) -> Iterator[Cut]:
    """The same cuts, heard on one channel of their recordings, counted from 1; those without it go to `skips`.

    "mix": as they are.
    """
    for cut in cuts:
        if channel == "mix":
            yield cut
        elif isinstance(cut, MonoCut) and channel <= cut.recording.num_channels:
            custom = {key: value for key, value in (cut.custom or {}).items() if key != CHANNELS}
            number = sorted(cut.recording.channel_ids)[channel - 1]
            yield dataclasses.replace(cut, channel=number, custom=custom or None)
        else:
            skips.add(Skipped(cut.id, UNREADABLE, f"there is no channel {channel}"))


def moved(cuts: Iterable[Cut], rename: Callable[[str], str]) -> Iterator[Cut]:
    """The same cuts, each file of their audio by the name that `rename` gives it."""
    return (_moved(cut, rename) for cut in cuts)


def _moved(cut: Cut, rename: Callable[[str], str]) -> Cut:
    if isinstance(cut, MixedCut):
        tracks = [dataclasses.replace(track, cut=_moved(track.cut, rename)) for track in cut.tracks]
        return dataclasses.replace(cut, tracks=tracks)
    if not isinstance(cut, MonoCut) or cut.recording is None:
        return cut
    sources = [
        dataclasses.replace(source, source=rename(source.source)) if source.type == "file" else source
        for source in cut.recording.sources
    ]
    return dataclasses.replace(cut, recording=dataclasses.replace(cut.recording, sources=sources))
