"""FunASR's protocol without a socket: captured clients' messages in, and what they need out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import live_text, sample, serving
from websockets.sync.client import connect

from paraformer import ChunkConfig, Segment, Token, Transcript
from paraformer.errors import InputFailed
from paraformer.serve.funasr import FunasrConversation, units
from paraformer.serve.funasr_settings import Dialect
from paraformer.serve.protocol import (
    Action,
    Append,
    Close,
    Done,
    End,
    Failed,
    Feed,
    Live,
    News,
    Open,
    OpenFile,
    Send,
    Sentence,
    Speaking,
)

FRAMES = Path(__file__).parent / "golden" / "serve" / "funasr_clients.jsonl"


def segment(text: str, start_s: float = 1.0) -> Segment:
    tokens = tuple(Token(one, start_s + 0.2 * n, start_s + 0.2 * (n + 1), 0.9) for n, one in enumerate(text))
    return Segment(text, start_s, start_s + 0.2 * len(text), tokens)


LIVE, FIRST, LAST = "你好世界", segment("你好世界"), segment("今天天气很好", 2.0)
WHOLE = Transcript("你好世界今天天气很好", 3.0, (FIRST, LAST))


def run(actions: Iterator[Action]) -> list[Any]:
    return list(actions)


def sent(actions: list[Action]) -> list[dict[str, Any]]:
    return [json.loads(one.text) for one in actions if isinstance(one, Send)]


class Engine:
    """Says the same of every utterance: live text and a sentence at the first samples, another and the end at End."""

    def __init__(self, conversation: FunasrConversation) -> None:
        self.conversation = conversation
        self.opened: list[Open | OpenFile] = []
        self.received: dict[int, int] = {}
        self.messages: list[dict[str, Any]] = []
        self.closed: list[Close] = []

    def text(self, message: dict[str, Any] | str) -> None:
        self._do(run(self.conversation.text(message if isinstance(message, str) else json.dumps(message))))

    def binary(self, message: bytes) -> None:
        self._do(run(self.conversation.binary(message)))

    def tell(self, utterance: int, news: News) -> None:
        self._do(run(self.conversation.news(utterance, news)))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Open() | OpenFile():
                    self.opened.append(action)
                    self.received[action.utterance] = 0
                case Feed(utterance, samples):
                    assert samples.dtype == np.int16
                    if not self.received[utterance]:
                        self.tell(utterance, Speaking(0.0))
                        self.tell(utterance, Live(LIVE))
                        self.tell(utterance, Sentence(FIRST))
                    self.received[utterance] += 2 * len(samples)
                case Append(utterance, data):
                    self.received[utterance] += len(data)
                case End(utterance):
                    if isinstance(self.opened[utterance - 1], OpenFile):
                        self.tell(utterance, Sentence(FIRST))
                        self.tell(utterance, Done(WHOLE))
                    else:
                        self.tell(utterance, Live("今天天气"))
                        self.tell(utterance, Live("很好"))
                        self.tell(utterance, Sentence(LAST))
                        self.tell(utterance, Done(Transcript("", 3.0, ())))
                case Send(text):
                    self.messages.append(json.loads(text))
                case Close():
                    self.closed.append(action)


def captured() -> dict[str, list[dict[str, Any]]]:
    """The frames of each connection, by client; connections of one client apart."""
    connections: dict[str, list[dict[str, Any]]] = defaultdict(list)
    count = 0
    for line in FRAMES.read_text().splitlines():
        frame = json.loads(line)
        count += frame["dir"] == "handshake"
        connections[f"{count} {frame['label']}"].append(frame)
    return connections


def spoken(frames: list[dict[str, Any]]) -> Iterator[str | bytes]:
    """What the client sent, in order: settings, audio, end (the capture sums up audio after the texts)."""
    texts = [frame["text"] for frame in frames if frame["dir"] == "c>s" and frame["opcode"] == "text"]
    audio = [frame for frame in frames if frame["dir"] == "c>s" and frame["opcode"] == "binary" and frame["frames"]]
    yield texts[0]
    for frame in audio:
        for size, count in sorted(frame["sizes"].items(), key=lambda item: -int(item[1])):
            yield from [b"\1\0" * (int(size) // 2)] * count
    yield from texts[1:]


@pytest.mark.parametrize("name", captured())
def test_captured_clients_get_what_they_need(name: str) -> None:
    frames = captured()[name]
    engine = Engine(FunasrConversation())
    for message in spoken(frames):
        engine.text(message) if isinstance(message, str) else engine.binary(message)
    expected = [frame["msg"] for frame in frames if frame["dir"] == "s>c"]
    asked = json.loads(next(iter(spoken(frames))))
    assert engine.messages
    for message in engine.messages:
        assert {"mode", "text", "wav_name", "is_final"} <= message.keys()
        assert message["wav_name"] == asked["wav_name"]
        if "timestamp" in message:
            assert len(json.loads(message["timestamp"])) == len(units(message["text"]))
    finals = [message for message in engine.messages if message["is_final"] and "is_end" not in message]
    assert len(finals) == 1
    ends = [message for message in engine.messages if message.get("is_end")]
    assert len(ends) == sum("is_end" in message for message in expected)
    assert engine.messages[-1 - len(ends)] is finals[0]
    if asked["mode"] == "offline":
        assert [message["text"] for message in engine.messages if "is_end" not in message] == [WHOLE.text]
        assert finals[0]["mode"] == "offline"
    if asked["mode"] == "2pass":
        said = [m["text"] for m in engine.messages if m["mode"] == "2pass-offline"]
        assert "".join(said) == WHOLE.text
    if asked["mode"] == "online":
        assert "".join(m["text"] for m in engine.messages) == WHOLE.text
    assert not engine.closed
    assert engine.conversation.idle


def test_captured_clients_over_sockets() -> None:
    """Each frame as it was sent, with speech in it, from a page of another origin too."""
    data = sample().tobytes()
    origins = {one["headers"].get("Origin") for frames in captured().values() for one in frames if "headers" in one}
    with serving(origins=tuple(filter(None, origins))) as running:
        for name, frames in captured().items():
            if "mp3" in name:
                continue  # its bytes were not kept
            headers = frames[0]["headers"]
            protocols: Any = headers.get("Sec-WebSocket-Protocol", "").split(", ") if "binary" in str(headers) else None
            place, messages = 0, list[dict[str, Any]]()
            with connect(running.ws, subprotocols=protocols, origin=headers.get("Origin")) as ws:
                assert ws.subprotocol == (protocols and "binary")
                for message in spoken(frames):
                    if isinstance(message, str):
                        ws.send(message)
                    else:
                        ws.send(data[place : place + len(message)])
                        place += len(message)
                asked = json.loads(next(iter(spoken(frames))))
                while not (messages and messages[-1]["is_final"]):
                    messages.append(json.loads(ws.recv(timeout=60)))
                if any("is_end" in frame.get("text", "") for frame in frames):
                    assert json.loads(ws.recv(timeout=60))["is_end"] is True
                with pytest.raises(TimeoutError):  # it stays open, and nothing more comes
                    ws.recv(timeout=0.1)
            said = [one["text"] for one in messages if one["mode"] != "2pass-online" or asked["mode"] == "online"]
            assert "".join(said).startswith(live_text()[:6])
            assert all(len(json.loads(m["timestamp"])) == len(units(m["text"])) for m in messages if "timestamp" in m)


def test_a_message_of_each_kind_in_full() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "2pass", "wav_name": "demo", "is_speaking": True})
    engine.binary(b"\0\0" * 960)
    engine.text({"is_speaking": False, "is_end": True})
    base = {"wav_name": "demo", "is_final": False}
    stamps = "[[1000,1200],[1200,1400],[1400,1600],[1600,1800]]"
    assert engine.messages[0] == {"mode": "2pass-online", "text": "你好世界", **base}
    assert engine.messages[1] == {
        "mode": "2pass-offline",
        "text": "你好世界",
        **base,
        "timestamp": stamps,
        "stamp_sents": [
            {"text_seg": "你 好 世 界", "punc": "", "start": 1000, "end": 1800, "ts_list": json.loads(stamps)}
        ],
        "start_time": 1000,
        "end_time": 1800,
    }
    assert engine.messages[-1] == {"mode": "2pass", "text": "", "wav_name": "demo", "is_final": True, "is_end": True}


def test_several_utterances_on_one_connection() -> None:
    engine = Engine(FunasrConversation())
    for name in ("a", "b"):
        engine.text(
            {"mode": "offline", "wav_name": name, "hotwords": "阿里巴巴 达摩院"} if name == "a" else {"wav_name": name}
        )
        engine.binary(b"\0\0" * 100)
        engine.text({"is_speaking": False})
        engine.text({"is_speaking": False})
    assert [(m["wav_name"], m["is_final"]) for m in engine.messages] == [("a", True), ("b", True)]
    assert [one.hotwords for one in engine.opened] == [("阿里巴巴", "达摩院")] * 2


def test_an_utterance_without_audio_has_its_last_message() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "2pass", "is_speaking": True})
    engine.text({"is_speaking": False, "is_end": True})
    assert [(m["mode"], m["text"], m["is_final"], m.get("is_end")) for m in engine.messages] == [
        ("2pass-offline", "", True, None),
        ("2pass", "", True, True),
    ]


def test_audio_before_any_word_is_of_the_default_mode() -> None:
    engine = Engine(FunasrConversation(Dialect("offline")))
    engine.binary(b"\0")
    engine.binary(b"\0")
    engine.text({"is_finished": True})
    assert engine.opened == [OpenFile(1, 16_000)]
    assert engine.received == {1: 2}


def test_a_wav_file_that_is_announced_as_samples_is_a_file() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "2pass", "wav_format": "PCM"})
    engine.binary(b"RIFF\0\0\0\0WAVEfmt ")
    assert engine.opened == [OpenFile(1, None)]
    engine.text({"is_speaking": False})
    (message,) = engine.messages
    assert (message["mode"], message["text"], message["is_final"]) == ("2pass-offline", WHOLE.text, True)


def test_a_failure_is_a_last_message_and_the_next_utterance_works() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "online"})
    engine.binary(b"\0\0" * 10)
    engine.tell(1, Failed(InputFailed("the stream failed: IndexError: frame 7")))
    assert engine.messages[-1]["error"] == {
        "code": "recognition_failed",
        "message": "the stream failed: IndexError: frame 7",
    }
    assert engine.messages[-1]["is_final"] is True
    engine.tell(1, Live("too late"))
    engine.binary(b"\0\0" * 10)
    engine.text({"is_speaking": False})
    assert engine.messages[-1]["is_final"] is True
    assert "error" not in engine.messages[-1]


def test_closing_ends_what_is_open_with_all_that_was_said() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "online"})
    engine.binary(b"\0\0" * 10)
    engine._do(run(engine.conversation.closing()))
    assert "".join(m["text"] for m in engine.messages) == WHOLE.text
    assert engine.messages[-1]["is_final"] is True
    engine._do(run(engine.conversation.closing()))
    assert [one.code for one in engine.closed] == [1012]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "[1]",
        "3",
        '{"a": NaN}',
        "START",
        "[" * 9999,
        '{"audio_fs": Infinity}',
        '{"a": ' * 9 + "1" + "}" * 9,
        f'{{"a": "{"x" * 65536}"}}',
    ],
)
def test_what_is_no_message_closes_the_connection(message: str) -> None:
    actions = run(FunasrConversation().text(message))
    assert [one.code for one in actions if isinstance(one, Close)] == [1007]


@pytest.mark.parametrize(
    "values",
    [
        {"mode": 3},
        {"wav_name": ["a"]},
        {"wav_format": 1},
        {"audio_fs": 1},
        {"audio_fs": 4e9},
        {"audio_fs": True},
        {"audio_fs": "16000"},
        {"chunk_size": [5, 10]},
        {"chunk_size": [5, 10, -1]},
        {"chunk_size": [0, 0, 0]},
        {"chunk_size": "a,b,c"},
        {"chunk_size": [5, 10**9, 5]},
        {"hotwords": {"a": 1}},
        {"hotwords": "{"},
        {"hotwords": '["阿里巴巴"]'},
        {"is_speaking": "false"},
        {"is_finished": 1},
        {"is_end": "yes"},
        {"audio_fs": 10**400},
        {"chunk_size": "5," + "1" * 5000 + ",5"},
        {"hotwords": '{"a": 1.5}'},
        {"hotwords": "a " * 1001},
        {"hotwords": "好" * 4000},
    ],
)
def test_a_value_that_cannot_be_used_is_an_error_and_the_end(values: dict[str, Any]) -> None:
    actions = run(FunasrConversation().text(json.dumps(values)))
    (message,) = sent(actions)
    assert message["is_final"] is True
    assert message["error"]["code"] == "invalid_request"
    assert actions[-1].code == 1008 and len(actions[-1].reason.encode()) <= 123


def test_spellings_of_several_clients() -> None:
    engine = Engine(
        FunasrConversation(Dialect(chunks=(ChunkConfig(encoder_look_back=4), ChunkConfig(left=0, right=5))))
    )
    for values in (
        {"mode": "office", "audio_fs": 8000.0, "chunk_size": "5,10,5", "svs_lang": "zh", "unknown": {"a": [1]}},
        {"chunk_size": [0, 10, 5], "hotwords": '{"阿里巴巴": "20", "hello world": 40}'},
        {"chunk_size": [3, 3, 3], "hotwords": ""},
    ):
        engine.text(values)
        engine.binary(b"\0\0")
        engine.text({"is_speaking": False})
    first, second, third = (one.options for one in engine.opened)  # type: ignore[union-attr]
    assert (first.rate, first.sentences, first.chunk.encoder_look_back) == (8000, True, 4)
    assert (second.chunk.left, second.hotwords) == (0, ("阿里巴巴", "hello world"))
    assert (third.chunk, third.hotwords) == (None, ())


def test_a_number_beyond_all_numbers_is_refused() -> None:
    actions = run(FunasrConversation().text('{"audio_fs": 1e999}'))
    assert [one.code for one in actions if isinstance(one, Close)] == [1008]


def test_half_of_a_pair_of_surrogates_comes_back_as_a_question_mark() -> None:
    engine = Engine(FunasrConversation())
    engine.text('{"mode": "online", "wav_name": "\\ud800x", "hotwords": "\\udfff 好"}')
    engine.text({"is_speaking": False})
    assert [one["wav_name"] for one in engine.messages] == ["?x"]


def test_times_are_left_out_where_they_do_not_fit_the_text() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "2pass"})
    engine.binary(b"\0\0")
    engine.tell(1, Sentence(Segment("三百元", 0.0, 1.0, segment("三百").tokens)))
    assert "timestamp" not in engine.messages[-1]


@pytest.mark.parametrize(
    ("text", "timed"),
    [
        ("我用python写", True),
        ("我用 python 写，好", True),
        ("hello world，你好", True),
        ("我用python写，好", False),
        ("我用hello world写", False),
        ("涨到1500，跌", False),
        ("。", True),
    ],
)
def test_times_are_left_out_where_funasrs_page_would_lose_count(text: str, timed: bool) -> None:
    """It counts each character of what stands between marks and spaces, unless that is one word in Latin letters."""
    engine = Engine(FunasrConversation())
    engine.text({"mode": "2pass"})
    engine.binary(b"\0\0")
    tokens = tuple(Token(one, 0.1 * n, 0.1 * n + 0.1, 0.9) for n, one in enumerate(units(text)))
    engine.tell(1, Sentence(Segment(text, 0.0, 1.0, tokens)))
    assert ("timestamp" in engine.messages[-1], "stamp_sents" in engine.messages[-1]) == (timed, True)


def test_live_text_that_a_sentence_has_told_already_does_not_come_after_it() -> None:
    """FunASR's clients would show it twice, behind the sentence."""
    engine = Engine(FunasrConversation())
    engine.text({"mode": "2pass"})
    engine.binary(b"\0\0")  # and the sentence up to 1.8 s
    late, next_one = Token("界", 1.7, 1.9, 0.9), Token("今", 1.8, 2.6, 0.9)  # which begins with the pause
    engine.tell(1, Live("界", (late,)))
    engine.tell(1, Live("界今", (late, next_one)))
    engine.tell(1, Live("天", (Token("天", 2.6, 2.8, 0.9),)))
    assert [one["text"] for one in engine.messages[2:]] == ["今", "天"]


