"""FunASR's clients as they send, wait and leave, one after the other over sockets: right text, a clean end."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import soundfile
from serving import SAMPLES, Running, live_text, logged, sample, serving, whole_text
from websockets.sync.client import connect

from paraformer.cli.serve import _self_signed
from paraformer.serve.funasr import units

ORIGIN = "http://page.example:1337"
PCM = sample().tobytes()
WEIGHTED = json.dumps({"阿里巴巴": 20, "hello world": 40}, ensure_ascii=False)
Message = dict[str, Any]


def final(message: Message) -> bool:
    return bool(message["is_final"])


def acknowledged(message: Message) -> bool:
    """What the newest of FunASR's Python clients waits for, for five minutes; it wants it to be final too."""
    return message.get("is_end", False) and message["is_final"]


def final_or_offline(message: Message) -> bool:
    return bool(message["is_final"]) or message["mode"] == "offline"


@dataclass(frozen=True)
class Client:
    """What one says first and last; what it sends, in frames of so many bytes; which message ends its waiting; how it
    leaves. more: for `connect`.
    """

    first: Message | None
    last: Message
    until: Callable[[Message], bool] = final
    frame: int = 1920
    data: bytes = PCM
    leaves: int = 1000
    path: str = ""
    more: Message = field(default_factory=lambda: {"subprotocols": ["binary"]})

    @property
    def mode(self) -> str:
        """As the server takes it."""
        asked = (self.first or {}).get("mode", "offline" if self.path else "2pass")
        return asked if asked in ("offline", "online") else "2pass"

    def run(self, url: str, **more: Any) -> list[Message]:
        """One utterance, all of its messages."""
        with connect(url + self.path, **self.more, **more) as ws:
            heard = self.speak(ws)
            ws.close(self.leaves)
        return heard

    def speak(self, ws: Any) -> list[Message]:
        """All that is sent, and what is answered, on a connection that stands."""
        if self.first is not None:
            ws.send(json.dumps(self.first))
        for place in range(0, len(self.data), self.frame):
            ws.send(self.data[place : place + self.frame])
        ws.send(json.dumps(self.last))
        heard: list[Message] = []
        while not heard or not self.until(heard[-1]):
            heard.append(json.loads(ws.recv(timeout=60)))
        return heard


def python(mode: str, hotwords: str, **more: Any) -> Client:
    """The newest client of FunASR's runtime."""
    looking_back = {"encoder_chunk_look_back": 4, "decoder_chunk_look_back": 0}
    asked = {"mode": mode, "chunk_size": [5, 10, 5], "chunk_interval": 10, **looking_back, "audio_fs": 16000}
    first = {**asked, "wav_name": "demo", "wav_format": "pcm", "is_speaking": True, "hotwords": hotwords, "itn": True}
    return Client({**first, **more}, {"is_speaking": False, "is_end": True}, acknowledged)


def page(mode: str, *, file: bytes = b"") -> Client:
    """The page in a browser: with a file it announces samples and sends the file as it is, header and all."""
    said = {"chunk_size": [5, 10, 5], "wav_name": "h5", "chunk_interval": 10, "mode": mode}
    kind = {"wav_format": "PCM", "audio_fs": 16000} if file else {}
    first = {**said, "is_speaking": True, "itn": False, "hotwords": WEIGHTED, **kind}
    wait = final_or_offline if mode == "offline" else final
    how: Message = {"frame": 960, "data": file, "leaves": 1001} if file else {"frame": 1920, "leaves": 1001}
    return Client(first, {**said, "is_speaking": False}, wait, **how, more={"origin": ORIGIN})


