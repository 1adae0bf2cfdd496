"""The one door through which sound comes in: float32, mono, 16 kHz, in [-1, 1].

Files and streams (wav, flac, ogg, mp3 and what else libsndfile reads; headerless 16-bit PCM, `.pcm` or `.raw`; with
the extra `av` also m4a, mp4, webm and what else FFmpeg reads), bytes, arrays, packets and training data are brought to
one scale, one rate and one channel here, and refused here. Any rate from 4 to 192 kHz is resampled. Files are decoded
in small blocks, so memory does not grow with their length.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32

from paraformer.audio.decoding import Block, live_blocks, sound_in
from paraformer.audio.resampling import SAMPLE_RATE, LiveResampler, RateState, at_16k, check_rate, resampled
from paraformer.audio.signal import (
    Channel,
    Listener,
    Samples,
    chosen,
    columns_of,
    half_width,
    is_bytes,
    opposite_phase,
    packet,
)
from paraformer.audio.signatures import is_file_content, pcm_mistake
from paraformer.audio.source import ByteSource, OneWay, Seekable, Source, name_of, opened
from paraformer.errors import AudioError, ParaformerError

__all__ = [
    "SAMPLE_RATE",
    "Channel",
    "LiveResampler",
    "RateState",
    "Samples",
    "Source",
    "blocks_of",
    "channels_of",
    "check_several",
    "chosen",
    "from_array",
    "from_bytes",
    "from_pcm16",
    "half_width",
    "inputs_of",
    "is_bytes",
    "is_file_content",
    "is_samples",
    "mono",
    "name_of",
    "packet",
    "pcm16_blocks",
    "read",
    "read_blocks",
    "regrouped",
    "with_rate",
]

_RAW_SUFFIXES = frozenset({".pcm", ".raw"})
_BLOCK = 4096
_BLOCK_S = 30.0
_FRAMES = 1 << 15
"""Bytes that hold three frames of any format that is frames and nothing else."""


def blocks_of(audio: Any, channel: Channel = "mix") -> Iterator[Samples]:
    """Samples of whatever may be passed as audio, in blocks.

    A path or whatever has `read`: a file, as `read_blocks`; bytes, as `from_bytes`; else an array at 16 kHz, a tensor
    or a sequence of numbers, as `from_array`, or one of these with its rate (`with_rate`). Raises AudioError, perhaps
    only while iterating.
    """
    if isinstance(audio, str | PathLike) or hasattr(audio, "read"):
        return read_blocks(audio, channel=channel)
    samples = (
        from_bytes(bytes(audio), channel=channel) if is_bytes(audio) else from_array(*with_rate(audio), channel=channel)
    )
    return regrouped([samples], round(_BLOCK_S * SAMPLE_RATE))


def channels_of(audio: Any) -> list[Callable[[], Iterator[Samples]]]:
    """For each channel of a recording what gives its blocks, as `blocks_of` does; a file is decoded anew for each.

    Raises AudioError.
    """
    if is_bytes(audio):
        audio = io.BytesIO(audio) if is_file_content(bytes(audio)) else from_pcm16(bytes(audio))
    if not (isinstance(audio, str | PathLike) or hasattr(audio, "read")):
        samples, rate = with_rate(audio)
        columns, rate = columns_of(samples), check_rate(rate, "the array")
        return [partial(blocks_of, (columns[:, number], rate)) for number in range(columns.shape[1])]
    with _one_error(name_of(audio)), ExitStack() as stack:
        data = opened(audio, stack)
        source, start = (data.copied(), 0) if isinstance(data, OneWay) else (audio, data.start)
        raw = _is_raw(audio) and not _is_file(data)
        count = 1 if raw else sound_in(opened(source, stack), stack).channels
    return [partial(_from, source, start, channel) for channel in range(1, count + 1)]


def _from(source: Source, start: int, channel: Channel) -> Iterator[Samples]:
    """The blocks of a file from where it stood when it was passed."""
    if not isinstance(source, str | PathLike):
        source.seek(start)
    return read_blocks(source, channel=channel)


def inputs_of(audio: Any) -> tuple[list[Any], bool]:
    """The inputs in what was passed, and whether they are several: a list, tuple or generator of anything but samples.

    >>> inputs_of(["a.wav", "b.wav"]), inputs_of("a.wav"), inputs_of([0.0, 0.5])
    ((['a.wav', 'b.wav'], True), (['a.wav'], False), ([[0.0, 0.5]], False))
    """
    if not isinstance(audio, list | tuple | Iterator) or hasattr(audio, "read"):
        return [audio], False
    members = list(audio)
    return ([members], False) if is_samples(members) else (members, True)


def is_samples(values: object) -> bool:
    """Whether a list or tuple is one recording: numbers, or samples with their rate; another one holds recordings.

    >>> is_samples([0, 1]), is_samples((np.zeros(9), 8000)), is_samples((np.zeros(9), np.zeros(9)))
    (True, True, False)
    """
    return isinstance(values, list | tuple) and bool(values) and (isinstance(values[0], Real) or _is_pair(values))


def with_rate(samples: Any, rate: int = SAMPLE_RATE) -> tuple[Any, int]:
    """Samples and their rate in Hz: those of a pair of both, in either order, as other libraries' readers give it.

    soundfile, librosa and torchaudio: (samples, rate); scipy: (rate, samples). Samples alone are at `rate`.

    >>> with_rate((np.zeros(2), 8000)), with_rate(np.zeros(2))
    ((array([0., 0.]), 8000), (array([0., 0.]), 16000))
    """
    if _is_pair(samples):
        samples, rate = reversed(samples) if isinstance(samples[0], Real) else samples
    return samples, rate


def _is_pair(values: object) -> bool:
    if not isinstance(values, list | tuple) or len(values) != 2:
        return False
    rates = [value for value in values if isinstance(value, Real) and not 0 < abs(float(value)) < 1]  # else a sample
    others = [value for value in values if not isinstance(value, Real | str | bytes | PathLike)]
    return len(rates) == len(others) == 1 and not hasattr(others[0], "read")


def check_several(audios: object) -> None:
    """Raises AudioError for what is one input, or none, where several are to be passed."""
    one = isinstance(audios, str | bytes | PathLike) or hasattr(audios, "read") or hasattr(audios, "__array__")
    if one or not isinstance(audios, Iterable):
        raise AudioError(f"one {type(audios).__name__} is not several inputs; pass a list of them")


def read(source: Source, *, channel: Channel = "mix") -> Samples:
    """All samples of a file or open binary file; one without any samples gives an empty array.

    channel: the mean of all, or one by its number from 1. A damaged or truncated file gives what can be read of it,
    with a warning to the log; so do channels that cancel each other. Raises AudioNotFound, AudioError (a directory,
    empty, not audio, nothing readable, samples that are not finite or far outside [-1, 1], an impossible rate, no such
    channel) and MissingExtra.
    """
    return np.concatenate([np.zeros(0, np.float32), *read_blocks(source, channel=channel)])


def read_blocks(source: Source, block_s: float = _BLOCK_S, *, channel: Channel = "mix") -> Iterator[Samples]:
    """The samples that `read` gives, bit for bit, in blocks of block_s seconds (the last one shorter).

    Memory does not grow with the length of the file. A stream that cannot seek, as standard input, is decoded while it
    comes, where its format allows it. Raises as `read` does, while iterating.
    """
    name = name_of(source)
    with _one_error(name), ExitStack() as stack:
        listener = Listener(name, chosen(channel))
        data = opened(source, stack)
        if _is_raw(source) and not _is_file(data):
            blocks = _raw_blocks(data)
        else:
            blocks = live_blocks(data, stack) if isinstance(data, OneWay) else sound_in(data, stack).blocks
        yield from regrouped(at_16k(listener.heard(blocks)), round(block_s * SAMPLE_RATE))


@contextmanager
def _one_error(name: str) -> Iterator[None]:
    """Whatever a decoder raises that nobody foresaw, as an AudioError that names the file."""
    try:
        yield
    except (ParaformerError, MemoryError):
        raise
    except Exception as error:
        words = str(error).strip().split("\n")[0] or type(error).__name__
        raise AudioError(f"{name} cannot be decoded: {words}; get the file again, or convert it to wav") from error


def from_array(samples: Any, rate: int = SAMPLE_RATE, *, channel: Channel = "mix") -> Samples:
    """An array, tensor or sequence of numbers, shape (n,), (n, channels) or (channels, n), as samples.

    Integers of 8 to 32 bits are scaled, floats lie in [-1, 1]. Of two dimensions the smaller one is the channels.
    rate: of the array, Hz. Raises AudioError for another type or shape, values that are not finite or far outside
    [-1, 1], and impossible rates.

    >>> from_array(np.array([0, 16384, -32768], np.int16))
    array([ 0. ,  0.5, -1. ], dtype=float32)
    """
    rate = check_rate(rate, "the array")
    columns = columns_of(samples)
    heard = Listener("the array", chosen(channel)).heard([Block(rate, columns)])
    return np.concatenate([np.zeros(0, np.float32), *at_16k(heard)])


def from_bytes(data: bytes, *, channel: Channel = "mix") -> Samples:
    """The bytes of an audio file, decoded; or, where they are of no file, headerless 16-bit PCM as `from_pcm16` reads.

    Raises AudioError.
    """
    return read(io.BytesIO(data), channel=channel) if is_file_content(data) else from_pcm16(data)


def from_pcm16(data: bytes) -> Samples:
    """Headerless 16-bit little-endian mono PCM at 16 kHz as samples.

    Raises AudioError for an odd number of bytes, and for what is something else: a name, text, an archive.
    """
    if mistake := pcm_mistake(data):
        raise AudioError(mistake)
    if len(data) % 2:
        raise AudioError(
            f"{len(data)} bytes are not a whole number of 16-bit samples; keep the odd byte for the next call"
        )
    return _scaled(data)


def _scaled(data: bytes) -> Samples:
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def pcm16_blocks(file: BinaryIO, rate: int = SAMPLE_RATE, *, block_s: float = 0.6) -> Iterator[Samples]:
    """Headerless 16-bit little-endian mono PCM as it comes, e.g. from a pipe: samples of block_s seconds at a time.

    rate: of the PCM, Hz; resampled samples come some milliseconds later. An odd last byte is left out.
    Raises AudioError for impossible rates, and for a file of another format.
    """
    check_rate(rate, "the raw audio")
    with ExitStack() as stack:
        data = opened(file, stack)
        if _is_file(data):
            raise AudioError(f"{data.name} is a file of its own format and not headerless PCM: pass it without a rate")
        blocks = _raw_blocks(data, round(block_s * rate))
        yield from resampled((block.samples[:, 0] for block in blocks), rate)


def mono(columns: Float32[np.ndarray, "instants channels"], rate: int, name: str) -> Samples:
    """What is heard of a recording that others have decoded, at `rate` Hz: the mean of its channels, at 16 kHz.

    Raises AudioError that names it where samples are not finite or far outside [-1, 1], the rate is impossible, or the
    channels cancel each other, so that there is nothing to learn or to measure.
    """
    check_rate(rate, name)
    listener = Listener(name)
    heard = listener.mono(columns)
    if listener.cancelled:
        raise AudioError(opposite_phase(name))
    return np.concatenate([np.zeros(0, np.float32), *resampled([heard], rate)])


def _is_raw(source: object) -> bool:
    """Whether the name of a file says that it is headerless PCM."""
    return isinstance(source, str | PathLike) and Path(source).suffix.lower() in _RAW_SUFFIXES


def _is_file(data: ByteSource) -> bool:
    """Whether a file that is called raw begins as one that is not; of a pipe nobody can tell before it is heard."""
    head = data.read(_FRAMES) if isinstance(data, Seekable) else b""
    data.seek(0)
    data.check()
    return is_file_content(head)


def _raw_blocks(data: ByteSource, count: int = _BLOCK) -> Iterator[Block]:
    """Headerless PCM, `count` samples at a time; an odd last byte is left out."""
    while pcm := data.read(2 * count):
        if mistake := pcm_mistake(pcm):
            raise AudioError(f"{data.name} is not audio that can be read: {mistake}")
        yield Block(SAMPLE_RATE, _scaled(pcm[: len(pcm) // 2 * 2])[:, None])
    data.check()


def regrouped(blocks: Iterable[Samples], size: int) -> Iterator[Samples]:
    """The same samples in blocks of one size; the last may be shorter."""
    waiting: list[Samples] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        if count >= size:
            joined = np.concatenate(waiting)
            full = count - count % size
            yield from joined[:full].reshape(-1, size)
            waiting, count = [joined[full:].copy()], count - full
    if count:
        yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)  # a copy of a long array costs its memory
