"""Programs written for FunASR and ModelScope run here with only their import lines changed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_args

import audio_fuzz
import numpy as np
import pytest
import soundfile
import tiny
import tiny_bundle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paraformer
from paraformer import AudioError, ChunkConfig, ConfigError, DataError, ModelNotFound, UnsupportedModel
from paraformer.compat import AutoModel, Tasks, pipeline
from paraformer.compat import options as known
from paraformer.compat.automodel import Mode
from paraformer.compat.inputs import readable, samples
from paraformer.loader import EMBEDDED
from paraformer.segment import SegmentConfig

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


def test_long_audio_without_a_detector_is_recognised_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = AutoModel(model=str(tiny_bundle.directory())), list[int]()
    backend = model.recognizer._model.backend
    whole = backend.whole
    monkeypatch.setattr(backend, "whole", lambda feats: (rows.extend(map(len, feats)), whole(feats))[1])
    assert model.generate(input=tiny.signal(16_000 * 130))[0]["text"]
    assert max(rows) <= 60 / 0.06 + 2
    assert sum(rows) >= 130 / 0.06


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


def encoded(form: str, samples: np.ndarray) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=form)
    return file.getvalue()


def test_whatever_means_one_input_is_one(model: AutoModel, tmp_path: Path) -> None:
    """As with FunASR: bytes of a file are decoded, what can be read is a file from its start, a tensor samples."""
    speech = (tiny.signal(40_000) * 32767).astype(np.int16)
    wav = encoded("WAV", speech)
    (tmp_path / "talk.wav").write_bytes(wav)
    read = io.BytesIO(wav)
    read.read()
    floats = speech / np.float32(32768)
    with (tmp_path / "talk.wav").open("rb") as opened:
        inputs = {
            "path": tmp_path / "talk.wav",
            "bytes": wav,
            "bytearray": bytearray(wav),
            "BytesIO at its end": read,
            "open file": opened,
            "PCM": speech.astype("<i2").tobytes(),
            "int16": speech,
            "tensor": torch.from_numpy(floats),
            "tensor of a channel": torch.from_numpy(floats)[None],
            "list of numbers": floats.tolist(),
            "list of whole numbers": speech.tolist(),
        }
        expected = model.recognizer.transcribe(floats).text
        for name, item in inputs.items():
            results = model.generate(input=item)
            assert [result["text"] for result in results] == [expected], name
        together = model.generate(input=list(inputs.values()))
    assert {result["text"] for result in together} == {expected}
    assert [result["key"] for result in together][:2] == ["talk", "audio1"]


@pytest.mark.parametrize("form", ["MP3", "FLAC", "OGG", "AIFF", "CAF", "AU", "RF64"])
def test_bytes_of_files_are_decoded(model: AutoModel, form: str) -> None:
    data = encoded(form, tiny.signal(40_000).astype(np.float64))
    expected = model.recognizer.transcribe(io.BytesIO(data))
    assert abs(expected.duration_s - 2.5) < 0.1
    assert model.generate(input=data)[0]["text"] == expected.text
    assert model.generate(input=data, cache={})[0]["text"] == expected.text


@pytest.mark.parametrize("form", ["mp2", "ac3"])
def test_bytes_of_frames_alone_are_decoded(model: AutoModel, form: str) -> None:
    data = audio_fuzz.by_ffmpeg(form, form, tiny.signal(40_000).repeat(3)[:, None], 48000)
    expected = model.recognizer.transcribe(io.BytesIO(data))
    assert abs(expected.duration_s - 2.5) < 0.1
    assert model.generate(input=data)[0]["text"] == expected.text
    assert model.generate(input=data, cache={})[0]["text"] == expected.text


def test_damaged_bytes_of_a_file_are_no_samples(model: AutoModel) -> None:
    with pytest.raises(AudioError):
        model.generate(input=encoded("WAV", tiny.signal(40_000))[:20])
    with pytest.raises(AudioError):
        model.generate(input=b"fLaC" + bytes(100))


@pytest.mark.parametrize("wrong", [None, 5, {"input": 1}, object(), ["talk.wav", None], "https://x.org/a.wav"])
def test_what_is_no_audio_is_refused_with_one_sentence(model: AutoModel, wrong: object) -> None:
    with pytest.raises(AudioError):
        model.generate(input=wrong)


def test_lists_of_files(model: AutoModel, tmp_path: Path) -> None:
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", tiny.signal(30_000, ord(name)), 16_000)
    a, b = (str(tmp_path / f"{name}.wav") for name in "ab")
    (tmp_path / "wav.scp").write_text(f"one\t{a}\ntwo b.wav\n\n{b}\n")
    (tmp_path / "list.jsonl").write_text(f'{{"key": "x", "source": "{a}"}}\n{{"source": "{b}"}}\n')
    texts = [model.recognizer.transcribe(path).text for path in (a, b)]

    def results(*arguments: Any, **options: Any) -> list[tuple[str, str]]:
        return [(one["key"], one["text"]) for one in model.generate(*arguments, **options)]

    assert results(str(tmp_path / "wav.scp")) == [("one", texts[0]), ("two", texts[1]), ("b", texts[1])]
    assert results(str(tmp_path / "list.jsonl")) == [("x", texts[0]), ("b", texts[1])]
    assert results([[a, b], [b]]) == [("a", texts[0]), ("b", texts[1]), ("b", texts[1])]
    assert results((a, b), key=["p", "q"]) == [("p", texts[0]), ("q", texts[1])]
    with pytest.raises(DataError, match="1 keys for 2 inputs"):
        model.generate(input=[a, b], key="p")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    for wrong in ("bad.jsonl", "none.scp"):
        with pytest.raises(DataError, match=wrong):
            model.generate(input=str(tmp_path / wrong))


def test_arrays_of_another_rate(model: AutoModel, tmp_path: Path) -> None:
    speech = tiny.signal(20_000)
    soundfile.write(tmp_path / "talk.wav", speech, 8_000, subtype="FLOAT")
    expected = model.generate(input=str(tmp_path / "talk.wav"))[0]["text"]
    assert model.generate(input=speech, fs=8_000)[0]["text"] == expected


@pytest.mark.parametrize("size", [777, 4_800, 20_000])
def test_a_stream_of_another_rate_is_resampled_across_its_packets(model: AutoModel, size: int) -> None:
    speech = tiny.signal(20_000)
    session = model.recognizer.stream(ChunkConfig(left=0, chunk=10, right=5), rate=8_000)
    expected = session.accept(speech) + session.finish()
    cache: dict[str, Any] = {}
    packets = [speech[start : start + size] for start in range(0, len(speech), size)]
    told = [
        model.generate(input=packet, cache=cache, fs=8_000, is_final=packet is packets[-1])[0]["text"]
        for packet in packets
    ]
    assert "".join(told) == expected != ""
    model.generate(input=speech[:500], cache=cache, fs=8_000)
    with pytest.raises(ConfigError, match="fs cannot change within a stream"):
        model.generate(input=speech[:500], cache=cache, fs=16_000)


def test_the_calls_of_the_readme(tmp_path: Path) -> None:
    """Those of FunASR's front page, for files, with all their options."""
    soundfile.write(tmp_path / "talk.wav", tiny.signal(40_000), 16_000)
    model = AutoModel(
        model=str(tiny_bundle.directory()),
        trust_remote_code=True,
        remote_code="./model.py",
        vad_model="fsmn-vad",
        vad_kwargs={"max_single_segment_time": 30_000},
        hub="hf",
        ngpu=0,
        device="cuda:0",
        quantize=False,
        batch_size=1,
    )
    assert model.model_path == str(tiny_bundle.directory())
    talk = str(tmp_path / "talk.wav")
    expected = model.recognizer.transcribe(talk).text
    seen: list[tuple[int, int]] = []
    (one,) = model.generate(
        input=talk,
        cache={},
        language="auto",
        use_itn=True,
        batch_size=1,
        batch_size_s=60,
        batch_size_threshold_s=60,
        merge_vad=True,
        merge_length_s=15,
        hotword="",
        sentence_timestamp=True,
        progress_callback=lambda *done: seen.append(done),
    )
    assert (one["key"], one["text"]) == ("talk", expected)
    assert seen == [(1, 1)]
    assert [sentence["text"] for sentence in one["sentence_info"]] == [expected]
    assert one["sentence_info"][0]["timestamp"] == one["timestamp"]
    assert model.generate(input=[talk, talk], batch_size=64, is_final=True)[1]["text"] == expected


