"""Random changes that keep the words: of samples (speed, room, level, noise, codec), of log-mel frames (pace, vocal
tract, microphone) and of model input (SpecAugment).

Each function takes its randomness from a numpy generator, so that a seed reproduces a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import soxr
from jaxtyping import Float32

from paraformer.audio import Samples
from paraformer.data.codecs import CODECS, Codec, through_codec
from paraformer.data.rooms import convolved, in_room, require_rooms
from paraformer.errors import ConfigError
from paraformer.settings import Between, Count, Share, Size

Changed = Float32[np.ndarray, "changed"]
Noise = Float32[np.ndarray, "_"]
"""Also other voices. Each of several has a length of its own."""
Frames = Float32[np.ndarray, "frames mel"]
Speed = Annotated[float, Between(0.1, 10.0)]
Decibels = Annotated[float, Between(-200.0, 200.0)]
Echo = Annotated[float, Between(0.01, 10.0)]
"""Seconds."""
ChangedFrames = Float32[np.ndarray, "changed mel"]
Windows = Float32[np.ndarray, "windows dim"]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Ranges and probabilities of the changes."""

    speed: tuple[Speed, Speed] = (0.82, 1.22)
    """Playback speed; pitch and formants move along, which makes new voices."""
    pace: tuple[Speed, Speed] = (0.7, 1.1)
    """Speed of speaking that results in the end, whatever the playback speed: readers are slower than synthesisers."""
    rhythm: Share = 0.15
    """Standard deviation of the logarithm of the pace within an utterance; it comes and goes in about a second."""
    tract: tuple[Speed, Speed] = (0.9, 1.1)
    """Stretch of the mel axis: a longer or shorter vocal tract at the same pitch."""
    gain_db: tuple[Decibels, Decibels] = (-22.0, 8.0)
    reverb_probability: Share = 0.25
    reverb_s: tuple[Echo, Echo] = (0.1, 0.4)
    """Time in which a room's echo falls by 60 dB."""
    room_probability: Share = 0.0
    """Of a simulated room; `reverb_probability`, of a cheap imitation of one, then counts for the others."""
    room_s: tuple[Echo, Echo] = (0.15, 0.7)
    noise_probability: Share = 0.25
    noise_snr_db: tuple[Decibels, Decibels] = (8.0, 25.0)
    floor_probability: Share = 0.75
    floor_snr_db: tuple[Decibels, Decibels] = (20.0, 55.0)
    """Steady noise of a random colour: synthetic speech has digital silence, microphones have not."""
    babble_probability: Share = 0.0
    """Of other voices of the same batch, all at once, as noise; at `noise_snr_db`."""
    babble_voices: tuple[Size, Size] = (3, 6)
    level_probability: Share = 0.0
    """Of a stretch between two quiet moments at another level, as where speakers near and far take turns."""
    level_db: tuple[Decibels, Decibels] = (-45.0, 0.0)
    codec_probability: Share = 0.0
    codecs: tuple[Codec, ...] = ("ulaw", "alaw", "gsm", "mp3", "vorbis")
    """Drawn from evenly. "opus" is known too, but takes 20 ms for a second of speech; all other loading takes 2."""
    channel_db: Annotated[float, Between(0.0, 60.0)] = 5.0
    """Standard deviation of a smooth random change of the spectrum."""
    frequency_masks: Count = 1
    frequency_mask_width: Count = 20
    """Mel bins, exclusive."""
    time_masks: Count = 1
    time_mask_width: Count = 6
    """Windows of 60 ms, exclusive; never more than a tenth of the utterance each."""

    def __post_init__(self) -> None:
        if unknown := set(self.codecs) - set(CODECS):
            raise ConfigError(f"no codec is called {min(unknown)!r}; choose of {', '.join(CODECS)}")
        if self.codec_probability and not self.codecs:
            raise ConfigError("codec_probability is set, but codecs names none")
        if self.room_probability:
            require_rooms()


UNCHANGED = AugmentConfig(
    speed=(1.0, 1.0),
    pace=(1.0, 1.0),
    rhythm=0.0,
    tract=(1.0, 1.0),
    gain_db=(0.0, 0.0),
    reverb_probability=0.0,
    noise_probability=0.0,
    floor_probability=0.0,
    channel_db=0.0,
    frequency_masks=0,
    time_masks=0,
)
"""Leaves the speech as it is."""


