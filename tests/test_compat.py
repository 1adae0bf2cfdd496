"""Programs written for FunASR and ModelScope run here with only their import lines changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny
import tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

import paraformer
from paraformer import ChunkConfig, ConfigError, UnsupportedModel
from paraformer.compat import AutoModel, Tasks, pipeline

LENGTHS = st.one_of(st.integers(960, 60_000), st.sampled_from([9600, 9601, 9602, 19_200, 19_201, 19_900]))


@pytest.fixture(scope="module")
def model() -> AutoModel:
    return AutoModel(model=str(tiny_bundle.directory()), disable_update=True)


def card_loop(speech: np.ndarray, chunk_size: list[int], **look_back: int) -> str:
    """The loop of the model card; the model's directory stands where its name does."""
    inference_pipeline = pipeline(
        task=Tasks.auto_speech_recognition,
        model=str(tiny_bundle.directory()),
        model_revision="v1.0.7",
        update_model=False,
        mode="paraformer_streaming",
    )
    speech_length = speech.shape[0]
    sample_offset = 0
    stride_size = chunk_size[1] * 960
    param_dict: Any = {"cache": dict(), "is_final": False, "chunk_size": chunk_size, **look_back}  # noqa: C408
    final_result = ""
    for sample_offset in range(0, speech_length, min(stride_size, speech_length - sample_offset)):  # noqa: B020 - verbatim
        if sample_offset + stride_size >= speech_length - 1:
            stride_size = speech_length - sample_offset
            param_dict["is_final"] = True
        rec_result = inference_pipeline(
            audio_in=speech[sample_offset : sample_offset + stride_size], param_dict=param_dict
        )
        if len(rec_result) != 0:
            final_result += rec_result["text"]
    assert param_dict["cache"] == {}
    return final_result


def generate_loop(model: AutoModel, speech: np.ndarray) -> str:
    """The streaming example of FunASR's readme."""
    chunk_size = [0, 10, 5]
    encoder_chunk_look_back = 4
    decoder_chunk_look_back = 1
    chunk_stride = chunk_size[1] * 960
    cache: dict[str, Any] = {}
    total_chunk_num = int((len(speech) - 1) / chunk_stride + 1)
    text = ""
    for i in range(total_chunk_num):
        speech_chunk = speech[i * chunk_stride : (i + 1) * chunk_stride]
        is_final = i == total_chunk_num - 1
        res = model.generate(
            input=speech_chunk,
            cache=cache,
            is_final=is_final,
            chunk_size=chunk_size,
            encoder_chunk_look_back=encoder_chunk_look_back,
            decoder_chunk_look_back=decoder_chunk_look_back,
        )
        text += res[0]["text"]
    return text


def live(speech: np.ndarray, chunk: ChunkConfig) -> str:
    session = paraformer.load(tiny_bundle.directory()).stream(chunk)
    return session.accept(speech) + session.finish()


@settings(max_examples=10)  # each loads the model, as the card does
@given(LENGTHS)
def test_the_card_loop(length: int) -> None:
    speech = tiny.signal(length).astype(np.float64)  # as soundfile.read gives it
    assert card_loop(speech, [5, 10, 5]) == live(speech.astype(np.float32), ChunkConfig())


def test_the_card_loop_with_look_back() -> None:
    speech = tiny.signal(40_000)
    chunk = ChunkConfig(left=0, chunk=10, right=5, encoder_look_back=4, decoder_look_back=1)
    text = card_loop(speech, [0, 10, 5], encoder_chunk_look_back=4, decoder_chunk_look_back=1)
    assert text == live(speech, chunk) != ""


def test_a_stream_of_a_moment_is_no_stream() -> None:
    """The card's loop ends some streams twice, the second time with a single sample."""
    assert card_loop(np.ones(959), [5, 10, 5]) == ""


@given(LENGTHS)
def test_the_generate_loop(model: AutoModel, length: int) -> None:
    speech = tiny.signal(length)
    chunk = ChunkConfig(left=0, chunk=10, right=5, encoder_look_back=4, decoder_look_back=1)
    assert generate_loop(model, speech) == live(speech, chunk)


