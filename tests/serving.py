"""A server on loopback in a thread of the test's process, over the embedded model or a tiny one."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import paraformer
from paraformer.recognizer import Recognizer
from paraformer.serve.config import ServeConfig
from paraformer.serve.server import Process, log_to_stderr

SAMPLES = Path(str(files("paraformer") / "samples"))


@dataclass(frozen=True)
class Running:
    """Where it listens."""

    process: Process
    port: int
    admin: int
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.process.stop)

    def call(self, doing: Any) -> None:
        self.loop.call_soon_threadsafe(doing)


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """What a server would write to standard error."""
    root, names = logging.getLogger(), ("paraformer.serve", "uvicorn", "websockets", "python_multipart")
    command, before, levels = (
        list(logging.getLogger("paraformer").handlers),
        list(root.handlers),
        [logging.getLogger(name).level for name in names],
    )
    log_to_stderr()
    (handler,) = (one for one in root.handlers if one not in before)
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written := io.StringIO())
    try:
        yield written
    finally:
        root.removeHandler(handler)
        logging.getLogger("paraformer").handlers[:] = command
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)


@cache
def embedded() -> Recognizer:
    return paraformer.load()


@contextmanager
def serving(recognizer: Recognizer | None = None, **settings: Any) -> Iterator[Running]:
    """A server with these settings; stopped in the end."""
    process = Process(
        ServeConfig(**{"port": 0, "admin_port": 0, "drain_s": 10.0, **settings}), recognizer or embedded()
    )
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def main() -> None:
        def listening(port: int, admin: int) -> None:
            found.update(port=port, admin=admin, loop=asyncio.get_running_loop())
            ready.set()

        await process.run(listening)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(60), "the server does not start"
    running = Running(process, found["port"], found["admin"], thread, found["loop"])
    try:
        yield running
    finally:
        if thread.is_alive():
            running.stop()
        thread.join(30)
        assert not thread.is_alive(), "the server does not end"


@cache
def sample(name: str = "weather") -> np.ndarray:
    """Samples of a recording at 16 kHz, int16."""
    samples, rate = soundfile.read(SAMPLES / f"{name}.flac", dtype="int16")
    assert rate == 16_000
    return samples


@cache
def live_text(name: str = "weather") -> str:
    session = embedded().stream()
    return session.accept(sample(name)) + session.finish()


@cache
def whole_text(name: str = "weather") -> str:
    return embedded().transcribe(SAMPLES / f"{name}.flac").text
