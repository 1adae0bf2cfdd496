"""OpenAI's Realtime API: captured clients without a socket, and the openai package against a real server."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import openai
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import sample, serving, whole_text

from paraformer import Segment, Token, Transcript
from paraformer.errors import InputFailed
from paraformer.serve.protocol import (
    Action,
    Cancel,
    Close,
    Done,
    End,
    Failed,
    Feed,
    Live,
    News,
    Open,
    Send,
    Sentence,
    Speaking,
)
from paraformer.serve.realtime import RealtimeConversation
from paraformer.serve.realtime_session import g711

GOLDEN = Path(__file__).parent / "golden" / "serve"


def token(text: str, start_s: float) -> Token:
    return Token(text, start_s, start_s + 0.1, 0.9)


class Client:
    """Speaks to a conversation and takes down what it answers."""

    def __init__(self, **options: Any) -> None:
        self.conversation = RealtimeConversation("", **options)
        self.events: list[dict[str, Any]] = []
        self.actions: list[Action] = []
        self._do(self.conversation.opened())

    def say(self, kind: str, **values: Any) -> list[dict[str, Any]]:
        return self._do(self.conversation.text(json.dumps({"type": kind, **values})))

    def tell(self, utterance: int, news: News) -> list[dict[str, Any]]:
        return self._do(self.conversation.news(utterance, news))

    def append(self, samples: int = 4800) -> list[dict[str, Any]]:
        return self.say("input_audio_buffer.append", audio=base64.b64encode(b"\1\0" * samples).decode())

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.actions if isinstance(one, kind)]

    def _do(self, actions: Any) -> list[dict[str, Any]]:
        done = list(actions)
        self.actions += done
        new = [json.loads(one.text) for one in done if isinstance(one, Send)]
        self.events += new
        return new


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("conversation.item.input_audio_transcription.") for event in events]


def manual(client: Client) -> None:
    client.say("session.update", session={"type": "transcription", "audio": {"input": {"turn_detection": None}}})


def shape(value: Any) -> Any:
    """The keys and kinds of values, without what changes from run to run."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items() if key not in ("rate", "transcription", "keywords")}
    return "list" if isinstance(value, list) else "number" if isinstance(value, int | float) else type(value).__name__


@pytest.mark.parametrize("name", ["openai_realtime_python_ga", "openai_realtime_python_beta", "livekit_realtime"])
def test_captured_clients_get_events_of_the_shapes_that_they_know(name: str) -> None:
    frames = [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()]
    connection = [frame for frame in frames if frame["dir"] in ("c>s", "s>c")]
    client = Client(beta="beta" in name)
    known = {frame["msg"]["type"]: frame["msg"] for frame in connection if frame["dir"] == "s>c"}
    for frame in (frame for frame in connection if frame["dir"] == "c>s" and "msg" in frame):
        message = dict(frame["msg"])
        if "audio" in message:
            message["audio"] = base64.b64encode(b"\1\0" * 2400).decode()
        client._do(client.conversation.text(json.dumps(message)))
    for end in client.of(End):
        client.tell(end.utterance, Live("你好", (token("你", 0.1), token("好", 0.2))))
        client.tell(end.utterance, Sentence(Segment("你好", 0.1, 0.3, (token("你", 0.1),))))
        client.tell(end.utterance, Done(Transcript("", 0.3, ())))
    ours = {event["type"]: event for event in client.events}
    assert known.keys() - ours.keys() <= {"input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"}
    for kind in known.keys() & ours.keys() - {"error"}:
        assert known[kind].keys() <= ours[kind].keys(), kind
    created = next(kind for kind in known if kind.endswith("session.created"))
    assert shape(known[created]).keys() == shape(ours[created]).keys()


def test_the_client_commits() -> None:
    client = Client()
    manual(client)
    client.append()
    (opened,) = client.of(Open)
    assert (opened.options.rate, opened.options.sentences) == (24_000, True)
    assert len(client.of(Feed)[0].samples) == 4800
    events = client.say("input_audio_buffer.commit")
    assert kinds(events) == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    assert client.of(End) == [End(1)]
    client.tell(1, Live("你好", (token("你", 0.0), token("好", 0.1))))
    client.tell(1, Sentence(Segment("你好", 0.0, 0.2, ())))
    client.tell(1, Sentence(Segment("世界", 1.0, 1.2, ())))
    (completed,) = client.tell(1, Done(Transcript("", 0.2, ())))
    assert completed["transcript"] == "你好世界"
    assert completed["item_id"] == events[0]["item_id"]
    client.append()
    later = client.say("input_audio_buffer.commit")
    assert later[0]["previous_item_id"] == events[0]["item_id"]
    assert client.of(Open)[1].utterance == 2
    assert client.conversation.idle is False


def test_pauses_make_items_and_late_text_is_not_the_next_items() -> None:
    client = Client()
    client.append()
    assert kinds(client.tell(1, Speaking(0.5))) == ["input_audio_buffer.speech_started"]
    (delta,) = client.tell(1, Live("你", (token("你", 0.6),)))
    said = client.tell(1, Sentence(Segment("你好", 0.5, 1.0, (token("你", 0.6), token("好", 0.8)))))
    assert kinds(said) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "completed",
    ]
    assert {event.get("item_id", delta["item_id"]) for event in said} == {delta["item_id"]}
    assert client.tell(1, Live("好", (token("好", 0.9),))) == []  # it ends a little later than in view of all of it
    assert client.tell(1, Live("。")) == []
    started, other = client.tell(1, Live("世", (token("世", 2.0),)))
    assert started["audio_start_ms"] == 2000
    assert other["item_id"] != delta["item_id"]
    committed = client.say("input_audio_buffer.commit")  # while speech goes on
    assert committed[0]["item_id"] == other["item_id"]
    client.tell(1, Sentence(Segment("世界", 2.0, 2.5, ())))
    (completed,) = client.tell(1, Done(Transcript("", 3.0, ())))
    assert (completed["item_id"], completed["transcript"]) == (other["item_id"], "世界")


