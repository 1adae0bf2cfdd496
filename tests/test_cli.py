"""The command line over a stand-in recogniser: what is printed, what is written, what it exits with."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Timer
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

import paraformer
from paraformer import ChunkConfig, Segment, Token, Transcript
from paraformer.audio import SAMPLE_RATE, from_array, read
from paraformer.backends import native
from paraformer.cli import main, sources
from paraformer.cli.formats import render
from paraformer.cli.live import decisions
from paraformer.cli.mic import _tail, show
from paraformer.cli.options import FORMATS, loading, parser
from paraformer.cli.results import targets
from paraformer.loader import choose, locate
from paraformer.subtitles import MAX_COLUMNS, MAX_S, columns, cues
from paraformer.text import Vocabulary

TEXT = "今天天气很好"


def transcript(text: str = TEXT, *, step_s: float = 0.5) -> Transcript:
    tokens = tuple(Token(c, i * step_s, (i + 1) * step_s, 0.5) for i, c in enumerate(text))
    segments = (Segment(text, 0.0, len(text) * step_s, tokens),) if text else ()
    return Transcript(text, len(text) * step_s, segments)


class FakeSession:
    """Decides one character for each full piece of 600 ms, and the rest at the end."""

    def __init__(self, rate: int = SAMPLE_RATE) -> None:
        self.text, self.ended, self.rate = "", False, rate

    def accept(self, samples: np.ndarray) -> str:
        new = TEXT[len(self.text) :][:1] if len(samples) == 0.6 * self.rate else ""
        self.text += new
        return new

    def finish(self) -> str:
        new = TEXT[len(self.text) :]
        self.text = TEXT
        return new

    @property
    def tokens(self) -> tuple[Token, ...]:
        return transcript(self.text).tokens

    def transcript(self) -> Transcript:
        return transcript(self.text)


class FakeRecognizer:
    """Reads its input as the real one does and finds the same words in each."""

    def __repr__(self) -> str:
        return "<Recognizer fake>"

    def transcribe(self, source: Path | np.ndarray, channel: int | str = "mix") -> Transcript | list[Transcript]:
        if channel == "each":
            return [transcript(TEXT[:2]), transcript("")]
        samples = from_array(source) if isinstance(source, np.ndarray) else read(source)
        return transcript() if len(samples) else transcript("")

    def stream(self, rate: int = SAMPLE_RATE) -> FakeSession:
        return FakeSession(rate)


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Loads give the stand-in; returns what they were asked for."""
    calls: list[dict[str, object]] = []

    def load(model: str | None = None, **settings: object) -> FakeRecognizer:
        calls.append({"model": model, **settings})
        return FakeRecognizer()

    monkeypatch.setattr(paraformer, "load", load)
    return calls


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.full(2 * SAMPLE_RATE, 0.1, np.float32), SAMPLE_RATE)
    return path


def test_prints_the_text(wav: Path, capsys: pytest.CaptureFixture[str], loaded: list[dict[str, object]]) -> None:
    assert main(["transcribe", str(wav)]) == 0
    assert capsys.readouterr() == (TEXT + "\n", "")
    assert loaded == [{"model": None, "chunk": None, "precision": "auto", "threads": 1, "lm": True}]


def test_settings_reach_the_recognizer(wav: Path, loaded: list[dict[str, object]]) -> None:
    how = ["--threads", "3", "--chunk", "0,10,5,4,1", "--precision", "int8", "--no-lm"]
    main(["transcribe", str(wav), "--model", "zh", *how])
    chunk = ChunkConfig(left=0, chunk=10, right=5, encoder_look_back=4, decoder_look_back=1)
    assert loaded == [{"model": "zh", "chunk": chunk, "precision": "int8", "threads": 3, "lm": False}]
    main(["transcribe", str(wav), "--backend", "torch", "--device", "cuda"])
    assert (loaded[1]["backend"], loaded[1]["device"]) == ("torch", "cuda")


