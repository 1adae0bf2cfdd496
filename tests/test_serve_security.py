"""What must not come in, and what must not do harm: a test for each line of the checklist that a socket can show."""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from serving import Running, live_text, logged, sample, serving
from websockets.sync.client import connect

from paraformer.cli.complain import library_warnings
from paraformer.cli.serve import _self_signed
from paraformer.errors import ConfigError
from paraformer.serve import guard
from paraformer.serve.config import Limits, ServeConfig, read_config
from paraformer.serve.guard import Keys, Refusal
from paraformer.serve.quotas import Quotas

KEY = "open-sesame-9d2f"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    limits = Limits(first_s=1.0, message=1 << 16, upload=1 << 20, streams=20, messages_per_s=1e6)
    with serving(keys=str(keys), origins=("https://good.example",), limits=limits) as running:
        yield running


def get(server: Running, path: str, **headers: str) -> int:
    request = urllib.request.Request(
        server.http + path, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code if json.load(error)["error"]["message"] else 0


def test_keys(server: Running) -> None:
    assert get(server, "/v1/models") == 401
    assert get(server, "/v1/models", Authorization="Bearer guess") == 401
    assert get(server, f"/v1/models?api_key={KEY}") == 401  # never in an address
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"Authorization": f"Bearer; {KEY}"}, {"api_key": KEY}):
        assert get(server, "/v1/models", **headers) == 200
    assert get(server, "/") == get(server, "/page.js") == get(server, "/worklet.js") == get(server, "/page.css") == 200


def test_a_websocket_needs_a_key_before_the_upgrade(server: Running) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused, connect(server.ws):
        pass
    assert refused.value.response.status_code == 401
    with connect(server.ws, subprotocols=["binary", f"openai-insecure-api-key.{KEY}"]) as ws:  # type: ignore[list-item]
        assert ws.subprotocol == "binary"  # never the key
    with connect(server.ws + "/v1/realtime", additional_headers={"Authorization": f"Bearer {KEY}"}) as ws:
        assert json.loads(ws.recv(timeout=10))["type"] == "session.created"


def test_a_key_for_one_connection(server: Running) -> None:
    request = urllib.request.Request(
        server.http + "/v1/realtime/client_secrets", b"{}", {"Authorization": f"Bearer {KEY}"}, method="POST"
    )
    lent = json.load(urllib.request.urlopen(request, timeout=10))["value"]
    protocols: Any = ["realtime", f"openai-insecure-api-key.{lent}"]
    with connect(server.ws + "/v1/realtime", subprotocols=protocols) as ws:
        assert ws.subprotocol == "realtime"
    for key in (lent, lent[:-1] + "A", "ek_9999999999.00.AAAA", "ek_"):
        with (
            pytest.raises(websockets.InvalidStatus),
            connect(server.ws, subprotocols=["binary", f"openai-insecure-api-key.{key}"]),
        ):  # type: ignore[list-item]
            pass


def test_a_key_for_one_connection_ends_after_a_minute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    keys, now = Keys(tmp_path / "keys"), time.time()
    early, late = (keys.lend("somebody")[0] for _ in range(2))
    monkeypatch.setattr(guard, "time", lambda: now + 59)
    assert keys.owner(early) == "somebody"
    monkeypatch.setattr(guard, "time", lambda: now + 61)
    assert keys.owner(late) is None


def test_other_sites_pages_and_other_names_of_this_machine(server: Running) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    assert get(server, "/v1/models", Origin="https://evil.example", **key) == 403
    assert get(server, "/v1/models", Origin="https://good.example", **key) == 200
    assert get(server, "/v1/models", Origin=server.http, **key) == 200
    assert get(server, "/v1/models", Origin="null", **key) == 403
    assert get(server, "/v1/models", Origin="http://[", **key) == 403
    assert get(server, "/v1/models", Host="evil.example", **key) == 421
    with (
        pytest.raises(websockets.InvalidStatus) as refused,
        connect(server.ws, origin="https://evil.example", additional_headers=key),
    ):  # type: ignore[arg-type]
        pass
    assert refused.value.response.status_code == 403


