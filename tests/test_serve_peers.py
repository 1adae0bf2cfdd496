"""Other packages' clients against a server of ours, each in its own environment: right texts, clean ends, errors.

Run with -m peers where `scripts/peers` has put them; openai for Python and wyoming are among all tests' own packages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import soundfile
from serving import SAMPLES, live_text, serving, whole_text

from paraformer.cli.serve import _self_signed

HERE = Path(__file__).parent
CLIENTS = Path(os.environ.get("PARAFORMER_CLIENTS", HERE.parent / ".venv-peers" / "clients"))
pytestmark = [pytest.mark.peers]


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples, rate = soundfile.read(SAMPLES / "weather.flac", dtype="int16")
    path = tmp_path_factory.mktemp("peers") / "weather.wav"
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def told(*command: Any, **environment: str) -> Any:
    """What a program prints last, as JSON."""
    done = subprocess.run(
        [str(one) for one in command], capture_output=True, timeout=200, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return json.loads(done.stdout.decode().splitlines()[-1])


def client(name: str, url: str, wav: Path) -> Any:
    python = CLIENTS / name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{name} is not installed; scripts/peers installs it")
    return told(python, HERE / "peer_clients.py", name, url, wav, PYTHONPATH="")


def test_funasr_client(wav: Path) -> None:
    with serving() as running:
        heard = client("funasr-client", running.ws, wav)
    assert all(one["final"] for one in heard.values())
    assert "".join(text for _, text in heard["online"]["texts"]) == live_text()
    assert heard["offline"]["texts"] == [["offline", whole_text()]]
    assert "".join(text for mode, text in heard["2pass"]["texts"] if mode == "2pass-offline") == whole_text()
    assert heard["2pass"]["stamps"] == heard["offline"]["stamps"] == len(whole_text())


def test_funasr_python(wav: Path) -> None:
    with serving() as running:
        heard = client("funasr-python", running.ws, wav)
    assert heard["text"] == whole_text()
    assert heard["partial"]


def test_livekits_plugin(wav: Path) -> None:
    with serving() as running:
        heard = client("livekit", running.ws, wav)
    assert heard["final"] == [whole_text()]
    assert heard["interim"]


def test_openai_for_node(wav: Path, tmp_path: Path) -> None:
    modules, node = CLIENTS / "node", shutil.which("node")
    if node is None or not (modules / "node_modules" / "openai").exists():
        pytest.skip("openai for Node is not installed; scripts/peers installs it where there is npm")
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    tls = _self_signed(tmp_path / "tls")
    with serving(keys=str(keys), **tls) as running:
        url = f"https://localhost:{running.port}"
        heard = told(node, HERE / "peer_client.mjs", modules, url, wav, NODE_EXTRA_CA_CERTS=tls["certfile"])
    text = whole_text()
    assert heard["json"]["text"] == heard["verbose_json"]["text"] == heard["realtime"] == text
    assert heard["text"] == text + "\n"
    assert text in heard["srt"]
    assert heard["vtt"].startswith("WEBVTT")
    assert [event["type"] for event in heard["events"]] == ["transcript.text.delta", "transcript.text.done"]
    assert heard["events"][1]["text"] == text
    assert "whisper-1" in heard["models"]
    assert heard["errors"] == {
        "stranger": ["AuthenticationError", 401, "invalid_api_key", None],
        "format": ["BadRequestError", 400, None, "response_format"],
        "model": ["NotFoundError", 404, "model_not_found", "model"],
        "audio": ["BadRequestError", 400, "invalid_audio", "file"],
    }
