"""The command line from end to end, with a tiny real model: bad input, odd input, bad models, conversions."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import companion_dirs
import numpy as np
import pytest
import soundfile
import tiny
import tiny_bundle
import torch
from safetensors.torch import load_file, save_file

import paraformer
from paraformer.backends.native import kernels
from paraformer.bundle import Bundle
from paraformer.cli import computing, main
from paraformer.contract import WEIGHTS
from paraformer.native import families


@pytest.fixture
def model() -> str:
    return str(tiny_bundle.directory())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with one file of each sort."""
    speech = tiny.signal(32_000)
    soundfile.write(tmp_path / "good.wav", speech, 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(32_000), 16_000)
    soundfile.write(tmp_path / "zero-length.wav", np.zeros(0), 16_000)
    soundfile.write(tmp_path / "8-channel.wav", np.repeat(speech[:, None], 8, 1), 16_000)
    soundfile.write(tmp_path / "7khz.wav", speech, 7_000)
    soundfile.write(tmp_path / "192khz.wav", np.repeat(speech, 4), 192_000)
    broken = np.where(np.arange(32_000) == 20_000, np.nan, speech).astype(np.float32)
    soundfile.write(tmp_path / "nan.wav", broken, 16_000, subtype="FLOAT")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "not-audio.wav").write_text("These are words, not sound. " * 100)
    (tmp_path / "truncated.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:30_000])
    (tmp_path / "headless.flac").write_bytes(b"fLaC\x00\x00")
    (tmp_path / "folder.wav").mkdir()
    return tmp_path


BAD = ("empty.wav", "not-audio.wav", "nan.wav", "headless.flac", "folder.wav", "missing.wav")
GOOD = ("good.wav", "silent.wav", "zero-length.wav", "8-channel.wav", "7khz.wav", "192khz.wav")


@pytest.mark.parametrize("extra", [[], ["--stream"]], ids=["whole", "live"])
def test_bad_files_are_named_in_one_line_each_and_the_rest_is_done(
    extra: list[str], files: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [name for pair in zip(BAD, GOOD, strict=True) for name in pair]
    code = main(["transcribe", "--model", model, "--format", "json", *extra, *(str(files / name) for name in names)])
    out, err = capsys.readouterr()
    assert code == 1
    for name, line in zip(BAD, err.splitlines(), strict=True):
        assert line.startswith("paraformer: ")
        assert str(files / name) in line
    results = [line for line in map(json.loads, out.splitlines()) if "segments" in line]
    assert [Path(result["file"]).name for result in results] == list(GOOD)
    texts = {Path(result["file"]).name: result["text"] for result in results}
    assert texts["zero-length.wav"] == ""
    assert texts["8-channel.wav"] == texts["good.wav"] != ""


@pytest.mark.parametrize("extra", [[], ["--stream"]], ids=["whole", "live"])
def test_a_truncated_file_is_recognised_as_far_as_it_goes(
    extra: list[str], files: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", "--model", model, str(files / "truncated.wav"), *extra]) == 1
    out, err = capsys.readouterr()
    assert out.strip()
    assert len(err.splitlines()) == 1
    assert "truncated" in err


def test_only_silence_is_no_failure(files: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--model", model, str(files / "silent.wav")]) == 0
    assert capsys.readouterr() == ("\n", "")


class Bomb:
    """What unpickling it would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def funasr(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> Path:
    """The tiny model as a FunASR directory, made by the command."""
    target = tmp_path / "funasr"
    assert main(["convert", model, str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    return target


def test_a_conversion_there_and_back_changes_nothing(
    funasr: Path, files: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    back = files / "back"
    assert main(["convert", str(funasr), str(back), "--graphs"]) == 0
    capsys.readouterr()
    texts = set()
    for directory in (model, str(funasr), str(back)):
        assert main(["transcribe", "--model", directory, str(files / "good.wav")]) == 0
        texts.add(capsys.readouterr().out)
    assert len(texts) == 1


def test_export_makes_a_trained_model_ready_for_the_base_install(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(model, trained, ignore=shutil.ignore_patterns("*.onnx"))
    assert main(["export", str(trained)]) == 0
    assert capsys.readouterr().out == f"{trained}\n"
    for graph in Path(model).glob("*.onnx"):
        assert (trained / graph.name).read_bytes() == graph.read_bytes()
    Bundle.open(trained).verify()


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failing command prints."""
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("paraformer: ")
    return line


def test_models_that_cannot_be_used(funasr: Path, model: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = files / "no-model"
    empty.mkdir()
    assert str(empty) in fails(["transcribe", "--model", str(empty), str(files / "good.wav")], capsys)
    assert "nowhere" in fails(["transcribe", "--model", "./nowhere", str(files / "good.wav")], capsys)

    bare = files / "bare"
    shutil.copytree(model, bare)
    (bare / WEIGHTS).unlink()
    assert WEIGHTS in fails(["transcribe", "--model", str(bare), str(files / "good.wav")], capsys)
    assert WEIGHTS in fails(["info", str(bare)], capsys)

    tensors = torch.load(funasr / "model.pt", weights_only=True)
    missing = tensors.pop("encoder.after_norm.weight")
    torch.save(tensors, funasr / "model.pt")
    assert "encoder.after_norm.weight" in fails(["info", str(funasr)], capsys)
    torch.save({**tensors, "encoder.after_norm.weight": missing[:-1]}, funasr / "model.pt")
    assert "encoder.after_norm.weight" in fails(["info", str(funasr)], capsys)


def test_a_native_model_without_a_tensor(model: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = files / "lacking"
    shutil.copytree(model, lacking)
    tensors = load_file(lacking / WEIGHTS)
    del tensors["encoder.norm.weight"]
    save_file(tensors, lacking / WEIGHTS)
    assert "encoder.norm.weight" in fails(["convert", str(lacking), str(files / "converted")], capsys)


def test_code_in_a_checkpoint_is_refused_and_never_run(
    funasr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (funasr / "model.pt").write_bytes(pickle.dumps({"state_dict": Bomb(tmp_path / "exploded")}))
    assert "model.pt" in fails(["info", str(funasr)], capsys)
    torch.save({"state_dict": Bomb(tmp_path / "exploded")}, funasr / "model.pt")
    assert "model.pt" in fails(["info", str(funasr)], capsys)
    assert not (tmp_path / "exploded").exists()


def test_info(model: str, funasr: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", model]) == 0
    native = capsys.readouterr().out
    assert "sanm, 2 blocks of width 16" in native
    assert "at most 900 ms after" in native
    assert "\n  nothing, live: 0 %\naveraged:    a, b\n" in native
    engine = paraformer.load(model).engine
    runner, found = engine.split()
    if runner == "native":
        engine += f", {kernels(found)} kernels"
    extra = "the base install" if runner == "native" else "the extra [onnx]"
    assert f"runs with:   {engine}, on this machine, by {extra}\n" in native
    assert main(["info", str(funasr)]) == 0
    foreign = capsys.readouterr().out
    assert "runs with:   native" in foreign or "runs with:   torch" in foreign
    assert [line for line in native.splitlines() if "parameters" in line] == [
        line for line in foreign.splitlines() if "parameters" in line
    ]


@pytest.mark.skipif(not families(), reason="the engine was not built")
def test_info_of_a_funasr_directory_needs_no_torch(
    funasr: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["info", str(funasr)]) == 0
    expected = capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["info", str(funasr)]) == 0
    assert capsys.readouterr().out == expected


def test_info_says_what_to_install(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computing, "find_spec", lambda name: None)
    monkeypatch.setenv("PARAFORMER_ISA", "none")
    assert main(["info", model]) == 0
    said = "runs with:   onnx float32, on this machine, once there is the extra: pip install 'paraformer[onnx]'\n"
    assert said in capsys.readouterr().out


@pytest.mark.skipif(len(families()) < 2, reason="there is one kind of kernels here")
def test_info_says_what_would_be_faster(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARAFORMER_ISA", raising=False)
    assert main(["info", model]) == 0
    assert "faster here" not in capsys.readouterr().out
    best = next(iter(families()))
    monkeypatch.setenv("PARAFORMER_ISA", "plain")
    assert main(["info", model]) == 0
    assert f"faster here: the {best} kernels, without PARAFORMER_ISA=plain" in capsys.readouterr().out


def test_conversion_never_overwrites(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").write_text("")
    assert str(tmp_path) in fails(["convert", model, str(tmp_path)], capsys)


def test_pull_of_what_is_not_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no-such-model" in fails(["pull", "no-such-model"], capsys)


def test_channels_of_a_call_from_end_to_end(files: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = tiny.signal(32_000, 1), tiny.signal(32_000, 2)
    soundfile.write(files / "call.wav", np.stack([left, right], 1), 16_000, subtype="FLOAT")
    soundfile.write(files / "left.wav", left, 16_000, subtype="FLOAT")
    soundfile.write(files / "right.wav", right, 16_000, subtype="FLOAT")

    def printed(name: str, *options: str) -> list[str]:
        assert main(["transcribe", "--model", model, str(files / name), *options]) == 0
        return capsys.readouterr().out.splitlines()

    for live in ([], ["--stream"]):
        assert printed("call.wav", "--channel", "1", *live) == printed("left.wav", *live)
        assert printed("call.wav", "--channel", "2", *live) == printed("right.wav", *live)
    assert printed("call.wav", "--channel", "each") == [f"1: {printed('left.wav')[0]}", f"2: {printed('right.wav')[0]}"]
    assert "has 2 channels" in fails(
        ["transcribe", "--model", model, str(files / "call.wav"), "--channel", "3"], capsys
    )


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "mp4", "matroska"])
def test_standard_input_is_heard_while_it_comes(form: str, model: str) -> None:
    """The sender waits for the first text before it sends the rest; mp4 has its index at the end, so it cannot."""
    speech = np.tile(tiny.signal(160_000), 2)
    file = io.BytesIO()
    if form.isupper():
        soundfile.write(file, speech, 16_000, format=form)
    else:
        encode(file, form, speech)
    data = file.getvalue()
    command = [sys.executable, "-m", "paraformer.cli", "transcribe", "--model", model, "--stream", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        half = len(data) if form == "mp4" else len(data) // 2
        process.stdin.write(data[:half])
        process.stdin.flush()
        if form == "mp4":
            process.stdin.close()
        assert process.stdout.read(1)
        process.stdin.write(data[half:]) if form != "mp4" else None
        process.stdin.close()
        assert process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize("extra", [[], ["--stream"]], ids=["whole", "live"])
@pytest.mark.parametrize("form", ["mp4", "mov", "matroska"])
def test_a_film_on_standard_input_is_heard_as_its_file(
    form: str, extra: list[str], model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pipe, in which nobody can go back to an index."""
    file = io.BytesIO()
    encode(file, form, tiny.signal(40_000))
    (tmp_path / "film").write_bytes(file.getvalue())
    assert main(["transcribe", "--model", model, *extra, str(tmp_path / "film")]) == 0
    expected = capfd.readouterr().out
    command = [sys.executable, "-m", "paraformer.cli", "transcribe", "--model", model, *extra, "-"]
    done = subprocess.run(command, input=file.getvalue(), capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, expected, b"")
    assert expected.strip()


def encode(file: io.BytesIO, form: str, speech: np.ndarray) -> None:
    """Speech at 16 kHz as AAC in a file that FFmpeg alone reads."""
    av = pytest.importorskip("av")
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(speech[None], format="fltp", layout="mono")
        frame.rate = 16_000
        resampler = av.AudioResampler(stream.format.name, stream.layout, 16_000, stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--format", "json"], "--ray goes with --output-dir"),
        (["--output-dir", "out"], "--format json or parquet"),
        (["--output-dir", "out", "--format", "json", "--stream"], "no --stream"),
        (["--output-dir", "out", "--format", "json", "--channel", "each"], "--channel each goes without --ray"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "in", "--ray", *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--format", "parquet"], ["--output-dir", "s3://bucket/x"]])
def test_tables_and_buckets_need_a_cluster(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "in", *more]) == 2
    assert "go with --ray" in capsys.readouterr().err


def test_an_fsmn_vad_cuts_where_it_is_asked_to(
    files: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = str(companion_dirs.companion_dir(tmp_path / "vad", "detector"))
    soundfile.write(files / "long.wav", tiny.signal(40 * 16_000), 16_000)
    assert main(["transcribe", "--model", model, "--vad", detector, str(files / "long.wav")]) == 0
    by_command = capsys.readouterr().out
    recognised = paraformer.load(model, vad=detector).transcribe(files / "long.wav")
    assert by_command.splitlines() == [segment.text for segment in recognised.segments]
    assert recognised.segments != paraformer.load(model).transcribe(files / "long.wav").segments
    assert main(["transcribe", "--model", model, "--stream", "--vad", detector, str(files / "good.wav")]) == 2
    assert "leave --stream out" in capsys.readouterr().err


def test_headerless_audio_that_is_a_file_is_told(files: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = fails(["transcribe", "--model", model, "--raw", "16000", str(files / "good.wav")], capsys)
    assert "good.wav is a file of its own format and not headerless PCM" in told
    (files / "page.raw").write_text("<html>404: there is no such recording</html>")
    assert "44 bytes are text and not audio" in fails(["transcribe", "--model", model, str(files / "page.raw")], capsys)


def test_names_that_name_nothing_or_the_home(
    files: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind an equals sign no shell makes a home of ~."""
    assert "an empty name names no file" in fails(["transcribe", "--model", model, ""], capsys)
    monkeypatch.setenv("HOME", str(files))
    assert main(["transcribe", "--model", model, "--output-dir=~/results", str(files / "good.wav")]) == 0
    assert (files / "results" / "good.txt").is_file()
    with pytest.raises(SystemExit):
        main(["transcribe", "--model", model, "--output-dir", "", str(files / "good.wav")])
    assert "an empty name names nothing" in capsys.readouterr().err
