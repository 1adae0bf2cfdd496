"""The only part that knows file formats: libsndfile's, headerless PCM, and FFmpeg's with the extra `av`.

Sound comes in small blocks, as soon as its bytes have come, and memory does not grow with its length.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from queue import SimpleQueue
from types import FrameType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Shaped

from paraformer.audio.resampling import check_rate
from paraformer.audio.signal import Channels, scaled
from paraformer.audio.signatures import FORWARD, THROUGH_PIPE, UNCLOSED, is_for_ffmpeg
from paraformer.audio.source import ByteSource, OneWay
from paraformer.errors import AudioError, MissingExtra

_BLOCK = 4096
"""Samples decoded at a time: so many are lost at most where a damaged file breaks off."""
_HEAD = 192
"""Bytes that tell what a file is."""
_ENDLESS = 0x7FFF0000
"""Data lengths from here on are what programs write into a wav header when they cannot know better."""
_UNKNOWN = 1 << 40
"""Numbers of frames from here on are libsndfile's way to say that it does not know."""
_SURE = 0.95
"""The share of its length that a file must give to be called complete: the length of an mp3 may be an estimate."""
_EXACT = ("WAV", "WAVEX", "RF64")
"""Formats whose headers give the number of samples, unless they are endless."""
_PACKED = ("u8", "s16", "s32", "flt", "dbl")
"""FFmpeg's formats with one plane, in which channels stand side by side."""
_WAV_LENGTH = re.compile(r"^data : (\d+)(?: \(should be (\d+)\))?", re.MULTILINE)
_log = logging.getLogger(__name__)


class Block(NamedTuple):
    """Decoded sound at its own rate, Hz."""

    rate: int
    samples: Channels


