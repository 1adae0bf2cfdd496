"""How many live streams a server carries on this machine, as its clients see it, in real time.

    python benchmarks/serving.py                       paraformer serve, one process, one thread, the embedded model
    python benchmarks/serving.py --sherpa .venv-peers  sherpa-onnx beside it, with the same model, over a WebSocket

Clients in this process send packets of 60 ms in real time, and take the time from the packet that completes a chunk to
its text: which packet that is, the recogniser alone says beforehand. They speak of different things, and what counts is
said while all of them do: no crowd hangs up within half a second. The number of streams is sought by halving, up to the
greatest at which 99 of 100 texts come within --latency. Prints one JSON object a line, and a table at the end.
Run it on an idle machine; the clients are counted among what it carries.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import selectors
import socket
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rtf import speech
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

import paraformer
from paraformer.serve import plan

RATE, PACKET = 16_000, 960
VOICES = 8
"""Different beginnings in the same speech."""
HERE = Path(__file__).parent
Positions = list[tuple[int, int]]
"""(characters of text, samples that had to come for them)."""


@dataclass
class Target:
    """A server: how it is spoken to, and where its texts come in each voice.

    pid: of its process; admin: port of its metrics, 0 for none.
    """

    name: str
    url: str
    positions: list[Positions]
    voices: list[np.ndarray]
    first: str | None
    last: str
    added: Callable[[str, int], int]
    pid: int
    admin: int = 0


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def own_positions(samples: np.ndarray) -> Positions:
    """Of the recogniser without a server."""
    session, found, length = paraformer.load().stream(), [], 0
    for start in range(0, len(samples), PACKET):
        if text := session.accept(samples[start : start + PACKET]):
            length += len(text)
            found.append((length, start + PACKET))
    return found


@contextmanager
def process(command: list[str], ready: Callable[[], bool]) -> Iterator[int]:
    """A server, once it is ready."""
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not ready():
            if child.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command[:4]} does not start")
            time.sleep(0.2)
        yield child.pid
    finally:
        child.terminate()
        child.wait()


def listens(port: int) -> bool:
    """Whether somebody does."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def ours(voices: list[np.ndarray], most: int) -> Iterator[Target]:
    """`paraformer serve`, which may take more streams than it thinks it can."""
    port, admin = free_port(), free_port()
    command = [sys.executable, "-m", "paraformer.cli", "serve", "--port", str(port), "--admin-port", str(admin)]
    with process([*command, "--streams", str(most), "--drain", "1"], lambda: listens(port)) as pid:
        yield Target(
            "paraformer serve",
            f"ws://127.0.0.1:{port}",
            [own_positions(samples) for samples in voices],
            voices,
            json.dumps({"mode": "online"}),
            '{"is_speaking": false}',
            lambda message, so_far: so_far + len(json.loads(message)["text"]),
            pid,
            admin,
        )


@contextmanager
def sherpa(voices: list[np.ndarray], environment: Path) -> Iterator[Target]:
    """sherpa-onnx with the embedded model, in int8, in an environment that has it."""
    with TemporaryDirectory() as place:
        made = Path(place) / "model"
        source = Path(paraformer.__file__).parent / "models" / "zh-small"
        options = ["--format", "sherpa-onnx", "--live", "--precision", "int8"]
        command = [sys.executable, "-m", "paraformer.cli", "export", str(source), str(made), *options]
        subprocess.run(command, check=False)  # 1 where something of the model stays behind, as its language model does
        voices = [samples.astype(np.float32) / 32768 for samples in voices]
        program = [str(environment / "bin" / "python"), str(HERE / "comparison" / "sherpa_server.py"), str(made)]
        positions = []
        for samples in voices:
            np.save(Path(place) / "samples.npy", samples)
            told = subprocess.run([*program, "0", f"{place}/samples.npy"], check=True, capture_output=True).stdout
            positions.append([(length, end) for length, end in json.loads(told.splitlines()[-1])])
        port = free_port()
        with process([*program, str(port)], lambda: listens(port)) as pid:
            yield Target(
                "sherpa-onnx",
                f"ws://127.0.0.1:{port}",
                positions,
                voices,
                None,
                "Done",
                lambda message, _: len(json.loads(message)["text"]),
                pid,
            )


