"""Trouble for a server: many clients of every door, and things that happen to the server, for as long as asked.

Starts `paraformer serve --workers 2`. Clients at all doors speak in packets of any size; some vanish, read nothing or
talk nonsense. In the first half workers are killed, the model is loaded again, the disk becomes full (where root may
mount one), and the server is stopped and started. Every finished text is held to what the recogniser gives without a
server; clients that go on elsewhere must have every word; memory is watched in the second half, when all is quiet.
Prints what happened as JSON. Exit code 1 if a text was wrong, a stream was lost, or memory or files grew.

  scripts/soak                  five minutes, in .venv-test
  python scripts/soak.py --seconds 3600    where everything is installed
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from soak_clients import Crowd, client, known

WORKERS = 2
DISK = 192 << 20


@dataclass
class Server:
    """The processes, started again on the same ports where they are stopped."""

    port: int
    admin: int
    wyoming: int
    disk: Path
    log: Path
    parent: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, and wait until all workers are ready."""
        ports = ["--port", self.port, "--admin-port", self.admin, "--wyoming-port", self.wyoming]
        more = ["--workers", WORKERS, "--streams", 8, "--drain", 20, "--keep", 2, "--state", self.disk / "state"]
        command = [sys.executable, "-m", "paraformer.cli", "serve", *map(str, [*ports, *more])]
        with self.log.open("ab") as log:
            self.parent = subprocess.Popen(command, stderr=log, env={**os.environ, "TMPDIR": str(self.disk)})
        until = time.monotonic() + 120
        while not all(self.ready(n) for n in range(WORKERS)):
            if self.parent.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the server does not start")
            time.sleep(0.2)

    def ready(self, worker: int) -> bool:
        """Whether a worker takes new streams."""
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.admin + worker}/ready", timeout=2) as it,
        ):
            return bool(it.status == 200)
        return False

    def stop(self) -> int:
        """SIGTERM; the exit code, -1 if it does not end."""
        assert self.parent is not None
        self.parent.send_signal(signal.SIGTERM)
        try:
            return self.parent.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.parent.kill()
            return -1

    @property
    def workers(self) -> list[int]:
        """Process ids."""
        assert self.parent is not None
        with suppress(OSError):
            return [
                int(one) for one in Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children").read_text().split()
            ]
        return []

    def metrics(self) -> dict[str, float]:
        """All numbers, of all workers together."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10).read().decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}


@dataclass
class Watched:
    """Megabytes and open files of the workers, second by second while all is quiet."""

    memory: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self, pids: list[int]) -> None:
        """Take down how it is."""
        with suppress(OSError):
            pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
            self.memory.append(sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6)
            self.files.append(sum(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()) for pid in pids))

    @property
    def grown(self) -> float:
        """Of memory, from the first third to the last, as a share."""
        third = len(self.memory) // 3
        return sum(self.memory[-third:]) / sum(self.memory[:third]) - 1 if third else 0.0


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """A file system of a few megabytes; whether it could be had."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)  # noqa: S607


async def trouble(server: Server, crowd: Crowd, began: float, seconds: float, full: bool) -> None:
    """What is done to the server in the first half, one thing after the other."""
    chance = random.Random(7)  # noqa: S311

    async def at(share: float, name: str) -> None:
        await asyncio.sleep(max(0.0, began + share * seconds - time.monotonic()))
        crowd.counts[name] += 1
        crowd.trouble_at = time.monotonic()

    for share in (0.06, 0.16):
        await at(share, "killed")
        os.kill(chance.choice(server.workers), signal.SIGKILL)
    await at(0.24, "reloaded")
    assert server.parent is not None
    server.parent.send_signal(signal.SIGHUP)
    if full:
        await at(0.3, "disk full")
        filling = server.disk / "filling"
        with suppress(OSError), filling.open("wb") as file:
            while True:
                file.write(b"\0" * (1 << 16))
        await asyncio.sleep(5.0)
        filling.unlink()
        crowd.trouble_at = time.monotonic()
    await at(0.38, "stopped")
    crowd.down = True
    code = await asyncio.to_thread(server.stop)
    if code != 0:
        crowd.counts["wrong"] += 1
        crowd.faults.append(f"the server ended with {code}")
    await asyncio.to_thread(server.start)
    crowd.trouble_at, crowd.down = time.monotonic(), False
    until = time.monotonic() + 0.1 * seconds  # as many as there is room for, so that memory is as wide as it becomes
    await asyncio.gather(*(client(crowd, until, 1000 + seed) for seed in range(2 * 8)))


