"""Which numbers are samples: their scale, range and channels. Every sample that the package hears passes here."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
from jaxtyping import Float32, Shaped

from paraformer.audio.signatures import is_file_content
from paraformer.errors import AudioError, ConfigError

Samples = Float32[np.ndarray, " samples"]
Channels = Float32[np.ndarray, "samples channels"]
Channel = int | Literal["mix"]
"""Which channel is heard: the mean of all of them, or one, counted from 1."""

LOUDEST = 16.0
"""Floats beyond this (24 dB above full scale) were surely meant as integers."""
KINDS = "a path, an open binary file, the bytes of one, or samples: int16, or floats in [-1, 1]"
"""What may be passed as audio, in words."""

_CANCELLED = 0.01
"""The mean of channels has less than this part (-20 dB) of their power: they are in opposite phase."""
_AUDIBLE = 1e-7
"""Mean square of a channel, -70 dB, below which it is too quiet to be missed."""

_log = logging.getLogger(__name__)


def chosen(channel: int | str) -> Channel:
    """`channel` as a choice. Raises ConfigError if it is neither "mix" nor a number from 1.

    >>> chosen("mix"), chosen("2"), chosen(1)
    ('mix', 2, 1)
    """
    if channel == "mix":
        return "mix"
    number = int(channel) if isinstance(channel, str) and channel.isascii() and channel.isdigit() else channel
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise ConfigError(f"channel {channel!r} must be 'mix' (the mean of all), 'each', or a number from 1")
    return int(number)


def is_bytes(values: object) -> TypeGuard[bytes | bytearray | memoryview]:
    """Whether these are bytes; a view of numbers, as `data` of an array is, is an array.

    Nor is an array of uint8 numbers where they are those of a file.

    >>> is_bytes(b"RIFF"), is_bytes(memoryview(b"RIFF")), is_bytes(np.zeros(2, np.float32).data)
    (True, True, False)
    """
    if isinstance(values, memoryview):
        return values.format in ("B", "b", "c")
    if isinstance(values, np.ndarray):
        return values.dtype == np.uint8 and values.ndim == 1 and is_file_content(values.tobytes())
    return isinstance(values, bytes | bytearray)


def as_array(values: Any) -> Shaped[np.ndarray, "..."]:
    """An array, or what can become one: a tensor of any library, a sequence of numbers. Raises AudioError otherwise.

    Python's whole numbers know no width: a list of them, where they all fit, is of 16 bits.

    >>> as_array([0, -5, 300]).dtype, as_array([0, 0.5]).dtype
    (dtype('int16'), dtype('float64'))
    """
    try:
        if hasattr(values, "detach"):  # torch's, whose bfloat16 NumPy does not know
            values = values.detach().cpu()
            values = values.float() if values.is_floating_point() else values
        elif not hasattr(values, "__array__") and callable(getattr(values, "numpy", None)):
            values = values.numpy()
        array = np.asarray(values)
    except Exception as error:  # whatever a foreign tensor raises, as one without numbers does
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise AudioError(f"this {type(values).__name__} cannot be taken for samples: {reason}; pass {KINDS}") from error
    if array.dtype.kind not in "buifc" or (array.ndim == 0 and not hasattr(values, "__array__")):
        what = f"an array of {array.dtype}" if isinstance(values, np.ndarray) else f"a value of {type(values).__name__}"
        raise AudioError(f"{what} is not audio; pass {KINDS}")
    if isinstance(values, list | tuple | deque) and array.dtype.kind == "i" and array.size:
        return array.astype(np.int16) if array.min() >= -(1 << 15) and array.max() < 1 << 15 else array
    return array


def half_width(values: Any) -> str | None:
    """What to say of 32-bit integers that never leave 16 bits, and so are 16-bit samples; None of all others."""
    array = as_array(values)
    if array.dtype.kind != "i" or array.dtype.itemsize != 4 or not array.size:
        return None
    peak = max(int(array.max()), -int(array.min()))
    if not 0 < peak <= 1 << 15:
        return None
    return (
        f"an array of {array.dtype} that never exceeds {peak} holds 16-bit samples: pass it as int16, as by "
        "samples.astype('int16')"
    )


def scaled(values: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Numbers at full scale 1: integers of 8 to 32 bits by their width, uint8 around 128, floats as they are.

    Raises AudioError for other numbers, whose scale cannot be known.
    """
    if values.dtype == np.float32:
        return values
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "i" and size <= 4:
        return values.astype(np.float32) * np.float32(2.0 ** (1 - 8 * size))
    if kind == "u" and size == 1:
        return (values.astype(np.float32) - np.float32(128)) / np.float32(128)
    if kind != "f":
        raise AudioError(
            f"an array of {values.dtype} is not audio: its full scale is not known; pass int16 or floats in [-1, 1]"
        )
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def checked(samples: Float32[np.ndarray, "..."], name: str) -> Float32[np.ndarray, "..."]:
    """The same samples. Raises AudioError if they are not finite or far outside [-1, 1]."""
    if not samples.size:
        return samples
    peak = max(float(samples.max()), -float(samples.min()))
    if peak <= LOUDEST:
        return samples
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} holds samples that are not finite numbers; export it again")
    raise AudioError(
        f"{name} holds values up to {peak:.0f}, far outside [-1, 1]: if they were 16-bit integers, store them as such "
        "or divide by 32768"
    )


