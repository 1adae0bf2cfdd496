"""Where one live stream stands: one value, and how all of a session becomes bytes and comes back.

The bytes are a safetensors file, of arrays with all else as JSON in its metadata, behind its SHA-256. So nothing of a
saved session is ever unpickled, and one that is damaged is refused before any of it is believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from paraformer.audio import RateState
from paraformer.backends.base import LiveState
from paraformer.candidates import Candidates
from paraformer.errors import SessionError
from paraformer.frontend import FrontendState
from paraformer.second_pass import SecondPass, Sentences
from paraformer.silence import Hearing
from paraformer.text import TextAssembler
from paraformer.timestamps import CifClock, Span
from paraformer.types import Revision, Segment
from paraformer.writing import WritingState, token_from

if TYPE_CHECKING:
    from typing_extensions import Buffer

FORMAT = 6
"""Of saved sessions; a version that writes something else counts on."""
_DIGEST = 32
"""Bytes before a saved session: the SHA-256 of the rest."""

Values = dict[str, Any]
"""Plain values by name, ready for JSON."""
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class StreamState:
    """All that a step changes but the text and tokens that are decided.

    incoming: what the resampler waits with; rows: of the frontend, not yet stepped; model: keys, values and so on;
    waiting: tokens, with waiting_spans their times, of which the language model has not seen enough; history: the last
    ids that it chose; writing: tokens that wait for their marks; hearing: where there was no silence; samples and
    steps: taken in; ended: no samples will come; done: all is recognised; sentences: of a stream whose sentences are
    recognised again.
    """

    incoming: RateState
    frontend: FrontendState
    rows: Float32[np.ndarray, "rows dim"]
    model: LiveState
    assembler: TextAssembler
    clock: CifClock
    waiting: Candidates
    waiting_spans: tuple[Span, ...] = ()
    history: tuple[int, ...] = ()
    writing: WritingState = field(default_factory=WritingState)
    hearing: Hearing = field(default_factory=Hearing)
    samples: int = 0
    steps: int = 0
    ended: bool = False
    done: bool = False
    sentences: Sentences | None = None

    def to_dict(self) -> tuple[Values, Arrays]:
        """Plain values, and arrays."""
        values = {
            "received": self.incoming.received,
            "resampled": self.incoming.given,
            "samples": self.samples,
            "steps": self.steps,
            "ended": self.ended,
            "done": self.done,
            "history": self.history,
            "writing": self.writing.to_dict(),
            "waiting_spans": self.waiting_spans,
            "assembler": self.assembler.to_dict(),
            "clock": self.clock.to_dict(),
            "hearing": self.hearing.to_dict(),
        }
        arrays = {f"state.{name}": array for name, array in self.model.items()}
        arrays |= {f"frontend.{name}": array for name, array in self.frontend.to_arrays().items()}
        arrays |= {"incoming": self.incoming.waiting, "rows": self.rows}
        arrays |= {"waiting.ids": self.waiting.ids, "waiting.log_probs": self.waiting.log_probs}
        if self.sentences is not None:
            values["sentences"], kept = self.sentences.to_dict()
            arrays |= {f"sentences.{name}": array for name, array in kept.items()}
        return values, arrays

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], arrays: Arrays, second_pass: SecondPass | None) -> StreamState:
        """The inverse of `to_dict`. second_pass: of the stream, where its sentences are recognised again."""
        sentences = None
        if second_pass is not None:
            sentences = Sentences.from_dict(second_pass, values["sentences"], _prefixed(arrays, "sentences."))
        return cls(
            incoming=RateState(arrays["incoming"], values["received"], values["resampled"]),
            frontend=FrontendState.from_arrays(_prefixed(arrays, "frontend.")),
            rows=arrays["rows"],
            model=_prefixed(arrays, "state."),
            assembler=TextAssembler.from_dict(values["assembler"]),
            clock=CifClock.from_dict(values["clock"]),
            waiting=Candidates(arrays["waiting.ids"], arrays["waiting.log_probs"]),
            waiting_spans=tuple((start, end) for start, end in values["waiting_spans"]),
            history=tuple(values["history"]),
            writing=WritingState.from_dict(values["writing"]),
            hearing=Hearing.from_dict(values["hearing"]),
            sentences=sentences,
            **{name: values[name] for name in ("samples", "steps", "ended", "done")},
        )


def packed(values: Values, arrays: Arrays) -> bytes:
    """A session as bytes."""
    # Rows of a larger array, and turned ones, safetensors does not take as they lie.
    contiguous = {name: array.copy(order="C") for name, array in arrays.items()}
    saved = bytes(save_arrays(contiguous, {"session": json.dumps({"format": FORMAT} | values)}))
    return hashlib.sha256(saved).digest() + saved


def unpacked(saved: Buffer) -> tuple[Values, Arrays]:
    """The inverse of `packed`. Raises SessionError for what it did not make, or another version's."""
    try:
        content = bytes(memoryview(saved))
    except TypeError as error:
        raise SessionError(f"a saved session is bytes, as Session.save returns, not {type(saved).__name__}") from error
    digest, content = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise SessionError("these bytes are not a saved session, or are damaged; pass what Session.save returned")
    size = int.from_bytes(content[:8], "little")  # of safetensors' header, whose metadata its reader does not give
    values: Values = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["session"])
    if values.get("format") != FORMAT:
        raise SessionError("this session was saved by another version of the package; go on with it there")
    return values, load_arrays(content)


def revision_from(values: Mapping[str, Any]) -> Revision:
    """The inverse of `asdict`."""
    segment = values["segment"]
    tokens = tuple(map(token_from, segment["tokens"]))
    first, behind = values["replaces"]
    return Revision(values["number"], (first, behind), Segment(**{**segment, "tokens": tokens}))


def _prefixed(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
