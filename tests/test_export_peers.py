"""Our models in other packages as they come: our text. Run with -m peers where they are installed.

The embedded model goes to the two that run graphs. FunASR itself knows no encoder like its, so small models of the
published kind go there, and to the others too: they have the CMVN statistics that the embedded one lacks.

They need not be in the tests' environment (funasr-onnx asks for an older numpy): `PARAFORMER_PEERS` names the Python
that has them, by default that of `.venv-peers`, which `scripts/peers` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import funasr_dirs
import numpy as np
import pytest

import paraformer
from paraformer import audio, loader
from paraformer.certificate.record import Form
from paraformer.checkpoint import funasr, native
from paraformer.config import ChunkConfig
from paraformer.errors import UnsupportedModel
from paraformer.evaluate.cer import ErrorCounts, count_edits
from paraformer.export.directories import write
from paraformer.fbank import fbank
from paraformer.frontend import lfr
from paraformer.recognizer import Recognizer
from paraformer.session import Session
from paraformer.text import Vocabulary

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parent.parent
PYTHON = os.environ.get("PARAFORMER_PEERS") or next(
    (str(path) for path in [ROOT / ".venv-peers" / "bin" / "python"] if path.exists()), sys.executable
)
PACKET = 9600
SAMPLES = sorted((ROOT / "src" / "paraformer" / "samples").glob("*.flac"))
INT8_EDITS = 3
"""Of the 61 characters of float32: near ties are decided otherwise, on every processor alike: no sum saturates."""

Source = Literal["embedded", "offline_A", "offline_B", "aishell_conformer", "online"]
"""The embedded model, or a golden one, the last for streams."""
LOOK_BACK = ChunkConfig(encoder_look_back=4, decoder_look_back=1)
"""As `peer_runtimes.funasr_live` asks for."""


@cache
def source(model: Source) -> Path:
    if model == "embedded":
        return loader.locate(None)
    return funasr_dirs.write_funasr(Path(mkdtemp(prefix="paraformer-peers-")), model)


@cache
def recognizer(model: Source = "embedded") -> Recognizer:
    """Other runtimes compute in float32 and know neither a language model nor pauses that end a sentence."""
    directory = without_pauses(source(model)) if model == "embedded" else source(model)
    return paraformer.load(directory, vad=False, precision="float32", lm=False)


def without_pauses(directory: Path) -> Path:
    bundle, network = native.load(directory)
    predictor = replace(bundle.config.predictor, pause_weight=0.0)
    network.config = replace(bundle.config, predictor=predictor)
    copied = Path(mkdtemp(prefix="paraformer-peers-"))
    native.save(replace(bundle, config=network.config), network, copied)
    return copied


@cache
def signals() -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(list(audio.read_blocks(path))) for path in SAMPLES)


@cache
def exported(form: Form, model: Source = "embedded") -> Path:
    directory = Path(mkdtemp(prefix="paraformer-peers-"))
    load = native.load if model == "embedded" else funasr.load
    write(*load(source(model)), directory, form)
    return directory


@cache
def installed(package: str) -> bool:
    find = f"import sys; from importlib.util import find_spec; sys.exit(not find_spec({package!r}))"
    return subprocess.run([PYTHON, "-c", find], check=False).returncode == 0


STARTED: dict[str, subprocess.Popen[str]] = {}


def started(package: str) -> subprocess.Popen[str]:
    """A process for all jobs of a package: FunASR takes eight seconds to import."""
    if package not in STARTED:
        command, environment = [PYTHON, ROOT / "tests" / "peer_runtimes.py"], os.environ | {"PYTHONPATH": ""}
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        STARTED[package] = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=nowhere, text=True, env=environment
        )
    return STARTED[package]


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    for process in STARTED.values():
        process.communicate()


def theirs(form: Form, given: list[np.ndarray], folder: Path, model: Source = "embedded") -> Any:
    """What the runtime makes of the signals: a text each, or live with FunASR's packages a text for each packet."""
    package = form.runtime.replace("-", "_")
    if not installed(package):
        pytest.skip(f"{PYTHON} has no {package}")
    np.savez(folder / "signals.npz", **{f"{index:03}": signal for index, signal in enumerate(given)})
    job = [form.runtime + " live" * form.live, str(exported(form, model)), str(folder / "signals.npz")]
    process = started(package)
    assert process.stdin and process.stdout
    print(json.dumps(job), file=process.stdin, flush=True)
    answer = json.loads(process.stdout.readline() or '{"failed": "it ended"}')
    assert "heard" in answer, answer["failed"]
    return answer["heard"]


def packets(session: Session, signal: np.ndarray) -> list[str]:
    """The text of each packet of 600 ms; the last one's is that of the end, too."""
    texts = [session.accept(signal[start : start + PACKET]) for start in range(0, len(signal), PACKET)]
    return [*texts[:-1], texts[-1] + session.finish()]


def assert_varied(texts: list[str]) -> None:
    assert all(len(text) > 5 and len(set(text)) > 4 for text in texts) and len(set(texts)) == len(texts), texts


def assert_near(theirs: list[str], ours: list[str]) -> None:
    found = sum((count_edits(*pair) for pair in zip(ours, theirs, strict=True)), ErrorCounts())
    assert found.edits <= INT8_EDITS, (theirs, ours)


