"""What a model is evaluated on: recordings, or stretches of them, with their transcripts.

Read without lhotse and the torch that it requires: its plain cuts (a stretch of a single-channel file, as
`paraformer.data.prepare` writes them), JSON lines, and tables.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from paraformer import audio
from paraformer.errors import AudioError, DataError
from paraformer.manifests import Row, Samples, Utterance, beside, json_rows, listed, speakers, table_rows

__all__ = ["Utterance", "is_plain", "read_utterances"]

_CUTS = ".cuts.jsonl.gz"
_OVERSHOOT = audio.SAMPLE_RATE // 2
"""Samples that an utterance may end after its file, as Kaldi has it (extract-segments, --max-overshoot)."""
_SUFFIXES = (".jsonl", ".jsonl.gz", ".tsv", ".csv")


def is_plain(data: Path) -> bool:
    """Whether `read_utterances` is for this kind of data. Of cuts the first one tells. Raises DataError as it does."""
    if not (data.name.endswith(_SUFFIXES) or _manifest(data).is_file()):
        return False
    if _is_table(data):
        return True
    first = next(json_rows(_manifest(data)), (0, {}))[1]
    return not _is_cut(first) or _is_stretch(first)


def read_utterances(data: Path, channel: audio.Channel = "mix") -> list[Utterance]:
    """The utterances of a manifest, in its order; channel: what is heard of recordings with several.

    data: lhotse cuts (DIR/NAME.cuts.jsonl.gz, or DIR/NAME for short), each a stretch of one file with one channel; JSON
    lines of which `paraformer.manifests` knows the names (`audio` and `text`, perhaps `id` and `speaker`); or a .tsv or
    .csv table of the same, its first line naming the columns or leaving them at audio and text. File names count from
    the manifest's directory or, if none is there, from the current one. Raises DataError for what is none of these, for
    two utterances of one id, and for a line that cannot be used, which it names.
    """
    manifest = _manifest(data)
    rows = table_rows(manifest, ("audio", "text")) if _is_table(manifest) else json_rows(manifest)
    utterances: dict[str, Utterance] = {}
    for number, row in rows:
        utterance = (_cut if _is_cut(row) else _listed)(row, manifest, number, channel)
        if utterances.setdefault(utterance.id, utterance) is not utterance:
            raise DataError(f"{manifest}, line {number}: the id {utterance.id!r} was there before; give each its own")
    if not utterances:
        raise DataError(f"{manifest} holds no utterances")
    return list(utterances.values())


def _manifest(data: Path) -> Path:
    """The file to read: DIR/NAME stands for the cuts of a prepared set."""
    return data if data.name.endswith(_SUFFIXES) else data.parent / (data.name + _CUTS)


def _is_table(manifest: Path) -> bool:
    return manifest.suffix in (".tsv", ".csv")


def _is_cut(row: Row) -> bool:
    """Whether lhotse wrote it, for whom a MixedCut has tracks."""
    return "supervisions" in row or "tracks" in row


def _is_stretch(row: Row) -> bool:
    """Whether a cut is all or part of one file with one channel."""
    recording = row.get("recording", {})
    sources = recording.get("sources", [])
    files = [source for source in sources if source["type"] == "file" and len(source["channels"]) == 1]
    return row.get("type") == "MonoCut" and not recording.get("transforms") and len(files) == len(sources) == 1


def _listed(row: Row, manifest: Path, number: int, channel: audio.Channel) -> Utterance:
    """An utterance of named values."""
    one = listed(row, manifest, number)
    load = partial(audio.read, one.audio, channel=channel)
    return Utterance(one.id or one.written, one.text or "", speakers([one.speaker]), load)


def _cut(row: Row, manifest: Path, number: int, channel: audio.Channel) -> Utterance:
    """A cut as lhotse writes it. Raises DataError, naming the line, where it is another kind of cut, or none at all."""
    try:
        return _as_stretch(row, manifest.parent, channel)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DataError(f"{manifest}, line {number}: {reason}") from error


def _as_stretch(row: Row, directory: Path, channel: audio.Channel) -> Utterance:
    if not _is_stretch(row):
        raise DataError("this cut is not a stretch of one file with one channel, as the first one is")
    recording = row["recording"]
    said = sorted(row["supervisions"], key=lambda one: one["start"])
    text = " ".join(one.get("text") or "" for one in said)
    speaker = speakers(one.get("speaker") for one in said)
    whole = row["start"] == 0 and row["duration"] == recording["duration"]
    path = beside(recording["sources"][0]["source"], directory)
    load = partial(audio.read, path) if whole else partial(_stretch, path, row["start"], row["duration"])
    return Utterance(row["id"], text, speaker, partial(load, channel=channel))


def _stretch(path: Path, start_s: float, duration_s: float, *, channel: audio.Channel) -> Samples:
    """Part of a file. Raises AudioError if the file does not hold it, but for its last half second."""
    samples = audio.read(path, channel=channel)
    start, end = (round(at_s * audio.SAMPLE_RATE) for at_s in (start_s, start_s + duration_s))
    if not 0 <= start < end:
        raise AudioError(f"{path} has no seconds {start_s:g} to {start_s + duration_s:g}")
    if start >= len(samples):
        raise AudioError(f"{path} ends before second {start_s:g}, where this utterance begins")
    if end > len(samples) + _OVERSHOOT:
        raise AudioError(f"{path} ends long before second {start_s + duration_s:g}, where this utterance does")
    return samples[start:end]
