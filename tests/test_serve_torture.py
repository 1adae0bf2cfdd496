"""WebSockets byte by byte, at each door: what is allowed works however it is cut, what is not has its close code, and a
client that keeps speaking beside all of this loses no word.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import pytest
import websockets
from serving import Running, live_text, logged, sample, serving
from websockets.sync.client import connect

from paraformer.serve.config import Limits

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LONGEST = 1 << 16


@dataclass(frozen=True)
class Door:
    """probe: messages to which the last answer holds `answer`; greets: whether the server speaks first."""

    path: str
    probe: tuple[str, ...]
    answer: str
    greets: bool = False


SAYS = ('{"mode": "online", "wav_name": "你好"}', '{"is_speaking": false}')
DOORS = (
    Door("/", SAYS, '"wav_name": "你好", "is_final": true'),
    Door("/offline", (SAYS[1], *SAYS), '"wav_name": "你好", "is_final": true'),
    Door(
        "/v1/realtime",
        ('{"type": "input_audio_buffer.commit", "event_id": "你好"}',),
        '"event_id": "你好"',
        greets=True,
    ),
)
doors = pytest.mark.parametrize("door", DOORS, ids=[door.path for door in DOORS])


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """One beside which somebody speaks: the first half before all tests, the rest after them."""
    limits = Limits(message=LONGEST, streams=20, messages_per_s=1e6, first_s=600.0, idle_s=600.0)
    data = sample().tobytes()
    with logged() as log, serving(limits=limits) as running, connect(running.ws, compression=None) as neighbour:
        neighbour.send('{"mode": "online"}')
        neighbour.send(data[: len(data) // 2])
        yield running
        neighbour.send(data[len(data) // 2 :])
        neighbour.send('{"is_speaking": false}')
        heard = [json.loads(neighbour.recv(timeout=30))]
        while not heard[-1]["is_final"]:
            heard.append(json.loads(neighbour.recv(timeout=30)))
        assert "".join(one["text"] for one in heard) == live_text()
        until(lambda: len(running.process.engine.lines) == 1)
    assert "Traceback" not in log.getvalue()
    assert '"ERROR"' not in log.getvalue()


def until(happens: Any, within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.02)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """A frame of a WebSocket, right or wrong."""
    head = bytes([(0x80 if fin else 0) | reserved | opcode])
    size, flag = len(payload), 0x80 if masked else 0
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += bytes([flag | 126]) + struct.pack(">H", size)
    else:
        head += bytes([flag | 127]) + struct.pack(">Q", size)
    mask = b"mask" if masked else b""
    if masked:
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return head + mask + payload


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason)


class Client:
    """A connection whose frames are made by hand."""

    def __init__(self, server: Running, path: str = "/", more: str = "") -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.send((request + f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(65536)
        head, _, self._data = head.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1").lower()
        assert " 101 " in self.head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _bytes(self, count: int) -> bytes:
        while len(self._data) < count:
            part = self.sock.recv(65536)
            if not part:
                raise EOFError
            self._data += part
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def next(self) -> tuple[int, bytes]:
        """What the server sends: opcode and payload; its frames are whole, not masked, and as short as can be."""
        first, size = self._bytes(2)
        assert first & 0xF0 == 0x80 and size < 128
        if size == 126:
            size = int.from_bytes(self._bytes(2))
            assert size > 125
        elif size == 127:
            size = int.from_bytes(self._bytes(8))
            assert size > 65535
        return first & 15, self._bytes(size)

    def close_code(self) -> int:
        """Of the close frame that comes; everything before it is let pass."""
        while True:
            opcode, payload = self.next()
            if opcode == CLOSE:
                assert len(payload) <= 125
                payload[2:].decode()
                return int.from_bytes(payload[:2]) if payload else 1005

    def answers(self, part: str) -> list[tuple[int, bytes]]:
        """Everything up to the text that holds this."""
        heard = [self.next()]
        while not (heard[-1][0] == TEXT and part in heard[-1][1].decode()):
            assert heard[-1][0] != CLOSE, heard[-1]
            heard.append(self.next())
        return heard

    def ended(self, within_s: float = 20.0) -> None:
        """The server lets the connection go."""
        self.sock.settimeout(within_s)
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass


def whole(door: Door) -> bytes:
    """The probe, a frame a message."""
    return b"".join(frame(TEXT, one.encode()) for one in door.probe)


def works(client: Client, door: Door) -> None:
    """The connection is as good as new."""
    client.send(whole(door))
    client.answers(door.answer)
    client.send(closing(1000, b"thank you"))
    assert client.close_code() == 1000
    client.ended()


# -- what is allowed --------------------------------------------------------------------------------------------------


@doors
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_fragments_of_any_size_make_a_message(server: Running, door: Door, size: int) -> None:
    """Also such as cut a character, with pings, pongs and nothing between them."""
    with Client(server, door.path) as client:
        for number, message in enumerate(door.probe):
            data = message.encode()
            cut = [data[start : start + size] for start in range(0, len(data), size)]
            client.send(frame(TEXT, cut[0], fin=False))
            for part in cut[1:]:
                client.send(frame(PONG, b"unasked") + frame(0, b"", fin=False) + frame(0, part, fin=False))
            client.send(frame(PING, str(number).encode()) + frame(0))
        heard = client.answers(door.answer)
        pongs = [payload.decode() for opcode, payload in heard if opcode == PONG]
        assert pongs == [str(number) for number in range(len(door.probe))]
        works(client, door)


@doors
def test_octets_one_by_one(server: Running, door: Door) -> None:
    with Client(server, door.path) as client:
        for octet in whole(door) + frame(PING, b"there?"):
            client.send(bytes([octet]))
        client.answers(door.answer)
        works(client, door)


@doors
def test_pings_are_answered_in_order_and_pongs_are_not(server: Running, door: Door) -> None:
    sent = [b"", b"x", b"\x00\xff" * 62, *(str(number).encode() for number in range(200))]
    with Client(server, door.path) as client:
        client.send(b"".join(frame(PONG, one) + frame(PING, one) for one in sent) + whole(door))
        heard = client.answers(door.answer)
        assert [payload for opcode, payload in heard if opcode == PONG] == sent
        works(client, door)


@doors
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, LONGEST])
def test_binary_messages_of_all_lengths(server: Running, door: Door, size: int) -> None:
    """Sound where sound is meant, an error that ends nothing at the Realtime door."""
    with Client(server, door.path) as client:
        client.send(frame(BINARY, b"\0" * size))
        if not door.greets:
            client.send(frame(TEXT, SAYS[1].encode()))
        client.answers("audio goes into input_audio_buffer.append" if door.greets else '"is_final": true')
        works(client, door)


def test_samples_in_fragments_with_control_frames_between_are_the_same_sound(server: Running) -> None:
    data = sample().tobytes()
    with Client(server) as client:
        client.send(frame(TEXT, b'{"mode": "on', fin=False) + frame(PING, b"ping") + frame(0, b'line"}'))
        for start in range(0, len(data), 30_000):
            part = data[start : start + 30_000]
            message = frame(BINARY, part[:7777], fin=False) + frame(PONG, b"unasked") + frame(0, part[7777:])
            client.send(message[:5])
            time.sleep(0.01)
            client.send(message[5:])
        client.send(frame(TEXT, b'{"is_speaking": false}'))
        heard = client.answers('"is_final": true')
    texts = [json.loads(payload)["text"] for opcode, payload in heard if opcode == TEXT]
    assert "".join(texts) == live_text()
    assert (PONG, b"ping") in heard


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_messages_of_one_byte(server: Running, count: int) -> None:
    """Two bytes of two messages are a sample; what is said after them is heard as if they had been one message."""
    data = sample().tobytes()
    with Client(server) as client:
        client.send(frame(TEXT, b'{"mode": "online"}'))
        octets = b"".join(b"\x82\x81\0\0\0\0" + bytes([octet]) for octet in data[:count])
        client.send(octets)
        client.send(b"".join(frame(BINARY, data[at : at + 9600]) for at in range(count, len(data), 9600)))
        client.send(frame(TEXT, b'{"is_speaking": false}'))
        client.sock.settimeout(120)
        heard = client.answers('"is_final": true')
    assert "".join(json.loads(payload)["text"] for opcode, payload in heard if opcode == TEXT) == live_text()


def test_a_flood_of_messages_leaves_the_others_their_turn(server: Running) -> None:
    late: list[float] = []

    def told(asked: float) -> None:
        late.append(time.monotonic() - asked)

    with Client(server) as client:
        client.send(frame(TEXT, b'{"mode": "online"}'))
        client.send(b"\x82\x81\0\0\0\0\0" * 100_000)
        for _ in range(100):
            server.call(partial(told, time.monotonic()))
            time.sleep(0.01)
    assert max(late) < 0.5


def test_a_client_that_talks_too_fast_is_slowed_and_heard() -> None:
    data, count, per_s = sample().tobytes(), 600, 50
    size = -(-len(data) // count)
    with serving(limits=Limits(messages_per_s=per_s)) as running, Client(running) as client:
        began = time.monotonic()
        client.send(frame(TEXT, b'{"mode": "online"}'))
        client.send(b"".join(frame(BINARY, data[at : at + size]) for at in range(0, len(data), size)))
        client.send(frame(TEXT, b'{"is_speaking": false}'))
        heard = client.answers('"is_final": true')
    assert time.monotonic() - began > (count - 10 * per_s) / per_s - 0.1
    assert "".join(json.loads(payload)["text"] for opcode, payload in heard if opcode == TEXT) == live_text()


@doors
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_a_close_is_answered_with_its_code(server: Running, door: Door, code: int) -> None:
    with Client(server, door.path) as client:
        client.send(closing(code, "好".encode() * 41) + frame(TEXT, b"too late"))
        assert client.close_code() == code
        client.ended()
    with Client(server, door.path) as client:
        client.send(frame(CLOSE))
        assert client.close_code() in (1000, 1005)
        client.ended()


@doors
def test_nothing_is_compressed(server: Running, door: Door) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    with Client(server, door.path, offer) as client:
        assert "sec-websocket-extensions" not in client.head
        works(client, door)


# -- what is not ------------------------------------------------------------------------------------------------------

NO_UTF8 = (
    b"\xff",
    b"\x80",
    b"\xc3",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    "你好".encode()[:-1],
)


def wrong() -> Iterator[tuple[str, bytes, int]]:
    """A name, frames and the close code that they have."""
    for number, data in enumerate(NO_UTF8):
        yield f"no UTF-8, {number}", frame(TEXT, b"{" + data), 1007
        yield f"no UTF-8 in a fragment, {number}", frame(TEXT, b"{", fin=False) + frame(0, data), 1007
        yield f"no UTF-8 in a reason, {number}", closing(1000, data), 1007
    yield "not masked", frame(TEXT, b"{}", masked=False), 1002
    for reserved in (0x40, 0x20, 0x10, 0x70):
        yield f"reserved bits {reserved:x}", frame(TEXT, b"{}", reserved=reserved), 1002
        yield f"reserved bits {reserved:x} of a ping", frame(PING, reserved=reserved), 1002
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", frame(opcode), 1002
    for opcode in (CLOSE, PING, PONG):
        yield f"long control frame {opcode}", frame(opcode, b"\x03\xe8" + b"x" * 124), 1002
        yield f"fragment of control frame {opcode}", frame(opcode, b"\x03\xe8", fin=False), 1002
    yield "continuation of nothing", frame(0, b"x"), 1002
    yield "end of nothing", frame(0, b"x", fin=False), 1002
    yield "text within text", frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002
    yield "bytes within text", frame(TEXT, b"{", fin=False) + frame(BINARY, b"}"), 1002
    yield "half a close code", frame(CLOSE, b"\x03"), 1002
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535):
        yield f"close code {code}", closing(code), 1002
    yield "too large", frame(BINARY, b"\0" * (LONGEST + 1)), 1009
    yield "said to be too large", b"\x82\xff" + struct.pack(">Q", 1 << 40) + b"mask", 1009
    yield "a length with its sign", b"\x82\xff" + b"\xff" * 8 + b"mask", 1009
    yield "too large in fragments", frame(BINARY, b"\0" * 40_000, fin=False) + frame(0, b"\0" * 40_000), 1009
    yield "fragments without end", frame(TEXT, b"{", fin=False) + frame(0, b"x" * 999, fin=False) * 99, 1009
    yield "empty fragments without end", frame(TEXT, b"{", fin=False) + frame(0, fin=False) * 20_000, 1008
    yield "pings without end", frame(PING, b"x") * 20_000, 1008
    yield "pongs without end", frame(PONG, b"x") * 20_000, 1008


WRONG = list(wrong())


@doors
@pytest.mark.parametrize(("frames", "code"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG])
def test_frames_that_break_the_rules(server: Running, door: Door, frames: bytes, code: int) -> None:
    with Client(server, door.path) as client:
        try:
            client.send(frames)
        except (BrokenPipeError, ConnectionResetError):
            return  # it was closed before all had been sent: the code may be lost
        try:
            assert client.close_code() == code
        except ConnectionResetError:
            assert len(frames) > LONGEST
        client.ended()


@pytest.mark.parametrize("message", [b"", b"hello", b"[1]", b'{"a": 1e', b'{"audio_fs": NaN}', b"[" * 60_000])
def test_messages_that_are_none(server: Running, message: bytes) -> None:
    for door in DOORS[:2]:
        with Client(server, door.path) as client:
            client.send(frame(TEXT, message))
            assert client.close_code() == 1007
            client.send(closing(1007))
            client.ended()
    with Client(server, DOORS[2].path) as client:
        client.send(frame(TEXT, message))
        client.answers("invalid_json")
        works(client, DOORS[2])


@doors
def test_the_server_is_still_in_order(server: Running, door: Door) -> None:
    with Client(server, door.path) as client:
        works(client, door)


def test_there_are_no_other_doors(server: Running) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused, connect(server.ws + "/ws"):
        pass
    assert refused.value.response.status_code == 404
    assert b"/v1/realtime" in refused.value.response.body


# -- clients that stop in the middle ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient() -> Iterator[Running]:
    with serving(limits=Limits(first_s=1.0, idle_s=1.0, pause_s=1.0, streams=20)) as running:
        yield running


HALVES = (b"", b"\x81", frame(TEXT, b"{}")[:5], frame(TEXT, b"{", fin=False), frame(BINARY, b"x" * 999)[:500])


@doors
@pytest.mark.parametrize("how", ["silent", "shut", "reset", "dribbling"])
def test_half_open_connections_are_let_go(impatient: Running, door: Door, how: str) -> None:
    engine = impatient.process.engine
    clients = [Client(impatient, door.path) for _ in HALVES]
    for client, half in zip(clients, HALVES, strict=True):
        client.send(half)
        if how == "shut":
            client.sock.shutdown(socket.SHUT_WR)
        elif how == "reset":
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()
    end = time.monotonic() + 3.0
    while how == "dribbling" and time.monotonic() < end:  # no end of the frame in sight, and yet time is up
        with suppress(OSError):
            clients[-1].send(b"x")
        time.sleep(0.1)
    if how == "silent":
        assert [client.close_code() for client in clients] == [1008] * len(HALVES)
    until(lambda: not engine.lines and not engine.seats)
    for client in clients:
        client.sock.close()


def test_a_client_that_never_answers_a_close_is_let_go(impatient: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with so much unread that the close cannot be sent."""
    from paraformer.serve.uvicorn_protocols import GuardedSocket

    made: list[Any] = []
    begin = GuardedSocket.__init__

    def beginning(self: Any, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        self.close_timeout = -4.5
        made.append(self)

    monkeypatch.setattr(GuardedSocket, "__init__", beginning)
    with Client(impatient):
        until(lambda: made)
        impatient.call(lambda: made[0].transport.write(b"\0" * (64 << 20)))
        until(lambda: made[0].disconnected)
        assert not impatient.process.engine.lines