def test_a_failure_is_told_to_the_client_that_looks_at_its_acknowledgement_alone() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "offline"})
    engine.binary(b"\0\0")
    conversation = engine.conversation
    run(conversation.text('{"is_speaking": false, "is_end": true}'))
    last, end = sent(run(conversation.news(1, Failed(InputFailed("the audio cannot be read")))))
    error = {"code": "recognition_failed", "message": "the audio cannot be read"}
    assert (last["is_final"], last["error"], "is_end" in last) == (True, error, False)
    assert (end["is_final"], end["error"], end["is_end"]) == (False, error, True)


def test_the_page_is_told_how_sure_each_word_is() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "2pass", "confidences": True})
    engine.binary(b"\0\0")
    engine.tell(1, Live("好", (Token("好", 2.0, 2.25, 0.5),)))
    live, sentence, last = engine.messages
    assert "segments" not in live
    assert last["tokens"] == [{"text": "好", "start": 2000, "end": 2250}]
    (described,) = sentence["segments"]
    assert (described["text"], described["start"], described["end"]) == ("你好世界", 1000, 1800)
    assert described["tokens"][0] == {"text": "你", "confidence": 0.9}
    engine.text({"mode": "offline"})
    engine.text({"is_speaking": False})
    engine.binary(b"\0\0")
    engine.text({"is_speaking": False})
    assert [one["text"] for one in engine.messages[-1]["segments"]] == ["你好世界", "今天天气很好"]


