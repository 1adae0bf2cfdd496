"""Files, streams, bytes and arrays to samples: float32, mono, 16 kHz, in [-1, 1].

The only part that knows file formats: wav, flac, ogg, mp3 and what else libsndfile reads; headerless 16-bit PCM
(`.pcm`, `.raw`); with the extra `av` also m4a, mp4, webm and what else FFmpeg reads. Channels become their mean; any
rate from 4 to 192 kHz is resampled. Files are decoded in small blocks, so memory does not grow with their length.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from paraformer.errors import AudioError, AudioNotFound, MissingExtra

SAMPLE_RATE = 16000
"""Hz, of everything that leaves this module."""
LOWEST_RATE, HIGHEST_RATE = 4000, 192000

Samples = Float32[np.ndarray, " samples"]
Source = str | os.PathLike[str] | BinaryIO
"""A path, or an open binary file: seekable or not (standard input)."""

_log = logging.getLogger(__name__)
_BLOCK = 4096
"""Samples decoded at a time: so many are lost at most where a damaged file breaks off."""
_RAW_SUFFIXES = frozenset({".pcm", ".raw"})
_LOUDEST = 256.0
"""Floats beyond this were surely meant as integers."""
_IN_MEMORY = 32 << 20
"""Bytes of an unseekable stream kept in memory; what exceeds them goes to a temporary file."""
_ENDLESS = 0x7FFF0000
"""Data lengths from here on are what programs write into a wav header when they cannot know better."""
_SURE = 0.95
"""The share of its length that a file must give to be called complete: the length of an mp3 may be an estimate."""
_WAV_LENGTH = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_AV_SIGNATURES = re.compile(
    rb"....ftyp|\x1a\x45\xdf\xa3|#!AMR|\x30\x26\xb2\x75|\xff[\xf0\xf1\xf8\xf9]|RIFF....AVI |FLV\x01", re.DOTALL
)
"""First bytes of mp4 and m4a, webm, amr, wma, aac, avi, flv."""


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is only read forward.

    A seekable one seeks to where it is after each block, and mp3 then loses the frames that it had read ahead: clicks
    and gaps at each block.
    """

    def seekable(self) -> bool:
        """No."""
        return False


class _Decoded(NamedTuple):
    """Blocks of mono samples at the rate of their source."""

    rate: int
    blocks: Iterator[Samples]


def read(source: Source) -> Samples:
    """All samples of a file or open binary file; one without any samples gives an empty array.

    A damaged or truncated file gives what can be read of it, with a warning to the log. Raises AudioNotFound,
    AudioError (a directory, empty, not audio, nothing readable, samples that are not finite, an impossible rate) and
    MissingExtra.
    """
    return np.concatenate([np.zeros(0, np.float32), *read_blocks(source)])


def read_blocks(source: Source, block_s: float = 30.0) -> Iterator[Samples]:
    """The samples that `read` gives, bit for bit, in blocks of block_s seconds (the last one shorter).

    Memory does not grow with the length of the file. Raises as `read` does, while iterating.
    """
    with ExitStack() as stack:
        decoded = _open(source, stack)
        finite = _checked(decoded.blocks, _name(source))
        yield from regrouped(_resampled(finite, decoded.rate), round(block_s * SAMPLE_RATE))


def from_array(samples: np.ndarray, rate: int = SAMPLE_RATE) -> Samples:
    """An array of int16, int32 or floats in [-1, 1], shape (n,), (n, channels) or (channels, n), as samples.

    Of two dimensions the smaller one is the channels. rate: of the array, Hz. Raises AudioError for another type or
    shape, values that are not finite or far outside [-1, 1], and impossible rates.
    """
    mono = _mono(_as_float(np.asarray(samples)))
    _check_rate(rate, "the array")
    if len(mono) and not float(np.abs(mono).max()) <= _LOUDEST:
        raise AudioError("the array holds values that are not finite or far outside [-1, 1]; scale it or pass int16")
    return np.concatenate([np.zeros(0, np.float32), *_resampled([mono], rate)])


def from_pcm16(data: bytes) -> Samples:
    """Headerless 16-bit little-endian mono PCM at 16 kHz as samples. Raises AudioError for an odd number of bytes."""
    if len(data) % 2:
        raise AudioError(
            f"{len(data)} bytes are not a whole number of 16-bit samples; keep the odd byte for the next call"
        )
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def pcm16_blocks(file: BinaryIO, rate: int = SAMPLE_RATE, *, block_s: float = 0.6) -> Iterator[Samples]:
    """Headerless 16-bit little-endian mono PCM as it comes, e.g. from a pipe: samples of block_s seconds at a time.

    rate: of the PCM, Hz; resampled samples come some milliseconds later. An odd last byte is left out.
    Raises AudioError for impossible rates.
    """
    _check_rate(rate, "the raw audio")
    yield from _resampled(_raw_blocks(file, round(block_s * rate)), rate)


# -- opening ----------------------------------------------------------------------------------------------------------


