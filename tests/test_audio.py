from __future__ import annotations

import array
import gzip
import io
import itertools
import logging
import os
import signal as signals
import sys
import tarfile
import threading
import tracemalloc
import zipfile
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any

import audio_fuzz
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from paraformer import audio
from paraformer.audio import signal, signatures
from paraformer.errors import AudioError, AudioNotFound, ConfigError, MissingExtra

RATES = (4000, 7000, 8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000)


def tone(seconds: float, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(path: Path, samples: np.ndarray, rate: int = 16000, **how: Any) -> Path:
    soundfile.write(path, samples, rate, **how)
    return path


# -- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("block_s", [0.01, 0.3, 1.0, 30.0])
def test_blocks_together_are_the_whole(tmp_path: Path, rate: int, block_s: float) -> None:
    path = wav(tmp_path / "a.wav", np.stack([tone(1.1, rate), tone(1.1, rate, 300)], axis=1), rate)
    blocks = list(audio.read_blocks(path, block_s))
    np.testing.assert_array_equal(np.concatenate(blocks), audio.read(path))
    assert {len(block) for block in blocks[:-1]} <= {round(block_s * 16000)}
    assert 0 < len(blocks[-1]) <= round(block_s * 16000)


@given(rate=st.sampled_from(RATES), count=st.integers(0, 3000))
def test_array_and_file_agree(tmp_path_factory: pytest.TempPathFactory, rate: int, count: int) -> None:
    samples = tone(1.0, rate)[:count]
    path = wav(tmp_path_factory.mktemp("audio") / "a.wav", samples, rate, subtype="FLOAT")
    read = audio.read(path)
    np.testing.assert_array_equal(read, audio.from_array(samples, rate))
    assert abs(len(read) - len(samples) * 16000 / rate) <= 1


@given(st.integers(1, 40), st.integers(1, 8), st.sampled_from([np.int16, np.int32, np.float32, np.float64]))
def test_either_order_of_axes_and_any_width(count: int, channels: int, dtype: type) -> None:
    count += channels
    scale = 1.0 if np.issubdtype(dtype, np.floating) else -float(np.iinfo(dtype).min)
    samples = (np.linspace(-0.9, 0.9, count * channels).reshape(count, channels) * scale).astype(dtype)
    expected = samples.mean(axis=1) / scale
    np.testing.assert_allclose(audio.from_array(samples), expected, atol=1e-6)
    np.testing.assert_array_equal(audio.from_array(samples.T), audio.from_array(samples))


@given(st.lists(st.integers(-32768, 32767)))
def test_pcm16_bytes_and_int16_arrays_agree(values: list[int]) -> None:
    samples = np.array(values, "<i2")
    np.testing.assert_array_equal(audio.from_pcm16(samples.tobytes()), samples.astype(np.float32) / 32768)
    np.testing.assert_array_equal(audio.from_pcm16(samples.tobytes()), audio.from_array(samples.astype(np.int16)))


# -- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_resampling_keeps_a_tone(rate: int) -> None:
    resampled = audio.from_array(tone(1.0, rate), rate)
    middle = slice(4000, 12000)
    assert len(resampled) == 16000
    np.testing.assert_allclose(resampled[middle], tone(1.0)[middle], atol=2e-3)


@pytest.mark.parametrize(
    ("suffix", "how"), [("wav", {}), ("flac", {}), ("ogg", {}), ("mp3", {}), ("wav", {"subtype": "PCM_24"})]
)
def test_formats(tmp_path: Path, suffix: str, how: dict[str, str]) -> None:
    path = wav(tmp_path / f"a.{suffix}", tone(1.0), **how)
    expected = tone(1.0)
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        read = audio.read(source)
        assert read.dtype == np.float32
        assert len(read) == 16000
        np.testing.assert_allclose(read[2000:14000], expected[2000:14000], atol=0.02)


@pytest.mark.parametrize("suffix", ["pcm", "raw", "RAW"])
def test_headerless_pcm(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\x00\x40\x00\xc0" * 5000 + b"\x07")
    np.testing.assert_array_equal(audio.read(path), np.tile(np.float32([0.5, -0.5]), 5000))


def test_eight_channels_and_a_short_last_block(tmp_path: Path) -> None:
    samples = np.tile(tone(1.0)[: 4096 + 3, None], 8) * np.arange(8) / 8
    path = wav(tmp_path / "a.wav", samples, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(path), samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("mp4", "aac"), ("webm", "libopus")])
def test_formats_of_the_extra(tmp_path: Path, suffix: str, codec: str) -> None:
    path = compressed(tmp_path / f"a.{suffix}", codec)
    read = audio.read(path)
    assert abs(len(read) - 16000) < 1600
    assert 0.3 < np.abs(read[4000:12000]).max() < 0.7
    np.testing.assert_array_equal(np.concatenate(list(audio.read_blocks(path, 0.25))), read)


def compressed(path: Path, codec: str) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000)
        frame = av.AudioFrame.from_ndarray(np.tile(tone(1.0, 48000), (2, 1)), format="fltp", layout="stereo")
        frame.rate = 48000
        resampler = av.AudioResampler(stream.format, stream.layout, 48000)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(2000))
    (tmp_path / "a.wav").write_bytes(b"words, not sound " * 100)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"a\.m4a.*paraformer\[av\]"):
        audio.read(tmp_path / "a.m4a")
    with pytest.raises(AudioError, match=r"a\.wav is not audio"):
        audio.read(tmp_path / "a.wav")


