"""Lhotse Shar: many utterances in few large files, for data that is too large or too many files for plain audio.

`cuts.000000.jsonl.gz` describes the utterances whose audio is in `recording.000000.tar`, and so on. The manifests are
held in memory, about 2 kB for an utterance; audio is read from its place in the tar when a batch needs it. So shards
are shuffled, joined, bucketed and resumed exactly as plain files are, and damage costs only the utterances it hits:
lhotse's own reader goes through a shard in order, and a damaged member ends it without a word.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lhotse import AudioSource, CutSet, Recording
from lhotse.cut import Cut, MonoCut
from lhotse.shar import AudioTarWriter, JsonlShardWriter

from paraformer.audio import SAMPLE_RATE, Samples
from paraformer.bundle import naming
from paraformer.data.reading import SHARD, VOICED, libsndfile, name_of, readable, skipped, voiced_span
from paraformer.data.skips import TWICE, UNREADABLE, Skipped, Skips
from paraformer.errors import DataError, attempt

SHARD_SIZE = 1000
"""Utterances in a shard: about 100 MB."""
_log = logging.getLogger(__name__)
_METADATA = ("json", "nometa", "nodata")
Place = tuple[int, int]
"""First byte and bytes of a member."""


def is_shar(directory: Path) -> bool:
    """Whether a directory holds Shar shards."""
    return directory.is_dir() and any(directory.glob("cuts.*.jsonl*")) and any(directory.glob("recording.*"))


def open_shar(directory: Path, skips: Skips | None = None) -> CutSet:
    """The cuts of all shards, in memory, each knowing where its audio lies. What is damaged goes to `skips`.

    Raises DataError for a directory without shards, or with manifests but no audio for them.
    """
    skips = Skips() if skips is None else skips
    manifests = sorted(directory.glob("cuts.*.jsonl*"))
    if not manifests:
        raise DataError(f"{directory} holds no Shar shards: there is no cuts.000000.jsonl.gz")
    return CutSet.from_cuts(cut for path in manifests for cut in _open_shard(path, skips))


def _open_shard(manifest: Path, skips: Skips) -> Iterator[Cut]:
    archive = manifest.with_name(f"recording.{manifest.name.split('.')[1]}.tar")
    if not archive.is_file():
        raise DataError(f"{manifest} has no {archive.name} beside it; copy the whole shard, uncompressed")
    places, cuts = _places(archive), list(_described(manifest, skips))
    counts = Counter(cut.id for cut in cuts)
    for cut in cuts:
        if counts[cut.id] > 1:
            skips.add(Skipped(cut.id, TWICE, f"which of its sounds in {archive} is this one's cannot be told"))
        elif (place := places.get(cut.id)) is None:
            skips.add(Skipped(cut.id, UNREADABLE, f"{archive} is damaged where it was"))
        else:
            cut.custom = {**(cut.custom or {}), SHARD: [str(archive), *place]}
            yield cut


def _described(manifest: Path, skips: Skips) -> Iterator[Cut]:
    """The cuts of a manifest, up to where it breaks off."""
    try:
        yield from CutSet.from_jsonl_lazy(manifest)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        skips.add(Skipped(str(manifest), UNREADABLE, f"the rest of this shard is lost: {error}"))


def _places(archive: Path) -> Mapping[str, Place]:
    """Where the audio of each cut lies in a tar; after damage the next sound member is searched for."""
    size, found = archive.stat().st_size, {}
    try:
        with tarfile.open(archive, "r:", ignore_zeros=True) as tar:
            for member in tar:
                id_, _, kind = member.name.rpartition(".")
                if kind not in _METADATA and member.offset_data + member.size <= size:
                    found[id_] = member.offset_data, member.size
    except (tarfile.TarError, OSError, ValueError) as error:
        _log.warning("%s is damaged after %d utterances: %s", archive, len(found), error)
    return found


def write_shar(cuts: Iterable[Cut], directory: Path, skips: Skips) -> int:
    """Write the audio of `cuts` as 16 kHz FLAC shards into a new directory; returns how many there are.

    What cannot be read goes to `skips`, and what has the id of another: a shard knows sounds by their ids. Raises
    DataError if the directory is there already, or nothing can be used.
    """
    if directory.exists():
        raise DataError(f"{directory} is there already; name a new directory for the shards")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with naming(directory, partial):
            partial.mkdir(parents=True)
            packed = _packed(cuts, partial, skips)
            if not packed:
                raise DataError(f"no usable utterance for {directory}: nothing was written")
            partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return packed


def _packed(cuts: Iterable[Cut], directory: Path, skips: Skips) -> int:
    """Write the shards; returns how many utterances are in them. Raises OSError."""
    packed: set[str] = set()
    with (
        JsonlShardWriter(str(directory / "cuts.%06d.jsonl.gz"), shard_size=SHARD_SIZE) as described,
        AudioTarWriter(str(directory / "recording.%06d.tar"), shard_size=SHARD_SIZE, format="flac") as sounding,
    ):
        for cut, samples in readable(cuts, skips):
            if cut.id in packed:
                skips.add(Skipped(name_of(cut), TWICE))
                continue
            with attempt(cut.id) as packing, libsndfile():
                recording = _recording(cut.id, len(samples))
                sounding.write(cut.id, samples[None], SAMPLE_RATE, manifest=recording)
                described.write(_placed(cut, recording, samples))
                packed.add(cut.id)
            if packing.error is not None:
                if isinstance(cause := packing.error.__cause__, OSError):
                    raise cause  # the disk's fault, not that of what is written
                skips.add(skipped(cut, packing.error))
    return len(packed)


def _recording(id_: str, samples: int) -> Recording:
    """A recording of one channel whose samples lie in a shard."""
    source = AudioSource(type="shar", channels=[0], source="")
    return Recording(
        id=id_, sources=[source], sampling_rate=SAMPLE_RATE, num_samples=samples, duration=samples / SAMPLE_RATE
    )


def _placed(cut: Cut, recording: Recording, samples: Samples) -> MonoCut:
    """The cut of a recording that holds nothing else."""
    custom = {key: value for key, value in (cut.custom or {}).items() if key != SHARD}
    said = [dataclasses.replace(s, recording_id=recording.id, channel=0) for s in cut.supervisions]
    return MonoCut(
        id=cut.id,
        start=0.0,
        duration=recording.duration,
        channel=0,
        recording=recording,
        supervisions=said,
        custom={**custom, VOICED: list(voiced_span(samples))},
    )