def in_columns(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "samples channels"]:
    """An array of one or two dimensions with its channels side by side; the smaller dimension is the channels.

    Raises AudioError for other shapes.
    """
    if values.ndim == 1:
        return values[:, None]
    if values.ndim != 2:
        raise AudioError(f"an array of shape {values.shape} is not audio; pass (n,), (n, channels) or (channels, n)")
    if values.size == 0:
        return np.zeros((0, max(1, min(values.shape))), values.dtype)
    return values if values.shape[1] <= values.shape[0] else values.T


def columns_of(samples: Any) -> Channels:
    """Whatever holds samples, at full scale 1, its channels side by side. Raises AudioError for what holds none."""
    columns = in_columns(as_array(samples))
    if (narrow := half_width(columns)) is not None:
        raise AudioError(narrow)
    return scaled(columns)


def packet(samples: Any) -> Samples:
    """One packet of a live stream: one channel of any length, scaled and checked. Raises AudioError.

    >>> packet(np.array([[-32768], [16384]], np.int16))
    array([-1. ,  0.5], dtype=float32)
    """
    if is_bytes(samples):
        raise AudioError(
            f"a packet is samples, not {len(samples)} bytes; audio.from_pcm16(data) makes samples of 16-bit PCM"
        )
    array = as_array(samples)
    if array.ndim not in (1, 2) or (array.ndim == 2 and 1 not in array.shape):
        raise AudioError(f"a packet of shape {array.shape} is not one channel; pass its samples in one row")
    if array.size == 0:
        return np.zeros(0, np.float32)
    one: Samples = checked(scaled(array.reshape(-1)), "the packet")
    return one


@dataclass
class Listener:
    """Makes one channel of blocks of several, and notices where their mean loses what they say."""

    name: str
    """Of the recording, for messages."""
    channel: Channel = "mix"
    _mixed: float = 0.0
    _apart: float = 0.0
    _count: int = 0

    def mono(self, block: Channels) -> Samples:
        """The channel that is heard. Raises AudioError if there is no such one, and as `checked` does."""
        if self.channel != "mix":
            if self.channel > block.shape[1]:
                raise AudioError(f"{self.name} has {_channels(block.shape[1])}, so there is no channel {self.channel}")
            one: Samples = checked(np.ascontiguousarray(block[:, self.channel - 1]), self.name)
            return one
        block = checked(block, self.name)
        if block.shape[1] == 1:
            only: Samples = block[:, 0]
            return only
        mean: Samples = block.mean(axis=1)
        self._mixed += float(np.einsum("i,i->", mean, mean))
        self._apart += float(np.einsum("ij,ij->", block, block)) / block.shape[1]
        self._count += len(block)
        return mean

    @property
    def cancelled(self) -> bool:
        """Whether the channels are in opposite phase, so that hardly anything is left in their mean."""
        return self._apart > _AUDIBLE * self._count and self._mixed < _CANCELLED * self._apart

    def heard(self, blocks: Iterable[tuple[int, Channels]]) -> Iterator[tuple[int, Samples]]:
        """One channel of all blocks, each after its rate; at the end a warning to the log if channels cancelled."""
        for rate, block in blocks:
            yield rate, self.mono(block)
        if self.cancelled:
            _log.warning("%s", opposite_phase(self.name))


def opposite_phase(name: str) -> str:
    """What to say where channels cancel each other."""
    return f"{name} has channels in opposite phase, which cancel each other: choose one, as channel 1"


def _channels(count: int) -> str:
    return f"{count} channel" + "s" * (count != 1)