def test_standard_input_cannot_seek(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", tone(2.0, 8000), 8000)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb") as sink:
        thread = threading.Thread(target=lambda: (sink.write(path.read_bytes()), sink.close()))
        thread.start()
        np.testing.assert_array_equal(audio.read(source), audio.read(path))
        thread.join()


def test_a_wav_written_to_a_pipe_has_no_length(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(wav(tmp_path / "a.wav", tone(1.0)).read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    assert len(audio.read(io.BytesIO(bytes(data)))) == 16000
    assert not caplog.records


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", tone(300.0, 8000), 8000)
    next(audio.read_blocks(path, 1.0))
    tracemalloc.start()
    total = sum(len(block) for block in audio.read_blocks(path, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 300 * 16000
    assert peak < 2e6


# -- what is wrong with audio -----------------------------------------------------------------------------------------


def test_no_samples_are_valid(tmp_path: Path) -> None:
    for rate in (16000, 44100):
        path = wav(tmp_path / "a.wav", np.zeros((0, 2)), rate)
        assert audio.read(path).shape == (0,)
        assert list(audio.read_blocks(path)) == []
    for shape in ((0,), (0, 2), (2, 0)):
        assert audio.from_array(np.zeros(shape, np.float32)).shape == (0,)
    assert audio.from_pcm16(b"").shape == (0,)


def test_silence_is_valid(tmp_path: Path) -> None:
    assert not audio.read(wav(tmp_path / "a.wav", np.zeros(16000))).any()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AudioNotFound, match=r"there is no file .*gone\.wav"):
        audio.read(tmp_path / "gone.wav")


@pytest.mark.parametrize("name", ["https://example.org/a.wav", Path("https://example.org/a.wav"), "file:///a.wav"])
def test_an_address_is_no_file(name: str | Path) -> None:
    with pytest.raises(AudioNotFound, match=r"a\.wav is an address and not a file; download it"):
        audio.read(name)


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is a directory"):
        audio.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"words, not sound " * 100, "is not audio"),
        (b"RIFF\x24\x00\x00\x00WAVE", "is not audio"),
        (bytes(5000), "is not audio"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(2000), "is not audio"),
    ],
)
def test_not_audio(tmp_path: Path, content: bytes, message: str) -> None:
    pytest.importorskip("av")
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=rf"bad\.wav {message}") as caught:
        audio.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(AudioError, match=rf"the audio stream {message}"):
        audio.read(io.BytesIO(content))


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_files_decode_as_in_one_read(tmp_path: Path, suffix: str) -> None:
    path = wav(tmp_path / f"a.{suffix}", np.random.default_rng(0).standard_normal(50000) * 0.1)
    whole = audio.read(path)
    np.testing.assert_allclose(whole, soundfile.read(path, dtype="float32")[0], atol=1e-6)
    for block_s in (0.1, 1.0):
        np.testing.assert_array_equal(np.concatenate(list(audio.read_blocks(path, block_s))), whole)


