"""Nothing is lost: streams go on after a cut connection, a killed worker, a stop, a reload; files are answered."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import SAMPLES, embedded, sample, serving
from steady_client import Steady, TooLate
from websockets import ConnectionClosed
from websockets.sync.client import connect

import paraformer
from paraformer.errors import SessionError
from paraformer.serve.protocol import Done, News, Saved, Send, Sentence, StreamOptions
from paraformer.serve.scheduler import Scheduler
from paraformer.serve.sent import Sent
from paraformer.serve.shelf import Shelf

SAVED = Saved(b"a session", 7, StreamOptions(hotwords=("阿里",), kept=True), "notes")


def long() -> np.ndarray:
    """Some 20 s of speech."""
    return np.concatenate([sample(name) for name in ("weather", "subway", "company", "meeting")])


def paused() -> np.ndarray:
    """The same with pauses between."""
    pause = np.zeros(24_000, np.int16)
    return np.concatenate([one for name in ("weather", "subway", "company") for one in (sample(name), pause)])


@cache
def live_text(samples: Callable[[], np.ndarray] = long) -> str:
    session = embedded().stream()
    return session.accept(samples()) + session.finish()


def sentences(samples: Callable[[], np.ndarray]) -> str:
    """The text of all sentences, each in view of all of it, without a server."""
    news: list[News] = []
    scheduler = Scheduler(embedded(), lambda found: news.extend(one for _, one in found))
    stream = scheduler.open(StreamOptions(sentences=True))
    stream.feed(samples())
    stream.end()
    while not any(isinstance(one, Done) for one in news):
        scheduler.tick()
    return "".join(one.segment.text for one in news if isinstance(one, Sentence))


def is_part(some: str, whole: str) -> bool:
    """Whether a text is another one with characters left out."""
    rest = iter(whole)
    return all(one in rest for one in some)


def speaking(url: str, samples: Callable[[], np.ndarray] = long, speed: float = 4.0, **settings: Any) -> Steady:
    """Somebody who says all of it, packet by packet, so many times as fast as people do."""
    return Steady(url, samples().tobytes(), lambda: (3840, 0.12 / speed), **settings)


def text(messages: list[dict[str, Any]]) -> str:
    return "".join(one["text"] for one in messages if one["mode"] == "2pass-online")


async def until(happens: Any) -> None:
    end = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


# -- what is kept ---------------------------------------------------------------------------------------------------


def test_a_shelf_gives_what_was_put_to_whoever_knows_its_name(tmp_path: Path) -> None:
    shelf, token = Shelf(tmp_path / "state", 60.0, 1 << 20), Shelf.token()
    assert shelf.find(token) is None
    shelf.put(token, SAVED)
    assert Shelf(tmp_path / "state", 60.0, 1 << 20).find(token) == SAVED  # another process
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "state").iterdir()] == [0o600]
    for name in ("", "../state/x", token[:-1] + "/", token.upper() + "\0"):
        assert shelf.find(name) is None
    (tmp_path / "state" / f"{token}.stream").write_bytes(b"\4\0\0\0[]x!")
    with pytest.raises(SessionError, match="begin a new one"):
        shelf.find(token)


def test_a_shelf_forgets_the_old_and_makes_room(tmp_path: Path) -> None:
    shelf, tokens = Shelf(tmp_path, 60.0, 500), [Shelf.token() for _ in range(4)]
    for n, token in enumerate(tokens):
        shelf.put(token, SAVED)
        os.utime(tmp_path / f"{token}.stream", (time.time() - 50 + n,) * 2)
    assert shelf.find(tokens[0]) is None  # the oldest made room
    assert shelf.find(tokens[3]) == SAVED
    os.utime(tmp_path / f"{tokens[3]}.stream", (time.time() - 61,) * 2)
    assert shelf.find(tokens[3]) is None
    shelf.put(tokens[0], replace(SAVED, session=b"x" * 500))
    assert [file.name for file in tmp_path.iterdir()] == [f"{tokens[0]}.stream"]


def test_messages_are_numbered_and_those_that_lack_come_again() -> None:
    first, second = Sent(), Sent()
    told = [first.numbered(Send(json.dumps({"text": str(n)}))) for n in range(5)]
    assert [json.loads(one.text)["number"] for one in told] == [1, 2, 3, 4, 5]
    assert second.restore(first.notes(), 3) == told[3:]
    assert second.restore(first.notes(), 9) == []
    assert json.loads(second.numbered(Send('{"text": ""}')).text)["number"] == 6
    for _ in range(3):
        first.numbered(Send(json.dumps({"text": "长" * 10_000})))
    assert second.restore(first.notes(), 1) is None


# -- connections and workers that end --------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "samples"), [("online", long), ("2pass", paused)])
def test_connections_that_are_cut_lose_nothing(mode: str, samples: Callable[[], np.ndarray]) -> None:
    async def main(url: str) -> Steady:
        client = speaking(url, samples, mode=mode)
        running = asyncio.create_task(client.run())
        for _ in range(3):
            known = client.token
            await until(lambda known=known: client.token != known)
            await asyncio.sleep(0.3)
            assert client.ws is not None
            client.ws.transport.abort()
        await running
        return client

    with serving(keep_s=1.0) as running:
        client = asyncio.run(main(running.ws))
        engine = running.process.engine
        end = time.monotonic() + 10
        while engine.seats or engine.lines or engine.scheduler.live:
            assert time.monotonic() < end
            time.sleep(0.05)
    messages = [client.messages[number] for number in sorted(client.messages)]
    assert client.resumed == 3
    assert [one["number"] for one in messages] == list(range(1, len(messages) + 1))
    assert [one["is_final"] for one in messages] == [False] * (len(messages) - 1) + [True]
    if mode == "online":
        assert text(messages) == live_text(samples)
    else:  # where a sentence stands for its live text, of which some would come behind it
        assert "".join(one["text"] for one in messages if one["mode"] == "2pass-offline") == sentences(samples)
        assert is_part(text(messages), live_text(samples))


def test_what_is_not_kept_is_said_and_the_connection_goes_on() -> None:
    with serving() as running, connect(running.ws) as ws:
        for token in (Shelf.token(), "x"):
            ws.send(json.dumps({"mode": "online", "resume": token, "heard": 3}))
            answer = json.loads(ws.recv(timeout=10))
            assert (answer["resumed"], answer["samples"], answer["is_final"]) == (False, 0, False)
        ws.send(json.dumps({"mode": "online"}))
        ws.send(sample().tobytes())
        ws.send('{"is_speaking": false}')
        heard = ""
        while True:
            message = json.loads(ws.recv(timeout=20))
            heard += message["text"]
            if message["is_final"]:
                break
        assert live_text().startswith(heard[:6])
        ws.send(json.dumps({"resume": 3}))
        assert json.loads(ws.recv(timeout=10))["error"]["code"] == "invalid_request"
    with serving(resume_s=0.0) as running:  # kept for no time at all

        async def main() -> None:
            client = speaking(running.ws, speed=6.0)
            task = asyncio.create_task(client.run())
            await until(lambda: client.token)
            assert client.ws is not None
            client.ws.transport.abort()
            with pytest.raises(TooLate):
                await task

        asyncio.run(main())


def test_a_full_disk_costs_only_the_acknowledgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Shelf, "put", full)
    with serving(keep_s=0.5) as running:
        client = speaking(running.ws, speed=50.0)
        messages = asyncio.run(client.run())
    assert "".join(one["text"] for one in messages) == live_text()
    assert not client.token


def test_a_stop_hands_streams_over_to_the_next_server(tmp_path: Path) -> None:
    state = str(tmp_path / "state")

    async def main(first: Any) -> list[dict[str, Any]]:
        client = speaking(first.ws)
        task = asyncio.create_task(client.run())
        await until(lambda: client.messages)
        began = time.monotonic()
        await asyncio.to_thread(first.stop)
        await asyncio.to_thread(first.thread.join, 20)
        assert time.monotonic() - began < 5  # no waiting for the stream's end
        with serving(port=first.port, state=state):
            messages = await task
            assert client.resumed == 1
            return messages

    with serving(state=state) as first:
        messages = asyncio.run(main(first))
    assert "".join(one["text"] for one in messages) == live_text()


def test_a_client_that_goes_on_speaking_does_not_hold_up_a_stop() -> None:
    with serving() as running, connect(running.ws) as ws:
        ws.send('{"mode": "online"}')
        ws.send(sample().tobytes())
        while not running.process.engine.scheduler.live:
            time.sleep(0.02)
        running.stop()
        answers: list[Any] = []
        end = time.monotonic() + 8
        while not (answers and answers[-1]["is_final"]):
            with suppress(ConnectionClosed):
                ws.send(b"\0\0" * 960)
            assert time.monotonic() < end
            with suppress(TimeoutError):
                answers.append(json.loads(ws.recv(timeout=0.05)))
        running.thread.join(8)
        assert not running.thread.is_alive()
    assert embedded().stream().accept(sample())[:4] in "".join(one["text"] for one in answers)


def test_a_reload_drops_no_stream() -> None:
    reloads: list[Any] = []

    def again() -> Any:
        reloads.append(paraformer.load())
        return reloads[-1]

    async def main(running: Any) -> list[list[dict[str, Any]]]:
        clients = [speaking(running.ws), speaking(running.ws)]
        tasks = [asyncio.create_task(one.run()) for one in clients]
        for count in (1, 2):
            await asyncio.sleep(1.0)
            running.call(running.process._read_again)
            await until(lambda count=count: len(reloads) == count)
        tasks.append(asyncio.create_task(speaking(running.ws, speed=10.0).run()))
        heard = [await task for task in tasks]
        assert all(one.resumed == 0 for one in clients)
        return heard

    with serving() as running:
        running.process._reload = again
        heard = asyncio.run(main(running))
        assert running.process.engine.recognizer is reloads[-1]
    assert ["".join(one["text"] for one in messages) for messages in heard] == [live_text()] * 3


def test_files_that_a_stop_does_not_wait_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = paraformer.load()
    slow, answered = tool.segments, threading.Event()

    def segments(*given: Any) -> Any:
        answered.wait(5.0)
        return slow(*given)

    with serving(tool, drain_s=0.3) as running:
        monkeypatch.setattr(tool, "segments", segments)
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        body += (SAMPLES / "meeting.flac").read_bytes() + b"\r\n--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        request = urllib.request.Request(running.http + "/v1/audio/transcriptions", body, headers)
        running.call(lambda: running.loop.call_later(0.7, running.process.stop))
        with pytest.raises(urllib.error.HTTPError) as stopped:
            urllib.request.urlopen(request, timeout=30)
        assert stopped.value.code == 503
        assert stopped.value.headers["Retry-After"] == "1"
        stopped.value.close()
        answered.set()


# -- several processes ----------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def workers(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A server of two processes; its port and the first admin port."""
    port, admin = free_port(), free_port()
    command = [sys.executable, "-m", "paraformer.cli", "serve", "--port", str(port), "--admin-port", str(admin)]
    parent = subprocess.Popen([*command, "--workers", "2", "--drain", "10", *arguments], stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 90
        while not all(answers(f"http://127.0.0.1:{one}/ready") for one in (admin, admin + 1)):
            assert parent.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield parent, port, admin
    finally:
        parent.send_signal(signal.SIGTERM)
        parent.communicate(timeout=30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_streams_go_on_where_all_workers_are_killed() -> None:
    async def main(parent: int, port: int) -> list[Steady]:
        clients = [speaking(f"ws://127.0.0.1:{port}") for _ in range(4)]
        tasks = [asyncio.create_task(one.run()) for one in clients]
        await until(lambda: all(one.token for one in clients))
        for victim in children(parent):
            os.kill(victim, signal.SIGKILL)
        await asyncio.gather(*tasks)
        return clients

    expected = live_text()
    with workers("--streams", "8", "--keep", "1") as (parent, port, admin):
        clients = asyncio.run(main(parent.pid, port))
        told = [metrics(admin + n) for n in range(2)]
    for client in clients:
        assert "".join(client.messages[number]["text"] for number in sorted(client.messages)) == expected
    assert [client.resumed for client in clients] == [1] * 4
    for one in told:  # each worker tells of all, and what the dead ones counted stays
        assert one['paraformer_streams_resumed_total{outcome="ok"}'] == 4
        assert one["paraformer_capacity_streams"] == 16
        assert one['paraformer_streams_kept_total{outcome="ok"}'] >= 4


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
