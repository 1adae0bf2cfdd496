"""What silence is, for whole audio and live streams alike: samples that stay within -80 dB of full scale.

Nothing can be heard in it: digital zeros, the lowest bit's noise (dither), and either beside a constant offset. A model
may hear words all the same, so what it says of a silent stretch is not taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32

PEAK = 1e-4
"""Half the range of samples up to which they are silent: -80 dB of full scale, 3 units of 16 bits."""
MARGIN_S = 0.5
"""So far from its sound the times of a token may be."""
FRAME = 960
"""Samples in which a constant offset is told from sound."""
_FRAME_S = 0.06
_GAP = MARGIN_S / _FRAME_S
"""Shorter gaps between sounds, in frames, hold no silent token: whatever lies in one is near the sound before it.

Twice as much would do for what was heard whole, but a live token may be decided before the sound after it came."""
_MINUTE_S = 60.0

Samples = Float32[np.ndarray, " samples"]
Run = tuple[int, int]
"""First frame of a stretch, and the one after its last."""


@dataclass(frozen=True, eq=False)
class Hearing:
    """When something could be heard in a stream (16 kHz) so far; a few kilobytes.

    runs: in frames of 60 ms, in order, gaps left out that are too short for a silent token; frames: how many have come;
    rest: samples of the next one.
    """

    runs: tuple[Run, ...] = ()
    frames: int = 0
    rest: Samples = field(default_factory=lambda: np.zeros(0, np.float32))

    def step(self, samples: Samples, *, final: bool = False) -> Hearing:
        """After further samples; the same however they are cut. final: no more will come."""
        waiting = np.concatenate([self.rest, samples]) if len(self.rest) else samples
        whole = len(waiting) - len(waiting) % FRAME
        heard = _heard(waiting[:whole].reshape(-1, FRAME))
        if final and whole < len(waiting):
            heard += _heard(waiting[None, whole:])
        runs = list(self.runs)
        for frame in (number for number, sound in enumerate(heard, self.frames) if sound):
            if runs and frame - runs[-1][1] < _GAP:
                runs[-1] = (runs[-1][0], frame + 1)
            else:
                runs.append((frame, frame + 1))
        return Hearing(tuple(runs), self.frames + len(heard), waiting[whole:].copy())

    def anything(self, start_s: float, end_s: float, *, until_s: float) -> bool:
        """Whether something could be heard near a token of these times, in what came before `until_s`."""
        first, end = (start_s - MARGIN_S) / _FRAME_S, (end_s + MARGIN_S) / _FRAME_S
        end = min(end, math.ceil(until_s / _FRAME_S - 1e-6))  # what came later may have come already, or not
        return any(run[0] < end and first < run[1] for run in self.runs)

    def since(self, start_s: float, *, now_s: float) -> Hearing:
        """Without what matters only to tokens that begin before start_s.

        now_s: up to where tokens were decided. What lies more than a minute before it counts as one run, since a stream
        may go on for days before its next token.
        """
        runs = [run for run in self.runs if run[1] > (start_s - MARGIN_S) / _FRAME_S]
        past = [run for run in runs if run[1] <= (now_s - _MINUTE_S) / _FRAME_S]
        kept = (*((past[0][0], run[1]) for run in past[-1:]), *runs[len(past) :])
        return Hearing(kept, self.frames, self.rest)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"runs": self.runs, "frames": self.frames, "rest": self.rest.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Hearing:
        """Read back `to_dict`. Raises KeyError if a value is missing."""
        runs = tuple((first, end) for first, end in values["runs"])
        return cls(runs, values["frames"], np.array(values["rest"], np.float32))


def _heard(frames: Float32[np.ndarray, "n width"]) -> list[bool]:
    """Whether something can be heard in each; a constant offset is no sound."""
    heard: list[bool] = (frames.max(axis=1) - frames.min(axis=1) > 2 * PEAK).tolist()
    return heard
