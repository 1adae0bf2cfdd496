"""From the probability that a decoder gives to what it chose to the probability that this is right.

Decoders are surer than they should be, and live ones otherwise than whole ones. A curve of three numbers, learnt on
recordings whose texts are known (`paraformer calibrate`), sets that right and keeps the order of the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Float32

from paraformer.settings import Between, Factor, Share, by_name, check_ranges, from_mapping

Mode = Literal["whole", "live"]
LEAST = 1e-6
"""Probabilities are kept so far from 0 and 1, where their logarithms have no end."""
SPEECH, SPEECH_MOST = 0.9, 0.35
"""What is speech is as clear as this share of the least clear recording, and no more than that is asked of any."""


@dataclass(frozen=True)
class Curve:
    """p -> 1 / (1 + exp(-(rise ln p - fall ln(1 - p) + shift))); with (1, 1, 0) p itself.

    Never falls, since neither `rise` nor `fall` is below 0. The beta calibration of Kull, Silva Filho and Flach
    (Electronic Journal of Statistics, 2017); with rise = fall that of Platt, a line over the logit.
    """

    rise: Factor = 1.0
    fall: Factor = 1.0
    shift: Annotated[float, Between(-1000.0, 1000.0)] = 0.0

    def __post_init__(self) -> None:
        check_ranges(self, "confidence")

    def __call__(self, probabilities: Float[np.ndarray, "*any"]) -> Float32[np.ndarray, "*any"]:
        """The probability of being right, of each.

        >>> Curve(rise=0.5, fall=0.5)(np.array([0.1, 0.5, 0.9])).round(2).tolist()
        [0.25, 0.5, 0.75]
        """
        score = logits_of(probabilities) @ np.array([self.rise, self.fall, self.shift])
        right: np.ndarray = np.exp(-np.logaddexp(0, -score)).astype(np.float32)
        return right


def logits_of(probabilities: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any 3"]:
    """What a curve weighs of each probability: ln p, -ln(1 - p) and 1."""
    p = np.clip(np.asarray(probabilities, np.float64), LEAST, 1 - LEAST)
    return np.stack([np.log(p), -np.log1p(-p), np.ones_like(p)], -1)


@dataclass(frozen=True)
class Calibration:
    """The curve of each way to recognise; None: probabilities stay as they are.

    speech: clarity (backends.base.Decoded) below which a stretch of a recording is taken for noise and has no text.
    """

    whole: Curve | None = None
    live: Curve | None = None
    speech: Share = 0.0

    def __post_init__(self) -> None:
        check_ranges(self, "confidence")

    def apply(self, mode: Mode, probabilities: Float32[np.ndarray, "*any"]) -> Float32[np.ndarray, "*any"]:
        """Probabilities of being right."""
        curve = self.whole if mode == "whole" else self.live
        return probabilities if curve is None else curve(probabilities)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, of what there is."""
        curves = {"whole": self.whole, "live": self.live}
        speech = {"speech": self.speech} if self.speech else {}
        return {mode: asdict(curve) for mode, curve in curves.items() if curve is not None} | speech

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`. Raises ConfigError for what is none."""
        settings = {
            name: from_mapping(Curve, value, f"confidence.{name}", optional=()) if name in get_args(Mode) else value
            for name, value in by_name(values, "confidence").items()
        }
        return from_mapping(cls, settings, "confidence")


UNCALIBRATED = Calibration()