WAV = (
    b"RIFF" + (36 + len(PCM)).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data"
)
WAV += len(PCM).to_bytes(4, "little") + PCM
FLAC = (SAMPLES / "weather.flac").read_bytes()
END = {"is_speaking": False}
CPP = {"wav_name": "w", "wav_format": "pcm", "audio_fs": 16000, "is_speaking": True, "itn": True}
CLIENTS = {
    **{f"python {mode}": python(mode, "阿里巴巴,达摩院") for mode in ("2pass", "offline", "online")},
    "python, a microphone": python("2pass", WEIGHTED, wav_name="microphone"),
    "python, a compressed file": Client(
        {"mode": "offline", "wav_format": "others", "wav_name": "demo", "audio_fs": 16000, "is_speaking": True},
        {"is_speaking": False, "is_end": True},
        acknowledged,
        data=FLAC,
    ),
    **{
        f"python of 2025 {mode}": Client(
            {"mode": mode, "chunk_size": [5, 10, 5], "chunk_interval": 10, **CPP, "hotwords": ""}, END, final_or_offline
        )
        for mode in ("2pass", "offline", "online")
    },
    **{f"page {mode}": page(mode) for mode in ("2pass", "offline", "online")},
    **{f"page {mode}, a file": page(mode, file=WAV) for mode in ("2pass", "offline")},
    "C++ offline": Client({**CPP, "hotwords": WEIGHTED}, END, bool, 204_800, path="/offline", more={}),
    "C++ offline, a file": Client({**CPP, "wav_format": "wav"}, END, bool, 204_800, WAV, path="/offline", more={}),
    "C++ 2pass": Client(
        {"mode": "2pass", "chunk_size": [5, 10, 5], **CPP, "audio_fs": 16000.0, "hotwords": ""},
        END,
        leaves=1001,
        more={},
    ),
    "C#": Client(
        {"mode": "office", "chunk_size": "5,10,5", "chunk_interval": 10, **CPP, "hotwords": ""},
        END,
        frame=1_024_000,
        more={},
    ),
    "Java": Client(
        {"mode": "offline", "chunk_size": [5, 10, 5], "chunk_interval": 10, **CPP, "hotwords": '{"阿里巴巴": "20"}'},
        END,
        lambda message: message.get("is_final", True),
        more={},
    ),
    "says that it has finished": Client({"mode": "online", "wav_name": "old"}, {"is_finished": True}),
    "says nothing but the end": Client(None, END, more={}),
    "names a mode and no more": Client({"mode": "online"}, END, more={}),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(origins=(ORIGIN,)) as running:
        yield running


def check(client: Client, heard: list[Message]) -> None:
    """The right text, once, in messages that every client can read."""
    words = [one for one in heard if "is_end" not in one]
    named = (client.first or {}).get("wav_name", "wav-default-id")
    for one in heard:
        assert isinstance(one["mode"], str) and isinstance(one["text"], str) and one["wav_name"] == named
        if "timestamp" in one:  # the page counts through it, a pair for each character
            assert len(json.loads(one["timestamp"])) == len(units(one["text"]))
    assert [one["is_final"] for one in words] == [*[False] * (len(words) - 1), True]
    if client.mode == "online":
        assert "".join(one["text"] for one in words) == live_text()
    else:
        assert "".join(one["text"] for one in words if one["mode"] != "2pass-online") == whole_text()
    if client.mode == "offline":
        assert len(words) == 1


def check_gone(running: Running) -> None:
    """Nothing is left of a client."""
    until = monotonic() + 10.0
    while (running.process.engine.lines or running.process.engine.seats) and monotonic() < until:
        sleep(0.01)
    assert not running.process.engine.lines
    assert running.process.engine.seats == running.process.engine.scheduler.live == 0


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_hears_what_was_said_and_leaves_nothing_behind(server: Running, name: str) -> None:
    client = CLIENTS[name]
    with logged() as log:
        check(client, client.run(server.ws))
        check_gone(server)
    assert not log.getvalue()


def test_a_client_that_counts_messages_has_one_for_each_file(server: Running) -> None:
    """The C++ offline one: hotwords with the first file only, the next file after any message."""
    first, second = CLIENTS["C++ offline"], Client({**CPP, "wav_name": "next"}, END, bool, 204_800)
    with connect(server.ws + "/offline") as ws:
        for client in (first, second, second):
            check(client, client.speak(ws))
    check_gone(server)


def test_a_second_end_on_closing_says_nothing(server: Running) -> None:
    """As funasr-client does it."""
    client = CLIENTS["python of 2025 2pass"]
    with connect(server.ws, subprotocols=["binary"]) as ws:  # type: ignore[list-item]
        client.speak(ws)
        ws.send(json.dumps(END))
        ws.send(json.dumps({**END, "is_end": True}))
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.2)
    check_gone(server)


@pytest.mark.parametrize("mode", ["2pass", "offline", "online"])
def test_an_end_without_a_sample_is_told(server: Running, mode: str) -> None:
    """A silent microphone: the page waits for a final message, the Python client for its acknowledgement."""
    client = python(mode, "", wav_name="microphone")
    with connect(server.ws, subprotocols=["binary"]) as ws:  # type: ignore[list-item]
        ws.send(json.dumps(client.first))
        ws.send(json.dumps(client.last))
        last, end = (json.loads(ws.recv(timeout=30)) for _ in range(2))
    assert (last["text"], last["is_final"], "is_end" in last) == ("", True, False)
    assert (end["text"], end["is_final"], end["is_end"]) == ("", True, True)
    check_gone(server)


@pytest.mark.parametrize("mode", ["2pass", "offline", "online"])
def test_python_over_tls_with_a_certificate_that_it_does_not_check(tmp_path: Path, mode: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = python(mode, WEIGHTED)
    with serving(**_self_signed(tmp_path / "tls")) as running:
        check(client, client.run(running.ws.replace("ws://", "wss://"), ssl=context))
        check_gone(running)


def test_a_client_that_sends_all_at_once_with_a_key_and_a_semicolon(tmp_path: Path) -> None:
    """xiaozhi's: it takes messages without is_final for final ones, and waits for five seconds for each."""
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    first = {"mode": "offline", "chunk_size": [5, 10, 5], "chunk_interval": 10, **CPP}
    client = Client(first, END, lambda message: message.get("is_final", True), len(PCM))
    with serving(keys=str(keys)) as running:
        check(client, client.run(running.ws, additional_headers={"Authorization": "Bearer; sesame"}))


def test_samples_of_eight_kilohertz_are_heard(server: Running) -> None:
    """What a telephone's client announces; the text may differ, its end may not."""
    client = python("2pass", "", audio_fs=8000)
    halved = Client(client.first, client.last, client.until, data=sample()[::2].tobytes())
    heard = halved.run(server.ws)
    assert [one["is_final"] for one in heard if "is_end" not in one].count(True) == 1
    assert any(one["text"] for one in heard)
    check_gone(server)


def test_the_file_that_the_page_sends_is_one(tmp_path: Path) -> None:
    (tmp_path / "page.wav").write_bytes(WAV)
    samples, rate = soundfile.read(tmp_path / "page.wav", dtype="int16")
    assert rate == 16_000 and samples.tobytes() == PCM