class Speaker:
    """One stream over a connection of its own, which is open once this is made."""

    def __init__(self, target: Target, voice: int) -> None:
        uri = parse_uri(target.url)
        self.voice = voice
        self._added, self._waiting, self._so_far = target.added, deque(target.positions[voice]), 0
        self._sent: dict[int, float] = {}
        self.late: list[tuple[float, float]] = []
        """When each chunk was complete, and seconds from then to its text."""
        self._protocol = ClientProtocol(uri, max_size=None)
        self.socket = socket.create_connection((uri.host, uri.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._protocol.send_request(self._protocol.connect())
        self.say(*self._protocol.data_to_send())
        while self._protocol.state is State.CONNECTING:
            self.hear()
        if self._protocol.handshake_exc is not None:
            raise SystemExit(f"{target.name}: {self._protocol.handshake_exc}")

    def say(self, *data: bytes) -> None:
        """Bytes of frames."""
        for one in data:
            self.socket.sendall(one)

    def speak(self, frame: bytes, place: int, due: float) -> None:
        """A packet, whose last sample, the place-th, was spoken when it was due, whatever the clients' loop did."""
        self.socket.sendall(frame)
        self._sent[place] = due

    def hear(self) -> None:
        """What has come."""
        self._protocol.receive_data(self.socket.recv(1 << 16))
        now = time.perf_counter()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._so_far = self._added(bytes(event.data).decode(), self._so_far)
                while self._waiting and self._waiting[0][0] <= self._so_far:
                    if (place := self._waiting.popleft()[1]) in self._sent:
                        self.late.append((self._sent[place], now - self._sent[place]))
        self.say(*self._protocol.data_to_send())


def framed(url: str, messages: Iterable[str | bytes]) -> list[bytes]:
    """Messages as a client puts them on the wire, masked; once for all streams, which say the same."""
    protocol = ClientProtocol(parse_uri(url), state=State.OPEN)
    frames = []
    for message in messages:
        if isinstance(message, str):
            protocol.send_text(message.encode())
        else:
            protocol.send_binary(message)
        frames.append(b"".join(protocol.data_to_send()))
    return frames


def load(target: Target, streams: int) -> list[float]:
    """Latencies of so many streams in real time, whose chunks are spread over time as those of people are."""
    chance = random.Random(streams)  # noqa: S311
    ends = range(PACKET, len(target.voices[0]) + 1, PACKET)
    packets = [[voice[end - PACKET : end].tobytes() for end in ends] for voice in target.voices]
    frames = [framed(target.url, voice) for voice in packets]
    *first, last = framed(target.url, [*([target.first] if target.first else []), target.last])
    speakers = [Speaker(target, n % VOICES) for n in range(streams)]
    now = time.perf_counter() + 0.5
    spoken = [(now + chance.uniform(0.0, 0.6), speaker) for speaker in speakers]
    due = [(began + end / RATE, n, k) for n, (began, _) in enumerate(spoken) for k, end in enumerate(ends)]
    due.sort()
    with selectors.DefaultSelector() as selector:
        for speaker in speakers:
            speaker.say(*first)
            selector.register(speaker.socket, selectors.EVENT_READ, speaker)

        def listen(until: float) -> None:
            while (left := until - time.perf_counter()) > 0:
                for key, _ in selector.select(left):
                    key.data.hear()

        for at, n, k in due:
            listen(at)
            speakers[n].speak(frames[speakers[n].voice][k], ends[k], at)
            if k == len(ends) - 1:
                speakers[n].say(last)
        listen(due[-1][0] + 1.0)
    for speaker in speakers:
        speaker.socket.close()
    all_speak = max(began for began, _ in spoken), min(began for began, _ in spoken) + ends[-1] / RATE
    texts = [one for speaker in speakers for one in speaker.late]
    return [late for at, late in texts if all_speak[0] <= at <= all_speak[1]]


def quantile(late: list[float], share: float) -> float:
    """Nearest-rank."""
    return sorted(late)[min(len(late) - 1, int(share * len(late)))] if late else float("inf")


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def loop_lag(admin: int) -> dict[float, float]:
    """How often the server's event loop was at most so late, in seconds: counts up to each bound."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10).read().decode()
    lines = [line for line in text.splitlines() if line.startswith("paraformer_loop_lag_seconds_bucket")]
    return {float(line.split('"')[1]): float(line.rsplit(" ", 1)[1]) for line in lines}


def lag_p99(before: dict[float, float], after: dict[float, float]) -> float:
    """The bound that 99 of 100 stayed below in between."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in after}
    return min(bound for bound, count in counts.items() if count >= 0.99 * max(counts.values()))


def trial(target: Target, streams: int) -> dict[str, object]:
    """One run at a number of streams."""
    lag = loop_lag(target.admin) if target.admin else {}
    late = load(target, streams)
    said: dict[str, object] = {
        "server": target.name,
        "streams": streams,
        "texts": len(late),
        "p50_ms": round(1000 * quantile(late, 0.5)),
        "p99_ms": round(1000 * quantile(late, 0.99)),
        "rss_mb": round(resident_mb(target.pid)),
        "load": os.getloadavg()[0],
    }
    if target.admin:
        said["loop_lag_p99_below_ms"] = 1000 * lag_p99(lag, loop_lag(target.admin))
    print(json.dumps(said), flush=True)
    return said


def most(target: Target, top: int, latency_s: float) -> tuple[int, list[dict[str, object]]]:
    """The greatest number of streams whose 99th text of 100 comes in time, and all that was tried."""
    tried, good, bad = [trial(target, 1)], 0, top + 1
    while bad - good > max(1, top // 20):
        streams = (good + bad) // 2
        tried.append(trial(target, streams))
        good, bad = (streams, bad) if float(str(tried[-1]["p99_ms"])) <= 1000 * latency_s else (good, streams)
    return good, tried


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of speech in each stream (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.3)
    parser.add_argument("--streams", type=int, nargs="*", help="only these numbers")
    parser.add_argument("--sherpa", type=Path, metavar="VENV")
    options = parser.parse_args()
    limit = plan.measure(paraformer.load(), 1, 10.0).limit
    samples = (speech(options.seconds) * 32767).astype(np.int16)
    voices = [np.roll(samples, len(samples) // VOICES * number) for number in range(VOICES)]
    rows = []
    targets = [ours(voices, 10 * int(limit))] + ([sherpa(voices, options.sherpa)] if options.sherpa else [])
    for one in targets:
        with one as target:
            if options.streams:
                for streams in options.streams:
                    trial(target, streams)
                continue
            good, tried = most(target, int(1.2 * limit), options.latency)
            best = next(row for row in tried if row["streams"] in (good, 1))
            for row in tried:
                best = row if row["streams"] == good else best
            each = (float(str(best["rss_mb"])) - float(str(tried[0]["rss_mb"]))) / max(1, good - 1)
            rows.append((target.name, good, good / limit, best["p99_ms"], each, best.get("loop_lag_p99_below_ms", "")))
    print(f"\nthe recogniser alone: {limit:.1f} streams", file=sys.stderr)
    for name, good, share, p99, each, lag in rows:
        print(f"{name:18} {good:4} streams  {share:5.0%} of that  p99 {p99} ms  {each:.1f} MB a stream  loop {lag} ms",
              file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