class Sound(NamedTuple):
    """What a source holds, at first sight, and all of it in blocks."""

    channels: int
    blocks: Iterator[Block]


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is only read forward.

    A seekable one seeks to where it is after each block, and mp3 then loses the frames that it had read ahead: clicks
    and gaps at each block.
    """

    def seekable(self) -> bool:
        """No."""
        return False


def sound_in(data: ByteSource, stack: ExitStack) -> Sound:
    """Find out what the bytes are and begin to decode them; the stack closes what was opened.

    Raises AudioError and MissingExtra.
    """
    head = data.read(_HEAD)
    data.seek(0)
    data.check()
    if not head:
        raise AudioError(f"{data.name} {data.emptiness}; there is no audio in it")
    if unclosed := UNCLOSED.match(head):
        data.mend(unclosed.end(1), b"\xff" * 4)
    sound = _by_libsndfile(data, head, stack)
    if sound is None:
        return _by_ffmpeg(data, head, stack)
    data.check()
    check_rate(sound.samplerate, data.name)
    return Sound(sound.channels, _sound_blocks(sound, data))


def live_blocks(data: OneWay, stack: ExitStack) -> Iterator[Block]:
    """What a stream holds, decoded by a thread of its own, block by block as asked, which closes what the stack held.

    libsndfile waits for a stream in C, where Ctrl-C would have no effect until more comes; here it is waited for in
    Python. A thread that is left alone while the stream says nothing ends with the stream or with the process.
    """
    decoded: SimpleQueue[Block | BaseException | None] = SimpleQueue()
    asked, resources, left = threading.Semaphore(0), stack.pop_all(), False

    def decode() -> None:
        end: BaseException | None = None
        with resources:
            try:
                for block in sound_in(data, resources).blocks:
                    decoded.put(block)
                    asked.acquire()
                    if left:
                        break
            except BaseException as error:  # noqa: BLE001  raised where it is waited for
                end = error
        decoded.put(end)

    threading.Thread(target=decode, daemon=True).start()
    try:
        while (block := decoded.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            yield block
            asked.release()
    finally:
        left = True
        asked.release()


# -- libsndfile -------------------------------------------------------------------------------------------------------


def _by_libsndfile(data: ByteSource, head: bytes, stack: ExitStack) -> soundfile.SoundFile | None:
    """The bytes opened by libsndfile; a stream, if possible, before it has come to its end. None if FFmpeg must."""
    with suppress(soundfile.LibsndfileError):
        if isinstance(data, OneWay):
            return _by_libsndfile_live(data, head, stack)
        with _interrupts_wait():
            return stack.enter_context(_Forward(data))
    data.seek(0)
    return None


def _by_libsndfile_live(data: OneWay, head: bytes, stack: ExitStack) -> soundfile.SoundFile | None:
    if is_for_ffmpeg(head):
        return None
    if os.name == "posix" and THROUGH_PIPE.match(head):
        with suppress(soundfile.LibsndfileError):
            return _through_pipe(data, stack)
    if not FORWARD.match(head):
        data.take_all()
    data.seek(0)
    sound = stack.enter_context(_Forward(data))
    data.let_go()
    return sound


def _through_pipe(data: OneWay, stack: ExitStack) -> soundfile.SoundFile:
    """The stream opened by libsndfile as a pipe, which a thread fills as it comes."""
    reading, writing = os.pipe()
    thread = threading.Thread(target=_pump, args=(data, writing), daemon=True)
    thread.start()
    try:
        sound = _Forward(reading, closefd=False)
    except soundfile.LibsndfileError:
        os.close(reading)
        thread.join()
        raise
    stack.callback(os.close, reading)
    data.let_go()
    return stack.enter_context(sound)


def _pump(data: OneWay, pipe: int) -> None:
    """Write all that comes, until nobody reads it any more."""
    try:
        while piece := data.some(_BLOCK):
            while piece:
                piece = piece[os.write(pipe, piece) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(pipe)


def _sound_blocks(sound: soundfile.SoundFile, data: ByteSource) -> Iterator[Block]:
    """What libsndfile reads, up to where the file breaks off."""
    count, broken = 0, _wav_breaks_off(sound)
    while True:
        try:
            with _interrupts_wait():
                block = sound.read(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            broken = True
            break
        data.check()
        if not len(block):
            break
        count += len(block)
        yield Block(sound.samplerate, block)
    _report_break(data.name, broken or count < _promised(sound), count / sound.samplerate)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: in a callback of C's it would be lost, and the file seem damaged."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: came.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(signal.SIGINT, came[0])


def _wav_breaks_off(sound: soundfile.SoundFile) -> bool:
    """Whether a wav file holds less than its header says; libsndfile then corrects the length in silence."""
    lengths = _WAV_LENGTH.search(sound.extra_info)
    return lengths is not None and int(lengths[2] or lengths[1]) < int(lengths[1]) < _ENDLESS


def _promised(sound: soundfile.SoundFile) -> float:
    """The frames that a file surely has, if its header is right; 0 where that is not known."""
    lengths = _WAV_LENGTH.search(sound.extra_info)
    if sound.frames >= _UNKNOWN or (lengths and int(lengths[1]) >= _ENDLESS):
        return 0.0
    return float(sound.frames) * (1.0 if sound.format in _EXACT else _SURE)


def _report_break(name: str, broken: bool, seconds: float) -> None:
    """Nothing readable is an error, less than promised a warning."""
    if broken and not seconds:
        raise AudioError(f"{name} is damaged or truncated: not one sample can be read; get the file again")
    if broken:
        _log.warning("%s is damaged or truncated: only its first %.2f s can be read", name, seconds)


# -- FFmpeg -----------------------------------------------------------------------------------------------------------


def _by_ffmpeg(data: ByteSource, head: bytes, stack: ExitStack) -> Sound:
    """Decode with FFmpeg what libsndfile does not know."""
    try:
        import av
    except ImportError:
        if is_for_ffmpeg(head):
            raise MissingExtra(f"reading {data.name}", "av") from None
        raise AudioError(f"{data.name} is not audio that can be read: its format is not known") from None
    if isinstance(data, OneWay) and not data.seekable():
        with suppress(AudioError):  # such as an mp4 whose index is at its end
            sound = _opened_by_ffmpeg(av, SimpleNamespace(read=data.some), data, stack)
            data.let_go()
            return sound
        data.take_all()
    data.seek(0)
    return _opened_by_ffmpeg(av, data, data, stack)


def _opened_by_ffmpeg(av: Any, file: Any, data: ByteSource, stack: ExitStack) -> Sound:
    """The first audio track of a file, of which the first frame has been decoded."""
    with ExitStack() as opened:
        try:
            container = opened.enter_context(av.open(file, metadata_errors="ignore"))
        except Exception as error:
            data.check()
            raise AudioError(f"{data.name} is not audio that can be read: {_reason(error)}") from error
        if not container.streams.audio:
            raise AudioError(f"{data.name} holds no audio track")
        frames = opened.enter_context(closing(container.decode(audio=0)))
        try:
            first = next(frames, None)
        except Exception as error:
            data.check()
            raise AudioError(
                f"{data.name} is damaged or truncated: not one sample can be read; get the file again"
            ) from error
        stack.push(opened.pop_all())
    if first is None:
        data.check()
        return Sound(1, iter(()))
    return Sound(first.layout.nb_channels, _frame_blocks(av, first, frames, data))


def _reason(error: Exception) -> str:
    """The library's own words, without the call that they came from."""
    words = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return words.rstrip(".") or "it is damaged"


