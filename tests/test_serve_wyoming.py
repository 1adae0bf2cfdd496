"""Wyoming: bytes in, events out; and its own package against a real server."""

from __future__ import annotations

import asyncio
import json
import socket
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import sample, serving, whole_text

import paraformer
from paraformer import Segment
from paraformer.serve.config import Limits
from paraformer.serve.protocol import Close, Done, End, Feed, Live, Open, Send, Sentence
from paraformer.serve.wyoming import WyomingConversation


def line(kind: str, data: dict[str, Any] | None = None, payload: bytes = b"") -> bytes:
    body = json.dumps(data or {}).encode()
    header = {"type": kind, "version": "1", "data_length": len(body), "payload_length": len(payload)}
    return json.dumps(header).encode() + b"\n" + body + payload


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # audioop, which it imports until Python 3.13
    from wyoming.asr import Transcribe, Transcript, TranscriptChunk
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.info import Describe, Info


TALK = b"".join(
    [
        line("describe"),
        line("transcribe", {"language": "zh", "transcript_names": ["阿里巴巴"]}),
        line("audio-start", {"rate": 8000, "width": 2, "channels": 2}),
        line("audio-chunk", {"rate": 8000, "width": 2, "channels": 2}, b"\1\0\3\0" * 50 + b"\1"),
        line("audio-chunk", {"rate": 8000, "width": 2, "channels": 2}, b"\0\3\0"),
        line("audio-stop"),
    ]
)


@settings(max_examples=20)
@given(st.lists(st.integers(0, len(TALK)), max_size=6))
def test_bytes_may_be_cut_anywhere(cuts: list[int]) -> None:
    conversation = WyomingConversation("m")
    edges = [0, *sorted(cuts), len(TALK)]
    actions = [a for i in range(len(edges) - 1) for a in conversation.binary(TALK[edges[i] : edges[i + 1]])]
    (opened,) = [one for one in actions if isinstance(one, Open)]
    assert (opened.options.rate, opened.options.hotwords) == (8000, ("阿里巴巴",))
    assert sum(len(one.samples) for one in actions if isinstance(one, Feed)) == 51
    assert all(one.samples.tolist() == [2] * len(one.samples) for one in actions if isinstance(one, Feed))
    assert isinstance(actions[-1], End)
    said = [
        json.loads(action.text)
        for news in (Live("你"), Sentence(Segment("你好", 0.0, 1.0, ())), Done(paraformer.Transcript("", 1.0, ())))
        for action in conversation.news(1, news)
        if isinstance(action, Send)
    ]
    assert [one["type"] for one in said] == ["transcript-chunk", "transcript", "transcript-stop"]
    assert said[1]["data"]["text"] == "你好"
    assert conversation.idle


@pytest.mark.parametrize(
    "data",
    [b"hello\n", b"[]\n", b'{"type": 3}\n', b'{"type": "x", "data_length": -1}\n',
     b'{"type": "x", "payload_length": 99999999}\n',
     b'{"type": "x", "data": 3}\n', b'{"type": "x", "data_length": 1}\n*', b"x" * 70_000],
)  # fmt: skip
def test_what_is_no_event_ends_the_connection(data: bytes) -> None:
    assert isinstance(list(WyomingConversation("m").binary(data))[-1], Close)


def test_audio_of_other_kinds_is_an_error() -> None:
    for form in ({"width": 4}, {"rate": 1}, {"channels": 99}, {"rate": "x"}):
        (answer,) = WyomingConversation("m").binary(line("audio-start", form))
        assert isinstance(answer, Send)
        assert json.loads(answer.text)["type"] == "error"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_its_own_package_over_a_socket() -> None:
    async def main(port: int) -> tuple[Info, str, str]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Describe().event())
            event = await client.read_event()
            assert event is not None
            info = Info.from_event(event)
            await client.write_event(Transcribe(language="zh").event())
            await client.write_event(AudioStart(16_000, 2, 1).event())
            data = sample().tobytes()
            for start in range(0, len(data), 3200):
                await client.write_event(AudioChunk(16_000, 2, 1, data[start : start + 3200]).event())
            await client.write_event(AudioStop().event())
            chunks = ""
            while (event := await client.read_event()) is not None:
                if TranscriptChunk.is_type(event.type):
                    chunks += TranscriptChunk.from_event(event).text
                if Transcript.is_type(event.type):
                    return info, chunks, Transcript.from_event(event).text
            raise AssertionError("the connection ended")

    with serving(wyoming_port=(port := free_port())):
        info, chunks, text = asyncio.run(main(port))
    assert info.asr[0].models[0].languages[0] == "zh"
    assert text == whole_text()
    assert chunks


def test_who_says_nothing_any_more_holds_no_place() -> None:
    with serving(wyoming_port=(port := free_port()), limits=Limits(idle_s=0.5, streams=1)) as running:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
                silent.sendall(b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n')
                assert b"transcript-start" in silent.recv(65536)
                assert running.process.engine.seats == 1
                while silent.recv(65536):
                    pass
            assert running.process.engine.seats == 0


def test_half_of_a_pair_of_surrogates_comes_back_as_a_question_mark() -> None:
    (answer,) = WyomingConversation("m").binary(b'{"type": "ping", "data": {"text": "\\ud800"}}\n')
    assert isinstance(answer, Send)
    assert json.loads(answer.text)["data"]["text"] == "?"
