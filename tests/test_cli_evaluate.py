from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import tiny_bundle

from paraformer.cli import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two utterances, of which the second has no file."""
    soundfile.write(tmp_path / "a.wav", tiny.signal(24000), 16000)
    (tmp_path / "data.tsv").write_text("path\ttext\na.wav\t今天天气\ngone.wav\t没有\n", encoding="utf-8")
    return tmp_path / "data.tsv"


@pytest.fixture
def good(data: Path) -> Path:
    (data.parent / "good.tsv").write_text("a.wav\t今天 120 度\n", encoding="utf-8")
    return data.parent / "good.tsv"


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


def evaluate_tiny(*arguments: object) -> int:
    return evaluate("--model", tiny_bundle.directory(), *arguments)


def test_prints_figures(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_tiny("--data", good) == 0
    out, err = capsys.readouterr()
    assert "1 utterance," in out and "whole: CER" in out and "as written" in out and "live" not in out
    assert err == ""  # no bar where there is no terminal


def test_a_broken_file_is_reported_and_the_rest_goes_on(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_tiny("--data", data, "--live", "5,10,5") == 1
    out, err = capsys.readouterr()
    assert "1 utterance, 0.00 h, 1 failed" in out
    assert err.count("gone.wav") == 1 and "Traceback" not in err


def test_a_damaged_file_counts_as_failed(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good.parent / "a.wav").write_bytes(b"no audio")
    assert evaluate_tiny("--data", good) == 1
    out, err = capsys.readouterr()
    assert out == "" and "none of the utterances" in err


def test_json_report_and_comparison(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = good.parent / "report.html"
    assert evaluate_tiny("--data", good, "--live", "[4,8,4]", "--look-back", "4/1", "--json", "--report", page) == 0
    printed = capsys.readouterr().out
    assert [one["setting"] for one in json.loads(printed)["passes"]] == ["", "[4,8,4] look-back 4/1"]
    assert "今" in page.read_text(encoding="utf-8")
    (good.parent / "a.json").write_text(printed, encoding="utf-8")
    assert evaluate("--compare", good.parent / "a.json", good.parent / "a.json") == 0
    assert "no difference can be shown" in capsys.readouterr().out


def test_live_takes_the_models_own_setting(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_tiny("--data", good, "--live") == 0
    assert "live [5,10,5] look-back 0/0" in capsys.readouterr().out


def test_other_kinds_of_data(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lhotse")
    kaldi = good.parent / "kaldi"
    kaldi.mkdir()
    (kaldi / "wav.scp").write_text(f"one {good.parent / 'a.wav'}\ntwo {kaldi / 'gone.wav'}\n")
    (kaldi / "text").write_text("one 今天\ntwo 没有\n", encoding="utf-8")
    (kaldi / "utt2spk").write_text("one anna\ntwo anna\n")
    assert evaluate_tiny("--data", kaldi) == 1
    out, err = capsys.readouterr()
    assert "1 utterance, 1 speaker," in out and "1 failed" in out
    assert err.count("two") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either --data DATA or --compare"),
        (("--data", "a.tsv", "--compare", "a", "b"), "either --data DATA or --compare"),
        (("--data", "a.tsv", "--look-back", "4/1"), "goes with --live"),
        (("--data", "a.tsv", "--report", "no/such/place.html"), "no directory no/such"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--live", "5,5"), ("--look-back", "4"), ("--look-back", "-2/0")])
def test_impossible_settings(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate("--data", "a.tsv", *arguments)


def test_it_runs_without_torch(good: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['lhotse'] = None\n"
        "from paraformer.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "evaluate",
        "--model",
        str(tiny_bundle.directory()),
        "--data",
        str(good),
        "--live",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_silence_is_all_deletions(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(good.parent / "a.wav", np.zeros(16000), 16000)
    assert evaluate_tiny("--data", good) == 0
    assert "S 0, D 6, I 0" in capsys.readouterr().out


def test_a_channel_that_is_not_there_fails(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_tiny("--data", good, "--channel", "1") == 0
    capsys.readouterr()
    assert evaluate_tiny("--data", good, "--channel", "2") == 1
    assert "has 1 channel, so there is no channel 2" in capsys.readouterr().err