def test_a_file_with_a_chunk_is_a_stream_of_its_own(model: AutoModel, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.wav", tiny.signal(40_000), 16_000, subtype="FLOAT")
    cache: dict[str, Any] = {}
    options = {"chunk_size": [0, 10, 5], "encoder_chunk_look_back": 4, "decoder_chunk_look_back": 1}
    (one,) = model.generate(input=str(tmp_path / "talk.wav"), cache=cache, **options)
    chunk = ChunkConfig(left=0, chunk=10, right=5, encoder_look_back=4, decoder_look_back=1)
    assert one["text"] == live(tiny.signal(40_000), chunk)
    assert cache == {}


def test_a_file_sent_in_packets_is_one_stream(model: AutoModel) -> None:
    """As by clients that cut a wav file without looking into it: only the first packet has a header."""
    speech = (tiny.signal(40_000) * 32767).astype(np.int16)
    data, cache, text = encoded("WAV", speech), {}, ""
    for start in range(0, len(data), 9600):
        final = start + 9600 >= len(data)
        text += model.generate(input=data[start : start + 9600], cache=cache, is_final=final)[0]["text"]
    assert text == live(speech / np.float32(32768), ChunkConfig(left=0))


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "gpu", "gpu:0"])
def test_a_device_that_is_not_there_is_the_cpu(device: str, caplog: pytest.LogCaptureFixture) -> None:
    """ModelScope calls cuda gpu."""
    if torch.cuda.is_available():
        pytest.skip("there is one")
    model = AutoModel(model=str(tiny_bundle.directory()), device=device)
    assert f"no device '{device.replace('gpu', 'cuda')}' here" in caplog.text
    assert "going on on the CPU" in caplog.text
    assert model.generate(input=tiny.signal(40_000))[0]["text"]
    with pytest.raises(ConfigError, match="nonsense"):
        AutoModel(model=str(tiny_bundle.directory()), device="nonsense")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"return_spk_res": True}, "speakers"),
        ({"spk_mode": "vad_segment"}, "told to AutoModel"),
        ({"beam_size": 10}, "greedy"),
        ({"output_dir": "out"}, "returned"),
        ({"data_type": "fbank"}, "must be audio"),
    ],
)
def test_what_is_not_offered_says_what_to_use(model: AutoModel, options: Any, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        model.generate(input=tiny.signal(9600), **options)


def test_what_exports_is_told(model: AutoModel) -> None:
    with pytest.raises(UnsupportedModel, match=f"use `paraformer export {model.model_path} OUT --format funasr-onnx`"):
        model.export(type="onnx", quantize=False)


def test_hotwords_are_words_or_a_file_and_a_file_that_is_not_there_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("达摩院\n魔搭 社区\n", encoding="utf-8")
    assert known.hotwords({"hotword": "达摩院 魔搭"}) == ["达摩院", "魔搭"]
    assert known.hotwords({"hotwords": str(words)}) == words
    assert known.hotwords({}) is None
    assert not caplog.records
    missing = str(tmp_path / "missing.txt")
    model = AutoModel(model=EMBEDDED)
    speech = tiny.signal(20_000)
    model.generate(input=speech, hotword=missing)
    cache: dict[str, Any] = {}
    for part in np.split(speech, 4):
        model.generate(input=part, cache=cache, hotword=missing)
    assert [record.getMessage() for record in caplog.records] == [
        f"there is no file {missing}: nothing is listened for; hotword names a list by its path"
    ] * 2  # one for each call of a recording, one for a stream


def test_a_pipeline_listens_for_hotwords() -> None:
    for mode in get_args(Mode):
        recognise = pipeline(task=Tasks.auto_speech_recognition, model=EMBEDDED, mode=mode)
        with pytest.raises(ConfigError, match="hotword must be a text"):
            recognise(audio_in=tiny.signal(20_000), param_dict={"cache": {}, "hotword": 5})


def test_settings_of_the_detector() -> None:
    assert known.segments({"max_single_segment_time": 15_000, "device": "cpu"}).max_s == 15
    assert known.segments({"max_end_silence_time": 800}).min_silence_s == 0.8
    assert known.segments({"max_single_segment_time": 3_600_000}).max_s == 60
    assert known.segments({}) == SegmentConfig()
    with pytest.raises(ConfigError, match="speech_noise_thres"):
        known.segments({"speech_noise_thres": 0.6})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"is_final": False}, "needs cache"),
        ({"cache": {}, "isfinal": True}, "unknown stream option: isfinal"),
        ({"cache": {}, "chunk_size": [5, 10]}, "three numbers"),
        ({"cache": {}, "chunk_size": 600}, "three numbers"),
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
    with pytest.raises(ConfigError, match=r"no option ncpus here; leave it out; did you mean ncpu\?"):
        AutoModel(model=directory, ncpus=4)
    with pytest.raises(ConfigError, match="no option output_dir here"):
        pipeline(task=Tasks.auto_speech_recognition, model=directory, output_dir="out")
    with pytest.raises(UnsupportedModel, match="spk_model"):
        AutoModel(model=directory, spk_model="cam++")
    with pytest.raises(ConfigError, match="neither 'ms'"):
        AutoModel(model=directory, hub="github")
    with pytest.raises(ConfigError, match="speaker-verification"):
        pipeline(task="speaker-verification", model=directory)
    with pytest.raises(ConfigError, match="uniasr"):
        pipeline(task=Tasks.auto_speech_recognition, model=directory, mode="uniasr")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": None}, "model must be a directory or a published name, not None"),
        ({"model": 5}, "model must be a directory or a published name, not 5"),
        ({"model": b"zh-small"}, "model must be a directory or a published name"),
        ({"vad_model": 5}, "model must be a directory or a published name, not 5"),
        ({"punc_model": True}, "model must be a directory or a published name, not True"),
        ({"device": 0}, "device must be a name such as 'cpu' or 'cuda', not 0"),
        ({"vad_kwargs": 5}, "vad_kwargs must hold settings by name, not 5"),
        ({"spk_kwargs": "x"}, "spk_kwargs must hold settings by name, not 'x'"),
    ],
)
def test_options_of_loading_of_another_kind_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    given = {"model": str(tiny_bundle.directory()), "vad_model": tmp_path / "none", **options}
    with pytest.raises(ConfigError, match=words):
        AutoModel(**given)


