"""Requests and files that mean harm: endless, lying, pointing elsewhere; many clients, and an end in their middle.

With `test_serve_security` and `test_serve_torture` every line of the security checklist has its test.
"""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import random
import re
import select
import socket
import struct
import tempfile
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import starlette.formparsers
from serving import SAMPLES, Running, embedded, live_text, logged, sample, serving, whole_text
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from paraformer.serve import decoding, guard
from paraformer.serve import uvicorn_protocols as protocols_module
from paraformer.serve.config import Limits
from paraformer.serve.files import Spool

ROOT = Path(__file__).parents[1]
MOST = 2 << 20
ROOM = 64 << 10
"""Beside the file, in a request."""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    limits = Limits(first_s=1.0, upload=MOST, audio_s=100.0, decode_s=20.0, streams=64, messages_per_s=1e6)
    with serving(limits=limits) as running:
        post(running, part(b"warm"))
        yield running


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the server writes."""
    with logged() as written:
        yield written


def part(content: bytes, name: str = "file", filename: str | None = "x") -> bytes:
    """A form of one part."""
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n"


def post(server: Running, body: bytes) -> tuple[int, Any]:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(server.http + "/v1/audio/transcriptions", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def connected(server: Running, data: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    sock.sendall(data)
    return sock


def rest(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    data = b""
    with suppress(ConnectionResetError), sock:
        while more := sock.recv(65536):
            data += more
    return data


def pushed(sock: socket.socket, unit: bytes, most: int = 64 << 20) -> int:
    """How much the server lets come of what has no end."""
    sent = 0
    with suppress(OSError), sock:
        while sent < most:
            sock.sendall(unit)
            sent += len(unit)
    return sent


def resident() -> int:
    """Bytes of memory of this process, which is the server's too."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def until(happens: Any, within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.02)


# -- requests without end ---------------------------------------------------------------------------------------------

