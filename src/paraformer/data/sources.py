"""The front door: one function that opens speech with transcripts of any known kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut

from paraformer.audio import Channel
from paraformer.data import hugging_face, tables
from paraformer.data.prepare import CUTS, cuts_in, open_archive
from paraformer.data.recordings import on_channel
from paraformer.data.shar import is_shar, open_shar
from paraformer.data.skips import Skips
from paraformer.errors import DataError
from paraformer.manifests import opened
from paraformer.paths import is_file, is_there

KNOWN = (
    "a directory of prepared sets or one NAME.cuts.jsonl.gz of them, a directory of Shar shards, a Kaldi directory "
    "(wav.scp and text), a .csv or .tsv table with columns for path and text, FunASR's .jsonl, a Hugging Face data set "
    "on disk, a .tar archive with manifest.jsonl"
)
Opener = Callable[[Path, Skips], Iterable[Cut]]


def open_data(source: str | Path, skips: Skips | None = None, channel: Channel = "mix") -> CutSet:
    """The cuts of speech data on disk, in memory; what kind of data it is, its files tell.

    source: one of KNOWN; DIR/NAME stands for a prepared set or a directory of shards. Texts are as written. Only
    headers of audio files are read; what has none goes to `skips`, which stops the run if it is told to. channel: of
    each recording, the mean of all unless a cut names its own.
    Raises DataError that says what was found where nothing known is, or which line is wrong; MissingExtra.
    """
    return CutSet.from_cuts(each_of(source, Skips() if skips is None else skips, channel))


def each_of(source: str | Path, skips: Skips, channel: Channel = "mix") -> Iterator[Cut]:
    """The cuts of `open_data` one by one; those of tables, lists and manifests are never in memory all at once."""
    source = Path(source)
    if not is_there(source) and is_file(short := source.with_name(source.name + CUTS)):
        source = short
    if not is_there(source):
        raise DataError(f"there is no {source}; check the name. Data may be: {KNOWN}")
    return _any(on_channel(_opener(source)(source, skips), channel, skips), source, skips)


def _any(cuts: Iterable[Cut], source: Path, skips: Skips) -> Iterator[Cut]:
    """The same cuts. Raises DataError, at the end, where there are none."""
    cut = None
    for cut in cuts:
        yield cut
    if cut is None:
        raise DataError(f"{source} holds no usable utterance: {skips}")


def _opener(source: Path) -> Opener:
    return _directory(source) if source.is_dir() else _file(source)


def _directory(source: Path) -> Opener:
    """How to open a directory, by what is in it."""
    if is_shar(source):
        return open_shar
    if any(source.glob(f"*{CUTS}")):
        return lambda directory, _: (cut for path in sorted(directory.glob(f"*{CUTS}")) for cut in cuts_in(path))
    if (source / "wav.scp").is_file():
        return lambda directory, skips: tables.to_cuts(tables.kaldi(directory), skips)
    if hugging_face.is_hugging_face(source):
        return hugging_face.open_directory
    names = ", ".join(sorted(path.name for path in source.iterdir())[:5]) or "nothing"
    raise DataError(f"{source} is no data that is known here: it holds {names}. Data may be: {KNOWN}")


def _file(source: Path) -> Opener:
    """How to open a file, by its name and, of JSON lines, its first."""
    if source.name.endswith(CUTS) or _is_lhotse(source):
        return lambda path, _: cuts_in(path)
    name = source.name.lower().removesuffix(".gz")
    if name.endswith(".tar"):
        return open_archive
    if name.endswith((".csv", ".tsv")):
        return lambda path, skips: tables.to_cuts(tables.table(path), skips)
    if name.endswith((".jsonl", ".json")):
        return lambda path, skips: tables.to_cuts(tables.json_lines(path), skips)
    raise DataError(f"{source} is no data that is known here. Data may be: {KNOWN}")


def _is_lhotse(path: Path) -> bool:
    """Whether the first line of a file is a cut as JSON."""
    try:
        with opened(path) as file:
            first = json.loads(file.readline())
    except (DataError, ValueError):
        return False
    return isinstance(first, dict) and "supervisions" in first
