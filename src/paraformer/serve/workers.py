"""Several server processes on one port: one that dies is replaced, a signal goes to all."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client.multiprocess import mark_process_dead

from paraformer.errors import ConfigError
from paraformer.serve.config import ServeConfig
from paraformer.serve.metrics import SHARED
from paraformer.serve.server import SECRET, WORKERS, bound

log = logging.getLogger("paraformer.serve")


class Workers:
    """The parent of the processes; each is this command with one worker and an admin port of its own."""

    def __init__(self, config: ServeConfig, arguments: Sequence[str]) -> None:
        """arguments: of the command. Raises ConfigError if there is no port to share."""
        if not config.port or not config.admin_port:
            raise ConfigError("several workers share one port, so that neither --port nor --admin-port can be 0")
        self._arguments, self._admin_port = list(arguments), config.admin_port
        self._own = TemporaryDirectory(prefix="paraformer-workers-")
        metrics = Path(self._own.name) / "metrics"
        metrics.mkdir()
        self._environment = {
            **os.environ,
            SECRET: secrets.token_hex(32),
            WORKERS: str(config.workers),
            SHARED: str(metrics),
        }
        os.environ |= self._environment
        self._state = config.state or str(Path(self._own.name) / "streams")
        self._stopping = False
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._count = config.workers
        self._held = bound(config.host, config.port)

    def run(self) -> int:
        """Until a signal ends it; returns the worst exit code."""
        try:
            return self._run()
        finally:
            self._held.close()
            self._own.cleanup()

    def _run(self) -> int:
        for kind in (signal.SIGTERM, signal.SIGINT):
            signal.signal(kind, lambda kind, _: self._end(kind))
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda kind, _: self._pass_on(kind))
        self._workers = {number: self._begin(number) for number in range(self._count)}
        while not self._stopping:
            time.sleep(0.2)
            self._replace()
        codes = [worker.wait() for worker in self._workers.values()]
        return max(0 if code in (-signal.SIGTERM, -signal.SIGINT) else abs(code) for code in codes)  # not yet at work

    def _replace(self) -> None:
        for number, worker in list(self._workers.items()):
            if worker.poll() is not None and not self._stopping:
                log.warning("worker %d ended with %s; another takes its place", number, worker.returncode)
                mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
                time.sleep(1.0)
                self._workers[number] = self._begin(number)

    def _begin(self, number: int) -> subprocess.Popen[bytes]:
        own = ["--workers", "1", "--admin-port", str(self._admin_port + number), "--state", self._state]
        return subprocess.Popen(  # noqa: S603  the command line that this process was given
            [sys.executable, "-m", "paraformer.cli", *self._arguments, *own],
            env=self._environment,
            preexec_fn=_deaf if hasattr(signal, "SIGHUP") else None,  # noqa: PLW1509  there are no threads here
        )

    def _end(self, kind: int) -> None:
        self._stopping = True
        self._pass_on(kind)

    def _pass_on(self, kind: int) -> None:
        for worker in self._workers.values():
            if worker.poll() is None:
                worker.send_signal(kind)


def _deaf() -> None:
    """A worker that is still starting reads everything anyway, and must not end of being told to."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