HEAD = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
FORM = HEAD + b"Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
BEGUN = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_a_body_is_refused_where_it_becomes_too_large(server: Running) -> None:
    sock = connected(server, FORM + chunk(BEGUN))
    for _ in range((MOST + ROOM) // 65_536 + 1):
        sock.sendall(chunk(bytes(65_536)))
    answer = rest(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"too_large" in answer


@pytest.mark.parametrize(
    ("begin", "unit", "most"),
    [
        (FORM + chunk(BEGUN), chunk(bytes(65_536)), MOST),
        (b"GET /", b"a" * 65_536, 0),
        (HEAD, b"X: " + b"a" * 65_000 + b"\r\n", 0),
        (HEAD + b"X: ", b"a" * 65_536, 0),
        (FORM + b"1;", b"a" * 65_536, 0),
        (FORM + b"0\r\nX: ", b"a" * 65_536, 0),
        (FORM + b"0\r\n", b"X: " + b"a" * 65_000 + b"\r\n", 0),
    ],
    ids=["body", "address", "headers", "header", "extension", "trailer", "trailers"],
)
def test_what_has_no_end_is_cut_and_not_kept(server: Running, begin: bytes, unit: bytes, most: int) -> None:
    before = resident()
    sent = pushed(connected(server, begin), unit)
    assert sent < most + (16 << 20)  # what networks hold on the way
    assert resident() - before < 24 << 20


def test_forms_of_many_parts(server: Running) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    assert post(server, field * 10_000 + b"--b--\r\n")[0] == 400
    assert post(server, b"--b\r\nContent-Disposition: form-data; " + b"x" * (1 << 20) + b"\r\n\r\n--b--\r\n")[0] == 400
    assert post(server, b"--b\r\n" + b"X: y\r\n" * 100_000 + b"\r\n--b--\r\n")[0] == 400
    heard = part((SAMPLES / "weather.flac").read_bytes())
    assert post(server, field * 64 + heard)[0] == 200
    assert post(server, field * 65 + heard)[0] == 400
    assert post(server, field.replace(b"1", b"1" * (64 << 10)) + heard)[0] == 200
    assert post(server, field.replace(b"1", b"1" * (65 << 10)) + heard)[0] == 400


@pytest.mark.parametrize(
    "begin", [b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n", b"POST / HT", b"\r\n"]
)
def test_slow_heads(server: Running, begin: bytes) -> None:
    sock, began = connected(server, begin), time.monotonic()
    with suppress(OSError):
        for _ in range(30):
            sock.sendall(b"X: y\r\n" if b"Host" in begin else b"\r\n")
            time.sleep(0.1)
    assert b" 200 " not in rest(sock)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("unit", [b"", b"x"])
def test_slow_bodies(server: Running, unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused while the client goes on, not only once it has stopped."""
    monkeypatch.setattr(guard, "_BODY_S", 0.5)
    sock = connected(server, FORM + chunk(BEGUN))
    for _ in range(100):
        with suppress(OSError):
            sock.sendall(chunk(unit) if unit else b"")
        if select.select([sock], [], [], 0.1)[0]:
            break
    else:
        pytest.fail("it may go on for ever")
    assert rest(sock).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_reads_no_answer(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols_module, "_UNREAD_S", 0.5)
    state = server.process._servers[0].server_state
    until(lambda: not state.connections)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    with sock:
        sock.sendall(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        until(lambda: state.connections)
        until(lambda: not state.connections)


def test_a_refused_client_that_goes_on_sending(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols_module, "_UNREAD_S", 0.5)
    sock = connected(server, HEAD.replace(b"localhost", b"evil.example") + b"Content-Length: 99999\r\n\r\n")
    with sock:
        assert sock.recv(65536).startswith(b"HTTP/1.1 421 ")
        with suppress(OSError):
            for _ in range(100):
                sock.sendall(b"x")
                time.sleep(0.05)
            pytest.fail("it may go on for ever")


def test_uploads_that_come_are_counted_before_they_are_complete() -> None:
    with serving(limits=Limits(jobs=2)) as running:
        coming = [connected(running, FORM + chunk(BEGUN + bytes(9999))) for _ in range(2)]
        until(lambda: post(running, part(b"x"))[0] == 503)
        assert post(running, part(b"x"))[1]["error"]["code"] == "busy"
        for sock in coming:
            sock.close()
        until(lambda: post(running, part(b"x"))[0] == 400)


def test_a_client_that_leaves_in_the_middle_is_no_failure(server: Running, log: io.StringIO) -> None:
    requests = 'paraformer_http_requests_total{route="/v1/audio/transcriptions",status="499"}'

    def counted() -> bool:
        told = urllib.request.urlopen(f"http://127.0.0.1:{server.admin}/metrics", timeout=10).read().decode()
        return requests in told

    connected(server, FORM + chunk(BEGUN + bytes(9999))).close()
    until(counted)
    assert '"ERROR"' not in log.getvalue()


# -- files that lie ---------------------------------------------------------------------------------------------------


@cache
def encoded(form: str, subtype: str | None = None, seconds: float = 0.0) -> bytes:
    """Speech, or so many seconds of silence, in a format."""
    file = io.BytesIO()
    silence = np.zeros(int(16_000 * seconds), np.int16)
    samples = silence if seconds else sample()
    with soundfile.SoundFile(file, "w", 16_000, 1, subtype, format=form) as sound:
        for start in range(0, len(samples), 160_000):  # libsndfile takes a stack as large as what it encodes
            sound.write(samples[start : start + 160_000])
    return file.getvalue()


def wav(**changed: int) -> bytes:
    """A file whose header says what is not so."""
    values = {"riff": 36 + 32_000, "tag": 1, "channels": 1, "rate": 16_000, "per_s": 32_000, "align": 2, "bits": 16}
    values |= {"data": 32_000, "fmt": 16, **changed}
    head = struct.pack("<4sI4s4sI", b"RIFF", values["riff"], b"WAVE", b"fmt ", values["fmt"])
    form = (values[name] for name in ("tag", "channels", "rate", "per_s", "align", "bits"))
    return head + struct.pack("<HHIIHH", *form) + struct.pack("<4sI", b"data", values["data"]) + bytes(32_000)


LIES = [
    *({"rate": rate} for rate in (0, 1, 3999, 192_001, 4_000_000_000)),
    *({"channels": channels, "align": 2 * channels % 65_536} for channels in (0, 1000, 65_535)),
    *({"bits": bits} for bits in (0, 1, 255, 65_535)),
    *({name: 0xFFFFFFFF} for name in ("riff", "data", "fmt", "per_s")),
    {"riff": 0, "data": 0},
    {"tag": 0xFFFE},
    {"tag": 0x55},
]


@pytest.mark.parametrize("lie", LIES, ids=lambda one: ",".join(f"{name}={value}" for name, value in one.items()))
def test_headers_that_lie(server: Running, lie: dict[str, int]) -> None:
    before = resident()
    status, told = post(server, part(wav(**lie)))
    assert status in (200, 400)
    assert told["text"] == "" if status == 200 else told["error"]["param"] == "file"
    assert resident() - before < 24 << 20


@pytest.mark.parametrize("form", [("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("WAV", "GSM610")])
def test_hours_in_kilobytes(server: Running, form: tuple[str, str | None]) -> None:
    if form[1] == "OPUS":
        pytest.importorskip("av")
    bomb, before = encoded(*form, seconds=600.0), resident()
    assert len(bomb) < MOST
    status, told = post(server, part(bomb))
    assert (status, told["error"]["code"]) == (400, "invalid_audio")
    assert "longer than 100 s" in told["error"]["message"]
    assert resident() - before < 32 << 20


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU"])
def test_files_with_bytes_changed(server: Running, form: str, log: io.StringIO) -> None:
    chance, before = random.Random(form), resident()
    for _ in range(6):
        data = bytearray(encoded(form))
        for _ in range(chance.choice((1, 4, 50))):
            place = chance.choice((chance.randrange(64), chance.randrange(len(data))))
            data[place] = chance.choice((0, 1, 127, 128, 255))
        status, told = post(server, part(bytes(data[: chance.choice((len(data), len(data) // 2))])))
        assert status in (200, 400), told
    assert resident() - before < 48 << 20
    assert '"ERROR"' not in log.getvalue()


def elsewhere(port: int) -> Iterator[bytes]:
    """Files that some decoders follow to other places."""
    for place in (f"http://127.0.0.1:{port}/x.ts", f"tcp://127.0.0.1:{port}", "file:///etc/passwd", "/etc/passwd"):
        yield f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{place}\n#EXT-X-ENDLIST\n".encode()
        yield f"ffconcat version 1.0\nfile '{place}'\n".encode()
        yield f"concat:{place}|{place}".encode()
        yield f"[playlist]\nFile1={place}\n".encode()
        yield place.encode()
        yield (
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
            f'<Representation id="1"><BaseURL>{place}</BaseURL></Representation></AdaptationSet></Period></MPD>'
        ).encode()
    yield f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n".encode()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="this system tells no process's limits")
def test_who_decodes_has_little_time_and_memory_and_writes_nothing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(600 * 16_000, np.int16), 16_000)
    others = multiprocessing.active_children()
    with (tmp_path / "long.wav").open("rb") as file:
        blocks = decoding.blocks(file.fileno(), None, Limits(decode_s=7.0, decode_bytes=1 << 30))
        next(blocks)
        (child,) = (one for one in multiprocessing.active_children() if one not in others)
        lines = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
        next(blocks)
    del blocks  # which ends the child
    most = {line[:26].strip(): line[26:].split()[1] for line in lines}
    assert (most["Max cpu time"], most["Max address space"]) == ("7", str(1 << 30))
    assert (most["Max file size"], most["Max core file size"]) == ("0", "0")


def test_files_that_point_elsewhere(server: Running) -> None:
    """Nothing is opened or asked for."""
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.2)
        for content in elsewhere(trap.getsockname()[1]):
            status, told = post(server, part(content, filename="list.m3u8"))
            assert (status, told["error"]["code"]) == (400, "invalid_audio")
            assert "root:" not in told["error"]["message"]
        with connect(server.ws) as ws:
            ws.send('{"mode": "offline", "wav_format": "m3u8"}')
            ws.send(next(elsewhere(trap.getsockname()[1])))
            ws.send('{"is_speaking": false}')
            assert json.loads(ws.recv(timeout=30))["error"]["code"] == "recognition_failed"
        with pytest.raises(TimeoutError):
            trap.accept()


def test_addresses_are_no_files(server: Running) -> None:
    assert post(server, part(b"http://127.0.0.1/x.wav", filename=None))[0] == 400
    assert post(server, part(b"http://127.0.0.1/x.wav", name="url", filename=None))[0] == 400


NAMES = ("../../../etc/cron.d/x", "/etc/passwd", "C:\\x", "a\x00b", "\u202egnp.exe", "x" * 10_000, "$(reboot)", "-rf")


@pytest.mark.parametrize("name", NAMES)
def test_names_never_become_paths(server: Running, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no upload has a name on disk at all, so that it goes with the process however that ends."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[Path] = []
    append = Spool.append

    def looking(self: Spool, data: bytes) -> None:
        append(self, data)
        seen.extend(tmp_path.rglob("*"))

    monkeypatch.setattr(Spool, "append", looking)
    content = (SAMPLES / "weather.flac").read_bytes()
    if len(name) < 1000 and "\x00" not in name:
        status, told = post(server, part(content, filename=name))
        assert (status, told["text"]) == (200, whole_text())
        body = part(name.encode(), name="model", filename=None).removesuffix(b"--b--\r\n") + part(content)
        assert post(server, body)[0] == 404
    with connect(server.ws) as ws:
        ws.send(json.dumps({"mode": "offline", "wav_format": "flac", "wav_name": name}))
        ws.send(content)
        ws.send('{"is_speaking": false}')
        told = json.loads(ws.recv(timeout=30))
        assert (told["text"], told["wav_name"]) == (whole_text(), name[:256])
    assert seen == []
    assert list(tmp_path.rglob("*")) == []


def test_a_write_that_is_cut_short_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(Limits())
    raw, written = spool._file, list[bytes]()

    class Small:
        def write(self, data: memoryview) -> int:
            written.append(bytes(data[:3]))
            return len(written[-1])

    monkeypatch.setattr(spool, "_file", Small())
    spool.append(b"0123456789")
    assert b"".join(written) == b"0123456789"
    raw.close()


def test_a_full_disk_is_told_and_harms_no_stream(
    server: Running, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with connect(server.ws) as ws:
        ws.send('{"mode": "online"}')
        ws.send(sample().tobytes())
        for place, doing in ((Spool, "append"), (starlette.formparsers.SpooledTemporaryFile, "write")):
            with monkeypatch.context() as patched:
                patched.setattr(place, doing, full)
                status, told = post(server, part(bytes(9999)))
                assert (status, told["error"]["code"]) == (503, "no_room")
        with monkeypatch.context() as patched, connect(server.ws) as other:
            patched.setattr(Spool, "append", full)
            other.send('{"mode": "offline"}')
            other.send(bytes(9999))
            told = json.loads(other.recv(timeout=30))
            assert (told["is_final"], told["error"]["code"]) == (True, "recognition_failed")
        ws.send('{"is_speaking": false}')
        assert "".join(texts(ws)) == live_text()
    assert '"ERROR"' not in log.getvalue()


# -- many clients -----------------------------------------------------------------------------------------------------


def texts(ws: Any) -> Iterator[str]:
    """Up to the last one."""
    final = False
    while not final:
        message = json.loads(ws.recv(timeout=120))
        final = message["is_final"]
        yield message["text"]


@cache
def live_prefix(name: str, samples: int) -> str:
    session = embedded().stream()
    return session.accept(sample(name)[:samples]) + session.finish()


def test_a_stop_in_the_middle_of_fifty_streams_loses_no_word() -> None:
    cases = [(("weather", "subway", "company")[n % 3], (20_000, 35_000)[n % 2]) for n in range(50)]
    heard: dict[int, str] = {}
    codes: dict[int, int | None] = {}
    with serving(limits=Limits(streams=50), drain_s=120.0) as running:
        ready = threading.Barrier(51)

        def speak(number: int) -> None:
            name, samples = cases[number]
            with connect(running.ws, compression=None) as ws:
                ws.send('{"mode": "online"}')
                ws.send(sample(name).tobytes()[: 2 * samples])
                ready.wait(60)
                heard[number] = "".join(texts(ws))
                with suppress(ConnectionClosed):
                    ws.recv(timeout=60)
                codes[number] = ws.close_code

        with ThreadPoolExecutor(50) as pool:
            done = [pool.submit(speak, number) for number in range(50)]
            ready.wait(60)
            until(lambda: running.process.engine.scheduler.live == 50)
            running.stop()
            for one in done:
                one.result(180)
    assert [heard[n] for n in range(50)] == [live_prefix(*case) for case in cases]
    assert set(codes.values()) == {1012}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_streams_of_which_some_vanish_are_those_of_one_alone() -> None:
    names = ("weather", "subway", "company", "meeting")

    def speak(number: int, url: str) -> str | None:
        chance, data = random.Random(number), sample(names[number % 4]).tobytes()
        end = chance.randrange(len(data)) if number % 5 == 0 else len(data)
        with connect(url, compression=None, ping_interval=None, open_timeout=120) as ws:
            ws.send('{"mode": "online"}')
            place = 0
            while place < end:
                size = chance.choice((2, 999, 1920, 9600))
                ws.send(data[place : min(end, place + size)])
                place += size
            if end < len(data):
                ws.socket.shutdown(socket.SHUT_RDWR)
                return None
            ws.send('{"is_speaking": false}')
            return "".join(texts(ws))

    with (
        serving(limits=Limits(streams=200, messages_per_s=1e6, first_s=120.0)) as running,
        ThreadPoolExecutor(200) as pool,
    ):
        heard = list(pool.map(lambda number: speak(number, running.ws), range(200)))
        engine = running.process.engine
        until(lambda: engine.seats == 0 and not engine.lines and engine.scheduler.live == 0)
    assert heard == [None if n % 5 == 0 else live_text(names[n % 4]) for n in range(200)]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_sessions_that_come_and_go_leave_nothing(count: int) -> None:
    with serving(limits=Limits(streams=100, first_s=120.0)) as running:  # which a busy machine may take

        def session(number: int) -> None:
            with connect(running.ws + ("", "/offline", "/v1/realtime")[number % 3], compression=None) as ws:
                ws.send('{"mode": "2pass", "resumable": true}')
                ws.send(bytes(6400))
                if number % 2:
                    ws.socket.shutdown(socket.SHUT_RDWR)

        def taken() -> tuple[int, int]:
            engine = running.process.engine
            until(
                lambda: engine.seats == 0 and not engine.lines and engine.scheduler.live == 0 and not engine._listeners
            )
            time.sleep(0.5)
            return resident(), sum(1 for _ in Path("/proc/self/fd").iterdir())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(session, range(count // 2)))
            before = taken()
            list(pool.map(session, range(count // 2)))
            after = taken()
    assert after[0] - before[0] < 8 << 20
    assert abs(after[1] - before[1]) < 8


# -- what there is not ------------------------------------------------------------------------------------------------


def test_operators_and_manuals_are_not_at_the_public_door(server: Running) -> None:
    for path in ("/metrics", "/live", "/ready", "/docs", "/redoc", "/openapi.json", "/.env", "/static/../page.js"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(server.http + path, timeout=10)
        assert refused.value.code == 404
        refused.value.close()


def test_the_page_writes_texts_and_no_markup() -> None:
    script = (ROOT / "src" / "paraformer" / "serve" / "page" / "page.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_no_private_key_is_shipped() -> None:
    sources = [file for file in (ROOT / "src").rglob("*") if file.is_file() and file.stat().st_size < 1 << 20]
    assert len(sources) > 100
    assert not [file for file in sources if b"PRIVATE KEY-----" in file.read_bytes()]


def test_the_server_stands_on_few_packages() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["serve"]
    names = {re.split(r"[>=;\[]", one)[0] for one in extra}
    wanted = {"httptools", "prometheus-client", "python-multipart", "starlette", "uvicorn", "uvloop", "websockets"}
    assert names == wanted
    assert any(one.startswith("python-multipart>=0.0.27") for one in extra)  # CVE-2026-42561