def _frame_blocks(av: Any, first: Any, frames: Iterator[Any], data: ByteSource) -> Iterator[Block]:
    """What FFmpeg decodes, up to where the file breaks off."""
    broken, seconds = False, 0.0

    def unbroken() -> Iterator[Any]:
        nonlocal broken
        yield first
        try:
            yield from frames
        except av.FFmpegError:
            broken = True

    sounding = (frame for frame in unbroken() if frame.samples)  # some decoders end with a frame of nothing
    for block in _gathered(map(_Interleaver(av), sounding)):
        data.check()
        check_rate(block.rate, data.name)
        seconds += len(block.samples) / block.rate
        yield block
    data.check()
    _report_break(data.name, broken, seconds)


def _gathered(parts: Iterable[tuple[int, np.ndarray]]) -> Iterator[Block]:
    """Frames, which may be as short as one sample, in blocks of some size."""
    waiting: list[np.ndarray] = []
    rate = count = 0
    for part_rate, part in parts:
        if waiting and (count >= _BLOCK or not _alike(rate, waiting[0], part_rate, part)):
            yield Block(rate, scaled(np.concatenate(waiting)))
            waiting, count = [], 0
        rate = part_rate
        waiting.append(part)
        count += len(part)
    if waiting:
        yield Block(rate, scaled(np.concatenate(waiting)))


def _alike(rate: int, samples: np.ndarray, other_rate: int, other: np.ndarray) -> bool:
    return rate == other_rate and samples.dtype == other.dtype and samples.shape[1] == other.shape[1]


class _Interleaver:
    """Frames of FFmpeg as arrays with their rates, any number of channels.

    Channels in planes of their own are laid side by side first: from eight planes on, PyAV reads wrongly and crashes.
    """

    def __init__(self, av: Any) -> None:
        self._av = av
        self._setting: tuple[str, str, int] | None = None
        self._convert: Any = None

    def __call__(self, frame: Any) -> tuple[int, Shaped[np.ndarray, "samples channels"]]:
        """Rate and samples of a frame, as FFmpeg has them."""
        packed = frame if frame.format.name in _PACKED else self._packed(frame)
        return frame.sample_rate, packed.to_ndarray().reshape(-1, frame.layout.nb_channels)

    def _packed(self, frame: Any) -> Any:
        setting = frame.format.name, frame.layout.name, frame.sample_rate
        if setting != self._setting:
            self._setting = setting
            self._convert = self._av.AudioResampler("flt", frame.layout, frame.sample_rate)
        (packed,) = self._convert.resample(frame)
        return packed