def _name(source: Source) -> str:
    """The source, for messages."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the audio stream"


def _open(source: Source, stack: ExitStack) -> _Decoded:
    """Find out what the source holds and begin to decode it; the stack closes what was opened."""
    name = _name(source)
    file = stack.enter_context(_open_path(Path(source))) if isinstance(source, str | os.PathLike) else source
    if isinstance(source, str | os.PathLike) and Path(source).suffix.lower() in _RAW_SUFFIXES:
        return _Decoded(SAMPLE_RATE, _raw_blocks(file))
    seekable = file if file.seekable() else _spooled(file, stack)
    start = seekable.tell()
    head = seekable.read(16)
    seekable.seek(start)
    if not head:
        raise AudioError(f"{name} is empty (0 bytes); there is no audio in it")
    try:
        sound = stack.enter_context(_Forward(seekable))
    except soundfile.LibsndfileError as error:
        seekable.seek(start)
        return _open_with_av(seekable, head, name, stack, error)
    _check_rate(sound.samplerate, name)
    return _Decoded(sound.samplerate, _sound_blocks(sound, name))


def _open_path(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise AudioNotFound(f"there is no file {path}; check the name") from error
    except IsADirectoryError as error:
        raise AudioError(f"{path} is a directory; name the audio files in it") from error
    except OSError as error:
        raise AudioError(f"{path} cannot be opened: {error.strerror}") from error


def _spooled(file: BinaryIO, stack: ExitStack) -> IO[bytes]:
    """A seekable copy of a stream that is not."""
    copy = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  the stack closes it
    while data := file.read(1 << 16):
        copy.write(data)
    copy.seek(0)
    return copy


def _check_rate(rate: int, name: str) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"{name} has a sample rate of {rate} Hz; it must lie between {LOWEST_RATE} and {HIGHEST_RATE}")


# -- decoding ---------------------------------------------------------------------------------------------------------


def _raw_blocks(file: IO[bytes], count: int = _BLOCK) -> Iterator[Samples]:
    """Headerless PCM, `count` samples at a time; an odd last byte is left out."""
    while data := file.read(2 * count):
        yield from_pcm16(data[: len(data) // 2 * 2])


def _sound_blocks(sound: soundfile.SoundFile, name: str) -> Iterator[Samples]:
    """What libsndfile reads, up to where the file breaks off."""
    count, broken = 0, _wav_breaks_off(sound)
    while True:
        try:
            block = sound.read(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            broken = True
            break
        if not len(block):
            break
        count += len(block)
        yield _mean(block)
    _report_break(name, count, broken or count < _SURE * sound.frames, sound.samplerate)


def _wav_breaks_off(sound: soundfile.SoundFile) -> bool:
    """Whether a wav file holds less than its header says; libsndfile then corrects the length in silence."""
    lengths = _WAV_LENGTH.search(sound.extra_info)
    return lengths is not None and int(lengths[2]) < int(lengths[1]) < _ENDLESS


def _report_break(name: str, count: int, broken: bool, rate: int) -> None:
    """Nothing readable is an error, less than promised a warning."""
    if broken and count == 0:
        raise AudioError(f"{name} is damaged or truncated: not one sample can be read; get the file again")
    if broken:
        _log.warning("%s is damaged or truncated: only its first %.2f s can be read", name, count / rate)


def _open_with_av(file: IO[bytes], head: bytes, name: str, stack: ExitStack, cause: Exception) -> _Decoded:
    """Decode with FFmpeg what libsndfile does not know."""
    try:
        import av
    except ImportError:
        if _AV_SIGNATURES.match(head):
            raise MissingExtra(f"reading {name}", "av") from None
        raise AudioError(f"{name} is not audio that can be read: {_reason(cause)}") from cause
    try:
        container = stack.enter_context(av.open(file, metadata_errors="ignore"))
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"{name} is not audio that can be read: {_reason(cause)}") from error
    if not container.streams.audio:
        raise AudioError(f"{name} holds no audio track")
    rate = container.streams.audio[0].rate
    _check_rate(rate, name)
    return _Decoded(rate, _av_blocks(av, container, name, rate))


def _reason(error: Exception) -> str:
    """libsndfile's own words."""
    return str(getattr(error, "error_string", error)).rstrip(".") or "it is damaged"


def _av_blocks(av: Any, container: Any, name: str, rate: int) -> Iterator[Samples]:
    """What FFmpeg decodes of the first audio track, up to where the file breaks off."""
    planar = av.AudioResampler(format="fltp", rate=rate)
    count, broken = 0, False
    frames = container.decode(audio=0)
    with closing(frames):
        while True:
            try:
                frame = next(frames, None)
            except av.FFmpegError:
                broken = True
                break
            for part in planar.resample(frame):
                block = part.to_ndarray()
                count += block.shape[1]
                yield _mean(block.T)
            if frame is None:
                break
    _report_break(name, count, broken, rate)


# -- samples ----------------------------------------------------------------------------------------------------------


def _as_float(samples: np.ndarray) -> np.ndarray:
    """Integers to [-1, 1) by their width."""
    if samples.dtype in (np.int16, np.int32):
        scale = np.float32(-1.0 / np.iinfo(samples.dtype).min)
        return samples.astype(np.float32) * scale
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"an array of {samples.dtype} is not audio; pass int16, int32 or floats in [-1, 1]")
    with np.errstate(over="ignore"):
        return samples.astype(np.float32, copy=False)


def _mono(samples: np.ndarray) -> Samples:
    """An array of one or two dimensions as one channel; the smaller dimension is the channels."""
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise AudioError(f"an array of shape {samples.shape} is not audio; pass (n,), (n, channels) or (channels, n)")
    if samples.size == 0:
        return np.zeros(0, np.float32)
    return _mean(samples if samples.shape[1] <= samples.shape[0] else samples.T)


def _mean(samples: Float32[np.ndarray, "samples channels"]) -> Samples:
    """The mean of the channels."""
    with np.errstate(invalid="ignore", over="ignore"):
        mean: Samples = samples.mean(axis=1)
    return mean


def _checked(blocks: Iterable[Samples], name: str) -> Iterator[Samples]:
    """The same blocks, if their samples are finite."""
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError(f"{name} holds samples that are not finite numbers; export it again")
        yield block


def _resampled(blocks: Iterable[Samples], rate: int) -> Iterator[Samples]:
    """Blocks at 16 kHz: one resampler runs through all of them, so their sizes do not show in the result."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


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
        yield np.concatenate(waiting)
