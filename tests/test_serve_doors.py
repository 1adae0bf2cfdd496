"""WebSockets on loopback: FunASR's protocol over a real server, admission, slow and vanishing clients, a clean end."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import websockets
from serving import Running, embedded, live_text, sample, serving, whole_text
from websockets.sync.client import connect

import paraformer
from paraformer.serve.config import Limits


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


def speak(url: str, mode: str, name: str = "weather", size: int = 1920, **more: Any) -> list[dict[str, Any]]:
    """Say a recording to FunASR's door and give all answers, up to the acknowledgement."""
    data = sample(name).tobytes()
    answers: list[dict[str, Any]] = []
    with connect(url, subprotocols=["binary"], compression=None) as ws:  # type: ignore[list-item]
        assert ws.subprotocol == "binary"
        ws.send(json.dumps({"mode": mode, "wav_name": name, "is_speaking": True, "chunk_size": [5, 10, 5], **more}))
        for start in range(0, len(data), size):
            ws.send(data[start : start + size])
        ws.send(json.dumps({"is_speaking": False, "is_end": True}))
        while not (answers and answers[-1].get("is_end")):
            answers.append(json.loads(ws.recv(timeout=30)))
    return answers


def said(ws: Any) -> list[str]:
    """All messages until the connection is closed."""
    messages = []
    with suppress(websockets.ConnectionClosed):
        while True:
            messages.append(ws.recv(timeout=20))
    return messages


def metric(server: Running, name: str) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.admin}/metrics", timeout=10).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def until(happens: Any, within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.02)


@pytest.mark.parametrize("size", [1920, 333, 1 << 20])
def test_online_gives_the_recognisers_live_text(server: Running, size: int) -> None:
    answers = speak(server.ws, "online", size=size)
    assert "".join(one["text"] for one in answers) == live_text()
    assert [one["is_final"] for one in answers][-2:] == [True, True]


def test_offline_gives_the_text_of_the_file(server: Running) -> None:
    for url in (server.ws, server.ws + "/offline"):
        final, _ = speak(url, "offline")
        assert (final["text"], final["mode"], final["is_final"]) == (whole_text(), "offline", True)
        assert len(json.loads(final["timestamp"])) == len(whole_text())


def test_two_passes_give_both(server: Running) -> None:
    answers = speak(server.ws, "2pass")
    live = "".join(one["text"] for one in answers if one["mode"] == "2pass-online")
    again = "".join(one["text"] for one in answers if one["mode"] == "2pass-offline")
    assert live == live_text()
    assert again == whole_text()


def test_files_of_other_formats(server: Running) -> None:
    from serving import SAMPLES

    with connect(server.ws) as ws:
        ws.send(json.dumps({"mode": "offline", "wav_format": "flac", "wav_name": "x"}))
        ws.send((SAMPLES / "weather.flac").read_bytes())
        ws.send('{"is_speaking": false}')
        assert json.loads(ws.recv(timeout=30))["text"] == whole_text()
        ws.send(json.dumps({"wav_format": "mp3"}))
        ws.send(b"no audio at all")
        ws.send('{"is_speaking": false}')
        answer = json.loads(ws.recv(timeout=30))
        assert answer["is_final"] is True
        assert answer["error"]["code"] == "recognition_failed"


def test_many_streams_at_once_are_not_mixed_up() -> None:
    names = ["weather", "subway", "company", "meeting"] * 2
    with serving(limits=Limits(streams=8)) as running, ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(lambda name: speak(running.ws, "online", name, 3000), names))
        until(lambda: running.process.engine.seats == 0)
        assert metric(running, "paraformer_sessions_total") == 8
    for name, answers in zip(names, heard, strict=True):
        assert "".join(one["text"] for one in answers) == live_text(name)


def test_a_stream_above_capacity_is_refused_before_the_upgrade() -> None:
    with serving(limits=Limits(streams=1)) as running:
        with connect(running.ws) as first:
            first.send('{"mode": "online"}')
            with pytest.raises(websockets.InvalidStatus) as refused, connect(running.ws):
                pass
            response = refused.value.response
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "1"
            assert json.loads(response.body)["error"]["code"] == "busy"
        until(lambda: running.process.engine.seats == 0)
        assert "".join(one["text"] for one in speak(running.ws, "online")) == live_text()
        assert metric(running, "paraformer_rejected_total") == 1


def test_what_is_no_message_closes(server: Running) -> None:
    for message, code in (("hello", 1007), ('{"audio_fs": 1}', 1008)):
        with connect(server.ws) as ws:
            ws.send(message)
            said(ws)
            assert ws.close_code == code


