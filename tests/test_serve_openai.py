"""OpenAI's HTTP API: the openai package against a real server; forms and answers without one; what is refused."""

from __future__ import annotations

import io
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from serving import SAMPLES, Running, sample, serving, whole_text

from paraformer import Segment, Token, Transcript
from paraformer.serve.config import Limits
from paraformer.serve.guard import Refusal
from paraformer.serve.openai import Asked, answer, asked, hotwords
from paraformer.serve.protocol import MOST_HOTWORDS

FRAMES = Path(__file__).parent / "golden" / "serve" / "openai_http_python.jsonl"
FILE = SAMPLES / "weather.flac"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("# of the tests\nsesame\n")
    with serving(keys=str(keys), limits=Limits(upload=4 << 20, audio_s=100)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.http}/v1", api_key="sesame", max_retries=0) as client:
        yield client


def transcribe(client: openai.OpenAI, file: Any = FILE, **more: Any) -> Any:
    return client.audio.transcriptions.create(file=file, model="whisper-1", **more)


def test_every_format(client: openai.OpenAI) -> None:
    text = whole_text()
    assert transcribe(client).text == text
    assert transcribe(client).usage.seconds == 4
    assert transcribe(client, response_format="text") == text + "\n"
    assert re.fullmatch(
        r"1\n00:00:00,\d{3} --> 00:00:0\d,\d{3}\n" + text + "\n", transcribe(client, response_format="srt")
    )
    assert transcribe(client, response_format="vtt").startswith("WEBVTT\n\n00:00:00.")
    verbose = transcribe(client, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (verbose.text, verbose.task, verbose.duration) == (text, "transcribe", pytest.approx(3.689))
    assert "".join(word.word for word in verbose.words) == text
    assert [word.start for word in verbose.words] == sorted(word.start for word in verbose.words)
    assert [segment.text for segment in verbose.segments] == [text]
    assert -5 < verbose.segments[0].avg_logprob < 0


def test_confidences_as_logprobs(client: openai.OpenAI) -> None:
    heard = transcribe(client, include=["logprobs"])
    assert "".join(one.token for one in heard.logprobs) == whole_text()
    assert all(one.logprob <= 0 for one in heard.logprobs)


def test_events_as_segments_are_recognised(client: openai.OpenAI) -> None:
    events = list(transcribe(client, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[0].delta == events[1].text == whole_text()


def test_names_types_and_prompts_say_nothing_of_the_content(client: openai.OpenAI) -> None:
    data = FILE.read_bytes()
    for name, kind in (
        ("upload", "application/octet-stream"),
        ("../../etc/passwd", "text/plain"),
        ("a.mp3\n[ERROR]", "x"),
    ):
        assert (
            transcribe(client, (name, data, kind), language="zh", prompt="天气", temperature=0.2).text == whole_text()
        )
    assert transcribe(client, FILE, extra_body={"keywords[]": "公园", "hotwords": "散步"}).text == whole_text()


def test_silence_and_nothing_give_no_text(client: openai.OpenAI) -> None:
    silent = io.BytesIO()
    soundfile.write(silent, np.zeros(16_000, np.int16), 16_000, format="WAV")
    assert transcribe(client, ("s.wav", silent.getvalue())).text == ""


def test_long_audio_comes_in_segments(client: openai.OpenAI) -> None:
    pause = np.zeros(20_000, np.int16)
    long = np.concatenate([np.concatenate([sample(), sample("company"), pause])] * 5)
    file = io.BytesIO()
    soundfile.write(file, long, 16_000, format="FLAC")
    events = list(transcribe(client, ("l.flac", file.getvalue()), stream=True))
    assert len(events) > 3
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    from serving import embedded

    assert events[-1].text == embedded().transcribe(long).text


def test_models(client: openai.OpenAI, server: Running) -> None:
    names = [one.id for one in client.models.list()]
    assert names[0] == server.process.engine.model_name
    assert "whisper-1" in names
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-99")
    assert error.value.code == "model_not_found"


def test_errors_are_those_that_clients_know(client: openai.OpenAI, server: Running) -> None:
    for file in (
        b"no audio",
        b"#EXTM3U\nfile:///etc/passwd\n",
        b"http://127.0.0.1/x.wav",
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
    ):
        with pytest.raises(openai.BadRequestError) as bad:
            transcribe(client, ("a.wav", file))
        assert (bad.value.param, bad.value.type) == ("file", "invalid_request_error")
        assert "/" not in bad.value.body["message"].replace("paraformer[av]", "")  # type: ignore[index]
    for more, param in (
        ({"response_format": "diarized_json"}, "response_format"),
        ({"language": "tlh"}, "language"),
        ({"timestamp_granularities": ["phone"]}, "timestamp_granularities"),
        ({"extra_body": {"known_speaker_names[]": "A"}}, "known_speaker_names"),
    ):
        with pytest.raises(openai.BadRequestError) as bad:
            transcribe(client, **more)
        assert bad.value.param == param
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(file=FILE, model="nobody")
    with pytest.deprecated_call(), pytest.raises(openai.BadRequestError):
        client.audio.translations.create(file=FILE, model="whisper-1")
    stranger = openai.OpenAI(base_url=f"{server.http}/v1", api_key="guess", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as refused:
        transcribe(stranger)
    assert refused.value.code == "invalid_api_key"
    assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"
    with pytest.raises(openai.APIStatusError) as large:
        transcribe(client, ("a.wav", b"\0" * (4 << 20) + b"\0" * 100_000))
    assert (large.value.status_code, large.value.param) == (413, "file")


def test_audio_that_lies_about_its_length_or_is_too_long(client: openai.OpenAI) -> None:
    bomb = io.BytesIO()
    soundfile.write(bomb, np.zeros(101 * 16_000, np.int16), 16_000, format="FLAC")
    assert len(bomb.getvalue()) < 300_000
    with pytest.raises(openai.BadRequestError, match="longer than 100 s"):
        transcribe(client, ("bomb.flac", bomb.getvalue()))
    wav = io.BytesIO()
    soundfile.write(wav, sample(), 16_000, format="WAV", subtype="PCM_16")
    lying = bytearray(wav.getvalue())
    lying[40:44] = b"\xff\xff\xff\xff"  # the length of its samples
    assert transcribe(client, ("lie.wav", bytes(lying))).text == whole_text()


def test_too_many_files_are_refused_for_a_while() -> None:
    with (
        serving(limits=Limits(jobs=0)) as running,
        openai.OpenAI(base_url=f"{running.http}/v1", api_key="any", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError) as busy:
            transcribe(client)
        assert busy.value.status_code == 503
        assert busy.value.response.headers["Retry-After"] == "1"


def test_funasrs_own_http(server: Running) -> None:
    def post(path: str, name: str) -> Any:
        body = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="x"\r\n\r\n' % name.encode()
        body += FILE.read_bytes() + b"\r\n--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": "Bearer; sesame"}
        return json.load(urllib.request.urlopen(urllib.request.Request(server.http + path, body, headers), timeout=30))

    assert post("/asr", "file")["text"] == whole_text()
    heard = post("/recognition", "audio")
    assert (heard["code"], heard["text"], len(heard["sentences"])) == (0, whole_text(), 1)
    health = json.load(urllib.request.urlopen(server.http + "/health"))
    assert (health["status"], health["device"]) == ("ok", "cpu")


# -- without a server ------------------------------------------------------------------------------


def test_captured_requests_are_understood() -> None:
    fields: list[tuple[str, str]] = []
    count = 0
    for line in FRAMES.read_text().splitlines():
        frame = json.loads(line)
        if frame.get("path") != "/v1/audio/transcriptions":
            continue
        parts = frame["parts"]
        fields = [
            (name[1], part["value"])
            for part in parts
            if (name := re.search(r'name="([^"]*)"', part["head"][0])) and "filename" not in part["head"][0]
        ]
        names = dict(fields)
        if names.get("response_format") == "diarized_json" or any("known_speaker" in name for name in names):
            with pytest.raises(Refusal):
                asked(fields)
        else:
            assert asked(fields).model == names["model"]
        count += 1
    assert count > 10


def test_hotwords_of_forms_stand_in_one_field_or_in_several() -> None:
    assert hotwords([("keywords[]", "魔搭"), ("hotwords", "达摩院, 通义,")]) == ("魔搭", "达摩院", "通义")
    assert hotwords([("file", "a")]) == ()
    with pytest.raises(Refusal, match=str(MOST_HOTWORDS)):
        hotwords([("hotwords", "词," * (MOST_HOTWORDS + 1))])


def test_what_is_asked_in_any_order_and_spelling() -> None:
    fields = [
        ("timestamp_granularities", "word"),
        ("keywords[]", "阿里巴巴"),
        ("keywords[]", " "),
        ("hotwords", "达摩院,你好"),
        ("stream", "true"),
        ("response_format", "verbose_json"),
        ("model", "m"),
        ("unknown", "x"),
    ]
    want = Asked("m", "verbose_json", words=True, segments=False, stream=True, hotwords=("阿里巴巴", "达摩院", "你好"))
    assert asked(fields) == asked(reversed(fields)) or set(asked(reversed(fields)).hotwords) == set(want.hotwords)
    assert asked(fields) == want


def test_an_empty_transcript_in_every_format() -> None:
    nothing = Transcript("", 0.0, ())
    assert answer(nothing, Asked(form="text")) == "\n"
    assert answer(nothing, Asked(form="srt")) == "\n"
    assert answer(nothing, Asked(form="vtt")) == "WEBVTT\n"
    assert json.loads(answer(nothing, Asked())) == {"text": "", "usage": {"type": "duration", "seconds": 0}}
    assert json.loads(answer(nothing, Asked(form="verbose_json")))["segments"] == []


def test_words_of_mixed_text() -> None:
    tokens = tuple(Token(text, n, n + 0.5, 1.0) for n, text in enumerate(["你", "hel@@", "lo", "a", "b", "好"]))
    transcript = Transcript("你hello AB好", 6.0, (Segment("你hello AB好", 0.0, 6.0, tokens),))
    words = json.loads(answer(transcript, Asked(form="verbose_json", words=True)))["words"]
    assert [(word["word"], word["start"], word["end"]) for word in words] == [
        ("你", 0, 0.5),
        ("hello", 1, 2.5),
        ("AB", 3, 4.5),
        ("好", 5, 5.5),
    ]