def test_a_file_is_no_detector() -> None:
    directory = tiny_bundle.directory()
    with pytest.raises(ModelNotFound, match="is a file; a model is a directory"):
        AutoModel(str(directory), vad_model=directory / "model.safetensors")


def test_the_embedded_model_has_one_revision_and_no_device_is_the_cpu() -> None:
    assert AutoModel("zh-small", model_revision="v2.0.4", device=None).recognizer.bundle.card


@pytest.mark.parametrize("keys", [5, {"a": 1}, b"x", [5]])
def test_keys_are_names(model: AutoModel, keys: Any) -> None:
    with pytest.raises(DataError, match="key must be the name of a result or a list of such, not"):
        model.generate(input=tiny.signal(9600), key=keys)


@pytest.mark.parametrize("options", [5, "x", [1], {1: 2, "b": 3}])
def test_options_of_a_pipeline_stand_by_name(options: Any) -> None:
    call = pipeline(Tasks.auto_speech_recognition, str(tiny_bundle.directory()))
    with pytest.raises(ConfigError, match=r"must hold settings by name|unknown stream option: 1, b"):
        call(tiny.signal(9600), options)


def test_options_of_a_call_reach_the_packages_own_detector(tmp_path: Path) -> None:
    model = AutoModel(str(tiny_bundle.directory()), vad_model=tmp_path / "none")
    short, long = (model.teller.cutting_as({"max_end_silence_time": pause}).segmenter for pause in (100, 2000))
    assert (short.config.min_silence_s, long.config.min_silence_s) == (0.1, 2.0)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="speech_noise_thres means nothing to this package's detector"):
        model.generate(input=tiny.signal(9600), speech_noise_thres=0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache": None}, "cache must be a dict"),
        ({"cache": []}, "cache must be a dict"),
        ({"cache": {}, "chunk_size": [0, "a", 5]}, "whole number"),
        ({"cache": {}, "chunk_size": [0, 10.7, 5]}, "whole number"),
        ({"fs": "16000"}, "fs must be a whole number, not '16000'"),
        ({"fs": 16000.0}, "fs must be a whole number"),
        ({"fs": True}, "fs must be a whole number"),
        ({"batch_size_s": "x"}, "batch_size_s must be a number, not 'x'"),
        ({"batch_size_s": [60]}, "batch_size_s must be a number"),
        ({"is_final": "yes"}, "is_final must be true or false, not 'yes'"),
        ({"sentence_timestamp": "no"}, "sentence_timestamp must be true or false"),
        ({"encoder_chunk_look_back": "4"}, "encoder_chunk_look_back must be a whole number"),
        ({"decoder_chunk_look_back": 1.5}, "decoder_chunk_look_back must be a whole number"),
        ({"progress_callback": 5}, "progress_callback must be a function"),
    ],
)
def test_stream_options_of_another_kind_are_refused(options: dict[str, Any], words: str) -> None:
    take = known.chunk if "chunk_size" in options else known.given
    with pytest.raises(ConfigError, match=words):
        take(options)


