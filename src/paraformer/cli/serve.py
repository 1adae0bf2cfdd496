"""`paraformer serve`: a server, or several on one port, until it is stopped."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import paraformer
from paraformer.cli.options import loading
from paraformer.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from paraformer.recognizer import Recognizer
    from paraformer.serve.config import ServeConfig

_FLAGS = (
    "host", "port", "admin_host", "admin_port", "wyoming_port", "workers", "keys", "certfile", "keyfile", "origins",
    "hosts", "mode", "drain_s", "state", "keep_s",
)  # fmt: skip


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns 1 if recognition failed."""
    try:
        from paraformer.serve import server
    except ImportError as error:
        raise MissingExtra("paraformer serve", "serve") from error
    config = _config(options)
    if options.check:
        print("the settings are fine")
        return 0
    server.log_to_stderr()
    if config.workers > 1 and server.SECRET not in os.environ:
        from paraformer.serve.workers import Workers

        return Workers(config, sys.argv[1:]).run()

    def load() -> Recognizer:
        return paraformer.load(options.model, chunk=options.chunk, **loading(options))

    process = server.Process(config, load(), reload=load)

    def listening(port: int, admin: int) -> None:
        scheme = "https" if config.certfile else "http"
        carries = f"carries {process.engine.capacity.streams} live streams"
        said = f"paraformer: {scheme}://{config.host}:{port}/ {carries}; operators: http://{config.admin_host}:{admin}/"
        print(said, file=sys.stderr, flush=True)

    server.run(process, listening)
    return 0


def _config(options: argparse.Namespace) -> ServeConfig:
    from paraformer.serve.config import read_config

    given = {name: getattr(options, name) for name in _FLAGS if getattr(options, name, None) is not None}
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    if options.streams is not None:
        given["limits"] = {"streams": options.streams}
    if options.self_signed:
        given |= _self_signed(options.self_signed)
    return read_config(given, options.config)


def _self_signed(directory: Path) -> dict[str, str]:
    """A key and certificate of this installation's own, made once, by openssl."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if not (certificate.exists() and key.exists()):
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        made = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "825", "-subj", "/CN=localhost", "-addext", names]
        command = ["openssl", "req", *made, "-keyout", str(key), "-out", str(certificate)]
        try:
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603  no user's words in it
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError("--self-signed needs the program openssl; or give --certfile and --keyfile") from error
        key.chmod(0o600)
    return {"certfile": str(certificate), "keyfile": str(key)}