@pytest.mark.parametrize("given", [["transcribe", "a"], ["evaluate", "--data", "a"], ["calibrate", "a", "--data", "a"]])
def test_what_computes_is_chosen_wherever_files_are_recognised(given: list[str]) -> None:
    how = {"backend": "torch", "device": "cuda", "precision": "float32", "threads": 3, "batch": 9.0}
    options = parser().parse_args(
        [*given, *(word for name, value in how.items() for word in (f"--{name}", str(value)))]
    )
    assert {name: getattr(options, name) for name in how} == how
    assert loading(options).items() >= {name: how[name] for name in how if name != "batch"}.items()


def test_one_bad_file_is_reported_and_the_rest_go_on(
    wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"not audio at all")
    missing = tmp_path / "missing.wav"
    assert main(["transcribe", str(noise), str(wav), str(missing)]) == 1
    out, err = capsys.readouterr()
    assert out == f"{wav}: {TEXT}\n"
    first, second = err.splitlines()
    assert first.startswith("paraformer: ") and str(noise) in first
    assert second.startswith("paraformer: ") and str(missing) in second


def test_a_truncated_file_gives_what_it_holds_and_a_failure(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wav.write_bytes(wav.read_bytes()[:20_000])
    assert main(["transcribe", str(wav)]) == 1
    out, err = capsys.readouterr()
    assert out == TEXT + "\n"
    assert err == f"paraformer: {wav} is damaged or truncated: only its first 0.62 s can be read\n"


def test_patterns_that_the_shell_left_alone(wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a[1].wav").write_bytes(wav.read_bytes())
    assert main(["transcribe", str(tmp_path / "*.wav")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["transcribe", str(tmp_path / "a[1].wav")]) == 0
    assert capsys.readouterr().out == TEXT + "\n"
    assert main(["transcribe", str(tmp_path / "*.ogg")]) == 1
    assert "*.ogg" in capsys.readouterr().err


@pytest.fixture
def other(wav: Path) -> Path:
    """Another file with the same sound: an input that is given twice is recognised once."""
    return Path(shutil.copy(wav, wav.with_name("walk.wav")))


def test_json_is_one_object_per_line(wav: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", str(wav), str(other), "--format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    heard = {"text": TEXT, "duration_s": 3.0, "confidence": 0.5}
    segments = [{"text": TEXT, "start_s": 0.0, "end_s": 3.0}]
    assert lines == [{"file": str(name), **heard, "segments": segments} for name in (wav, other)]


def test_json_with_timestamps_lists_tokens(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["transcribe", str(wav), "--format", "json", "--timestamps"])
    tokens = json.loads(capsys.readouterr().out)["segments"][0]["tokens"]
    assert tokens[1] == {"text": "天", "start_s": 0.5, "end_s": 1.0, "confidence": 0.5}
    assert len(tokens) == len(TEXT)


def test_other_forms() -> None:
    hour = Transcript("好 & <b>", 3723.5, (Segment("好 & <b>", 3723.0, 3724.5, ()),))
    assert render(hour, "srt", name="a", timestamps=False) == "1\n01:02:03,000 --> 01:02:04,500\n好 & <b>"
    assert render(hour, "vtt", name="a", timestamps=False) == (
        "WEBVTT\n\n01:02:03.000 --> 01:02:04.500\n好 &amp; &lt;b&gt;"
    )
    assert render(hour, "tsv", name="a\tb", timestamps=False) == "a b\t3723.000\t3724.500\t好 & <b>"
    both = replace(hour, segments=(*hour.segments, Segment("吗", 3725.0, 3726.0, ())))
    assert render(both, "text", name="a", timestamps=False) == "好 & <b>\n吗"
    assert render(hour, "text", name="a", timestamps=True) == "[01:02:03.000 - 01:02:04.500] 好 & <b>"
    assert render(transcript("好"), "tsv", name="a", timestamps=True) == "a\t0.000\t0.500\t好"


@pytest.mark.parametrize(("form", "expected"), [("text", ""), ("srt", ""), ("vtt", "WEBVTT"), ("tsv", "")])
def test_no_speech(form: str, expected: str) -> None:
    assert render(transcript(""), form, name="a", timestamps=False) == expected


def test_stream_prints_text_as_it_is_decided(wav: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--stream", str(wav), str(other)]) == 0
    assert capsys.readouterr().out == f"{wav}: {TEXT}\n{other}: {TEXT}\n"


@pytest.mark.parametrize("form", ["text", "tsv"])
def test_stream_with_times_prints_them_as_text_is_decided(
    form: str, wav: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    finish = FakeSession.finish

    def before_the_end(session: FakeSession) -> str:
        seen.append(capsys.readouterr().out)
        return finish(session)

    monkeypatch.setattr(FakeSession, "finish", before_the_end)
    assert main(["transcribe", "--stream", "--timestamps", "--format", form, str(wav)]) == 0
    lines = (seen[0] + capsys.readouterr().out).splitlines()
    assert len(seen[0].splitlines()) == 3
    if form == "text":
        assert lines[1] == "[00:00:00.500 - 00:00:01.000] 天"
        assert "".join(line.split("] ")[1] for line in lines) == TEXT
    else:
        assert [line.split("\t")[1:] for line in lines][1] == ["0.500", "1.000", "天"]
        assert len(lines) == len(TEXT)


def test_stream_as_json_tells_when(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--stream", "--format", "json", "--timestamps", str(wav)]) == 0
    *events, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["heard_s"] for event in events] == [0.6, 1.2, 1.8, 2.0]
    assert "".join(event["new"] for event in events) == last["text"] == TEXT
    assert [token["text"] for event in events for token in event["tokens"]] == list(TEXT)


@given(st.integers(0, 40_000), st.data())
def test_decisions_add_up_whatever_the_pieces(total: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=5)))
    pieces = np.split(np.zeros(total, np.float32), cuts)
    found = list(decisions(FakeSession(), pieces))  # type: ignore[arg-type]
    assert "".join(d.text for d in found) == TEXT
    assert tuple(token for d in found for token in d.tokens) == transcript().tokens
    assert found[-1].heard_s == total / SAMPLE_RATE


def test_results_in_a_directory(
    wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], loaded: list[dict[str, object]]
) -> None:
    """Of one name in two folders each has its own file, and a second run finds both, in whatever order."""
    twin = tmp_path / "other" / "talk.flac"
    twin.parent.mkdir()
    soundfile.write(twin, np.zeros(160, np.int16), SAMPLE_RATE)
    out = tmp_path / "new" / "results"
    arguments = ["transcribe", str(wav), str(twin), "--output-dir", str(out), "--format", "json"]
    assert main(arguments) == 0
    assert capsys.readouterr() == ("", "")
    for path, source in ((out / "talk.json", wav), (out / "other" / "talk.json", twin)):
        assert json.loads(path.read_text(encoding="utf-8"))["file"] == str(source)

    (out / "talk.json").write_text("precious")
    loaded.clear()
    assert main(["transcribe", str(twin), str(wav), *arguments[3:]]) == 1
    assert (out / "talk.json").read_text() == "precious"
    first, second = capsys.readouterr().err.splitlines()
    assert str(twin) in first and str(out / "other" / "talk.json") in first and "--overwrite" in first
    assert str(wav) in second and str(out / "talk.json") in second
    assert not loaded  # nothing to do: no model is opened
    assert main([*arguments, "--overwrite"]) == 0
    assert TEXT in (out / "talk.json").read_text(encoding="utf-8")


NAMES = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "a/", "b/", "a/b/", "./", "../", "/x/a/"]),
        st.sampled_from(["talk", "Talk", "t\u00e9l\u00e9", "te\u0301le\u0301", "stdin", "talk-2", "talk.wav"]),
        st.sampled_from([".wav", ".mp3", ".WAV", ""]),
    )
    | st.just("-"),
    min_size=1,
    max_size=8,
)