def test_a_cache_starts_anew_after_the_end(model: AutoModel) -> None:
    speech, cache = tiny.signal(30_000), {}
    texts = [model.generate(input=speech, cache=cache, is_final=True)[0]["text"] for _ in range(2)]
    assert texts[0] == texts[1] != ""


def test_caches_are_streams_of_their_own(model: AutoModel) -> None:
    one, two = tiny.signal(30_000, 1), tiny.signal(30_000, 2)
    caches: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    texts = ["", ""]
    for start in range(0, 30_000, 5_000):
        for index, speech in enumerate((one, two)):
            packet = speech[start : start + 5_000]
            result = model.generate(input=packet, cache=caches[index], is_final=start == 25_000)
            texts[index] += result[0]["text"]
    chunk = ChunkConfig(left=0)
    assert texts == [live(one, chunk), live(two, chunk)]


def test_whole_audio(model: AutoModel, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, tiny.signal(40_000), 16_000)
    speech, _ = soundfile.read(path)
    expected = paraformer.load(tiny_bundle.directory()).transcribe(path)
    (one,) = model.generate(input=str(path), batch_size_s=300)
    assert (one["key"], one["text"]) == ("talk", expected.text)
    assert all(0 <= start <= end <= 2500 for start, end in one["timestamp"])
    assert len(model.generate(input=[str(path), speech])) == 2
    recognise = pipeline(task=Tasks.auto_speech_recognition, model=str(tiny_bundle.directory()))
    assert recognise(audio_in=str(path)) == {"text": expected.text}
    assert recognise(audio_in=np.zeros(16_000)) == []


def test_whole_audio_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, tiny.signal(40_000), 16_000, subtype="FLOAT")
    recognise = pipeline(
        task=Tasks.auto_speech_recognition, model=str(tiny_bundle.directory()), mode="paraformer_fake_streaming"
    )
    result = recognise(audio_in=str(path), param_dict={"chunk_size": [5, 10, 5]})
    assert result == {"text": live(tiny.signal(40_000), ChunkConfig())}


def test_integers_and_bytes_are_samples_too(model: AutoModel) -> None:
    speech = (tiny.signal(30_000) * 32767).astype(np.int16)
    texts = {
        model.generate(input=packet, cache={}, is_final=True)[0]["text"]
        for packet in (speech, speech.astype("<i2").tobytes(), speech.astype(np.float64) / 32768)
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"is_final": False}, "needs cache"),
        ({"cache": {}, "isfinal": True}, "unknown stream option: isfinal"),
        ({"cache": {}, "chunk_size": [5, 10]}, "three numbers"),
        ({"cache": {}, "chunk_size": [5, 0, 5]}, "impossible"),
    ],
)
def test_mistakes_in_stream_options(model: AutoModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model.generate(input=np.zeros(9600), **options)


def test_settings_stay_the_same_within_a_stream(model: AutoModel) -> None:
    cache: dict[str, Any] = {}
    model.generate(input=np.zeros(9600), cache=cache, chunk_size=[5, 10, 5])
    with pytest.raises(ConfigError, match="within a stream"):
        model.generate(input=np.zeros(9600), cache=cache, chunk_size=[0, 10, 5])


def test_mistakes_in_loading() -> None:
    directory = str(tiny_bundle.directory())
    with pytest.raises(TypeError, match="ncpus"):
        AutoModel(model=directory, ncpus=4)  # type: ignore[call-arg]
    with pytest.raises(UnsupportedModel, match="punc_model"):
        AutoModel(model=directory, punc_model="ct-punc")
    with pytest.raises(ConfigError, match="speaker-verification"):
        pipeline(task="speaker-verification", model=directory)
    with pytest.raises(ConfigError, match="uniasr"):
        pipeline(task=Tasks.auto_speech_recognition, model=directory, mode="uniasr")  # type: ignore[arg-type]
