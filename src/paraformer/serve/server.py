"""A whole server process: its listeners, its signals, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import ssl
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paraformer.errors import ConfigError, ParaformerError
from paraformer.recognizer import Recognizer
from paraformer.serve import decoding, plan, web, wyoming
from paraformer.serve.config import ServeConfig
from paraformer.serve.engine import Engine
from paraformer.serve.guard import Keys
from paraformer.serve.scheduler import QUOTES
from paraformer.serve.uvicorn_protocols import GuardedHttp, GuardedSocket

log = logging.getLogger("paraformer.serve")
SECRET = "PARAFORMER_SERVE_SECRET"  # noqa: S105  the name of a variable
WORKERS = "PARAFORMER_SERVE_WORKERS"
"""In the environment of one of several workers: what they sign keys with, how many they are."""
PING_S, PONG_S = 30.0, 120.0
_NO_FAULTS = ("Invalid UTF-8", "ASGI callable returned without completing handshake")
"""What uvicorn calls an error and is none: clients' nonsense, and handshakes that were refused with an answer."""


class _Server(uvicorn.Server):
    """uvicorn's, without its way with signals: `Process` drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None are captured here."""
        yield


def admin(engine: Engine) -> Starlette:
    """What operators and their machines ask, on a listener of its own: alive, ready, numbers."""

    async def live(_: Request) -> Response:
        return JSONResponse({"alive": engine.alive}, 200 if engine.alive else 503)

    async def ready(_: Request) -> Response:
        state = {
            "object": "health.response",
            "status": "ready" if engine.ready else "stopping",
            "streams": engine.seats,
            "capacity": engine.capacity.streams,
        }
        return JSONResponse(state, 200 if engine.ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(engine.meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(routes=[Route("/live", live), Route("/ready", ready), Route("/metrics", metrics)])


class Process:
    """One server process over one recogniser."""

    def __init__(
        self, config: ServeConfig, recognizer: Recognizer, *, reload: Callable[[], Recognizer] | None = None
    ) -> None:
        """reload: gives the recogniser anew, at SIGHUP."""
        self.config, self._reload = config, reload
        secret = os.environ.get(SECRET)
        self.keys = Keys(Path(config.keys) if config.keys else None, bytes.fromhex(secret) if secret else None)
        measured = plan.measure(recognizer, config.threads, 0.6)
        self.engine = Engine(config, recognizer, measured.step_s)
        self.engine.meters.session.set(measured.session_bytes)
        little = plan.too_little(measured, self.engine.capacity.streams, int(os.environ.get(WORKERS, "1")))
        if little is not None:
            log.warning("%s", little)
        self._parent = os.getppid() if secret else None
        self._stop = asyncio.Event()
        self._servers: list[_Server] = []
        self._tls: ssl.SSLContext | None = None

    async def run(self, listening: Callable[[int, int], None] = lambda *_: None) -> None:
        """Serve until `stop` or a signal, then drain; listening: is told the port and the admin port, once open.

        Raises ConfigError if a port cannot be had, and ParaformerError if the scheduler has failed.
        """
        engine = self.engine
        await asyncio.to_thread(decoding.warm)
        engine.start()
        sockets = [bound(self.config.host, self.config.port), bound(self.config.admin_host, self.config.admin_port)]
        homes = await self._wyoming()  # before anybody is told that the doors are open
        apps: list[Any] = [web.app(engine, self.keys), admin(engine)]
        self._servers = [_Server(self._uvicorn(app, tls=n == 0)) for n, app in enumerate(apps)]
        serving = [asyncio.create_task(server.serve([one])) for server, one in zip(self._servers, sockets, strict=True)]
        self._listen_to_signals()
        while not all(server.started for server in self._servers):  # noqa: ASYNC110  uvicorn tells in no other way
            await asyncio.sleep(0.01)
        listening(sockets[0].getsockname()[1], sockets[1].getsockname()[1])
        watching = [asyncio.create_task(self._watch())]
        try:
            await self._stop.wait()
            await self._drain()
        finally:
            for home in homes:
                home.close()
            for server in self._servers:
                server.should_exit = True
            await asyncio.gather(*serving, return_exceptions=True)
            for task in watching:
                task.cancel()
            await asyncio.to_thread(engine.stop)
        if engine.scheduler.failure is not None:
            raise ParaformerError(f"recognition has failed: {engine.scheduler.failure!r}")

    async def _wyoming(self) -> list[asyncio.Server]:
        """Home Assistant's door, if it is wanted."""
        if not self.config.wyoming_port:
            return []
        listener = bound(self.config.host, self.config.wyoming_port)
        return [await asyncio.start_server(partial(wyoming.serve, self.engine), sock=listener)]

    def stop(self) -> None:
        """Begin to end; the second time, at once."""
        if self._stop.is_set():
            for server in self._servers:
                server.should_exit = server.force_exit = True
        self._stop.set()

    async def _drain(self) -> None:
        """Take nothing new; streams have their last word, files their answer, as far as `drain_s` allows."""
        engine = self.engine
        engine.draining.set()
        log.info("stopping: %d streams and %d files are still being recognised", engine.seats, engine.files.jobs)
        for line in list(engine.lines):
            line.finish()
        until = time() + self.config.drain_s
        while (engine.lines or engine.files.jobs) and time() < until and not self._hurried:
            for line in [one for one in engine.lines if one.idle]:
                line.finish()
            await asyncio.sleep(0.05)
        engine.files.give_up()
        await asyncio.sleep(0.1)  # for the answers to those

    @property
    def _hurried(self) -> bool:
        """Whether nobody waits any more, or nothing can be waited for."""
        return self._servers[0].force_exit or self.engine.scheduler.failure is not None

    async def _watch(self) -> None:
        """Measure how late the loop is; end where the scheduler has, or the process that looks after this one."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.25
            await asyncio.sleep(0.25)
            self.engine.meters.loop_lag.observe(max(0.0, loop.time() - due))
            self.engine.look()
            if self.engine.scheduler.failure is not None or self._parent not in (None, os.getppid()):
                self._stop.set()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # a thread's loop, Windows
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(signal.SIGHUP, self._read_again)

    def _read_again(self) -> None:
        """Keys, certificate, and the model: streams that are open end on the old one."""
        try:
            self.keys.reload()
            if self._tls is not None:
                tls_context(self.config.certfile, self.config.keyfile)  # so that nothing changes if it cannot be used
                self._tls.load_cert_chain(self.config.certfile, self.config.keyfile)
        except ConfigError as error:
            log.warning("%s; what there was stays", error)
        if self._reload is not None:
            asyncio.get_running_loop().run_in_executor(None, self._load_again, self._reload)

    def _load_again(self, reload: Callable[[], Recognizer]) -> None:
        try:
            self.engine.scheduler.recognizer = reload()
            log.info("the model was loaded again")
        except ParaformerError as error:
            log.warning("%s; the old model stays", error)

    def _uvicorn(self, app: Any, *, tls: bool) -> uvicorn.Config:
        limits = self.config.limits
        config = uvicorn.Config(
            app,
            http=type("Guarded", (GuardedHttp,), {"first_s": limits.first_s}),
            ws=GuardedSocket,
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws_max_size=limits.message,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PONG_S,
            ws_per_message_deflate=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
            proxy_headers=False,
            h11_max_incomplete_event_size=64 << 10,
        )
        if tls and self.config.certfile:
            config.load()
            config.ssl = self._tls = tls_context(self.config.certfile, self.config.keyfile)
        return config


def tls_context(certfile: str, keyfile: str) -> ssl.SSLContext:
    """TLS 1.2 or newer with this certificate. Raises ConfigError if it cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS cannot use {certfile} with {keyfile}: {error}") from error
    return context


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; several workers may share its port. Raises ConfigError if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port and hasattr(socket, "SO_REUSEPORT") and SECRET in os.environ:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from error
    listener.set_inheritable(False)
    return listener


class JsonLines(logging.Formatter):
    """A line of JSON for each record; never more than what the record says."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        said = record.getMessage().strip()[:1000]
        values: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname, "message": said}
        if record.exc_info and record.exc_info[0]:
            values |= {"error": record.exc_info[0].__name__, "at": _place(record.exc_info[2])}
        return json.dumps(values, ensure_ascii=False)


def _place(trace: TracebackType | None) -> str:
    """Where an exception was raised, as far as this package's code goes; never its words, which may be a user's."""
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if "paraformer" in Path(frame.filename).parts] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def log_to_stderr() -> None:
    """Let everything that this process logs be JSON lines on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(lambda record: not QUOTES.get() and not record.getMessage().startswith(_NO_FAULTS))
    logging.getLogger().addHandler(handler)
    logging.getLogger("paraformer").handlers.clear()  # the command's own, which prints warnings and fails for them
    for name, level in (
        ("paraformer.serve", logging.INFO),
        ("uvicorn", logging.WARNING),
        ("websockets", logging.ERROR),
        ("python_multipart", logging.ERROR),
    ):
        logging.getLogger(name).setLevel(level)


def run(process: Process, listening: Callable[[int, int], None]) -> None:
    """Serve in this thread, on uvloop where there is one. What this process holds already stays until its end."""
    gc.collect()
    gc.freeze()  # full collections, in which everything stands still, took 30 ms for what never changes
    try:
        import uvloop
    except ImportError:
        asyncio.run(process.run(listening))
    else:
        uvloop.run(process.run(listening))