@given(NAMES, st.randoms(use_true_random=False))
def test_every_input_has_a_file_of_its_own(names: list[str], random: Random) -> None:
    """On disks too that take A for a, in whatever order inputs are given, and never outside of the directory."""
    chosen = targets(names, "text")
    files = {name: unicodedata.normalize("NFC", str(path)).casefold() for name, path in chosen.items()}
    by_file = {
        file: {str(Path(name).parent.resolve() / Path(name).name) for name in files if files[name] == file}
        for file in files.values()
    }
    assert all(len(inputs) == 1 for inputs in by_file.values())
    assert not any(path.is_absolute() or ".." in path.parts for path in chosen.values())
    shuffled = random.sample(names, len(names))
    assert targets(shuffled, "text") == chosen


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a/talk.wav", "b/speech.wav"], ["talk.txt", "speech.txt"]),
        (["a/talk.wav", "b/talk.wav", "c/x.wav"], ["a/talk.txt", "b/talk.txt", "x.txt"]),
        (["a/1/talk.wav", "b/1/talk.wav"], ["a/1/talk.txt", "b/1/talk.txt"]),
        (["a/talk.wav", "a/talk.mp3"], ["talk.wav.txt", "talk.mp3.txt"]),
        (["-", "stdin.wav"], ["stdin.txt", "stdin.wav.txt"]),
    ],
)
def test_names_of_results(names: list[str], files: list[str]) -> None:
    assert targets(names, "text") == {name: Path(file) for name, file in zip(names, files, strict=True)}