@pytest.mark.parametrize(
    ("runtime", "model"),
    [
        ("sherpa-onnx", "embedded"),
        ("funasr-onnx", "embedded"),
        ("sherpa-onnx", "offline_A"),
        ("funasr-onnx", "offline_A"),
        ("funasr", "offline_A"),
        ("funasr", "offline_B"),
    ],
)
def test_whole(runtime, model, tmp_path):
    """All recordings in one batch where the runtime has batches: exactly our texts."""
    ours = [recognizer(model).transcribe(signal).text for signal in signals()]
    assert theirs(Form(runtime=runtime), list(signals()), tmp_path, model) == ours
    assert_varied(ours)


@pytest.mark.parametrize("runtime", ["sherpa-onnx", "funasr-onnx"])
def test_whole_int8(runtime, tmp_path):
    ours = [recognizer().transcribe(signal).text for signal in signals()]
    assert_near(theirs(Form(runtime=runtime, precision="int8"), list(signals()), tmp_path), ours)


def test_silence_gives_no_text(tmp_path):
    """No token at all, beside a recording that has some."""
    given = [np.zeros(16_000, np.float32), signals()[0]]
    for runtime in ("sherpa-onnx", "funasr-onnx"):
        silent, spoken = theirs(Form(runtime=runtime), given, tmp_path)
        assert silent == recognizer().transcribe(given[0] + 1e-9).text
        assert spoken == recognizer().transcribe(given[1]).text


def test_whole_conformer(tmp_path):
    """On the golden recording alone: the others have silence, in which FunASR hears tokens and we do not."""
    with np.load(funasr_dirs.GOLDEN / "frontend_offline.npz") as arrays:
        signal = arrays["wav_int16"].astype(np.float32) / 32768
    (text,) = theirs(Form(runtime="funasr"), [signal], tmp_path, "aishell_conformer")
    assert text == recognizer("aishell_conformer").transcribe(signal).text
    assert len(text) > 5


def test_funasr_live(tmp_path):
    """Packet for packet ours, with the last piece under 60 ms left out as FunASR does."""
    ours = [packets(recognizer("online").stream(LOOK_BACK, drop_short_tail=True), signal) for signal in signals()]
    assert theirs(Form(runtime="funasr", live=True), list(signals()), tmp_path, "online") == ours
    assert_varied(["".join(texts) for texts in ours])


@pytest.mark.parametrize("live", [False, True])
def test_funasr_knows_no_encoder_like_the_embedded_models(live, tmp_path):
    with pytest.raises(UnsupportedModel, match="FunASR"):
        write(*native.load(source("embedded")), tmp_path, Form(runtime="funasr", live=live))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["embedded", "online"])
def test_funasr_onnx_live(model, tmp_path):
    """Packet for packet ours without look-back, which the runtime does not have.

    Exact for all packets but a last one of more than 300 ms: ours recognises what is left in one step, funasr-onnx in
    two, of which the second repeats five rows (spec 7.5). These are therefore cut to end 200 ms into a packet.
    """
    cut = [signal[: len(signal) // PACKET * PACKET + 3200 - PACKET] for signal in signals()]
    ours = [packets(recognizer(model).stream(ChunkConfig()), signal) for signal in cut]
    form = Form(runtime="funasr-onnx", live=True)
    heard = theirs(form, [*cut, *signals()], tmp_path, model)
    assert heard[: len(cut)] == ours
    assert [one[:-1] for one in heard[len(cut) :]] == [
        packets(recognizer(model).stream(ChunkConfig()), signal)[:-1] for signal in signals()
    ]
    assert_varied(["".join(texts) for texts in ours])


def like_sherpa_onnx(signal: np.ndarray, model: Source) -> str:
    """Our live steps on the rows that sherpa-onnx makes: 30 ms later than ours, in full chunks with 180 ms to come.

    Its first row begins at the first frame, where ours is centred on it; a chunk waits for two more frames than it
    uses; and there is no last step, so what is left over is lost unless silence follows (spec 8.4).
    """
    one = recognizer(model)
    c, backend, chunk = one.config.frontend, one._model.backend, ChunkConfig(left=5, chunk=10, right=3)
    frames, state, ids, step = fbank(signal, c), backend.init_state(chunk), [], 0
    rows = lfr(frames, c.lfr_m, c.lfr_n)
    rows = one.bundle.cmvn(rows) if one.bundle.cmvn else rows
    while step * chunk.chunk * c.lfr_n + 61 < len(frames):
        (decoded,), (state,) = backend.step([rows[step * 10 : step * 10 + 10]], [False], [state], chunk)
        ids, step = [*ids, *decoded.ids.tolist()], step + 1
    return Vocabulary.join([one.bundle.tokens[index] for index in ids])


@pytest.mark.parametrize("model", ["embedded", "online"])
def test_sherpa_onnx_live(model, tmp_path):
    """With a second of silence after the speech, so that its end comes out: the text of our own steps on these rows."""
    padded = [np.pad(signal, (0, 16_000)) for signal in signals()]
    got = theirs(Form(runtime="sherpa-onnx", live=True), padded, tmp_path, model)
    assert got == [like_sherpa_onnx(signal, model) for signal in padded]
    assert_varied(got)


@pytest.mark.parametrize("runtime", ["sherpa-onnx", "funasr-onnx"])
def test_live_int8(runtime, tmp_path):
    padded = [np.pad(signal, (0, 16_000)) for signal in signals()]
    int8, fp32 = (
        ["".join(text) for text in theirs(Form(runtime=runtime, live=True, precision=precision), padded, tmp_path)]
        for precision in ("int8", "fp32")
    )
    assert_near(int8, fp32)
