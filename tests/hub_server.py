"""A model hub on loopback: the few requests of ModelScope's and Hugging Face's clients, answered from directories."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `models`, repository id -> directory; `requests` lists what was asked."""

    daemon_threads = True

    def __init__(self, models: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = models
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> set[str]:
        """Names of the files that were asked for."""
        paths = [urlparse(request) for request in self.requests]
        names = {path.path.rsplit("/", 1)[1] for path in paths if "/resolve/" in path.path}
        return names | {name for path in paths for name in parse_qs(path.query).get("FilePath", [])}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.server.requests.append(self.path)
        url = urlparse(self.path)
        parts = url.path.strip("/").split("/")
        if parts[:3] == ["api", "v1", "models"]:  # ModelScope
            self.modelscope(self.server.models.get("/".join(parts[3:5])), parts[5:], parse_qs(url.query), body)
        elif parts[:2] == ["api", "models"]:  # Hugging Face, about a repository
            self.hugging_face(self.server.models.get("/".join(parts[2:4])), parts[4:])
        elif "resolve" in parts:  # Hugging Face, a file
            directory = self.server.models.get("/".join(parts[:2]))
            self.send_model_file(directory / parts[-1] if directory else None, body)
        else:
            self.send(404, b"{}", body=body)

    def modelscope(self, directory: Path | None, rest: list[str], query: dict[str, list[str]], body: bool) -> None:
        if directory is None:
            self.send(404, json.dumps({"Code": 404, "Message": "not found", "Success": False}).encode())
        elif rest == ["repo", "files"]:
            files = [
                {"Path": path.name, "Type": "blob", "Size": path.stat().st_size, "Sha256": sha256(path)}
                for path in sorted(directory.iterdir())
            ]
            self.send(200, json.dumps({"Code": 200, "Success": True, "Data": {"Files": files}}).encode())
        else:
            self.send_model_file(directory / query["FilePath"][0], body)

    def hugging_face(self, directory: Path | None, rest: list[str]) -> None:
        if directory is None:
            self.send(404, b"{}", headers={"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["tree"]:
            tree: list[dict[str, Any]] = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": sha256(path)[:40]}
                for path in sorted(directory.iterdir())
            ]
            self.send(200, json.dumps(tree).encode())
        else:
            siblings = [{"rfilename": path.name} for path in sorted(directory.iterdir())]
            self.send(200, json.dumps({"id": "any/model", "sha": COMMIT, "siblings": siblings}).encode())

    def send_model_file(self, path: Path | None, body: bool) -> None:
        if path is None or not path.is_file():
            self.send(404, b"{}", headers={"X-Error-Code": "EntryNotFound"}, body=body)
        else:
            self.send(200, path.read_bytes(), {"ETag": f'"{sha256(path)[:40]}"', "X-Repo-Commit": COMMIT}, body)

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def serving(models: dict[str, Path]) -> Iterator[Hub]:
    """A hub that runs for the length of the block."""
    hub = Hub(models)
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