def test_what_stands_in_the_way_of_results_is_said_before_the_work(
    wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], loaded: list[dict[str, object]]
) -> None:
    (tmp_path / "file").write_text("")
    for where in ("file", "file/below"):
        assert main(["transcribe", str(wav), "--output-dir", str(tmp_path / where)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert loaded == []

    long, short = (wav.with_name(letter * 251 + ".wav") for letter in "xy")
    long.write_bytes(wav.read_bytes())
    assert main(["transcribe", str(long), "--output-dir", str(tmp_path / "out"), "--format", "json"]) == 1
    assert "too long" in capsys.readouterr().err
    assert loaded == []
    short.write_bytes(wav.read_bytes())
    assert main(["transcribe", str(short), "--output-dir", str(tmp_path / "out")]) == 0
    assert [path.stem for path in (tmp_path / "out").iterdir()] == [short.stem]


@pytest.mark.parametrize("extra", [[], ["--stream"]], ids=["whole", "live"])
def test_whatever_fails_is_the_failure_of_one_input(
    extra: list[str], wav: Path, other: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An engine, a decoder, a library: one line, and the rest goes on."""
    count = itertools.count()

    def fails_once(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if next(count) == 0:
                raise IndexError("frame 7")
            return original(*arguments)

        return call

    owner, name = (FakeSession, "accept") if extra else (FakeRecognizer, "transcribe")
    monkeypatch.setattr(owner, name, fails_once(getattr(owner, name)))
    assert main(["transcribe", str(wav), str(other), *extra]) == 1
    out, err = capsys.readouterr()
    assert out == f"{other}: {TEXT}\n"
    assert err == f"paraformer: {wav} failed: IndexError: frame 7\n"


def test_verbose_says_what_computes(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", str(wav), "-v"]) == 0
    out, err = capsys.readouterr()
    assert out == TEXT + "\n"
    first, *told, last = err.splitlines()
    assert first == "paraformer: <Recognizer fake>"
    assert told[0].endswith(", threads: 1") and f"paraformer: {choose(locate(None))}" in told[0]
    assert told[1:] == [f"paraformer: faster here: all {os.cpu_count()} cores, by --threads 0"][: os.cpu_count() != 1]
    assert last.startswith(f"paraformer: {wav}: 3.0 s of audio in ")
    assert main(["transcribe", str(wav), "-v", "--backend", "onnx", "--threads", "0"]) == 0
    told = capsys.readouterr().err.splitlines()[1:-1]
    assert told[0] == f"paraformer: onnx float32, threads: {os.cpu_count()}"
    hint = "paraformer: faster here: native int8, without --backend, --precision and --device"
    assert told[1:] == [hint][: native.fast("int8")]


class Standard(io.TextIOWrapper):
    """Bytes where standard input is expected."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


def test_standard_input(wav: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in ([], ["--stream"]):
        monkeypatch.setattr(sys, "stdin", Standard(wav.read_bytes()))
        assert main(["transcribe", "-", *extra]) == 0
        assert capsys.readouterr().out == TEXT + "\n"


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_headerless_input(rate: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in ([], ["--stream"]):
        monkeypatch.setattr(sys, "stdin", Standard(bytes(2 * 2 * rate)))
        assert main(["transcribe", "-", "--raw", str(rate), "--format", "json", *extra]) == 0
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert last["text"] == TEXT


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["transcribe"],
        ["transcribe", "a.wav", "--format", "doc"],
        ["transcribe", "a.wav", "--chunk", "5,10"],
        ["transcribe", "a.wav", "--chunk", "5,0,5"],
        ["transcribe", "a.wav", "--threads", "none"],
        ["transcribe", "a.wav", "--outputdir", "x"],
        ["listen"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("usage: paraformer")


@pytest.mark.parametrize(
    "arguments", [["-", "-"], ["a.wav", "b.wav", "--format", "srt"], ["a.wav", "--overwrite"]], ids=" ".join
)
def test_options_that_do_not_go_together(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_progress_is_told_by_the_bytes_read(wav: Path) -> None:
    told: list[int] = []
    with sources.opened(str(wav), told.append) as source:
        assert len(read(source)) == 2 * SAMPLE_RATE
    assert sum(told) == wav.stat().st_size
    with sources.opened(str(wav), None) as source:
        assert source == wav


def test_interrupt_ends_quietly(wav: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeRecognizer, "transcribe", interrupt)
    assert main(["transcribe", str(wav)]) == 130
    assert capsys.readouterr() == ("", "")


def test_interrupted_work_leaves_finished_results_whole(tmp_path: Path) -> None:
    """As from a terminal: SIGINT at some moment of the work, 130 soon after, and nothing half written."""
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, 600 * SAMPLE_RATE), SAMPLE_RATE)
    soundfile.write(tmp_path / "short.wav", np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE), SAMPLE_RATE)
    out = tmp_path / "out"
    names = [str(tmp_path / "short.wav"), *[str(tmp_path / "long.wav")]]
    command = [sys.executable, "-m", "paraformer.cli", "transcribe", "--stream", *names, "--output-dir", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (out / "short.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        said = process.communicate(timeout=30)
    assert time.monotonic() - started < 10  # at once on an idle machine
    assert (process.returncode, said) == (130, ("", ""))
    assert [path.name for path in out.iterdir()] == ["short.txt"]


@pytest.fixture(params=["WAV", "MP3", "OGG"])
def sound(request: pytest.FixtureRequest) -> bytes:
    """A file of 12 s of speech, in a format that libsndfile reads in a way of its own."""
    file = io.BytesIO()
    clip = read(Path(paraformer.__file__).parent / "samples/weather.flac")
    soundfile.write(file, np.resize(clip, 12 * SAMPLE_RATE), SAMPLE_RATE, format=request.param)
    return file.getvalue()


def listening(*options: str) -> subprocess.Popen[bytes]:
    """The command, which waits for its standard input."""
    command = [sys.executable, "-m", "paraformer.cli", "transcribe", *options, "-"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_stream_that_says_nothing_more_can_be_interrupted(sound: bytes) -> None:
    with listening("--stream") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(sound[: len(sound) // 2])
        process.stdin.flush()
        assert process.stdout.read(1)  # so it waits for more, while the pipe stays open
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


def test_a_file_that_has_come_whole_is_enough(sound: bytes) -> None:
    """Whether or not the pipe goes on after it, where the format says so, and quietly."""
    with listening() as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(sound)
        process.stdin.flush()
        Timer(3, process.stdin.close).start()
        assert "今天天气" in process.stdout.read().decode()
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == b""


def test_an_input_is_recognised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever names it is called; of links each stands for itself."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav"):
        Path(name).touch()
    Path("link.wav").symlink_to("a.wav")
    assert sources.expand(["b.wav", "*.wav", "./b.wav", str(tmp_path / "a.wav"), "-", "none.wav", "none.wav"]) == [
        *("b.wav", "a.wav", "link.wav", "-", "none.wav")
    ]


@pytest.mark.parametrize(
    ("closed", "said"), [("<&-", "standard input is closed"), (">&-", "standard output is closed")]
)
def test_what_is_closed_is_told(closed: str, said: str) -> None:
    line = f"{sys.executable} -m paraformer.cli transcribe - {closed}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode in (1, 141)
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_closed_output_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = f"import sys; from paraformer.cli import main; sys.exit(main(['info', {str(tiny_bundle.directory())!r}]))"
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_help_is_quick() -> None:
    code = "import sys, paraformer.cli.options as o; o.parser().format_help(); print('numpy' in sys.modules)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert time.perf_counter() - started < 2  # 0.1 s on an idle machine


def completions(line: str, directory: Path) -> list[str]:
    """What a shell is told about a line."""
    answer = directory / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    command = [sys.executable, "-c", "import sys; from paraformer.cli import main; sys.exit(main())"]
    environment = os.environ | asked | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    subprocess.run(command, env=environment, check=True)
    return answer.read_text().split()


def test_a_shell_is_told_how_a_line_may_go_on(tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    assert completions("paraformer tr", tmp_path) == ["transcribe", "train"]
    assert completions("paraformer transcribe a.wav --format ", tmp_path) == list(FORMATS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"paraformer {paraformer.__version__}\n"


def test_microphone_line_is_refreshed(capsys: pytest.CaptureFixture[str]) -> None:
    pieces = [np.zeros(9600, np.float32)] * 2
    show(FakeSession(), iter(pieces), refresh=True)  # type: ignore[arg-type]
    assert [line.removeprefix("\x1b[K") for line in capsys.readouterr().out.split("\r")] == [
        "",
        TEXT[:1],
        TEXT[:2],
        TEXT,
        TEXT + "\n",
    ]
    show(FakeSession(), iter(pieces), refresh=False)  # type: ignore[arg-type]
    assert capsys.readouterr().out == TEXT + "\n"


class FakeSoundDevice(ModuleType):
    """A sound card that hears two pieces, and then its user presses Ctrl-C."""

    PortAudioError = OSError

    def InputStream(  # noqa: N802 - its own name
        self, rate: int, size: int, device: object, *, callback: Callable[..., None], **how: Any
    ) -> object:
        assert (rate, size, device) == (SAMPLE_RATE, 9600, 3)
        size = int(how.get("resize", size))
        for _ in range(2):
            callback(np.zeros((size, 1), np.float32), size, None, None)
        Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
        return nullcontext()


@given(st.text("aé今ｗ", max_size=30), st.integers(0, 40))
def test_the_end_of_a_line_is_as_much_as_fits(text: str, width: int) -> None:
    fitting = [text[start:] for start in range(len(text) + 1) if columns(text[start:]) <= width]
    assert _tail(text, width) == max(fitting, key=len)


def test_microphone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSoundDevice("sounddevice"))
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["mic", "--device", "3"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == (TEXT + "\n", "listening; Ctrl-C ends\n")


class OtherRate(FakeSoundDevice):
    """A sound card without 16 kHz."""

    def InputStream(self, rate: int, size: int, *others: object, **how: Any) -> object:  # noqa: N802
        if rate != 44100:
            raise OSError("Invalid sample rate")
        assert size == 26460
        return super().InputStream(SAMPLE_RATE, 9600, *others, **how, resize=size)

    def query_devices(self, device: object, kind: str) -> dict[str, object]:
        assert (device, kind) == (3, "input")
        return {"default_samplerate": 44100.0}


def test_a_microphone_without_16_khz(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", OtherRate("sounddevice"))
    before = signal.getsignal(signal.SIGINT)
    rates = []
    monkeypatch.setattr(FakeRecognizer, "stream", lambda _, rate=0: rates.append(rate) or FakeSession(rate))
    try:
        assert main(["mic", "--device", "3"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert rates == [44100]
    assert capsys.readouterr() == (TEXT + "\n", "listening; Ctrl-C ends\n")


def test_no_microphone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["mic"]) == 1
    assert "pip install 'paraformer[mic]'" in capsys.readouterr().err


WORDS = st.lists(st.sampled_from(["好", "天", "hel@@", "lo", "a"]), min_size=1, max_size=80)


@given(WORDS, st.lists(st.floats(0.05, 2.0), min_size=80, max_size=80))
def test_subtitle_lines(texts: list[str], lengths: list[float]) -> None:
    clock = np.concatenate([[0.0], np.cumsum(lengths)]).tolist()
    tokens = tuple(Token(text, clock[i], clock[i] + lengths[i] / 2, 1.0) for i, text in enumerate(texts))
    text = Vocabulary.join(texts)
    lines = cues(Transcript(text, clock[-1], (Segment(text, 0.0, clock[len(texts)], tokens),)))
    assert "".join(line.text for line in lines).replace(" ", "") == text.replace(" ", "")
    for line in lines:
        assert (columns(line.text) <= MAX_COLUMNS and line.end_s - line.start_s <= MAX_S) or " " not in line.text
    for before, after in pairwise(lines):
        assert before.end_s <= after.start_s


def test_a_long_segment_is_cut_at_its_pauses() -> None:
    texts = "今天天气很好吗我们一起去公园散步吧然后回家吃饭"
    starts = [i * 0.2 + (1.0 if i >= 7 else 0.0) for i in range(len(texts))]
    tokens = tuple(Token(text, start, start + 0.2, 1.0) for text, start in zip(texts, starts, strict=True))
    lines = cues(Transcript(texts, 60.0, (Segment(texts, 0.0, 60.0, tokens),)))
    assert [(line.text, line.end_s) for line in lines] == [
        ("今天天气很好吗", pytest.approx(1.4)),
        ("我们一起去公园散步吧然后回家吃饭", pytest.approx(5.6)),
    ]


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("text", [f"1: {TEXT[:2]}", "2:"]),
        ("tsv", ["talk.wav\t1\t0.000\t1.000\t" + TEXT[:2]]),
        ("srt", ["1", "00:00:00,000 --> 00:00:01,000", f"1: {TEXT[:2]}"]),
        ("vtt", ["WEBVTT", "", "00:00:00.000 --> 00:00:01.000", f"1: {TEXT[:2]}"]),
    ],
)
def test_each_channel(form: str, lines: list[str], wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", str(wav), "--channel", "each", "--format", form]) == 0
    printed = capsys.readouterr().out.replace(str(wav), "talk.wav").strip().splitlines()
    assert printed == lines


def test_each_channel_as_json(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", str(wav), "--channel", "each", "--format", "json"]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["channel"], one["text"]) for one in results] == [(1, TEXT[:2]), (2, "")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--channel", "each", "--stream"], "--stream hears one channel"),
        (["--channel", "1", "--raw", "8000"], "--raw is of one channel"),
    ],
)
def test_channels_that_do_not_go_with_others(
    arguments: list[str], words: str, wav: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", str(wav), *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("channel", ["0", "left", "-1", ""])
def test_a_channel_that_cannot_be(channel: str, wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", str(wav), f"--channel={channel}"])
    assert ended.value.code == 2
    assert "must be 'mix'" in capsys.readouterr().err


def test_a_note_is_told_and_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as that other runtimes have no place for a language model: the export is whole all the same."""
    import logging

    log = logging.getLogger("paraformer.export.directories")
    for extra, code in (({"note": True}, 0), ({}, 1)):
        monkeypatch.setattr(
            "paraformer.cli.run", lambda options, extra=extra: log.warning("%s", "left", extra=extra) or 0
        )
        assert main(["info"]) == code
        assert capsys.readouterr().err == "paraformer: left\n"