def test_what_cannot_be_done_is_an_error_and_the_session_goes_on() -> None:
    client = Client()
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("input_audio_buffer.commit", {}, "input_audio_buffer_commit_empty"),
        ("input_audio_buffer.append", {"audio": "*"}, "invalid_base64"),
        ("input_audio_buffer.append", {"audio": 3}, "invalid_value"),
        ("response.create", {}, "invalid_value"),
        ("session.update", {"session": []}, "invalid_value"),
        ("session.update", {"session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}}, "invalid_value"),
        (
            "session.update",
            {"session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 1}}}}},
            "invalid_value",
        ),
        ("session.update", {"session": {"turn_detection": "x"}}, "invalid_value"),
        ("session.update", {"session": {"type": "realtime"}}, "invalid_value"),
    ]
    for kind, values, code in cases:
        (event,) = client.say(kind, event_id="e7", **values)
        assert (event["type"], event["error"]["code"], event["error"]["event_id"]) == ("error", code, "e7")
    for message in ("", "3", "[]", "{}", '{"type": NaN}', '{"type": ' + "[" * 9 + "]" * 9 + "}", "[" * 9999):
        (event,) = client._do(client.conversation.text(message))
        assert event["error"]["code"] == "invalid_json"
    client.append(1200)
    (event,) = client.say("input_audio_buffer.commit")
    assert "only has 50.00ms" in event["error"]["message"]
    assert not client.of(Close)
    assert kinds(client.say("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert client.of(Cancel) == [Cancel(1)]
    client.append()
    (event,) = client.tell(2, Failed(InputFailed("the stream failed")))
    assert event["type"].endswith(".failed")


def test_values_out_of_this_world_harm_nobody() -> None:
    client = Client()
    turns = {"type": "server_vad", "silence_duration_ms": 10**400}
    heard = {"turn_detection": turns, "format": {"type": "audio/pcm", "rate": 24000.0}}
    (event,) = client.say("session.update", session={"audio": {"input": heard}}, event_id="\ud800")
    assert event["session"]["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    client.append()
    assert client.of(Open)[0].options.pause_s == 5.0
    (event,) = client._do(client.conversation.text('{"type": "x", "event_id": "\\ud800"}'))
    assert event["error"]["event_id"] == "?"


def test_events_have_their_own_ids() -> None:
    client = Client()
    for _ in range(5):
        client.append()
        client.say("input_audio_buffer.clear")
    ids = [event["event_id"] for event in client.events]
    assert len(set(ids)) == len(ids)


def test_telephones_table() -> None:
    ulaw, alaw = (g711(encoding, bytes(range(256))) for encoding in ("audio/pcmu", "audio/pcma"))
    assert (ulaw[0xFF], ulaw[0x7F], ulaw[0x80], ulaw[0x00]) == (0, 0, 32124, -32124)
    assert (alaw[0xD5], alaw[0x55], alaw[0xAA], alaw[0x2A]) == (8, -8, 32256, -32256)
    client = Client()
    client.say("session.update", session={"input_audio_format": "g711_ulaw"})
    client.say("input_audio_buffer.append", audio=base64.b64encode(b"\x80\xff").decode())
    assert client.of(Open)[0].options.rate == 8000
    assert client.of(Feed)[0].samples.tolist() == [32124, 0]


def test_closing_commits_what_was_appended() -> None:
    client = Client()
    client.append()
    client._do(client.conversation.closing())
    assert client.of(End) == [End(1)]
    client.tell(1, Sentence(Segment("好", 0.0, 0.1, ())))
    assert client.tell(1, Done(Transcript("", 0.2, ())))[0]["transcript"] == "好"
    client._do(client.conversation.closing())
    assert client.of(Close)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "audio", "input", "format", "rate", "turn_detection", "transcription", "keywords",
                         "silence_duration_ms", "include", "session"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=20)
@given(
    st.lists(
        st.builds(
            lambda kind, session, audio: {"type": kind, "session": session, "audio": audio},
            st.sampled_from(["session.update", "input_audio_buffer.append", "input_audio_buffer.commit", "x"]),
            JSON,
            JSON | st.just("AAAAAA=="),
        ),
        max_size=6,
    )
)
def test_no_event_is_ever_too_much(events: list[dict[str, Any]]) -> None:
    client = Client()
    for event in events:
        client._do(client.conversation.text(json.dumps(event)))
    client.append()
    client.say("input_audio_buffer.commit")
    assert client.events


def test_openais_package_over_a_socket() -> None:
    data = soxr.resample(sample(), 16_000, 24_000).astype("<i2").tobytes()

    async def main(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
            texts = []
            async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
                assert (await connection.recv()).type == "session.created"
                await connection.session.update(
                    session={"type": "transcription", "audio": {"input": {"turn_detection": None}}}  # type: ignore[typeddict-item]
                )
                for start in range(0, len(data), 9600):
                    await connection.input_audio_buffer.append(
                        audio=base64.b64encode(data[start : start + 9600]).decode()
                    )
                await connection.input_audio_buffer.commit()
                async for event in connection:
                    if event.type == "conversation.item.input_audio_transcription.completed":
                        texts.append(event.transcript)
                        return texts
            return texts

    with serving() as running:
        (text,) = asyncio.run(main(running.http))
    assert text == whole_text()
