"""Damaged audio files of every format, made from sound ones, and a child process that tries to hear them.

`python tests/audio_fuzz.py SEEDS FIRST LAST` prints a line for each number: what became of that file.
"""

from __future__ import annotations

import io
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from paraformer import audio
from paraformer.errors import ParaformerError

SECONDS, MEMORY = 20, 3 << 30
"""What one file may take: seconds, and bytes of address space of the process."""
LOUDEST = 20.0
"""No sample is beyond this: what the door lets in, and what resampling may add to it."""

BY_LIBSNDFILE = (
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "ALAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "GSM610"),
    ("WAVEX", "PCM_16"),
    ("WAVEX", "FLOAT"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
)
BY_FFMPEG = (
    ("ipod", "aac"),
    ("mp4", "aac"),
    ("mp4", "mp3"),
    ("webm", "libopus"),
    ("matroska", "aac"),
    ("matroska", "pcm_s16le"),
    ("avi", "pcm_s16le"),
    ("avi", "mp3"),
    ("mov", "pcm_s16le"),
    ("mov", "aac"),
    ("adts", "aac"),
    ("mp2", "mp2"),
    ("ac3", "ac3"),
    ("mpegts", "aac"),
    ("flv", "aac"),
    ("asf", "mp3"),
    ("nut", "pcm_s16le_planar"),
)


def tones(channels: int, rate: int, seconds: float) -> np.ndarray:
    """Columns of a little tone and a little noise."""
    times = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(channels).standard_normal((len(times), channels)) * 0.05
    wave = np.sin(2 * np.pi * 300 * np.outer(times, 1 + np.arange(channels))) * 0.3 + noise
    return np.clip(wave, -1, 1).astype(np.float32)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Sound files of every format, with their names."""
    for number, (form, subtype) in enumerate(BY_LIBSNDFILE):
        channels, rate = (1, 2)[number % 2], (16000, 8000, 48000)[number % 3]
        channels = 1 if subtype == "GSM610" else channels
        file = io.BytesIO()
        soundfile.write(file, tones(channels, rate, 0.4), rate, subtype, format=form)
        yield f"{form}-{subtype}", file.getvalue()
    file = io.BytesIO()
    soundfile.write(file, tones(9, 16000, 0.2), 16000, "PCM_16", format="WAVEX")
    yield "WAVEX-9", file.getvalue()
    yield "RAW-.pcm", (tones(1, 16000, 0.4) * 32767).astype("<i2").tobytes()
    for form, codec in BY_FFMPEG:
        for channels in (1, 2, 8, 10) if codec.startswith("pcm") else (2,):
            yield f"{form}-{codec}-{channels}", by_ffmpeg(form, codec, tones(channels, 48000, 0.3), 48000)


def by_ffmpeg(form: str, codec: str, columns: np.ndarray, rate: int) -> bytes:
    """A file that PyAV has written."""
    import av

    file, channels = io.BytesIO(), columns.shape[1]
    with av.open(file, "w", format=form) as container:
        layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}.get(channels, f"{channels}c")
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        frame: Any = av.AudioFrame.from_ndarray(columns.reshape(1, -1), format="flt", layout=stream.layout)
        frame.rate = rate
        resampler: Any = av.AudioResampler(stream.format.name, stream.layout, rate, stream.frame_size or None)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


# -- mutations --------------------------------------------------------------------------------------------------------


def flip(data: bytearray, rng: np.random.Generator) -> None:
    """Some bits, anywhere or in the first bytes."""
    reach = len(data) if rng.random() < 0.5 else min(len(data), 400)
    for place in rng.integers(0, reach, int(2 ** rng.uniform(0, 7))):
        data[place] ^= 1 << int(rng.integers(8))


def cut(data: bytearray, rng: np.random.Generator) -> None:
    """The end, or a stretch of the middle."""
    first = int(rng.integers(len(data)))
    last = len(data) if rng.random() < 0.5 else min(len(data), first + int(rng.integers(1, 2000)))
    del data[first:last]


def field(data: bytearray, rng: np.random.Generator) -> None:
    """Numbers of the header, by others that are odd or large."""
    for _ in range(int(rng.integers(1, 4))):
        width = int(rng.choice([1, 2, 4, 8]))
        values = (0, 1, 2, 3, 7, 8, 255, 256, 1024, 65535, 2**31 - 1, 2**31, 2**32 - 1, int(rng.integers(2**32)))
        value = int(rng.choice(values)) % 256**width
        place = int(rng.integers(max(1, min(len(data), 300) - width)))
        data[place : place + width] = value.to_bytes(width, "little" if rng.random() < 0.6 else "big")


def wav_field(data: bytearray, rng: np.random.Generator) -> None:
    """The number of channels, rate, width or coding of a wav file; of others, some bytes as well."""
    place, width, values = [
        (22, 2, (0, 1, 2, 3, 8, 255, 256, 1024, 1025, 65535)),
        (24, 4, (0, 1, 3999, 4000, 11025, 44100, 192000, 192001, 2**31)),
        (34, 2, (0, 1, 8, 12, 16, 24, 32, 64, 65)),
        (20, 2, (0, 1, 2, 3, 6, 7, 17, 49, 85, 255, 65534)),
        (40, 4, (0, 1, 2**31 - 1, 2**32 - 1)),
    ][int(rng.integers(5))]
    data[place : place + width] = int(rng.choice(values)).to_bytes(width, "little")


def repeat(data: bytearray, rng: np.random.Generator) -> None:
    """A stretch of it once more, somewhere."""
    first = int(rng.integers(len(data)))
    stretch = data[first : first + int(rng.integers(1, 3000))]
    place = int(rng.integers(len(data)))
    data[place:place] = stretch


def blank(data: bytearray, rng: np.random.Generator) -> None:
    """A stretch of zeros, ones or noise."""
    first, length = int(rng.integers(len(data))), int(rng.integers(1, 1000))
    length = min(length, len(data) - first)
    data[first : first + length] = [bytes(length), b"\xff" * length, rng.bytes(length)][int(rng.integers(3))]


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (flip, cut, field, wav_field, repeat, blank)


def damaged(files: list[tuple[str, bytes]], number: int) -> tuple[str, bytes]:
    """File `number`: its name, and one of the sound ones after one to three mutations."""
    rng = np.random.default_rng([20, number])
    name, data = files[number % len(files)]
    mutated = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if mutated:
            MUTATIONS[int(rng.integers(len(MUTATIONS)))](mutated, rng)
    return name, bytes(mutated)


# -- the child --------------------------------------------------------------------------------------------------------


class Once(io.RawIOBase):
    """Bytes that come but once, as on standard input."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As much as a pipe may give at once."""
        part = self._rest.read(min(len(buffer), 5000))
        buffer[: len(part)] = part
        return len(part)


def outcome(name: str, data: bytes, number: int, folder: Path) -> str:
    """What becomes of a file; anything that begins with BAD should not be."""
    path = folder / ("a.pcm" if name.endswith(".pcm") else "a.wav")
    path.write_bytes(data)
    ways: list[Callable[[], np.ndarray]] = [
        lambda: audio.read(path),
        lambda: audio.read(Once(data)),  # type: ignore[arg-type]
        lambda: audio.from_bytes(data),
        lambda: audio.read(path, channel=2),
        lambda: np.concatenate([np.zeros(0, np.float32), *audio.channels_of(path)[-1]()]),
    ]
    try:
        samples = ways[(number // 7) % len(ways)]()
    except ParaformerError as error:
        words = str(error)
        return f"BAD words: {words!r}" if "\n" in words or len(words) > 400 else f"refused: {words}"
    except BaseException as error:  # noqa: BLE001  that is the question
        return f"BAD {type(error).__name__}: {' '.join(str(error).split())}"
    if samples.dtype != np.float32 or samples.ndim != 1 or not np.isfinite(samples).all():
        return f"BAD samples: {samples.dtype}, shape {samples.shape}"
    return f"BAD peak: {peak}" if (peak := float(np.abs(samples).max(initial=0))) > LOUDEST else f"heard {len(samples)}"


def main(directory: str, first: str, last: str) -> None:
    """Hear the damaged files of some numbers; a line for each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("error")
    folder = Path(directory)
    files = [(path.name, path.read_bytes()) for path in sorted(folder.glob("*-*"))]
    for number in range(int(first), int(last)):
        signal.alarm(SECONDS)
        print(number, outcome(*damaged(files, number), number, folder / first), flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) / sys.argv[2]
    folder.mkdir(exist_ok=True)
    main(*sys.argv[1:])