async def soak(server: Server, crowd: Crowd, seconds: float, clients: int, full: bool) -> Watched:
    """Let the clients loose, do to the server what is to be done, and watch what it takes."""
    began, watched = time.monotonic(), Watched()
    work = [asyncio.create_task(client(crowd, began + seconds, seed)) for seed in range(clients)]
    doing = asyncio.create_task(trouble(server, crowd, began, seconds, full))
    while time.monotonic() < began + seconds:
        await asyncio.sleep(1.0)
        if doing.done() and time.monotonic() > began + 0.55 * seconds:
            watched.look(server.workers)
    await asyncio.gather(doing, *work)
    return watched


def free_ports() -> tuple[int, int, int]:
    """For the doors, for operators (and the next one), for Home Assistant."""
    while True:
        with socket.socket() as a, socket.socket() as b, socket.socket() as c, socket.socket() as d:
            for one in (a, b, d):
                one.bind(("127.0.0.1", 0))
            with suppress(OSError, OverflowError):
                c.bind(("127.0.0.1", b.getsockname()[1] + 1))
                return a.getsockname()[1], b.getsockname()[1], d.getsockname()[1]


def report(crowd: Crowd, watched: Watched, server: Server, seconds: float) -> int:
    """Say what happened, and whether it was all right."""
    log = server.log.read_text(encoding="utf-8", errors="replace")
    told = server.metrics()
    left = sum(value for name, value in told.items() if name.startswith("paraformer_sessions_active"))
    lines = [line for line in log.splitlines() if '"ERROR"' in line or "Traceback" in line]
    said: dict[str, Any] = {
        "seconds": seconds,
        **dict(sorted(crowd.counts.items())),
        "memory grown": round(watched.grown, 4),
        "MB": [round(one) for one in (watched.memory[:1] + watched.memory[-1:])],
        "open files": watched.files[:1] + watched.files[-1:],
        "sessions left": left,
        "dropped": sum(value for name, value in told.items() if 'outcome="slow"' in name),
        "spool left": told.get("paraformer_spool_bytes", 0.0),
        "kept": {name: value for name, value in told.items() if name.startswith("paraformer_streams_kept_total")},
        "words in the log": any(text in log for text in ("今天", "会议")),
    }
    print(json.dumps(said, ensure_ascii=False))
    ends = [
        line for line in log.splitlines() if " ended with " in line or not line.startswith(("{", "paraformer: http"))
    ]
    for fault in [*crowd.faults, *lines, *ends][:30]:
        print(fault, file=sys.stderr)
    right = sum(count for name, count in crowd.counts.items() if name.endswith("right"))
    bad = crowd.counts["wrong"] or crowd.counts["lost"] or said["words in the log"] or lines or left or not right
    grows = seconds >= 120 and (watched.grown > 0.05 or (watched.files and watched.files[-1] > watched.files[0] + 40))
    return 1 if bad or grows or said["spool left"] else 0


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    right = known()
    with TemporaryDirectory() as place, small_disk(Path(place)) as mounted, TemporaryDirectory() as logs:
        port, admin, wyoming = free_ports()
        server = Server(port, admin, wyoming, Path(place), Path(logs) / "log")
        crowd = Crowd(port, wyoming, right)
        server.start()
        try:
            watched = asyncio.run(soak(server, crowd, options.seconds, options.clients, mounted))
            time.sleep(1.0)
            return report(crowd, watched, server, options.seconds)
        finally:
            if server.parent is not None and server.parent.poll() is None:
                server.stop()


if __name__ == "__main__":
    sys.exit(main())
