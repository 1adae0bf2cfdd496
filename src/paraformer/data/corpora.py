"""Published Mandarin corpora, as they unpack, to cuts: AISHELL-1, AISHELL-2 and WenetSpeech by lhotse's recipes.

SpeechIO is read as the tables that its sets come with: lhotse's recipe insists on all 27 of them, and on pandas.
Texts stay as the corpus has them; training reads what is spoken of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lhotse.cut import MonoCut
from lhotse.recipes.aishell import prepare_aishell
from lhotse.recipes.aishell2 import prepare_aishell2
from lhotse.recipes.wenet_speech import WETNET_SPEECH_PARTS, prepare_wenet_speech

from paraformer.data.recordings import cut_of
from paraformer.data.skips import Skips
from paraformer.data.tables import table, to_cuts
from paraformer.errors import DataError

Manifests = Mapping[str, Mapping[str, Any]]
"""lhotse's recordings and supervisions of each part."""

_RECIPES: Mapping[str, tuple[Callable[[Path], Manifests], str]] = {
    "aishell": (prepare_aishell, "data_aishell/transcript/aishell_transcript_v0.8.txt and data_aishell/wav/train"),
    "aishell2": (prepare_aishell2, "AISHELL-2/iOS/data, AISHELL-2/iOS/dev and AISHELL-2/iOS/test"),
}
"""The recipe of a corpus and what its directory must hold."""

CORPORA = (*_RECIPES, "wenetspeech", "speechio")


def open_corpus(name: str, directory: Path, skips: Skips, parts: Sequence[str] = ()) -> dict[str, Iterator[MonoCut]]:
    """The cuts of each part of a corpus, as `NAME_PART`.

    parts: of WenetSpeech (L, M, S, DEV, TEST_NET, TEST_MEETING) or SpeechIO (names of directories); empty: all.
    Raises DataError if the directory does not hold the corpus as it is published.
    """
    if name not in CORPORA:
        raise DataError(f"no corpus is called {name!r}; choose one of {', '.join(CORPORA)}")
    if not directory.is_dir():
        raise DataError(f"there is no directory {directory}; name the one into which {name} was unpacked")
    if name == "speechio":
        return _speechio(directory, skips, parts)
    if name == "wenetspeech":
        recipe, needs = _wenetspeech(parts), "WenetSpeech.json and audio"
    else:
        recipe, needs = _RECIPES[name]
    try:
        found = recipe(directory)
    except (AssertionError, OSError, KeyError, ValueError, IndexError, RuntimeError) as error:
        raise DataError(f"{directory} does not hold {name} as published: {error}; it needs {needs}") from error
    return {f"{name}_{part.lower()}": _cuts(manifests) for part, manifests in found.items()}


def _wenetspeech(parts: Sequence[str]) -> Callable[[Path], Manifests]:
    if unknown := set(parts) - set(WETNET_SPEECH_PARTS):
        raise DataError(f"WenetSpeech has no part {min(unknown)}; choose of {', '.join(WETNET_SPEECH_PARTS)}")
    return lambda directory: prepare_wenet_speech(directory, dataset_parts=list(parts) or "all")


def _cuts(manifests: Mapping[str, Any]) -> Iterator[MonoCut]:
    """A cut for each thing said, in the order of the corpus."""
    recordings = {recording.id: recording for recording in manifests["recordings"]}
    for said in manifests["supervisions"]:
        yield cut_of(recordings[said.recording_id], said)


def _speechio(directory: Path, skips: Skips, parts: Sequence[str]) -> dict[str, Iterator[MonoCut]]:
    found = [directory / part for part in parts] or sorted(path.parent for path in directory.glob("*/metadata.tsv"))
    if not found:
        raise DataError(f"{directory} holds no SpeechIO set: no directory in it has a metadata.tsv")
    names = {part: part.name.removeprefix("SPEECHIO_ASR_").lower() for part in found}
    return {f"speechio_{names[part]}": to_cuts(table(part / "metadata.tsv"), skips) for part in found}
