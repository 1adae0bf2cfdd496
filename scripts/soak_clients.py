"""Clients of every door that `scripts/soak.py` lets loose: steady ones, hasty ones, such as vanish or talk nonsense."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import websockets
from steady_client import Steady, TooLate

import paraformer
from paraformer.recognizer import Recognizer
from paraformer.recordings import join_segments
from paraformer.serve.protocol import Done, News, Sentence, StreamOptions
from paraformer.serve.scheduler import Scheduler

SAMPLES = Path(str(files("paraformer") / "samples"))
NAMES = ("weather", "subway", "company", "meeting")
PAUSES = (0.5, 0.6)
"""Of the Realtime door's turns, of the others' sentences."""


@dataclass(frozen=True)
class Known:
    """What the recogniser alone makes of a recording: live, as a file, in sentences by their pause."""

    data: bytes
    live: str
    whole: str
    sentences: dict[float, str]


def known() -> dict[str, Known]:
    """All recordings, and one of all of them, without a server."""
    tool, found = paraformer.load(), {}
    samples = {name: soundfile.read(SAMPLES / f"{name}.flac", dtype="int16")[0] for name in NAMES}
    samples["all"] = np.concatenate(list(samples.values()))
    for name, heard in samples.items():
        session = tool.stream()
        live = session.accept(heard) + session.finish()
        whole = tool.transcribe(SAMPLES / f"{name}.flac").text if name != "all" else ""
        found[name] = Known(heard.tobytes(), live, whole, {pause: in_sentences(tool, heard, pause) for pause in PAUSES})
    return found


def in_sentences(tool: Recognizer, samples: np.ndarray, pause_s: float) -> str:
    """The text of a stream's sentences."""
    news: list[News] = []
    work = Scheduler(tool, lambda found: news.extend(one for _, one in found))
    stream = work.open(StreamOptions(sentences=True, pause_s=pause_s))
    stream.feed(samples)
    stream.end()
    while not any(isinstance(one, Done) for one in news):
        work.tick()
    return join_segments(one.segment.text for one in news if isinstance(one, Sentence))


@dataclass
class Crowd:
    """Where the doors are, what is right, and what has happened. trouble_at, down: what was done to the server."""

    port: int
    wyoming: int
    known: dict[str, Known]
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    trouble_at: float = float("-inf")
    down: bool = False

    @property
    def http(self) -> str:
        """OpenAI's door."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """FunASR's door."""
        return f"ws://127.0.0.1:{self.port}"

    def judge(self, door: str, name: str, heard: str, right: str) -> None:
        """Take down a finished text."""
        self.counts[f"{door} right" if heard == right else "wrong"] += 1
        if heard != right:
            self.faults.append(f"{door} {name}: {heard!r} instead of {right!r}")

    def excused(self, began: float) -> bool:
        """Whether what was done to the server may be why something failed that began then."""
        return self.down or self.trouble_at > began - 5.0

    def told(self, door: str, began: float, message: str) -> None:
        """Take down an utterance that failed, as its client was told."""
        self.counts["told of trouble" if self.excused(began) else "lost"] += 1
        if not self.excused(began):
            self.faults.append(f"{door} failed: {message}")

    def cut(self, door: str, began: float, error: BaseException) -> None:
        """Take down a connection that ended early: only what was done to the server may have done it."""
        self.counts["cut off by trouble" if self.excused(began) else "lost"] += 1
        if not self.excused(began):
            self.faults.append(f"{door} lost: {type(error).__name__}: {error}")


async def client(crowd: Crowd, until: float, seed: int) -> None:
    """Utterance after utterance, at one door after the other."""
    chance = random.Random(seed)  # noqa: S311
    doors = (steady, steady, hasty, hasty, upload, realtime, wyoming, vanishing, slow, nonsense)
    while time.monotonic() < until:
        door, began = chance.choice(doors), time.monotonic()
        try:
            async with asyncio.timeout(300):
                await door(crowd, chance)
        except websockets.InvalidStatus as error:
            code = error.response.status_code
            crowd.counts["refused" if code == 503 else f"status {code}"] += 1
            await asyncio.sleep(0.3)
        except TooLate as error:
            crowd.counts["lost"] += 1
            crowd.faults.append(f"steady lost: {error!r}")
        except (OSError, EOFError, TimeoutError, websockets.ConnectionClosed, websockets.InvalidMessage) as error:
            crowd.cut(door.__name__, began, error)
            await asyncio.sleep(0.3)


