"""Whole audio: files and arrays, lists, long recordings, silence, and what cannot be read."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny
import tiny_bundle
import torch
from hypothesis import given
from hypothesis import strategies as st

import paraformer
from paraformer.backends.base import Decoded
from paraformer.backends.torch import TorchBackend
from paraformer.bundle import Bundle
from paraformer.checkpoint import convert
from paraformer.config import ChunkConfig, TrainingChunk
from paraformer.errors import AudioError, AudioNotFound, ConfigError, InputFailed, SessionError, UnsupportedModel
from paraformer.model.paraformer import Paraformer
from paraformer.recognizer import Recognizer
from paraformer.recordings import join_segments
from paraformer.types import Transcript


def cut_every_5_s(blocks: Iterable[np.ndarray]) -> Iterator[tuple[float, np.ndarray]]:
    samples = np.concatenate(list(blocks))
    for start in range(0, len(samples), 80_000):
        yield start / 16_000, samples[start : start + 80_000]


def recognizer(name: str = "onnx", segmenter=cut_every_5_s) -> Recognizer:
    engine = tiny.engine(name)
    bundle = Bundle(
        directory=None, config=tiny.config(), tokens=tiny.TOKENS, cmvn=engine.frontend.cmvn, words={}, card={}
    )
    return Recognizer(bundle, tiny.backend(name), segmenter)


def gist(transcript: Transcript) -> list[tuple[str, float]]:
    return [(token.text, round(token.start_s, 4)) for token in transcript.tokens]


@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=5), st.sampled_from([0.5, 3.0, 60.0]))
def test_a_list_gives_what_each_gives_alone(lengths: list[int], batch_s: float) -> None:
    signals, tool = [tiny.signal(length, seed) for seed, length in enumerate(lengths)], recognizer()
    together = tool.transcribe(signals, batch_s=batch_s)
    assert [gist(t) for t in together] == [gist(tool.transcribe(samples)) for samples in signals]
    assert [t.duration_s for t in together] == [length / 16_000 for length in lengths]


def test_long_audio_is_cut_and_joined_in_order(tmp_path) -> None:
    samples = tiny.signal(16_000 * 47)
    soundfile.write(tmp_path / "long.wav", samples, 16_000)
    result = recognizer().transcribe(tmp_path / "long.wav", batch_s=12)
    starts = [segment.start_s for segment in result.segments]
    assert starts == sorted(starts)
    assert result.duration_s == 47
    assert len(result.segments) > 5
    times = [token.start_s for token in result.tokens]
    assert all(a <= b for a, b in pairwise(times))


def test_times_of_later_segments_count_from_the_start_of_the_audio(tmp_path) -> None:
    """Of tokens and of segments, where they start and where they end."""
    samples, tool = tiny.signal(16_000 * 47), recognizer()
    cuts = list(cut_every_5_s([samples]))
    alone = [(start_s, tool.transcribe(piece).segments[0]) for start_s, piece in cuts]
    soundfile.write(tmp_path / "long.wav", samples, 16_000, subtype="FLOAT")
    for (offset, expected), got in zip(alone, tool.transcribe(tmp_path / "long.wav").segments, strict=True):
        assert got.text == expected.text
        pairs = list(zip([got, *got.tokens], [expected, *expected.tokens], strict=True))
        starts, ends = ([getattr(one, name) for pair in pairs for one in pair] for name in ("start_s", "end_s"))
        for times in (starts, ends):
            np.testing.assert_allclose(times[::2], np.array(times[1::2]) + offset, rtol=0, atol=5e-5)


def test_short_audio_is_not_cut() -> None:
    assert len(recognizer().transcribe(tiny.signal(16_000 * 20)).segments) == 1


@pytest.mark.parametrize("samples", [0, 1, 100, 16_000])
def test_silence_gives_an_empty_text(samples: int) -> None:
    result = recognizer().transcribe(np.zeros(samples, np.float32))
    assert result.text == ""
    assert result.segments == ()
    assert result.duration_s == samples / 16_000
    assert result.confidence == 0.0


def test_one_bad_file_does_not_stop_the_others(tmp_path) -> None:
    soundfile.write(tmp_path / "good.wav", tiny.signal(20_000), 16_000)
    (tmp_path / "bad.wav").write_bytes(b"not a sound")
    names = ["bad.wav", "good.wav", "none.wav", "good.wav"]
    results = list(recognizer().transcribe_each([tmp_path / name for name in names]))
    assert [type(result) for result in results] == [AudioError, Transcript, AudioNotFound, Transcript]
    assert gist(results[1]) == gist(results[3])
    with pytest.raises(AudioError, match=r"bad\.wav"):
        recognizer().transcribe([tmp_path / name for name in names])


class Fragile:
    """A backend that fails where one utterance is among those of a batch, with an error of its own kind."""

    def __init__(self, error: Exception, rows: int) -> None:
        self._backend, self._error, self._rows = tiny.backend("onnx"), error, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def whole(self, feats: list[np.ndarray]) -> list[Decoded]:
        if any(len(rows) == self._rows for rows in feats):
            raise self._error
        return self._backend.whole(feats)


def test_an_engine_that_fails_on_one_input_is_the_failure_of_that_one() -> None:
    signals = [tiny.signal(length, length) for length in (20_000, 30_000, 21_000, 22_000)]
    guilty = len(tiny.engine().frontend.whole(signals[2]))
    plain = recognizer()
    tool = Recognizer(plain.bundle, Fragile(IndexError("frame 7"), guilty))  # type: ignore[arg-type]
    *others, last = results = list(tool.transcribe_each(signals))
    assert [type(result) for result in results] == [Transcript, Transcript, InputFailed, Transcript]
    assert str(others[2]) == "input 3 failed: IndexError: frame 7"
    assert [gist(result) for result in (*others[:2], last)] == [
        gist(plain.transcribe(samples)) for samples in (signals[0], signals[1], signals[3])
    ]
    with pytest.raises(InputFailed, match="input 3"):
        tool.transcribe(signals)


def test_a_reader_that_fails_is_the_failure_of_its_input(tmp_path) -> None:
    """In any way, and in whichever of its blocks."""
    soundfile.write(tmp_path / "long.wav", tiny.signal(16_000 * 40), 16_000)
    plain = recognizer()

    def breaks(blocks: Iterable[np.ndarray]) -> Iterator[tuple[float, np.ndarray]]:
        yield 0.0, next(iter(blocks))
        raise ZeroDivisionError("rate")

    tool = Recognizer(plain.bundle, tiny.backend("onnx"), breaks)
    results = list(tool.transcribe_each([tiny.signal(20_000), tmp_path / "long.wav", tiny.signal(20_000)]))
    assert gist(results[0]) == gist(results[2]) == gist(plain.transcribe(tiny.signal(20_000)))
    assert str(results[1]) == f"{tmp_path / 'long.wav'} failed: ZeroDivisionError: rate"


def test_an_array_is_cut_as_a_file_is(tmp_path) -> None:
    samples = tiny.signal(16_000 * 47)
    soundfile.write(tmp_path / "long.wav", samples, 16_000, subtype="FLOAT")
    assert recognizer().transcribe(samples) == recognizer().transcribe(tmp_path / "long.wav")


def test_results_come_as_soon_as_they_are_complete() -> None:
    """A generator of audio is not exhausted before its first result."""
    taken = []

    def audios() -> Iterator[np.ndarray]:
        for number in range(20):
            taken.append(number)
            yield tiny.signal(16_000)

    next(recognizer().transcribe_each(audios(), batch_s=2))
    assert len(taken) < 5


def test_one_array_filled_again_and_again_is_many_recordings() -> None:
    """What waits for its batch is not changed by its giver."""
    signal, buffer = tiny.signal(20_000), np.empty(20_000, np.float32)
    wanted = [signal, signal[::-1].copy(), signal * np.float32(0.3)]

    def audios() -> Iterator[np.ndarray]:
        for samples in wanted:
            buffer[:] = samples
            yield buffer
        buffer[:] = 0

    assert list(recognizer().transcribe_each(audios())) == recognizer().transcribe(wanted)


def test_a_model_that_has_only_seen_chunks_recognises_files_as_streams() -> None:
    tool, samples = recognizer("torch"), tiny.signal(50_000)
    tool.config = replace(tool.config, training_chunks=(TrainingChunk(size=15, stride=10),))
    session = tool.stream()
    session.accept(samples)
    session.finish()
    assert tool.transcribe(samples).tokens == session.tokens
    other = ChunkConfig(left=0, chunk=5, right=3)
    tool.chunk, session = other, tool.stream(other)
    session.accept(samples)
    session.finish()
    assert tool.transcribe(samples).tokens == session.tokens


def test_streams_of_one_recogniser() -> None:
    tool = recognizer()
    sessions = [tool.stream(), tool.stream()]
    for session in sessions:
        session.feed(tiny.signal(20_000))
    texts = tool.advance(sessions)
    assert texts[0] == texts[1] == sessions[0].text
    restored = tool.restore(sessions[0].save())
    assert restored.finish() == sessions[1].finish()


def test_another_models_session_is_refused() -> None:
    tool = recognizer()
    other = Recognizer(replace(tool.bundle, weights="other"), tiny.backend("onnx"))
    tool = Recognizer(replace(tool.bundle, weights="ours"), tiny.backend("onnx"))
    with pytest.raises(SessionError, match="another model: the weights differ"):
        other.restore(tool.stream().save())
    tool.restore(tool.stream().save())


def test_a_session_of_a_funasr_directory_goes_on_with_its_own_weights_only(tmp_path) -> None:
    convert(tiny_bundle.directory(), tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    tensors = torch.load(tmp_path / "two" / "model.pt", weights_only=True)
    tensors["decoder.output_layer.bias"] += 1
    torch.save(tensors, tmp_path / "two" / "model.pt")
    session = paraformer.load(tmp_path / "one", backend="torch").stream()
    session.accept(tiny.signal(30_000))
    restored = paraformer.load(tmp_path / "one", backend="native", precision="float32").restore(session.save())
    assert restored.text == session.text
    with pytest.raises(SessionError, match="the weights differ"):
        paraformer.load(tmp_path / "two").restore(session.save())


def test_a_model_for_whole_audio_opens_no_stream() -> None:
    config = replace(tiny.config(), decoder=replace(tiny.config().decoder, shift=0), live=None)
    bundle = Bundle(directory=None, config=config, tokens=tiny.TOKENS, cmvn=None, words={}, card={})
    with pytest.raises(UnsupportedModel, match="whole utterances only"):
        Recognizer(bundle, TorchBackend(Paraformer(config))).stream()


def test_segments_join_with_spaces_between_latin_words_only() -> None:
    assert join_segments(["今天", "好", "ok", "go", "吧"]) == "今天好ok go吧"


def test_what_a_recogniser_is_can_be_read() -> None:
    assert repr(recognizer()) == "<Recognizer unnamed on onnx float32, live 5,10,5, no language model>"
    assert repr(paraformer.load()).startswith("<Recognizer zh-small on ")


def test_without_voice_detection_long_audio_is_recognised_in_pieces() -> None:
    """Memory grows with the square of a piece; all of the audio is recognised."""
    rows: list[int] = []
    tool = paraformer.load(tiny_bundle.directory(), vad=False)
    whole = tool._model.backend.whole
    tool._model.backend.whole = lambda feats: (rows.extend(map(len, feats)), whole(feats))[1]  # type: ignore[method-assign]
    result = tool.transcribe(tiny.signal(16_000 * 130))
    assert max(rows) <= 60 / 0.06 + 2
    assert sum(rows) >= 130 / 0.06
    assert result.duration_s == 130


def test_one_channel_that_cannot_be_used_is_the_failure_of_its_recording() -> None:
    columns = np.stack([tiny.signal(20_000), tiny.signal(20_000, 1)], 1)
    columns[5, 1] = np.nan
    [failed, sound] = recognizer().transcribe_each([columns, columns[:, :1]], channel="each")
    assert isinstance(failed, AudioError)
    assert "not finite" in str(failed)
    assert isinstance(sound, list) and len(sound) == 1


def test_an_input_that_knows_its_name_is_called_by_it() -> None:
    class Broken(io.BytesIO):
        name = "party.wav"

        def read(self, size: int | None = -1) -> bytes:
            raise LookupError("the tape is torn")

    named, nameless = recognizer().transcribe_each([Broken(), Fragile])  # type: ignore[list-item]
    assert "party.wav" in str(named)
    assert isinstance(nameless, AudioError)


def test_pieces_and_segments_take_samples_of_any_kind_and_nothing_else() -> None:
    """The parts of `transcribe` for those who decide themselves when to recognise: the same door, the same text."""
    tool, samples = recognizer(), tiny.signal(40_000)
    pcm = np.round(samples * 20_000).astype(np.int16)
    [(start_s, piece)] = tool.pieces([pcm[:7], pcm[7:]])
    assert [one.text for one in tool.segments(piece, start_s)] == [one.text for one in tool.segments(pcm)]
    assert [one.text for one in tool.segments(pcm)] == [tool.transcribe(pcm).text]
    for wrong in (None, 3, "a.wav", samples):
        with pytest.raises(AudioError, match="is not several inputs"):
            tool.pieces(wrong)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="a value of NoneType is not audio"):
        tool.segments(None)  # type: ignore[arg-type]


# -- channels and kinds of input --------------------------------------------------------------------------------------


def call(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A recording with another party on each of two channels."""
    columns = np.stack([tiny.signal(32_000, 1), tiny.signal(32_000, 2)], axis=1)
    path = tmp_path / "call.wav"
    soundfile.write(path, columns, 16000, subtype="FLOAT")
    return path, columns