def test_an_mp3_with_a_large_picture(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.mp3", tone(1.0))
    size = 600_000
    tag = b"ID3\x03\x00\x00" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    tagged = tmp_path / "tagged.mp3"
    tagged.write_bytes(tag + bytes(size) + path.read_bytes())
    np.testing.assert_array_equal(audio.read(tagged), audio.read(path))


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_truncated_files_give_their_readable_part(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(32000) * 0.1
    path = tmp_path / f"cut.{suffix}"
    whole = audio.read(wav(path, noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        part = audio.read(path)
    assert 4000 < len(part) < 20000
    np.testing.assert_allclose(part[:4000], whole[:4000], atol=1e-3)
    assert "cut" in caplog.text
    assert "truncated" in caplog.text


@pytest.mark.parametrize(("suffix", "kept"), [("wav", 44), ("flac", 3000)])
def test_truncated_files_without_a_sample(tmp_path: Path, suffix: str, kept: int) -> None:
    rng = np.random.default_rng(0)
    path = wav(tmp_path / f"cut.{suffix}", rng.standard_normal(32000) * 0.1)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(AudioError, match="not one sample can be read"):
        audio.read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path: Path, value: float) -> None:
    samples = np.tile(tone(0.5)[:, None], 2)
    samples[5000] = value
    with pytest.raises(AudioError, match=r"a\.wav holds samples that are not finite"):
        audio.read(wav(tmp_path / "a.wav", samples, subtype="FLOAT"))
    with pytest.raises(AudioError, match="not finite"):
        audio.from_array(samples)


@pytest.mark.parametrize("rate", [1000, 384000])
def test_absurd_rates(tmp_path: Path, rate: int) -> None:
    with pytest.raises(AudioError, match=rf"a\.wav has a sample rate of {rate} Hz"):
        audio.read(wav(tmp_path / "a.wav", tone(0.1), rate))
    with pytest.raises(AudioError, match="the array has a sample rate"):
        audio.from_array(tone(0.1), rate)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((2, 3, 4), np.float32),
        np.zeros(5, np.int64),
        np.zeros(5, bool),
        np.float32(1),
        np.full(9, 3e4),
        np.array(["a"]),
    ],
)
def test_arrays_that_are_not_audio(samples: np.ndarray) -> None:
    with pytest.raises(AudioError, match=r"the array holds|an array of"):
        audio.from_array(samples)


def test_odd_bytes_of_pcm() -> None:
    with pytest.raises(AudioError, match="3 bytes"):
        audio.from_pcm16(b"abc")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match=r"a\.wav cannot be opened: Permission denied"):
        audio.read(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_headerless_pcm_as_it_comes(rate: int) -> None:
    signal = np.random.default_rng(rate).integers(-9000, 9000, 3 * rate // 2, np.int16)
    blocks = list(audio.pcm16_blocks(io.BytesIO(signal.astype("<i2").tobytes() + b"!"), rate))
    assert len(blocks) >= 3
    np.testing.assert_allclose(np.concatenate(blocks), audio.from_array(signal, rate), atol=1e-6)


# -- scale ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", ">i2", "<i4", "float16", "float64", "longdouble"])
def test_every_width_is_the_same_sound(dtype: str) -> None:
    wanted = np.array([0.5, -0.25, 0.0, -1.0], np.float32)
    scale, zero = {"i": (2.0 ** (8 * np.dtype(dtype).itemsize - 1), 0), "u": (128, 128), "f": (1, 0)}[
        np.dtype(dtype).kind
    ]
    values = (wanted.astype(np.float64) * scale + zero).astype(dtype)
    np.testing.assert_array_equal(audio.from_array(values), wanted)
    np.testing.assert_array_equal(audio.packet(values), wanted)


@pytest.mark.parametrize("dtype", ["int64", "uint16", "bool", "complex64", "object", "U3", "datetime64[s]"])
def test_numbers_without_a_scale_are_refused(dtype: str) -> None:
    for take in (audio.from_array, audio.packet):
        with pytest.raises(AudioError, match="is not audio"):
            take(np.zeros(5, dtype))


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_a_float_file_of_whole_numbers_is_refused(tmp_path: Path, subtype: str) -> None:
    path = wav(tmp_path / "loud.wav", np.round(tone(0.2) * 24000), subtype=subtype)
    with pytest.raises(AudioError, match=r"loud\.wav holds values up to 12000, far outside"):
        audio.read(path)
    with pytest.raises(AudioError, match="loud"):
        audio.read(wav(tmp_path / "loud.wav", np.stack([tone(0.2), -tone(0.2)], 1) * 24000, subtype=subtype))
    np.testing.assert_array_equal(audio.read(wav(tmp_path / "hot.wav", tone(0.2) * 4, subtype=subtype)), tone(0.2) * 4)


# -- what may be passed -----------------------------------------------------------------------------------------------


class Tensor:
    """As those of libraries that know numpy but not its protocol."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def numpy(self) -> np.ndarray:
        return self.values


def heard(source: Any, **how: Any) -> np.ndarray:
    return np.concatenate(list(audio.blocks_of(source, **how)))


def test_whatever_holds_samples_is_heard(tmp_path: Path) -> None:
    whole = np.round(tone(0.1) * 32768) / np.float32(32768)
    pcm = (whole * 32768).astype("<i2")
    path = wav(tmp_path / "a.wav", whole)
    data = path.read_bytes()
    for source in (
        path,
        str(path),
        data,
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        io.BytesIO(b"before" + data),
        Unseekable(data),
        pcm,
        pcm.tobytes(),
        array.array("h", pcm.tolist()),
        pcm.tolist(),
        deque(pcm.tolist()),
        (whole, 16000),
        (16000, pcm),
        [torch.from_numpy(whole)[None], 16000],
        (whole.tolist(), np.int64(16000)),
        whole.tolist(),
        tuple(whole.tolist()),
        torch.from_numpy(whole),
        torch.from_numpy(pcm),
        Tensor(whole),
        whole[:, None],
        whole[None],
    ):
        if isinstance(source, io.BytesIO) and source.read(6) != b"before":
            source.seek(0)
        np.testing.assert_array_equal(heard(source), whole)


class Unseekable(io.RawIOBase):
    """A stream that comes once, a few bytes at a time."""

    def __init__(self, data: bytes, most: int = 1000) -> None:
        self.data, self.most, self.taken = data, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.data[self.taken : self.taken + min(len(buffer), self.most)]
        buffer[: len(piece)] = piece
        self.taken += len(piece)
        return len(piece)


class Failing(Unseekable):
    """A stream that breaks in the middle."""

    def __init__(self, data: bytes, error: BaseException) -> None:
        super().__init__(data)
        self.error = error

    def readinto(self, buffer: Any) -> int:
        if self.taken > 6000:
            raise self.error
        return super().readinto(buffer)


def at_its_end() -> io.BytesIO:
    file = io.BytesIO(b"RIFF")
    file.read()
    return file


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "a value of NoneType is not audio; pass a path"),
        ({"a": 1}, "a value of dict is not audio; pass a path"),
        (object(), "a value of object is not audio; pass a path"),
        (5, "a value of int is not audio"),
        ((np.zeros(5), 48000.0), "a sample rate of 48000.0; it must be a whole number"),
        ((np.zeros(5), 2), "a sample rate of 2 Hz"),
        ((np.zeros(5), True), "a sample rate of True; it must be a whole number"),
        ([1 << 15, 0], "its full scale is not known"),
        ([0.5, "a"], "is not audio"),
        (b"/data/a.wav", "the name of a file in bytes: pass it as text"),
        (b"https://x.org/a.mp3", "the name of a file in bytes"),
        (["a"], "is not audio"),
        ([[0.1], [0.2, 0.3]], "cannot be taken for samples"),
        (torch.zeros(5, device="meta"), "cannot be taken for samples"),
        (io.StringIO("text"), "open as text"),
        (at_its_end(), r"read to its end: seek\(0\)"),
        (io.BytesIO(), "is empty"),
        (b"abc", "3 bytes"),
        ("", "an empty name names no file"),
        (Unseekable(b""), "is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_whatever_holds_none_is_refused_in_one_sentence(source: Any, message: str) -> None:
    for take in (heard, audio.channels_of):
        if take is audio.channels_of and source == ["a"]:
            continue
        with pytest.raises(AudioError, match=message) as caught:
            take(source)
        assert len(str(caught.value)) < 300
        assert "\n" not in str(caught.value)


def test_files_within_files(tmp_path: Path) -> None:
    """Whose `mode`, `name` and places are not those of other files."""
    path = wav(tmp_path / "a.wav", tone(0.5))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "a.wav")
    with gzip.open(tmp_path / "a.gz", "wb") as compressed:
        compressed.write(path.read_bytes())
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(path, "a.wav")
    with (
        zipfile.ZipFile(tmp_path / "a.zip") as archive,
        archive.open("a.wav") as zipped,
        gzip.open(tmp_path / "a.gz") as named,
        gzip.GzipFile(fileobj=io.BytesIO((tmp_path / "a.gz").read_bytes())) as nameless,
        tarfile.open(tmp_path / "a.tar") as tar,
        path.open("rb", buffering=0) as unbuffered,
    ):
        for file in (zipped, named, nameless, tar.extractfile("a.wav"), unbuffered):
            np.testing.assert_array_equal(audio.read(file), audio.read(path))


def test_16_bit_samples_in_wider_integers_are_refused() -> None:
    for values in (np.array([0, 1200, -32768], np.int32), torch.tensor([32767, -5], dtype=torch.int32)):
        with pytest.raises(AudioError, match="holds 16-bit samples: pass it as int16"):
            audio.from_array(values)
    assert audio.from_array(np.array([0, 1 << 30], np.int32)).tolist() == [0.0, 0.5]
    assert audio.from_array(np.zeros(2, np.int32)).tolist() == [0.0, 0.0]


def test_files_that_are_open_in_the_wrong_way(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", tone(0.1))
    with path.open(encoding="latin-1") as file, pytest.raises(AudioError, match=r"a\.wav is open as text"):
        audio.read(file)  # type: ignore[arg-type]
    with path.open("rb") as closed:
        pass
    with pytest.raises(AudioError, match=r"a\.wav is closed"):
        audio.read(closed)
    with (tmp_path / "new").open("wb") as writing, pytest.raises(AudioError, match="new is open for writing only"):
        audio.read(writing)
    with pytest.raises(AudioError, match="cannot be opened"):
        audio.read("a\0b.wav")


@pytest.mark.parametrize("seekable", [True, False])
def test_an_error_of_the_source_is_told(tmp_path: Path, seekable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = wav(tmp_path / "a.wav", tone(1.0)).read_bytes()
    monkeypatch.setattr(Failing, "seekable", lambda _: seekable)
    monkeypatch.setattr(Failing, "tell", lambda self: self.taken)
    monkeypatch.setattr(
        Failing,
        "seek",
        lambda self, place, whence=0: setattr(self, "taken", place if whence == 0 else len(data)) or self.taken,
    )
    with pytest.raises(AudioError, match="the audio stream cannot be read: connection lost"):
        audio.read(Failing(data, ConnectionError("connection lost")))
    with pytest.raises(KeyboardInterrupt):
        audio.read(Failing(data, KeyboardInterrupt()))


def test_several_inputs_or_one() -> None:
    path, numbers = "a.wav", [0.0, 0.5]
    pairs = ((np.zeros(9), 8000), (8000, np.zeros(9)), [torch.zeros(1, 9), 8000])
    for one in (path, numbers, (0.0, 0.5), np.zeros(3), torch.zeros(3), io.BytesIO(), None, b"ab", *pairs):
        assert audio.inputs_of(one)[1] is False
    assert audio.inputs_of(iter(numbers)) == ([numbers], False)
    for several in ([path, path], (path, path), (path for _ in range(2))):
        assert audio.inputs_of(several) == ([path, path], True)
    for several in ([], ["a.wav", 16000], [*pairs], (np.zeros(2), np.zeros(2))):
        assert audio.inputs_of(several)[1] is True


@pytest.mark.parametrize("rate", [8000, 44100])
def test_samples_with_their_rate_are_as_a_file_of_them(tmp_path: Path, rate: int) -> None:
    columns = np.stack([tone(0.3, rate), tone(0.3, rate, 700)], axis=1)
    path = wav(tmp_path / "a.wav", columns, rate, subtype="FLOAT")
    samples, given = soundfile.read(path)
    for pair in ((samples, given), (given, samples), (torch.from_numpy(columns.T), given)):
        np.testing.assert_array_equal(heard(pair), audio.read(path))
        channels = [np.concatenate(list(one())) for one in audio.channels_of(pair)]
        np.testing.assert_array_equal(channels, [audio.read(path, channel=1), audio.read(path, channel=2)])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64"])
def test_bytes_of_a_file_are_no_pcm(tmp_path: Path, suffix: str) -> None:
    path = wav(tmp_path / f"a.{suffix}", tone(1.0))
    np.testing.assert_array_equal(audio.from_bytes(path.read_bytes()), audio.read(path))


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("mp2", "mp2"),
        ("ac3", "ac3"),
        ("eac3", "eac3"),
        ("adts", "aac"),
        ("latm", "aac"),
        ("mpegts", "mp2"),
        ("mpeg", "mp2"),
        ("nut", "aac"),
        ("rm", "ac3"),
        ("sox", "pcm_s32le"),
        ("ircam", "pcm_s16le"),
        ("tta", "tta"),
        ("wv", "wavpack"),
        ("adx", "adpcm_adx"),
        ("spdif", "ac3"),
    ],
)
def test_bytes_of_a_file_for_ffmpeg_are_no_pcm(form: str, codec: str) -> None:
    for channels, rate in ((1, 48000), (2, 48000), (1, 32000)):
        data = made_by_ffmpeg(form, codec, channels, seconds=0.5, rate=rate)
        heard = audio.from_bytes(data)
        assert abs(len(heard) - 8000) < 1600
        np.testing.assert_array_equal(heard, audio.read(io.BytesIO(data)))


def test_a_frame_of_nothing_at_the_end_is_no_damage() -> None:
    assert abs(len(audio.read(io.BytesIO(made_by_ffmpeg("adx", "adpcm_adx", 1, rate=16000)))) - 3200) < 64


@given(st.binary(max_size=600))
def test_bytes_of_no_file_are_pcm(data: bytes) -> None:
    if not audio.is_file_content(data) and signatures.pcm_mistake(data * 2) is None:
        np.testing.assert_array_equal(audio.from_bytes(data * 2), audio.from_pcm16(data * 2))


# -- channels ---------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 9), length=st.integers(9, 300), chunk=st.integers(1, 300))
def test_one_channel_is_as_a_file_of_its_own(count: int, length: int, chunk: int) -> None:
    columns = np.random.default_rng(count).uniform(-1, 1, (length, count)).astype(np.float32)
    for number in range(1, count + 1):
        np.testing.assert_array_equal(audio.from_array(columns, channel=number), columns[:, number - 1])
        listener = signal.Listener("it", number)
        parts = [listener.mono(columns[at : at + chunk]) for at in range(0, length, chunk)]
        np.testing.assert_array_equal(np.concatenate(parts), columns[:, number - 1])
    each = [np.concatenate(list(blocks())) for blocks in audio.channels_of(columns)]
    np.testing.assert_array_equal(np.stack(each, axis=1), columns)


def test_channels_of_files_and_streams(tmp_path: Path) -> None:
    left, right = tone(0.5, 8000), tone(0.5, 8000, 900)
    path = wav(tmp_path / "call.wav", np.stack([left, right], 1), 8000, subtype="FLOAT")
    data = path.read_bytes()
    after = io.BytesIO(b"before" + data)
    after.seek(6)
    for source in (path, data, io.BytesIO(data), after, Unseekable(data)):
        first, second = (np.concatenate(list(blocks())) for blocks in audio.channels_of(source))
        np.testing.assert_array_equal(first, audio.from_array(left, 8000))
        np.testing.assert_array_equal(second, audio.from_array(right, 8000))
    np.testing.assert_array_equal(audio.read(path, channel=2), audio.from_array(right, 8000))
    with pytest.raises(AudioError, match=r"call\.wav has 2 channels, so there is no channel 3"):
        audio.read(path, channel=3)
    (only,) = audio.channels_of(wav(tmp_path / "one.wav", left, 8000, subtype="FLOAT"))
    np.testing.assert_array_equal(np.concatenate(list(only())), audio.from_array(left, 8000))
    (tmp_path / "a.pcm").write_bytes(bytes(100))
    assert len(audio.channels_of(tmp_path / "a.pcm")) == 1


@pytest.mark.parametrize("channel", [0, -1, "left", "1.5", True, None, 1.5, "each", "²"])
def test_a_channel_that_cannot_be(channel: Any) -> None:
    with pytest.raises(ConfigError, match="must be 'mix'"):
        audio.from_array(tone(0.1), channel=channel)


@pytest.mark.parametrize("factor", [1.0, 0.95])
def test_channels_that_cancel_each_other(tmp_path: Path, factor: float, caplog: pytest.LogCaptureFixture) -> None:
    columns = np.stack([tone(0.5), -factor * tone(0.5)], axis=1)
    path = wav(tmp_path / "phase.wav", columns)
    audio.read(path)
    assert "phase.wav has channels in opposite phase" in caplog.text
    caplog.clear()
    audio.from_array(columns)
    assert "the array has channels in opposite phase" in caplog.text
    caplog.clear()
    audio.read(path, channel=2)
    rng = np.random.default_rng(0)
    for other in (columns * [1, 0], rng.standard_normal((8000, 8)) * 0.1, np.zeros((8000, 2)), columns[:, :1]):
        audio.from_array(other)
    assert not caplog.records


def test_non_finite_samples_of_a_channel_that_nobody_hears(tmp_path: Path) -> None:
    columns = np.stack([tone(0.1), np.full(1600, np.nan, np.float32)], axis=1)
    path = wav(tmp_path / "a.wav", columns, subtype="FLOAT")
    np.testing.assert_array_equal(audio.read(path, channel=1), tone(0.1))
    with pytest.raises(AudioError, match="not finite"):
        audio.read(path)


# -- by FFmpeg --------------------------------------------------------------------------------------------------------


def made_by_ffmpeg(form: str, codec: str, channels: int, seconds: float = 0.2, rate: int = 48000) -> bytes:
    """A file whose channels are tones of 0.3, 0.6, 0.9 kHz and so on."""
    pytest.importorskip("av")
    columns = np.stack([tone(seconds, rate, 300 * (1 + k)) for k in range(channels)], axis=1)
    return audio_fuzz.by_ffmpeg(form, codec, columns, rate)


MANY = [
    ("mov", "pcm_s16le"),
    ("avi", "pcm_s16le"),
    ("matroska", "pcm_s16le"),
    ("matroska", "pcm_f32le"),
    ("matroska", "wavpack"),
    ("nut", "pcm_s16le_planar"),
]


@pytest.mark.parametrize("channels", [1, 2, 8, 10, 16])
@pytest.mark.parametrize(("form", "codec"), MANY)
def test_any_number_of_channels_by_ffmpeg(form: str, codec: str, channels: int) -> None:
    data = made_by_ffmpeg(form, codec, channels)
    if codec == "wavpack":  # FFmpeg's encoder begins with what the samples' width makes of it
        assert len(audio.read(io.BytesIO(data))) == 3200
        return
    columns = np.stack([tone(0.2, 48000, 300 * (1 + k)) for k in range(channels)], axis=1)
    for channel in ("mix", 1, channels):
        wanted = audio.from_array(columns, 48000, channel=channel)
        np.testing.assert_allclose(audio.read(io.BytesIO(data), channel=channel), wanted, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize(("form", "codec"), [("mp4", "aac"), ("matroska", "libopus"), ("webm", "libopus")])
def test_any_number_of_compressed_channels_by_ffmpeg(form: str, codec: str, channels: int) -> None:
    read = audio.read(io.BytesIO(made_by_ffmpeg(form, codec, channels)))
    assert abs(len(read) - 3200) < 1600


# -- streams that come once -------------------------------------------------------------------------------------------


LIVE = [
    ("WAV", "PCM_16"),
    ("WAV", "ULAW"),
    ("WAVEX", "PCM_24"),
    ("RF64", "FLOAT"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("form", "subtype"), LIVE)
@pytest.mark.parametrize("rate", [16000])
def test_a_stream_is_heard_as_its_file_while_it_comes(form: str, subtype: str, rate: int) -> None:
    file = io.BytesIO()
    sound = np.random.default_rng(0).standard_normal((rate * 20, 1)) * 0.1
    soundfile.write(file, sound, rate, subtype, format=form)
    data = file.getvalue()
    stream = Unseekable(data)
    blocks = audio.read_blocks(stream, 0.1)
    first = next(blocks)
    at_once = len(data) // 40 + 16_384  # half a second, and what is read before; a pipe holds more
    assert stream.taken <= (at_once if form not in ("OGG", "MP3") else at_once + 100_000)
    np.testing.assert_array_equal(np.concatenate([first, *blocks]), audio.read(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("form", "codec", "live"),
    [
        ("mp4", "aac", False),
        ("matroska", "aac", True),
        ("webm", "libopus", True),
        ("mov", "pcm_s16le", False),
        ("avi", "pcm_s16le", True),
        ("adts", "aac", True),
        ("mpegts", "aac", True),
    ],
)
def test_what_ffmpeg_reads_comes_as_from_a_file(form: str, codec: str, live: bool) -> None:
    data = made_by_ffmpeg(form, codec, 2, seconds=20)
    stream = Unseekable(data)
    blocks = audio.read_blocks(stream, 0.2)
    first = next(blocks)
    assert (stream.taken < len(data) / 2) is live
    np.testing.assert_array_equal(np.concatenate([first, *blocks]), audio.read(io.BytesIO(data)))


def test_a_stream_that_breaks_off_is_heard_so_far(caplog: pytest.LogCaptureFixture) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(2.0), 16000, format="WAV")
    cut = Unseekable(file.getvalue()[: 44 + 2 * 31_000])
    assert len(audio.read(cut)) == 31_000
    assert "only its first 1.94 s" in caplog.text


def test_a_stream_left_early_does_no_harm() -> None:
    for form in ("WAV", "MP3"):
        file = io.BytesIO()
        soundfile.write(file, np.tile(tone(1.0), 60), 16000, format=form)
        blocks = audio.read_blocks(Unseekable(file.getvalue()), 0.2)
        next(blocks)
        blocks.close()


def test_an_interrupt_while_a_file_is_read_is_an_interrupt(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And not a damaged file: it may come in a callback of libsndfile, where it would be printed and lost."""
    soundfile.write(tmp_path / "talk.wav", np.zeros(200_000), 16_000)
    calls = itertools.count()

    def press(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "vio_read" and next(calls) == 4:
            signals.raise_signal(signals.SIGINT)

    before = signals.getsignal(signals.SIGINT)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the profile must end
        try:
            sys.setprofile(press)
            audio.read(tmp_path / "talk.wav")
        finally:
            sys.setprofile(None)
    assert next(calls) > 4
    assert signals.getsignal(signals.SIGINT) is before
    assert capfd.readouterr() == ("", "")


def test_a_film_without_sound_is_named(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "silent.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        film.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        film.mux(stream.encode())
    with pytest.raises(AudioError, match=r"silent\.mp4 holds no audio track"):
        audio.read(tmp_path / "silent.mp4")


@given(
    st.sampled_from([b"\xff\xfb", b"\xff\xf3", b"\xff\xfd", b"\xff\xf1", b"\x0b\x77", b"\x56\xe2"]),
    st.binary(max_size=400),
)
def test_raw_pcm_is_never_taken_for_frames(sync: bytes, data: bytes) -> None:
    """Not even where it begins as a frame of mp3, mp2, aac, ac3 or latm does, be it as short as a packet."""
    assert not audio.is_file_content(sync + data + bytes(2000))
    assert not audio.is_file_content(sync + data)


@given(st.integers(0, 1000), st.floats(-4, 0))
def test_speech_as_raw_pcm_is_never_taken_for_a_file(seed: int, loudness: float) -> None:
    """libsndfile takes some of it for one of its formats."""
    samples = np.random.default_rng(seed).normal(0, 10**loudness / 4, 4000).clip(-1, 1)
    assert not audio.is_file_content((samples * 32767).astype("<i2").tobytes())


@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3"])
def test_memory_does_not_grow_with_a_stream(form: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.tile(tone(1.0, 8000), 400), 8000, format=form)
    stream = Unseekable(file.getvalue(), most=10_000)
    blocks = audio.read_blocks(stream, 1.0)
    next(blocks)
    tracemalloc.start()
    total = 1 + sum(len(block) for block in blocks) // 16000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 400
    assert peak < 2e6


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF, 0xFFFFFF00])
def test_a_wav_from_a_recorder_has_no_length(length: int, caplog: pytest.LogCaptureFixture) -> None:
    """As arecord, sox and ffmpeg write it into a pipe."""
    file = io.BytesIO()
    soundfile.write(file, tone(2.0), 16000, format="WAV")
    wanted = audio.from_bytes(file.getvalue())
    data = bytearray(file.getvalue())
    data[40:44] = length.to_bytes(4, "little")
    data[4:8] = min(length + 36, 0xFFFFFFFF).to_bytes(4, "little")
    for source in (Unseekable(bytes(data)), io.BytesIO(bytes(data))):
        np.testing.assert_array_equal(audio.read(source), wanted)
    assert not caplog.records


def test_no_sound_and_a_further_chunk_is_no_sound() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(0), 16000, format="WAV")
    data = file.getvalue() + b"LIST\x04\x00\x00\x00INFO"
    for source in (io.BytesIO(data), Unseekable(data)):
        assert audio.read(source).shape == (0,)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_a_view_of_numbers_is_an_array_and_no_bytes(kind: type) -> None:
    """As `data` of an array is, or a view of array.array."""
    numbers = (np.linspace(-1, 1, 64) * (1 if kind is not np.int16 else 32767)).astype(kind)
    (got,) = audio.blocks_of(memoryview(numbers))
    np.testing.assert_array_equal(got, audio.from_array(numbers))
    (one,) = audio.channels_of(memoryview(numbers))
    np.testing.assert_array_equal(np.concatenate(list(one())), got)
    np.testing.assert_array_equal(audio.packet(memoryview(numbers)), got)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html><body>404 not found</body></html>", "39 bytes are text and not audio"),
        ("这是一句话，而不是声音。".encode() * 2, "72 bytes are text and not audio"),
        (b'\xef\xbb\xbf{"error": "no such recording here"}', "bytes are text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "are a picture"),
        (gzip.compress(bytes(1000), mtime=0), "are a gzip archive"),
        (b"PK\x03\x04" + bytes(100), "are a zip archive"),
        (b"%PDF-1.7\n" + bytes(101), "are a PDF"),
        (b"/data/recordings/talk", "is the name of a file in bytes"),
        (b"~/talks/today", "is the name of a file in bytes"),
    ],
)
def test_what_is_surely_no_sound_is_no_pcm(data: bytes, words: str, tmp_path: Path) -> None:
    for hear in (audio.from_pcm16, audio.from_bytes, audio.channels_of):
        with pytest.raises(AudioError, match=words):
            hear(data)
    (tmp_path / "a.raw").write_bytes(data)
    with pytest.raises(AudioError, match="a.raw is not audio that can be read: .*" + words):
        audio.read(tmp_path / "a.raw")