def cuts(chance: random.Random, speed: float) -> tuple[int, float]:
    """A packet's bytes, and the wait after it."""
    size = chance.choice((2, 333, 1920, 1920, 3840, 9600))
    return size, size / 32_000 / speed * chance.uniform(0.5, 1.5)


async def steady(crowd: Crowd, chance: random.Random) -> None:
    """One that goes on after whatever happens, and must have every word."""
    mode = chance.choice(("online", "2pass"))
    one = crowd.known["all"]
    client = Steady(crowd.ws, one.data, lambda: cuts(chance, 4.0), mode=mode, wav_name="steady")
    messages = await client.run(280.0)
    crowd.counts["resumed"] += client.resumed
    online = mode == "online"
    heard = "".join(m["text"] for m in messages if online or m["mode"] == "2pass-offline")
    crowd.judge(f"steady {mode}", "all", heard, one.live if online else one.sentences[0.6])


async def hasty(crowd: Crowd, chance: random.Random) -> None:
    """FunASR's protocol in any mode, in packets of any size."""
    name, mode = chance.choice(NAMES), chance.choice(("online", "offline", "2pass"))
    one, began = crowd.known[name], time.monotonic()
    async with websockets.connect(crowd.ws, compression=None) as ws:
        await ws.send(json.dumps({"mode": mode, "wav_name": name}))
        place = 0
        while place < len(one.data):
            size = chance.choice((2, 999, 1920, 9600, 64_000))
            await ws.send(one.data[place : place + size])
            place += size
            await asyncio.sleep(chance.random() * 0.03)
        await ws.send('{"is_speaking": false}')
        if chance.random() < 0.3:
            await asyncio.sleep(0.5)
        texts: Counter[str] = Counter()
        heard: dict[str, str] = {}
        while True:
            message = json.loads(await ws.recv())
            texts[message["mode"]] += 1
            heard[message["mode"]] = heard.get(message["mode"], "") + message["text"]
            if message["is_final"]:
                break
    if "error" in message:
        crowd.told(f"hasty {mode}", began, message["error"]["message"])
        return
    right = {"online": one.live, "offline": one.whole, "2pass": one.sentences[0.6]}[mode]
    key = {"online": "2pass-online", "offline": "offline", "2pass": "2pass-offline"}[mode]
    crowd.judge(f"hasty {mode}", name, heard.get(key, ""), right)


def post(url: str, content: bytes) -> str:
    """The text of an upload."""
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + content + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=100) as answer:  # noqa: S310
        return str(json.load(answer)["text"])


async def upload(crowd: Crowd, chance: random.Random) -> None:
    """One file at OpenAI's door, or what is none."""
    name, broken = chance.choice(NAMES), chance.random() < 0.2
    content = chance.randbytes(5000) if broken else (SAMPLES / f"{name}.flac").read_bytes()
    try:
        heard = await asyncio.to_thread(post, crowd.http + "/v1/audio/transcriptions", content)
    except urllib.error.HTTPError as error:
        error.close()
        kind = "refused" if error.code == 503 else "broken file told" if broken and error.code == 400 else "wrong"
        crowd.counts[kind] += 1
        if kind == "wrong":
            crowd.faults.append(f"upload {name}: status {error.code}")
        return
    crowd.judge("upload", name, heard, "" if broken else crowd.known[name].whole)


