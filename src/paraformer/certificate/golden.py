"""Golden inputs and outputs: two short recordings, and what torch made of them when the model was exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int16, Int64

from paraformer import audio
from paraformer.backends.base import Decoded
from paraformer.bundle import replacing
from paraformer.config import SILENT_IDS, FrontendConfig
from paraformer.errors import ModelError
from paraformer.frontend import Cmvn, Frontend

FILE = "golden.npz"
RECORDINGS = ("subway.flac", "weather.flac")
"""Of those that come with the package: 2.6 and 3.7 seconds of synthetic Mandarin."""

Feats = Float32[np.ndarray, "_ dim"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Tokens that stand for text, and the logarithm of the probability of each."""

    ids: Int64[np.ndarray, " tokens"]
    log_probs: Float32[np.ndarray, " tokens"]

    @classmethod
    def of(cls, parts: Sequence[Decoded]) -> Outcome:
        """What one utterance, or the steps of one stream, came to."""
        ids = np.concatenate([part.ids for part in parts])
        confidences = np.concatenate([part.confidences for part in parts])
        speaks = ~np.isin(ids, SILENT_IDS)
        return cls(ids[speaks], np.log(confidences[speaks]))


@dataclass(frozen=True, eq=False)
class Golden:
    """samples: of each recording, 16 kHz; cmvn: the model's; outcomes: mode ("whole", "live") -> one per recording."""

    samples: tuple[Int16[np.ndarray, " _"], ...]
    cmvn: Cmvn | None
    outcomes: Mapping[str, tuple[Outcome, ...]]

    def feats(self, config: FrontendConfig) -> list[Feats]:
        """Model input of each recording."""
        frontend = Frontend(config, self.cmvn)
        return [frontend.whole(samples) for samples in self.signals()]

    def signals(self) -> list[Float32[np.ndarray, " _"]]:
        """The recordings in [-1, 1]."""
        return [samples.astype(np.float32) / 32768 for samples in self.samples]

    def save(self, directory: Path) -> None:
        """Write golden.npz, atomically."""
        arrays = {f"samples.{index}": samples for index, samples in enumerate(self.samples)}
        if self.cmvn is not None:
            arrays |= {"shift": self.cmvn.shift, "scale": self.cmvn.scale}
        for mode, outcomes in self.outcomes.items():
            for index, outcome in enumerate(outcomes):
                arrays |= {f"{mode}.{index}.ids": outcome.ids, f"{mode}.{index}.log_probs": outcome.log_probs}
        with replacing(directory / FILE) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, directory: Path) -> Golden:
        """The inverse of `save`. Raises ModelError where the file is missing or damaged."""
        try:
            with np.load(directory / FILE, allow_pickle=False) as file:
                arrays = dict(file)
            samples = tuple(arrays[f"samples.{index}"] for index in range(len(RECORDINGS)))
            cmvn = Cmvn(arrays["shift"], arrays["scale"]) if "shift" in arrays else None
            modes = {name.split(".")[0] for name in arrays if name.endswith(".ids")}
            return cls(samples, cmvn, {mode: _outcomes(arrays, mode) for mode in sorted(modes, reverse=True)})
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{directory / FILE} cannot be read: {error}; export the model again") from error


def recordings() -> tuple[Int16[np.ndarray, " _"], ...]:
    """The recordings that goldens are made of."""
    folder = Path(str(files("paraformer") / "samples"))
    loaded = (np.concatenate(list(audio.read_blocks(folder / name))) for name in RECORDINGS)
    return tuple((samples * 32768).round().clip(-32768, 32767).astype(np.int16) for samples in loaded)


def _outcomes(arrays: Mapping[str, np.ndarray], mode: str) -> tuple[Outcome, ...]:
    pairs = ((f"{mode}.{index}.ids", f"{mode}.{index}.log_probs") for index in range(len(RECORDINGS)))
    return tuple(Outcome(arrays[ids], arrays[log_probs]) for ids, log_probs in pairs)
