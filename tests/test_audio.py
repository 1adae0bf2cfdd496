from __future__ import annotations

import io
import logging
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from paraformer import audio
from paraformer.errors import AudioError, AudioNotFound, MissingExtra

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