def test_a_channel_is_recognised_as_a_recording_of_its_own(tmp_path: Path) -> None:
    path, columns = call(tmp_path)
    tool = recognizer()
    alone = [tool.transcribe(column) for column in (*columns.T, columns.mean(axis=1))]
    assert alone[0].text != alone[1].text != ""
    for source in (path, path.read_bytes(), columns, columns.T):
        assert tool.transcribe(source, channel=1) == alone[0]
        assert tool.transcribe(source, channel=2) == alone[1]
        assert tool.transcribe(source).text == alone[2].text
        assert tool.transcribe(source, channel="each") == alone[:2]
    with path.open("rb") as file:
        assert tool.transcribe(file, channel="each") == alone[:2]
    assert tool.transcribe([path, columns[:, :1]], channel="each") == [alone[:2], alone[:1]]
    each = list(tool.transcribe_each([tmp_path / "gone.wav", path], channel="each"))
    assert isinstance(each[0], AudioNotFound)
    assert each[1] == alone[:2]


def test_channels_that_are_not_there(tmp_path: Path) -> None:
    path, _ = call(tmp_path)
    tool = recognizer()
    with pytest.raises(AudioError, match="has 2 channels, so there is no channel 3"):
        tool.transcribe(path, channel=3)
    for channel in (0, "left", 1.5):
        with pytest.raises(ConfigError, match="channel"):
            tool.transcribe(path, channel=channel)