def test_who_may_listen_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs keys"):
        ServeConfig(host="0.0.0.0")
    with pytest.raises(ConfigError, match="both a certificate and its key"):
        ServeConfig(certfile="a")
    empty = tmp_path / "keys"
    empty.write_text("# nothing\n")
    with pytest.raises(ConfigError, match="holds no key"):
        Keys(empty)
    empty.write_text("sha256:zz")
    with pytest.raises(ConfigError, match="hexadecimal"):
        Keys(empty)


def test_a_file_of_keys_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\ufeffone\r\ntwo\r\n", encoding="utf-8", newline="")
    keys = Keys(tmp_path / "keys")
    assert keys.owner("one")
    assert keys.owner("two")


def test_keys_are_read_again_and_bad_ones_leave_the_old(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n")
    keys = Keys(file)
    file.write_text("two\nsha256:" + __import__("hashlib").sha256(b"three").hexdigest() + "\n")
    assert keys.owner("one")
    keys.reload()
    assert [keys.owner(key) is not None for key in ("one", "two", "three", "")] == [False, True, True, False]
    lent, _ = keys.lend(str(keys.owner("two")))
    assert keys.owner(lent) == keys.owner("two")
    assert keys.owner(lent) is None  # for one use
    file.write_text("")
    with pytest.raises(ConfigError):
        keys.reload()
    assert keys.owner("two")


def test_settings_from_file_environment_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nmode = "offline"\n[limits]\nstreams = 3\n')
    environment = {
        "PARAFORMER_PORT": "2",
        "PARAFORMER_LIMITS_IDLE_S": "5",
        "PARAFORMER_ORIGINS": "https://a, https://b",
    }
    config = read_config({"port": 4, "limits": {"jobs": 7}}, file, environment)
    assert (config.port, config.mode, config.origins) == (4, "offline", ("https://a", "https://b"))
    assert (config.limits.streams, config.limits.idle_s, config.limits.jobs) == (3, 5.0, 7)
    file.write_text("prot = 1")
    with pytest.raises(ConfigError, match="did you mean port"):
        read_config({}, file, {})
    with pytest.raises(ConfigError, match="PARAFORMER_PORT must be a number"):
        read_config({}, None, {"PARAFORMER_PORT": "x"})


# -- slowly, too much, broken -----------------------------------------------------------------------------------------


def raw(server: Running, data: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sock.sendall(data)
    return sock


def ended(sock: socket.socket, within_s: float = 8.0) -> bytes:
    """All that comes until the server closes."""
    sock.settimeout(within_s)
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    finally:
        sock.close()
    return data


def test_headers_that_never_end(server: Running) -> None:
    began = time.monotonic()
    silent, dribbling = raw(server), raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-")
    for _ in range(3):
        time.sleep(0.3)
        dribbling.sendall(b"a")
    ended(silent)
    ended(dribbling)
    assert time.monotonic() - began < 8


def test_a_body_without_end(server: Running) -> None:
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
    sock = raw(server, head.encode())
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"\0" * 65000
    sent = 0
    try:
        while sent < 40 << 20:
            sock.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            sent += len(part)
            part = b"\0" * 65000
    except OSError:
        pass
    assert sent < 20 << 20
    sock.close()


def post(server: Running, body: bytes) -> int:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "multipart/form-data; boundary=b"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(server.http + "/v1/audio/transcriptions", body, headers), timeout=20
        ) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_forms_of_all_kinds(server: Running) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n%s\r\n'
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n'
    for body in (
        b"",
        b"--b",
        field % b"1" * 1000 + b"--b--\r\n",
        field % (b"1" * 100_000) + b"--b--\r\n",
        file * 3 + b"--b--\r\n",
        field % b"1" + b"--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; " + b"x" * 100_000 + b"\r\n\r\n--b--\r\n",
        file.replace(b'"file"', b'"other"') + b"--b--\r\n",
    ):
        assert post(server, body) == 400, body[:80]


def test_logs_hold_no_keys_and_no_words(server: Running) -> None:
    with logged() as log:
        logging.getLogger("paraformer.serve").setLevel(logging.DEBUG)
        with connect(server.ws, subprotocols=["binary", f"openai-insecure-api-key.{KEY}"]) as ws:  # type: ignore[list-item]
            ws.send(json.dumps({"mode": "online", "wav_name": "x\n[ERROR] \x1b[31m", "hotwords": "a-secret-word 公园"}))
            ws.send(sample().tobytes()[:40_000])
            ws.send('{"is_speaking": false}')
            while not json.loads(ws.recv(timeout=20))["is_final"]:
                pass
        get(server, "/v1/models", Authorization=f"Bearer {KEY}")
    for secret in (KEY, "[ERROR]", "secret-word", live_text()[:4]):
        assert secret not in log.getvalue()


def test_what_a_server_warns_of_is_no_failure_of_the_command() -> None:
    with library_warnings() as seen, logged() as log:
        logging.getLogger("paraformer.serve").warning("a worker ended")
    assert seen == []
    assert json.loads(log.getvalue())["message"] == "a worker ended"


def test_a_failure_is_logged_by_its_kind_and_place_not_its_words() -> None:
    with logged() as log:
        try:
            Keys(Path("/nowhere/keys"))
        except ConfigError:
            logging.getLogger("asyncio").exception("a task\nfailed")
    (line,) = log.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["message"], told["error"]) == ("ERROR", "a task\nfailed", "ConfigError")
    assert re.fullmatch(r"guard\.py:\d+", told["at"])
    assert "nowhere" not in line