def test_none_stands_for_an_option_that_is_left_out(model: AutoModel) -> None:
    speech = tiny.signal(9600)
    names = set(known.Options.__annotations__) - {"cache"}
    assert model.generate(input=speech, **dict.fromkeys(names)) == model.generate(input=speech)


def test_numbers_of_numpy_are_numbers(model: AutoModel) -> None:
    speech = tiny.signal(9600)
    expected = model.generate(input=speech, fs=8000, batch_size_s=30.0, sentence_timestamp=True)
    options: Any = {"fs": np.int64(8000), "batch_size_s": np.float32(30), "sentence_timestamp": np.True_}
    assert model.generate(input=speech, **options) == expected
    assert model.generate(input=speech, fs=8000, batch_size_s=0, sentence_timestamp=True) == expected  # one at a time
    with pytest.raises(ConfigError, match="max_end_silence_time must be a number, not '800'"):
        known.segments({"max_end_silence_time": "800"})


def test_sizes_of_a_chunk_in_an_array_are_numbers() -> None:
    assert known.chunk({"chunk_size": np.array([0, 8, 4])}) == ChunkConfig(left=0, chunk=8, right=4)


def test_a_view_of_numbers_a_tensor_of_bfloat16_and_a_closed_file() -> None:
    wave = np.linspace(-1, 1, 64, dtype=np.float32)
    np.testing.assert_array_equal(samples(memoryview(wave)), wave)
    np.testing.assert_allclose(samples(torch.tensor(wave).bfloat16()), wave, atol=0.01)
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(AudioError, match="is closed; pass it open"):
        readable(closed)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("bom.scp", "\ufeffk {path}\r\n"),
        ("odd.scp", "k {path}\n\n \n"),
        ("key.jsonl", '{{"key": "k", "source": "{path}"}}\n'),
    ],
)
def test_lists_are_read_whatever_wrote_them(model: AutoModel, tmp_path: Path, name: str, line: str) -> None:
    soundfile.write(tmp_path / "a.wav", tiny.signal(9_000), 16000)
    (tmp_path / name).write_text(line.format(path="a.wav"), encoding="utf-8", newline="")
    (result,) = model.generate(input=str(tmp_path / name))
    assert result["key"] == "k"


def test_a_nameless_entry_has_the_name_of_its_file(model: AutoModel, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tiny.signal(9_000), 16000)
    (tmp_path / "list.jsonl").write_text('{"key": null, "source": "a.wav"}\n')
    (result,) = model.generate(input=str(tmp_path / "list.jsonl"))
    assert result["key"] == "a"


@pytest.mark.parametrize("source", ["5", "null", '""', '["a.wav"]'])
def test_an_entry_whose_source_is_no_path_is_named(model: AutoModel, tmp_path: Path, source: str) -> None:
    (tmp_path / "list.jsonl").write_text(f'{{"key": "k", "source": {source}}}\n')
    with pytest.raises(DataError, match="line 1: not an object with"):
        model.generate(input=str(tmp_path / "list.jsonl"))


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/model"])
def test_names_that_no_file_can_have_are_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound, match="there is no model directory or published model"):
        AutoModel(model=name)