def test_whatever_holds_speech_can_be_passed() -> None:
    samples = tiny.signal(20_000)
    tool = recognizer()
    expected = tool.transcribe(samples)
    for one in (samples.tolist(), tuple(samples.tolist()), iter(samples.tolist()), torch.from_numpy(samples)):
        assert tool.transcribe(one) == expected
    for several in ([samples, samples], (samples, samples), (samples for _ in range(2)), [samples.tolist()] * 2):
        assert tool.transcribe(several) == [expected, expected]
    assert tool.transcribe([]) == tool.transcribe(()) == []


@pytest.mark.parametrize("thing", [None, 5, {"a": 1}, object(), np.full(900, 3e4), [None], [[0.1], 0.2], [0.1, "a"]])
def test_whatever_holds_none_is_refused(thing: Any) -> None:
    with pytest.raises(AudioError, match=r"not audio|far outside|cannot be taken"):
        recognizer().transcribe(thing)


@pytest.mark.parametrize("thing", ["a.wav", Path("a.wav"), b"", np.zeros(5), None, 5, io.BytesIO()])
def test_one_input_is_not_several(thing: Any) -> None:
    with pytest.raises(AudioError, match="not several inputs; pass a list"):
        recognizer().transcribe_each(thing)


@pytest.mark.parametrize("chunk", [[5, 10, 5], (5, 10, 5), "5,10,5", 10, {"chunk": 10}])
def test_a_chunk_that_is_none(chunk: Any) -> None:
    with pytest.raises(ConfigError, match=r"ChunkConfig\(left=5, chunk=10, right=5\)"):
        recognizer().stream(chunk)