def test_a_client_that_vanishes_leaves_nothing(server: Running) -> None:
    with connect(server.ws) as ws:
        ws.send('{"mode": "2pass"}')
        ws.send(sample().tobytes()[:60_000])
        ws.socket.shutdown(socket.SHUT_RDWR)
    engine = server.process.engine
    until(lambda: engine.seats == 0 and not engine.lines and engine.scheduler.live == 0)


def test_a_client_that_says_nothing_is_closed() -> None:
    with serving(limits=Limits(first_s=0.3, idle_s=0.3)) as running:
        with connect(running.ws) as ws, pytest.raises(websockets.ConnectionClosed) as closed:
            ws.recv(timeout=10)
        assert closed.value.rcvd.code == 1008  # type: ignore[union-attr]
        with connect(running.ws) as ws:  # one that falls silent gets its last word
            ws.send('{"mode": "online"}')
            ws.send(sample().tobytes())
            answers = [json.loads(ws.recv(timeout=10))]
            while not answers[-1]["is_final"]:
                answers.append(json.loads(ws.recv(timeout=10)))
        assert "".join(one["text"] for one in answers) == live_text()


def test_a_client_that_waits_for_its_text_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = paraformer.load()
    whole = tool.segments

    def segments(*given: Any) -> Any:
        time.sleep(2.0)
        return whole(*given)

    with serving(tool, limits=Limits(idle_s=0.3), drain_s=0.1) as running:
        monkeypatch.setattr(tool, "segments", segments)
        for mode in ("offline", "2pass"):
            said = speak(running.ws, mode)
            assert "".join(one["text"] for one in said if one["mode"] != "2pass-online") == whole_text()


def test_a_client_that_does_not_read_is_dropped_and_the_others_go_on() -> None:
    with serving(limits=Limits(streams=4, unsent=10_000, pause_s=0.5, messages_per_s=1e6)) as running:
        sock = socket.create_connection(("127.0.0.1", running.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        with connect(running.ws, sock=sock, max_queue=1) as ws:
            end = (
                '{"is_speaking": false, "is_end": true, "wav_name": "'
                + "n" * 250
                + '", "hotwords": "'
                + "w " * 30
                + '"}'
            )
            try:
                for _ in range(60_000):
                    ws.send('{"is_speaking": true}')
                    ws.send(end)
                    if not running.process.engine.lines:
                        break
            except websockets.ConnectionClosed:
                pass
            until(lambda: not running.process.engine.lines)
        assert metric(running, 'paraformer_sessions_total{outcome="slow"') == 1
        assert "".join(one["text"] for one in speak(running.ws, "online")) == live_text()


def spoken(running: Running, count: int) -> str:
    """All text of a recording said so many times over, all at once."""
    data = np.tile(sample(), count).tobytes()
    with connect(running.ws, compression=None) as ws:
        ws.send('{"mode": "online"}')
        for place in range(0, len(data), 3200):
            ws.send(data[place : place + 3200])
        ws.send('{"is_speaking": false}')
        texts = [json.loads(ws.recv(timeout=60))]
        while not texts[-1]["is_final"]:
            texts.append(json.loads(ws.recv(timeout=60)))
    return "".join(one["text"] for one in texts)


def test_audio_that_comes_too_fast_waits_and_is_refused_where_nothing_goes_on() -> None:
    with serving(limits=Limits(backlog_s=1.0, pause_s=2.0, messages_per_s=1e6)) as running:
        scheduler, session = running.process.engine.scheduler, embedded().stream()
        assert spoken(running, 4) == session.accept(np.tile(sample(), 4)) + session.finish()
        stuck = threading.Event()
        scheduler.ask(partial(stuck.wait, 30.0))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            spoken(running, 4)
        stuck.set()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013


def test_a_stop_drains() -> None:
    with serving() as running:
        with connect(running.ws) as ws:
            ws.send('{"mode": "online"}')
            ws.send(sample().tobytes())
            until(lambda: running.process.engine.scheduler.live == 1)
            running.stop()
            answers = [json.loads(message) for message in said(ws)]
            assert ws.close_code == 1012
        assert "".join(one["text"] for one in answers) == live_text()
        assert [one["is_final"] for one in answers][-1] is True
        running.thread.join(20)
        assert not running.thread.is_alive()


def test_operators_are_told_whether_it_lives_and_is_ready(server: Running) -> None:
    def ask(path: str) -> tuple[int, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.admin}{path}", timeout=10) as response:
            return response.status, json.load(response)

    speak(server.ws, "online")
    assert ask("/live") == (200, {"alive": True})
    status, state = ask("/ready")
    assert (status, state["status"]) == (200, "ready")
    assert state["capacity"] >= 1
    assert metric(server, "paraformer_capacity_streams") == state["capacity"]
    assert metric(server, "paraformer_step_seconds_count") > 0
    with pytest.raises(urllib.error.HTTPError):  # not on the public port
        urllib.request.urlopen(f"{server.http}/metrics", timeout=10)