# -- what one key may have, and TLS -----------------------------------------------------------------------------------


def test_quotas_count_by_key_and_forget_in_time() -> None:
    now = [1_000_000.0]
    quotas = Quotas(Limits(key_streams=1, key_requests=2, key_audio_h=0.5), lambda: now[0])
    quotas.sit("a")
    quotas.sit("b")
    with pytest.raises(Refusal, match="1 streams open") as refused:
        quotas.sit("a")
    assert (refused.value.status, refused.value.kind) == (429, "rate_limit_error")
    quotas.leave("a")
    quotas.sit("a")
    quotas.ask("a")
    quotas.ask("a")
    with pytest.raises(Refusal, match="2 requests"):
        quotas.ask("a")
    quotas.ask("b")
    now[0] += 61
    quotas.hear("a", 1801.0)
    with pytest.raises(Refusal, match=r"0\.5 hours"):
        quotas.ask("a")
    now[0] += 86_400
    quotas.ask("a")
    free = Quotas(Limits())
    for _ in range(1000):
        free.ask("a")
        free.sit("a")


def test_a_key_that_has_had_enough_is_told_as_openais_clients_understand(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\nother\n")
    header = {"Authorization": f"Bearer {KEY}"}
    with serving(keys=str(keys), limits=Limits(streams=4, key_streams=1, key_requests=4)) as running:
        with connect(running.ws, additional_headers=header):
            with pytest.raises(websockets.InvalidStatus) as refused, connect(running.ws, additional_headers=header):
                pass
            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["Retry-After"] == "1"
            with connect(running.ws, additional_headers={"Authorization": "Bearer other"}):
                pass
        assert [get(running, "/v1/models", **header) for _ in range(3)] == [200, 200, 429]
        assert get(running, "/health") == 200


def test_tls_takes_only_new_versions_and_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    tls = _self_signed(tmp_path / "tls")

    def presented(port: int, **limits: Any) -> bytes:
        context = ssl.create_default_context(cafile=tls["certfile"])
        for name, value in limits.items():
            setattr(context, name, value)
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            return wrapped.getpeercert(binary_form=True) or b""

    with serving(**tls) as running:
        first = presented(running.port)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old = {"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1}
            with pytest.raises(ssl.SSLError):
                presented(running.port, **old)
        for file in tls.values():
            Path(file).unlink()
        _self_signed(tmp_path / "tls")
        reread = threading.Event()
        running.call(lambda: (running.process._read_again(), reread.set()))
        assert reread.wait(10)
        second = presented(running.port)
        assert second != first
        Path(tls["keyfile"]).write_text("no key")
        running.call(lambda: (running.process._read_again(), reread.clear()))
        assert presented(running.port) == second