async def realtime(crowd: Crowd, chance: random.Random) -> None:
    """OpenAI's Realtime door, committed by the client."""
    name = chance.choice(NAMES)
    one = crowd.known[name]
    form = {"format": {"type": "audio/pcm", "rate": 16_000}, "turn_detection": None}
    async with websockets.connect(crowd.ws + "/v1/realtime?intent=transcription", compression=None) as ws:
        await ws.send(json.dumps({"type": "session.update", "session": {"audio": {"input": form}}}))
        place = 0
        while place < len(one.data):
            size = chance.choice((333, 1600, 48_000))
            audio = base64.b64encode(one.data[place : place + size]).decode()
            await ws.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            place += size
            await asyncio.sleep(chance.random() * 0.03)
        await ws.send('{"type": "input_audio_buffer.commit"}')
        while True:
            event = json.loads(await ws.recv())
            if event["type"].endswith("input_audio_transcription.completed"):
                break
    crowd.judge("realtime", name, event["transcript"], one.sentences[0.5])


async def wyoming(crowd: Crowd, chance: random.Random) -> None:
    """Home Assistant's door."""
    name = chance.choice(NAMES)
    one = crowd.known[name]

    def event(kind: str, payload: bytes = b"", **data: Any) -> bytes:
        return json.dumps({"type": kind, "data": data, "payload_length": len(payload)}).encode() + b"\n" + payload

    reader, writer = await asyncio.open_connection("127.0.0.1", crowd.wyoming)
    form = {"rate": 16_000, "width": 2, "channels": 1}
    try:
        writer.write(event("transcribe") + event("audio-start", **form))
        for place in range(0, len(one.data), 3200):
            writer.write(event("audio-chunk", one.data[place : place + 3200], **form))
            await writer.drain()
            await asyncio.sleep(chance.random() * 0.02)
        writer.write(event("audio-stop"))
        while line := await reader.readline():
            message = json.loads(line)
            if message["type"] == "error" and message["data"]["code"] == "recognition_failed":
                crowd.counts["refused"] += 1  # no place among the live streams
                return
            if message["type"] == "transcript":
                crowd.judge("wyoming", name, message["data"]["text"], one.sentences[0.6])
                return
        raise EOFError("the connection ended without a transcript")
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def vanishing(crowd: Crowd, chance: random.Random) -> None:
    """Leaves in the middle, without a word."""
    async with websockets.connect(crowd.ws, compression=None) as ws:
        await ws.send(json.dumps({"mode": chance.choice(("online", "2pass", "offline")), "resumable": True}))
        await ws.send(crowd.known["all"].data[: chance.randrange(300_000)])
        await asyncio.sleep(chance.random())
        ws.transport.abort()
    crowd.counts["vanished"] += 1


async def slow(crowd: Crowd, chance: random.Random) -> None:
    """Asks for much and reads nothing of it, until it leaves or is dropped."""
    end = json.dumps({"is_speaking": False, "is_end": True, "wav_name": "慢" * 250}, ensure_ascii=False)
    patient = chance.random() < 0.3
    sock = socket.create_connection(("127.0.0.1", crowd.port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    async with websockets.connect(crowd.ws, sock=sock, compression=None, max_queue=1) as ws:
        with suppress(websockets.ConnectionClosed):
            for _ in range(3000 if patient else chance.randrange(300)):
                await ws.send('{"is_speaking": true}')
                await ws.send(end)
        await asyncio.sleep(15.0 if patient else 2 * chance.random())
        ws.transport.abort()
    crowd.counts["did not read"] += 1


async def nonsense(crowd: Crowd, chance: random.Random) -> None:
    """Frames and messages that break the rules; the server closes, and nobody else notices."""
    reader, writer = await asyncio.open_connection("127.0.0.1", crowd.port)
    try:
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: " + base64.b64encode(chance.randbytes(16)) + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        status = await reader.readline()
        if b" 101 " not in status:
            crowd.counts["refused"] += 1
            return
        mask = b"\0\0\0\0"
        frames = (
            b"\x81\x82" + mask + b"\xff\xfe",
            b"\x83\x80" + mask,
            b"\xc1\x80" + mask,
            b"\x81\x02{}",
            b"\x81\x85" + mask + b"hello",
            b"\x82\xff" + b"\x7f" * 8 + mask,
            b"\x89\xfe\x00\x80" + mask + b"x" * 128,
            chance.randbytes(200),
        )
        writer.write(chance.choice(frames))
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    crowd.counts["nonsense"] += 1