def augment_samples(
    samples: Samples,
    speed: float,
    config: AugmentConfig,
    noises: Sequence[Noise],
    rng: np.random.Generator,
    voices: Sequence[Noise] = (),
) -> Changed:
    """Playback at `speed`, then room, level, noise, other voices and codec, each drawn anew.

    noises, voices: what is mixed in; either may be empty.
    """
    samples = perturb_speed(samples, speed)
    if _happens(config.room_probability, rng):
        samples = in_room(samples, float(rng.uniform(*config.room_s)), rng)
    elif rng.random() < config.reverb_probability:
        samples = reverberate(samples, float(rng.uniform(*config.reverb_s)), rng)
    samples = samples * np.float32(10 ** (rng.uniform(*config.gain_db) / 20))
    if noises and rng.random() < config.noise_probability:
        noise = noises[int(rng.integers(len(noises)))]
        samples = add_noise(samples, noise, float(rng.uniform(*config.noise_snr_db)), rng)
    if voices and _happens(config.babble_probability, rng):
        spoken = babble(voices, int(rng.integers(*config.babble_voices, endpoint=True)), rng)
        samples = add_noise(samples, spoken, float(rng.uniform(*config.noise_snr_db)), rng)
    if rng.random() < config.floor_probability:
        floor = coloured_noise(float(rng.uniform(0.0, 1.5)), rng)
        samples = add_noise(samples, floor, float(rng.uniform(*config.floor_snr_db)), rng)
    if _happens(config.codec_probability, rng):
        samples = through_codec(samples, config.codecs[int(rng.integers(len(config.codecs)))], rng)
    clipped: Changed = np.clip(samples, -1.0, 1.0)
    return clipped


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """Draws nothing where there is nothing to decide, so that other draws stay what they were."""
    return probability > 0 and rng.random() < probability


def perturb_speed(samples: Samples, speed: float) -> Changed:
    """Play `samples` `speed` times as fast, by resampling."""
    return np.asarray(soxr.resample(samples, speed, 1.0, quality="LQ"), dtype=np.float32)


def reverberate(samples: Samples, reverb_s: float, rng: np.random.Generator, rate: int = 16000) -> Samples:
    """Convolve with a synthetic room: a direct path, then noise that falls exponentially by 60 dB in `reverb_s`.

    The length is kept; the echo is 3 to 15 dB weaker than the direct path.
    """
    n = int(reverb_s * rate)
    tail = rng.standard_normal(n, dtype=np.float32) * np.exp(-6.9 * np.arange(n, dtype=np.float32) / n)
    tail[: int(rng.uniform(0.001, 0.01) * rate)] = 0.0
    tail *= np.float32(10 ** (-rng.uniform(3.0, 15.0) / 20)) / max(float(np.linalg.norm(tail)), 1e-6)
    heard: Samples = samples + convolved(samples, tail)
    return heard


def add_noise(samples: Samples, noise: Noise, snr_db: float, rng: np.random.Generator) -> Samples:
    """Mix in `noise`, repeated from a random point, at a signal-to-noise ratio over the whole length."""
    start = int(rng.integers(len(noise)))
    noise = np.resize(np.roll(noise, -start), len(samples))
    signal_power, noise_power = float(np.mean(samples**2)), float(np.mean(noise**2))
    if noise_power == 0.0:
        return samples
    return samples + noise * np.float32(np.sqrt(signal_power / noise_power) * 10 ** (-snr_db / 20))


def babble(voices: Sequence[Noise], count: int, rng: np.random.Generator) -> Noise:
    """`count` voices at once, each equally loud, as long as the longest; the shorter begin again."""
    chosen = [voices[index] for index in rng.integers(len(voices), size=count)]
    mixed = np.zeros(max(map(len, chosen)), np.float32)
    for voice in chosen:
        mixed += np.resize(voice, len(mixed)) / max(float(np.sqrt(np.mean(voice**2))), 1e-6)
    return mixed


def coloured_noise(slope: float, rng: np.random.Generator, size: int = 1 << 14) -> Noise:
    """About a second of noise whose power falls with frequency ** slope: 0 is white, 1 pink. It repeats seamlessly."""
    bins = size // 2 + 1
    amplitude = np.maximum(np.arange(bins, dtype=np.float32), bins / 200) ** np.float32(-slope / 2)
    spectrum = amplitude * np.exp(2j * np.pi * rng.random(bins, dtype=np.float32))
    return np.fft.irfft(spectrum, size).astype(np.float32)