def test_the_page_is_told_subtitles_that_can_be_read() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "2pass", "confidences": True})
    engine.binary(b"\0\0")
    engine.tell(1, Sentence(segment("今天天气很好我们一起去公园散步吧你好世界今天天气很好")))
    (described,) = engine.messages[-1]["segments"]
    first, second = described["cues"]
    assert first["text"] + second["text"] == described["text"]
    assert described["start"] == first["start"] < first["end"] <= second["start"] < second["end"] == described["end"]


def test_marks_are_no_characters_with_times() -> None:
    engine = Engine(FunasrConversation())
    engine.text({"mode": "2pass", "confidences": True})
    engine.binary(b"\0\0")
    first, *rest = segment("你好", 0.0).tokens
    marked = Segment("你好。", 0.0, 0.4, (first, *(replace(one, mark="。") for one in rest)))
    engine.tell(1, Sentence(marked))
    message = engine.messages[-1]
    assert (message["text"], len(json.loads(message["timestamp"])), message["stamp_sents"][0]["punc"]) == (
        "你好。",
        2,
        "。",
    )
    assert [one["text"] for one in message["segments"][0]["tokens"]] == ["你", "好。"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "mode",
        "wav_name",
        "wav_format",
        "audio_fs",
        "chunk_size",
        "is_speaking",
        "is_finished",
        "is_end",
        "hotwords",
        "x",
    ]
)
MESSAGES = st.lists(
    st.one_of(
        st.dictionaries(KEYS, VALUES, max_size=5).map(json.dumps),
        st.text(max_size=30),
        st.binary(max_size=50),
        st.sampled_from(['{"is_speaking": false}', '{"mode": "online"}', '{"mode": "offline", "is_speaking": true}']),
    ),
    max_size=8,
)


@settings(max_examples=15)
@given(MESSAGES)
def test_no_message_is_ever_too_much(messages: list[str | bytes]) -> None:
    engine = Engine(FunasrConversation())
    for message in messages:
        if engine.closed:
            break
        engine.text(message) if isinstance(message, str) else engine.binary(message)
    for message in engine.messages:
        assert {"mode", "text", "wav_name", "is_final"} <= message.keys()
    finals = sum(m["is_final"] and "is_end" not in m and "error" not in m for m in engine.messages)
    assert finals >= len(engine.opened) - (1 if not engine.conversation.idle else 0)
