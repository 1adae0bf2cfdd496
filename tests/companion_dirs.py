"""The reference's tiny models of every kind that stands beside a recogniser, as directories of FunASR's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from punctuation_goldens import write as punctuation_dir
from test_aligner import aligner_dir
from test_segment_fsmn import funasr_dir as detector_dir
from test_speakers import campplus_dir

from paraformer.kinds import ALIGNER, DETECTOR, PUNCTUATION, VOICES, Kind

WRITERS: Mapping[str, tuple[Kind, Callable[[Path], Any]]] = {
    "punctuation": (PUNCTUATION, lambda path: punctuation_dir("punc", path)),
    "realtime": (PUNCTUATION, lambda path: punctuation_dir("punc_rt", path, words="模型 3 n\n")),
    "detector": (DETECTOR, detector_dir),
    "voices": (VOICES, campplus_dir),
    "aligner": (ALIGNER, aligner_dir),
}


def companion_dir(path: Path, name: str) -> Path:
    """A directory of the kind of this name."""
    written: Path = WRITERS[name][1](path)
    return written