def augment_frames(frames: Frames, speed: float, config: AugmentConfig, rng: np.random.Generator) -> ChangedFrames:
    """Levels, pace, vocal tract and microphone of log-mel frames that come of samples played at `speed`."""
    if _happens(config.level_probability, rng):
        frames = change_level(frames, float(rng.uniform(*config.level_db)), rng)
    pace = float(rng.uniform(*config.pace)) / speed * rhythm(len(frames), config.rhythm, rng)
    frames = resample_frames(frames, pace, float(rng.uniform(*config.tract)))
    return change_channel(frames, config.channel_db, rng)


def change_level(frames: Frames, level_db: float, rng: np.random.Generator, reach: int = 40) -> Frames:
    """Move log-mel frames between two quiet moments by `level_db`, noise and all; nothing sinks below the quietest bin.

    A quiet moment is the quietest frame of `reach` from one drawn evenly. The stretch may reach over the ends.
    """
    loudness = frames.mean(axis=1)
    ends = np.sort(rng.integers(-len(frames) // 2, len(frames) * 3 // 2, size=2)).clip(0, len(frames))
    first, last = (
        int(end + loudness[end : end + reach].argmin()) if 0 < end < len(frames) else int(end) for end in ends
    )
    changed = frames.copy()
    changed[first:last] = np.maximum(changed[first:last] + np.float32(level_db * np.log(10) / 10), frames.min())
    return changed


def rhythm(frames: int, deviation: float, rng: np.random.Generator, period: int = 50) -> Float32[np.ndarray, "points"]:
    """Factors of the pace at points of an utterance, log-normal, drawn anew every `period` frames and linear between.

    Four times as many points as frames: reading at a quarter of the pace takes that many.
    """
    knots = np.arange(0, 4 * frames + period, period)
    factors = np.exp(deviation * rng.standard_normal(len(knots)))
    return np.interp(np.arange(4 * frames), knots, factors).astype(np.float32)


def resample_frames(frames: Frames, pace: Float32[np.ndarray, "points"], tract: float) -> ChangedFrames:
    """Read log-mel frames along both axes, linear in between.

    pace: frames to advance by after each one that is read, as many values as may be needed; tract: the same for bins.
    """
    if len(frames) < 2:
        return frames
    times = np.concatenate([[0.0], np.cumsum(pace, dtype=np.float64)])
    first, part = _between(times[times <= len(frames) - 1], len(frames))
    slower = frames[first] * (1 - part[:, None]) + frames[first + 1] * part[:, None]
    first, part = _between(np.arange(frames.shape[1]) * tract, frames.shape[1])
    changed: ChangedFrames = slower[:, first] * (1 - part) + slower[:, first + 1] * part
    return changed


def _between(positions: np.ndarray, size: int) -> tuple[np.ndarray, Float32[np.ndarray, "positions"]]:
    """Index before each position, with another after it, and how far beyond the index the position lies."""
    positions = np.minimum(positions, size - 1)
    first = np.minimum(positions.astype(np.int64), size - 2)
    return first, (positions - first).astype(np.float32)


def change_channel(frames: Frames, deviation_db: float, rng: np.random.Generator) -> Frames:
    """Add a smooth random curve over the mel bins, as another microphone would: the first four cosines."""
    position = np.linspace(0.0, np.pi, frames.shape[1], dtype=np.float32)
    weights = rng.standard_normal((4, 1), dtype=np.float32) * np.float32(deviation_db / np.sqrt(2) * np.log(10) / 10)
    curve = (weights * np.cos(np.arange(1, 5, dtype=np.float32)[:, None] * position)).sum(axis=0)
    changed: Frames = frames + curve
    return changed


def spec_augment(windows: Windows, config: AugmentConfig, rng: np.random.Generator, mel_bins: int = 80) -> Windows:
    """Level random mel bins, the same in each of the stacked frames, and random stretches of windows.

    They become the mean of the whole: what a model without CMVN reads has no zero that says nothing.
    """
    masked, level = windows.copy(), windows.sum() / max(1, windows.size)
    stacked = masked.reshape(len(masked), masked.shape[1] // mel_bins, mel_bins)
    for _ in range(config.frequency_masks):
        width = int(rng.integers(config.frequency_mask_width))
        first = int(rng.integers(mel_bins - width + 1))
        stacked[:, :, first : first + width] = level
    longest = min(config.time_mask_width, max(1, len(masked) // 10 + 1))
    for _ in range(config.time_masks):
        width = int(rng.integers(longest))
        first = int(rng.integers(len(masked) - width + 1))
        masked[first : first + width] = level
    return masked
