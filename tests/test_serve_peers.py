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

import numpy as np
import pytest
import soundfile
from serving import SAMPLES, live_text, sample, serving, whole_text

from paraformer.cli.serve import _self_signed
from paraformer.serve.config import Limits

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


def test_http_is_as_described(tmp_path: Path) -> None:
    """Schemathesis: requests that fit the description and that do not, and what is answered."""
    program = CLIENTS / "schemathesis" / "bin" / "schemathesis"
    if not program.exists():
        pytest.skip("schemathesis is not installed; scripts/peers installs it")
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    # Bytes at random are no audio, and right to be refused.
    options = ["--max-examples", "15", "--seed", "1", "--no-color", "--generation-database", "none"]
    options += ["--exclude-checks", "positive_data_acceptance"]
    with serving(keys=str(keys), limits=Limits(first_s=30.0)) as running:
        command = [program, "run", HERE / "serve_openapi.yaml", "--url", running.http, *options]
        command += ["-H", "Authorization: Bearer sesame"]
        done = subprocess.run(command, capture_output=True, timeout=250, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-4000:]


def test_the_page_in_chromium_with_a_microphone(tmp_path: Path) -> None:
    """What a newcomer does: open the page, speak, see text; on a wide and a narrow screen, with a lost connection."""
    python, chromium = CLIENTS / "playwright" / "bin" / "python", shutil.which("chromium")
    if not python.exists() or chromium is None:
        pytest.skip("chromium or playwright is not installed; scripts/peers installs playwright, apt-get chromium")
    pause = np.zeros(24_000, np.int16)
    talk = np.concatenate([pause[:16_000], sample("weather"), pause, sample("meeting"), pause])
    soundfile.write(tmp_path / "talk.wav", np.repeat(talk, 3), 48_000, subtype="PCM_16")
    with serving(keep_s=0.5) as running:
        command = [python, HERE / "peer_page.py", chromium, running.http + "/", tmp_path / "talk.wav", tmp_path]
        heard = told(*command, PYTHONPATH="")
    assert heard["errors"] == heard["unnamed"] == []
    words = set(whole_text("weather") + whole_text("meeting"))
    for one in (heard["wide"], heard["narrow"], heard["file"]):
        assert len(words & set(one["text"])) > 0.8 * len(words)
    assert heard["wide"]["delay"].startswith("延迟")
    assert (heard["wide"]["connections"], heard["narrow"]["connections"]) == (1, 2)
    assert heard["wide"]["overflow"] == heard["narrow"]["overflow"] == 0
    assert heard["wide"]["in sight"] and heard["narrow"]["in sight"]
    assert heard["file"]["srt"].startswith("1\n00:00:0")
    assert all(len(cue.splitlines()[2]) <= 18 for cue in heard["file"]["srt"].strip().split("\n\n"))
    assert heard["file"]["buttons"] == ["开始录音", "Record"]
    assert heard["file"]["shades"] > 20