def test_a_stream_at_another_rate() -> None:
    session = recognizer().stream(rate=8000)
    session.accept(tiny.signal(16_000))
    session.finish()
    assert session.duration_s == 2.0
    assert session.transcript().duration_s == 2.0
    with pytest.raises(AudioError, match="sample rate of 100 Hz"):
        recognizer().stream(rate=100)


@pytest.mark.parametrize("batch_s", [0, -1.0, float("nan"), float("inf"), "60", None])
def test_a_batch_has_a_length(batch_s: Any) -> None:
    with pytest.raises(ConfigError, match="batch_s must be a number"):
        recognizer().transcribe(np.zeros(16000, np.float32), batch_s=batch_s)


@pytest.mark.parametrize("seconds", [0, 1, 70])
def test_piece_by_piece_is_what_transcribe_gives(seconds: int) -> None:
    samples = tiny.signal(seconds * 16_000)
    tool = recognizer()
    segments = [segment for start, piece in tool.pieces([samples]) for segment in tool.segments(piece, start)]
    expected = tool.transcribe(samples).segments
    assert [one.text for one in segments] == [one.text for one in expected]
    times = [
        [(token.text, pytest.approx(token.start_s), pytest.approx(token.confidence, abs=1e-5)) for token in one.tokens]
        for one in expected
    ]
    assert [[(token.text, token.start_s, token.confidence) for token in one.tokens] for one in segments] == times
    assert tool.segments(np.zeros(16_000, np.float32)) == []