@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3"])
def test_a_file_that_is_called_raw_and_bytes_in_an_array_are_that_file(form: str, tmp_path: Path) -> None:
    """As `np.fromfile(path, np.uint8)` gives them."""
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone(1.0), tone(1.0)], 1), 16000, format=form)
    wanted = audio.from_bytes(file.getvalue())
    (tmp_path / "a.pcm").write_bytes(file.getvalue())
    np.testing.assert_array_equal(audio.read(tmp_path / "a.pcm"), wanted)
    assert len(audio.channels_of(tmp_path / "a.pcm")) == 2
    (heard,) = audio.blocks_of(np.frombuffer(file.getvalue(), np.uint8))
    np.testing.assert_array_equal(heard, wanted)
    with pytest.raises(AudioError, match="a packet is samples, not"):
        audio.packet(np.frombuffer(file.getvalue(), np.uint8))


def test_tensors_with_a_history_or_in_bfloat16_are_samples() -> None:
    samples = torch.linspace(-1, 1, 800)
    for tensor in (samples.clone().requires_grad_(), samples.double().requires_grad_() * 1):
        np.testing.assert_array_equal(audio.from_array(tensor), samples.numpy())
        np.testing.assert_array_equal(audio.packet(tensor), samples.numpy())
    np.testing.assert_array_equal(audio.packet(samples.bfloat16()), samples.bfloat16().float().numpy())


@pytest.mark.parametrize("rate", [0, 1, -16000, True, 16000.0])
def test_an_impossible_rate_beside_samples_is_named(rate: object) -> None:
    with pytest.raises(AudioError, match=f"sample rate of {rate}"):
        list(audio.blocks_of((np.zeros(800), rate)))


def test_an_address_of_any_kind_is_no_file() -> None:
    with pytest.raises(AudioNotFound, match=r"s3://calls/talk\.wav is an address and not a file"):
        audio.read("s3://calls/talk.wav")
