"""Log-mel frames of samples, as Kaldi computes them without dither.

Compiled code does it where it was built, numpy elsewhere; the two differ by 1e-5 or so.
Both work on each frame for itself, in an order of additions that does not depend on how many frames come along (no
BLAS: its kernels change with the number of rows), so any cut of the samples into packets gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ctypes import byref, c_void_p
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.lib.stride_tricks import sliding_window_view

from paraformer import native
from paraformer.config import FrontendConfig
from paraformer.native.layout import Fbank, Kernels

PCM_SCALE = 32768.0
"""The models were trained on samples in the range of 16-bit integers."""
PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0
LOG_FLOOR = float(np.finfo(np.float32).eps)
"""Power below which a mel band counts as silent: its logarithm is -15.94238."""
FRAMES_AT_ONCE = 256
"""Frames per pass of the spectrum: about 1 MB of work space, which stays in the cache. No effect on the result."""

_WINDOWS: Mapping[str, Callable[[Float64[np.ndarray, " n"]], Float64[np.ndarray, " n"]]] = {
    "hamming": lambda phase: 0.54 - 0.46 * np.cos(phase),
    "hanning": lambda phase: 0.5 - 0.5 * np.cos(phase),
    "povey": lambda phase: (0.5 - 0.5 * np.cos(phase)) ** 0.85,
    "rectangular": np.ones_like,
    "blackman": lambda phase: 0.42 - 0.5 * np.cos(phase) + 0.08 * np.cos(2 * phase),
}


def fbank(samples: Float32[np.ndarray, " samples"], config: FrontendConfig) -> Float32[np.ndarray, "frames mel"]:
    """Log-mel frames of samples in [-1, 1]: 1 + (N - frame) // shift of them.

    Per frame: remove the mean, pre-emphasis, window, power spectrum, triangular mel bands from 20 Hz to half the sample
    rate, natural logarithm. Within 3e-4 of kaldi-native-fbank.
    """
    width, shift = frame_samples(config), shift_samples(config)
    if len(samples) < width:
        return np.zeros((0, config.mel_bins), np.float32)
    return _log_mel(samples, width, shift, config)


def short_fbank(samples: Float32[np.ndarray, " samples"], config: FrontendConfig) -> Float32[np.ndarray, "frames mel"]:
    """The one frame of an utterance shorter than a frame: everything in it, under a window of its length.

    No samples give no frame.
    """
    if len(samples) == 0:
        return np.zeros((0, config.mel_bins), np.float32)
    return _log_mel(samples, len(samples), 1, config)


def frame_samples(config: FrontendConfig) -> int:
    """Samples of a frame."""
    return round(config.sample_rate * config.frame_ms / 1000)


def shift_samples(config: FrontendConfig) -> int:
    """Samples from one frame to the next."""
    return round(config.sample_rate * config.shift_ms / 1000)


def _log_mel(
    samples: Float32[np.ndarray, " samples"], width: int, shift: int, config: FrontendConfig
) -> Float32[np.ndarray, "frames mel"]:
    """Log-mel bands of all whole frames of at least one."""
    kernels = native.family(native.FLOAT32)
    if kernels is not None:
        return _compiled(config, width)(np.ascontiguousarray(samples, np.float32), shift, kernels)
    frames = sliding_window_view(samples, width)[::shift]
    blocks = (frames[start : start + FRAMES_AT_ONCE] for start in range(0, len(frames), FRAMES_AT_ONCE))
    return np.concatenate(list(_log_mel_of(blocks, config)))


def _log_mel_of(
    blocks: Iterator[Float32[np.ndarray, "block width"]], config: FrontendConfig
) -> Iterator[Float32[np.ndarray, "block mel"]]:
    for frames in blocks:
        power = _power_spectrum(frames, _window(config.window, frames.shape[1]))
        bands = _mel_bands(config.mel_bins, 2 * power.shape[1], config.sample_rate)
        mel = np.add.reduceat(power.take(bands.bins, axis=1) * bands.weights, bands.starts, axis=1)
        yield np.log(np.maximum(mel, np.float32(LOG_FLOOR)))


def _power_spectrum(
    frames: Float32[np.ndarray, "frames width"], window: Float32[np.ndarray, " width"]
) -> Float32[np.ndarray, "frames bins"]:
    """Power of mean-free, pre-emphasised, windowed frames; the bin at half the sample rate is left out, as in Kaldi."""
    count, width = frames.shape
    size = _points(width)
    centred = frames * np.float32(PCM_SCALE)
    centred -= centred.mean(axis=1, keepdims=True)
    padded = np.zeros((count, size), np.float32)
    emphasised = padded[:, :width]
    np.multiply(centred[:, :1], np.float32(1 - PRE_EMPHASIS), out=emphasised[:, :1])
    np.subtract(centred[:, 1:], np.float32(PRE_EMPHASIS) * centred[:, :-1], out=emphasised[:, 1:])
    emphasised *= window
    spectrum = np.fft.rfft(padded, axis=1)[:, : size // 2]
    return np.square(spectrum.real) + np.square(spectrum.imag)


def _points(width: int) -> int:
    """Points of the spectrum of a frame."""
    return max(2, 1 << (width - 1).bit_length())


@lru_cache(maxsize=16)
def _window(kind: str, width: int) -> Float32[np.ndarray, " width"]:
    """Symmetric analysis window."""
    phase = 2 * np.pi * np.arange(width) / max(1, width - 1)
    return _read_only(_WINDOWS[kind](phase).astype(np.float32))


@dataclass(frozen=True, eq=False)
class _MelBands:
    """Triangular bands as runs of (bin, weight): band b is the run from starts[b] to starts[b + 1], never empty."""

    bins: Int64[np.ndarray, " entries"]
    weights: Float32[np.ndarray, " entries"]
    starts: Int64[np.ndarray, " mel"]


@lru_cache(maxsize=16)
def _mel_bands(count: int, size: int, sample_rate: int) -> _MelBands:
    """Kaldi's bands over the lower half of a spectrum of `size` points, with peaks of 1.

    Edges and weights are float32 like torchaudio's, whose features the published models were trained on: where a bin
    lies close to the edge of a band, the rounding of its small weight shows in the logarithm (2e-4).
    """
    points = _mel(np.arange(size // 2) * sample_rate / size)
    low, high = 1127 * np.log1p(np.array([LOWEST_HZ, sample_rate / 2]) / 700)
    step, band = np.float32((high - low) / (count + 1)), np.arange(count, dtype=np.float32)[:, None]
    left, centre, right = (np.float32(low) + (band + np.float32(edge)) * step for edge in range(3))
    weights = np.maximum(0, np.minimum((points - left) / (centre - left), (right - points) / (right - centre)))
    used = weights > 0
    used[~used.any(axis=1), 0] = True  # a band between two bins (very short frames): one entry of weight 0
    rows, bins = np.nonzero(used)
    starts = np.searchsorted(rows, np.arange(count))
    return _MelBands(_read_only(bins), _read_only(weights[rows, bins]), _read_only(starts))


def _mel(hertz: Float64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """1127 ln(1 + Hz / 700), rounded as torchaudio rounds it."""
    ratio = np.float32(1) + hertz.astype(np.float32) / np.float32(700)
    scaled: Float32[np.ndarray, " n"] = np.float32(1127) * np.log(ratio.astype(np.float64)).astype(np.float32)
    return scaled


def _read_only(array: np.ndarray) -> np.ndarray:
    """Cached arrays are shared by all frontends of the process."""
    array.setflags(write=False)
    return array


class _Compiled:
    """Frames of one width by compiled code."""

    def __init__(self, config: FrontendConfig, width: int) -> None:
        size = _points(width)
        bands = _mel_bands(config.mel_bins, size, config.sample_rate)
        angles = 2 * np.pi * np.arange(size // 2) / size
        self._arrays = {
            "window": _window(config.window, width),
            "turns": np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32),
            "weights": bands.weights,
            "starts": np.append(bands.starts, len(bands.weights)).astype(np.int32),
            "first": bands.bins[bands.starts].astype(np.int32),
        }
        addresses = {name: array.ctypes.data for name, array in self._arrays.items()}
        self._plan = Fbank(**addresses, width=width, size=size, bands=config.mel_bins, scale=PCM_SCALE)
        self._plan.pre_emphasis, self._plan.floor = PRE_EMPHASIS, LOG_FLOOR

    def __call__(
        self, samples: Float32[np.ndarray, " samples"], shift: int, kernels: Kernels
    ) -> Float32[np.ndarray, "frames mel"]:
        """All whole frames."""
        count = 1 + (len(samples) - self._plan.width) // shift
        frames = np.empty((count, self._plan.bands), np.float32)
        code = native.library()
        assert code is not None
        pointers = c_void_p(samples.ctypes.data), count, shift, c_void_p(frames.ctypes.data)
        if code.pf_fbank(byref(kernels), byref(self._plan), *pointers):
            raise MemoryError("not enough memory for the spectrum of a few frames")
        return frames


@lru_cache(maxsize=16)
def _compiled(config: FrontendConfig, width: int) -> _Compiled:
    return _Compiled(config, width)
