"""Samples to model input: Kaldi-compatible log-mel frames, low frame rate stacking, CMVN.

Whole utterances, live streams and training share one path: `Frontend.whole` gives the rows of a single final
`Frontend.step` from the zero state, and training calls its two halves, `frames` and `windows`. Every operation works on
each frame for itself, so any cut of the samples into packets gives the same bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from paraformer.config import FrontendConfig
from paraformer.errors import ModelError
from paraformer.fbank import fbank, shift_samples, short_fbank

_FARTHEST = 1e9
"""Logarithms of energies lie within 100, and what never changes at all may have been divided by a millionth."""


@dataclass(frozen=True, eq=False)
class Cmvn:
    """Global mean and variance normalisation of model input rows: (x + shift) * scale.

    shift: the negative mean; scale: the inverse standard deviation; one value per input dimension.
    """

    shift: Float32[np.ndarray, " dim"]
    scale: Float32[np.ndarray, " dim"]

    def __post_init__(self) -> None:
        if self.shift.ndim != 1 or self.shift.shape != self.scale.shape:
            raise ModelError(f"CMVN has {self.shift.shape} shifts but {self.scale.shape} scales; both must be one row")
        for name, row in (("shifts", self.shift), ("scales", self.scale)):
            if not (np.abs(row) <= _FARTHEST).all():
                raise ModelError(
                    f"CMVN holds {name} that are not finite or beyond {_FARTHEST:g}; compute the statistics again"
                )
        if (self.scale <= 0).any():
            raise ModelError("CMVN holds scales that are not above 0; compute the statistics again")

    @classmethod
    def parse(cls, text: str) -> Cmvn:
        """Read `am.mvn`, a Kaldi nnet1 text file. Raises ModelError if it is not one.

        As in FunASR, the values stand on the line after `<AddShift>` and `<Rescale>`, between square brackets.
        """
        return cls(shift=_bracketed_row(text, "<AddShift>"), scale=_bracketed_row(text, "<Rescale>"))

    def to_text(self) -> str:
        """Write the Kaldi nnet1 text that `parse` and FunASR read; float32 values survive exactly."""
        dim = self.shift.shape[0]
        parts = ["<Nnet>", f"<Splice> {dim} {dim}", "[ 0 ]"]
        for tag, row in (("<AddShift>", self.shift), ("<Rescale>", self.scale)):
            values = " ".join(str(value) for value in row)
            parts += [f"{tag} {dim} {dim}", f"<LearnRateCoef> 0 [ {values} ]"]
        return "\n".join([*parts, "</Nnet>", ""])

    def __call__(self, rows: Float32[np.ndarray, "windows dim"]) -> Float32[np.ndarray, "windows dim"]:
        """Normalise rows."""
        normalized: Float32[np.ndarray, "windows dim"] = rows + self.shift
        normalized *= self.scale
        return normalized


def _bracketed_row(text: str, tag: str) -> Float32[np.ndarray, " dim"]:
    """The numbers of the line after the one that begins with tag."""
    lines = text.splitlines()
    following = [after for line, after in itertools.pairwise(lines) if line.startswith(tag)]
    if not following:
        raise ModelError(f"CMVN text has no {tag} with values on the line below; expected a Kaldi nnet1 file (am.mvn)")
    words = following[0].split()
    try:
        with np.errstate(over="ignore"):
            row = np.array(words[words.index("[") + 1 : words.index("]")], dtype=np.float32)
    except ValueError as error:
        raise ModelError(f"CMVN text holds something other than numbers in brackets below {tag}: {error}") from error
    return row


@dataclass(frozen=True, eq=False)
class FrontendState:
    """What a stream carries from one packet to the next; a few kilobytes.

    samples: those that belong to the next frame, in [-1, 1]; rows: log-mel frames that belong to the next window;
    started: whether a frame was ever computed.
    """

    samples: Float32[np.ndarray, " remainder"]
    rows: Float32[np.ndarray, "pending mel"]
    started: bool

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as named arrays, for saving."""
        return {"samples": self.samples, "rows": self.rows, "started": np.array(self.started)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> FrontendState:
        """Read back `to_arrays`. Raises KeyError if an array is missing."""
        return cls(samples=arrays["samples"], rows=arrays["rows"], started=bool(arrays["started"]))


class Frontend:
    """Fbank, low frame rate and CMVN of one model. Holds settings only; safe to share between threads and streams."""

    def __init__(self, config: FrontendConfig, cmvn: Cmvn | None = None) -> None:
        """Raises ModelError if the CMVN is of another width than the rows."""
        if cmvn is not None and cmvn.shift.shape[0] != config.input_dim:
            raise ModelError(
                f"CMVN has {cmvn.shift.shape[0]} dimensions but the frontend makes rows of {config.input_dim}; "
                "it belongs to another model"
            )
        self.config = config
        self.cmvn = cmvn

    def whole(self, samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, "windows dim"]:
        """Model input of a whole utterance, samples in [-1, 1]: one row for every begun `lfr_n` frames.

        An utterance shorter than one frame is one frame of its own length (as FunASR's offline frontend); no samples
        give no rows.
        """
        return self.windows(self.frames(samples))

    def frames(self, samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, "frames mel"]:
        """Log-mel frames of a whole utterance: one every 10 ms, or a single one of what is shorter than a frame."""
        frames = fbank(samples, self.config)
        return frames if len(frames) else short_fbank(samples, self.config)

    def windows(self, frames: Float32[np.ndarray, "frames mel"]) -> Float32[np.ndarray, "windows dim"]:
        """Model input of all frames of an utterance, of which training may have changed some."""
        windows, _ = self._stack(frames, self.init_state(), final=True)
        return windows

    def init_state(self) -> FrontendState:
        """State before the first sample."""
        return FrontendState(np.zeros(0, np.float32), np.zeros((0, self.config.mel_bins), np.float32), started=False)

    def step(
        self, samples: Float32[np.ndarray, " samples"], state: FrontendState, *, final: bool = False
    ) -> tuple[Float32[np.ndarray, "windows dim"], FrontendState]:
        """Model input rows completed by one packet of any length, and the state after it.

        final: the stream ends here; the rows that are still incomplete come out too, filled with copies of the last
        frame, and the state is the zero state again. All rows of a stream together equal `whole` bit for bit.
        """
        buffer = np.concatenate([state.samples, np.asarray(samples, dtype=np.float32)])
        alone = final and not state.started
        frames = self.frames(buffer) if alone else fbank(buffer, self.config)
        windows, rows = self._stack(frames, state, final=final)
        if final:
            return windows, self.init_state()
        remainder = buffer[len(frames) * shift_samples(self.config) :].copy()
        return windows, FrontendState(remainder, rows, state.started or len(frames) > 0)

    def _stack(
        self, frames: Float32[np.ndarray, "frames mel"], state: FrontendState, *, final: bool
    ) -> tuple[Float32[np.ndarray, "windows dim"], Float32[np.ndarray, "pending mel"]]:
        """Low frame rate and CMVN: new windows, and the frames kept for the next ones."""
        width, stride = self.config.lfr_m, self.config.lfr_n
        rows = np.concatenate([state.rows, frames])
        if not state.started:
            rows = np.concatenate([np.repeat(frames[:1], _lead(width), axis=0), rows])
        if final:
            rows = _pad_last(rows, width, stride)
        windows = lfr(rows, width, stride)
        if self.cmvn is not None:
            windows = self.cmvn(windows)
        return windows, rows[len(windows) * stride :].copy()


def _lead(width: int) -> int:
    """Copies of the first frame put before it, which centre window i on frame lfr_n * i."""
    return (width - 1) // 2


def _pad_last(rows: Float32[np.ndarray, "rows mel"], width: int, stride: int) -> Float32[np.ndarray, "padded mel"]:
    """Repeat the last row so that the frames of a stream's end, already led by `_lead` rows, give ceil(T/n) windows."""
    windows = max(0, -(-(len(rows) - _lead(width)) // stride))
    missing = (windows - 1) * stride + width - len(rows) if windows else 0
    return np.concatenate([rows, np.repeat(rows[-1:], max(0, missing), axis=0)])


def lfr(rows: Float32[np.ndarray, "rows mel"], width: int, stride: int) -> Float32[np.ndarray, "windows stacked"]:
    """Low frame rate: every full window of `width` rows, oldest first, moved by `stride` rows.

    >>> lfr(np.arange(5, dtype=np.float32)[:, None], 3, 2).tolist()  # five frames of one mel bin
    [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]
    """
    if len(rows) < width:
        return np.zeros((0, width * rows.shape[1]), np.float32)
    first = np.arange(0, len(rows) - width + 1, stride)
    stacked: np.ndarray = rows[first[:, None] + np.arange(width)]
    return stacked.reshape(len(first), -1)
