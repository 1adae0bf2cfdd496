"""What telephones, messengers and the web do to sound: it goes through a lossy codec and back, by libsndfile."""

from __future__ import annotations

import io
from typing import Literal, NamedTuple

import numpy as np
import soundfile
import soxr

from paraformer.audio import Samples

Codec = Literal["ulaw", "alaw", "gsm", "mp3", "vorbis", "opus"]

_RATE, _TELEPHONE = 16000, 8000


class _Format(NamedTuple):
    """How libsndfile calls a codec. levels: range of its compression level, 0 to 1, if it has one."""

    file: str
    encoding: str
    rate: int = _RATE
    levels: tuple[float, float] | None = None


_FORMATS: dict[Codec, _Format] = {
    "ulaw": _Format("WAV", "ULAW", _TELEPHONE),
    "alaw": _Format("WAV", "ALAW", _TELEPHONE),
    "gsm": _Format("WAV", "GSM610", _TELEPHONE),
    "mp3": _Format("MP3", "MPEG_LAYER_III", _RATE, (0.5, 0.95)),
    "vorbis": _Format("OGG", "VORBIS", _RATE, (0.5, 1.0)),
    "opus": _Format("OGG", "OPUS", _RATE, (0.5, 1.0)),
}
CODECS: tuple[Codec, ...] = tuple(_FORMATS)


def through_codec(samples: Samples, codec: Codec, rng: np.random.Generator) -> Samples:
    """`samples` encoded at a random level and decoded again, with their length kept; clipped to [-1, 1].

    ulaw and alaw are G.711 and, as gsm is, telephone codecs: nothing above 4 kHz is left.
    """
    form = _FORMATS[codec]
    level = float(rng.uniform(*form.levels)) if form.levels else None
    sent = np.clip(_resampled(samples, _RATE, form.rate), -1.0, 1.0)
    with io.BytesIO() as file:
        soundfile.write(file, sent, form.rate, form.encoding, format=form.file, compression_level=level)
        file.seek(0)
        received, _ = soundfile.read(file, dtype="float32")
    return _fitted(np.clip(_resampled(received, form.rate, _RATE), -1.0, 1.0), len(samples))


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    return samples if rate == wanted else soxr.resample(samples, rate, wanted, quality="LQ")


def _fitted(samples: np.ndarray, length: int) -> Samples:
    """Without what the codec's last block adds, or with silence for what it lacks."""
    fitted = np.zeros(length, np.float32)
    fitted[: len(samples)] = samples[:length]
    return fitted