def test_a_piece_that_fails_says_which() -> None:
    tool = recognizer()
    tool._model = replace(tool._model, backend=None)  # type: ignore[arg-type]
    with pytest.raises(InputFailed, match=r"the piece at 2\.0 s failed"):
        tool.segments(tiny.signal(16_000), 2.0)


def test_without_a_segmenter_a_long_recording_is_one_piece() -> None:
    samples, tool = tiny.signal(32 * 16_000), recognizer(segmenter=None)
    [(start_s, piece)] = tool.pieces(np.array_split(samples, 50))
    assert start_s == 0
    np.testing.assert_array_equal(piece, samples)


@pytest.mark.parametrize("tail", [959, 100])
def test_a_piece_is_heard_to_its_last_sample(tail: int) -> None:
    """As `transcribe` hears it: what is left behind the last whole frame may be all that sounds."""
    samples = np.concatenate([np.zeros(9600, np.float32), tiny.signal(16_000)[:tail]])
    [piece], whole = recognizer().segments(samples), recognizer().transcribe(samples)
    assert gist(whole) == [(token.text, round(token.start_s, 4)) for token in piece.tokens] != []


def test_no_samples_are_as_clear_as_can_be() -> None:
    assert recognizer().clarity(np.zeros(0, np.float32)) == 1


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_whether_a_tail_is_dropped_is_true_or_false(wrong: object) -> None:
    with pytest.raises(ConfigError, match="drop_short_tail must be true or false"):
        recognizer().stream(drop_short_tail=wrong)  # type: ignore[arg-type]
