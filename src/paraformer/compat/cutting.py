"""Where FunASR's AutoModel cuts a recording: at its detector's pauses, some of them left in (variants 5.8, 8.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from paraformer.audio import SAMPLE_RATE, Samples
from paraformer.compat import options as known
from paraformer.recognizer import Segmenter
from paraformer.segment import FsmnVad, VoiceSegmenter

MERGE_S = 15.0
"""With `merge_vad`, a piece goes on for as long as it stays below this."""
_MS = SAMPLE_RATE // 1000
_DYNAMIC = {"end_silence_ms": 2000, "threshold": 0.5}
"""FSMN-VAD's rules in FunASR 1.4 where nobody says how long a pause is: those of the first minute of a file."""

Span = tuple[int, int]
"""Start and end in milliseconds."""


@dataclass(frozen=True)
class Cutting:
    """A detector and the options that it was loaded with; vad: None for this package's own."""

    vad: FsmnVad | None
    options: Mapping[str, Any]
    merge_s: float = MERGE_S

    @classmethod
    def by(cls, directory: Path | None, options: Mapping[str, Any], merge_s: float) -> Cutting:
        """directory: of an FSMN-VAD. Raises what opening it raises, and ConfigError for options that it has not."""
        vad = None if directory is None else FsmnVad.open(directory)
        cutting = cls(vad, options, merge_s)
        cutting.detector({})
        return cutting

    def detector(self, said: Mapping[str, Any]) -> Segmenter:
        """What finds speech in a call with these options. Raises ConfigError for those that it does not have."""
        asked = {**known.without_loading(self.options), **{key: said[key] for key in known.DETECTING if key in said}}
        if self.vad is None:
            return VoiceSegmenter(known.segments(asked))
        from paraformer.segment.fsmn_funasr import changed

        rules = {} if asked.get("max_end_silence_time") is not None else _DYNAMIC
        return changed(self.vad.with_endpoints(**rules), asked)

    def __call__(self, blocks: Iterable[Samples], said: Mapping[str, Any]) -> Iterator[tuple[Span, Samples]]:
        """Stretches of speech in order, each with where it lies."""
        detector = self.detector(said)
        if said.get("merge_vad"):
            yield from self._merged(detector, np.concatenate([np.zeros(0, np.float32), *blocks]))
            return
        for start_s, samples in detector(blocks):
            yield _span(start_s, samples), samples

    def _merged(self, detector: Segmenter, recording: Samples) -> Iterator[tuple[Span, Samples]]:
        spans = [_span(start_s, samples) for start_s, samples in detector([recording])]
        for start, end in merged(spans, round(self.merge_s * 1000)):
            yield (start, end), recording[start * _MS : end * _MS]


def merged(spans: Sequence[Span], longest: int) -> list[Span]:
    """Spans with the silence between them left in, cut at a boundary before a piece becomes `longest`, milliseconds.

    The first of several begins with the recording, as FunASR has it; what is longer by itself is not cut.
    """
    if len(spans) < 2:
        return list(spans)
    boundaries = sorted({boundary for span in spans for boundary in span})
    pieces, begin = list[Span](), 0
    for boundary, following in pairwise(boundaries):
        if following - begin >= longest:
            if boundary > begin:
                pieces.append((begin, boundary))
            begin = boundary
    return [*pieces, (begin, boundaries[-1])]


def _span(start_s: float, samples: Samples) -> Span:
    start = round(start_s * 1000)
    return start, start + len(samples) // _MS
