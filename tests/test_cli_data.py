"""`paraformer data`: what is printed and written, and the exit codes that scripts go by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_bundle
from speech_archives import RATE, sound_of, write_archive

from paraformer import audio
from paraformer.cli import main
from paraformer.data.prepare import load_cuts
from paraformer.data.reading import load
from paraformer.data.sources import open_data

TEXTS = ["一二", "三四", "一二三"]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    for number, text in enumerate(TEXTS):
        soundfile.write(tmp_path / f"{number}.wav", sound_of(text), RATE)
    rows = "".join(f"{number}.wav,{text}\n" for number, text in enumerate(TEXTS))
    (tmp_path / "talks.csv").write_text("path,text\n" + rows, encoding="utf-8")
    return tmp_path / "talks.csv"


def run(*arguments: object) -> int:
    return main(["data", *map(str, arguments)])


def test_other_data_become_a_prepared_set(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prepare", "other", listed, tmp_path / "out") == 0
    assert capsys.readouterr().out == "talks: 3 utterances, 0.00 h\n"
    assert len(load_cuts(tmp_path / "out", "talks")) == 3
    assert run("prepare", "other", listed, tmp_path / "out", "--name", "mine") == 0
    assert len(load_cuts(tmp_path / "out", "mine")) == 3


def test_what_says_nothing_is_left_out_of_a_prepared_set_and_named(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed.write_text("path,text\n0.wav,\n1.wav, \n2.wav,一二三\n.,一\n", encoding="utf-8")
    assert run("prepare", "other", listed, tmp_path / "out") == 1
    assert [cut.id for cut in load_cuts(tmp_path / "out", "talks")] == ["2"]
    assert "3 left out (2 empty text, 1 missing file)" in capsys.readouterr().out
    assert run("prepare", "other", listed, tmp_path / "out", "--stop") == 1


def test_a_channel_of_recordings_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = sound_of("一二")
    soundfile.write(tmp_path / "call.wav", np.stack([np.zeros_like(sound), sound], axis=1), RATE)
    (tmp_path / "calls.csv").write_text("path,text\ncall.wav,一二\n", encoding="utf-8")
    listed = tmp_path / "calls.csv"
    assert run("prepare", "other", listed, tmp_path / "out", "--channel", "2") == 0
    np.testing.assert_array_equal(
        load(load_cuts(tmp_path / "out", "calls")[0]), audio.read(tmp_path / "call.wav", channel=2)
    )
    assert run("shar", listed, tmp_path / "packed", "--channel", "2") == 0
    assert run("check", listed) == run("check", listed, "--channel", "2") == 0
    capsys.readouterr()
    assert run("check", listed, "--channel", "1") == 1
    assert "silen" in capsys.readouterr().out
    assert run("prepare", "aishell", tmp_path, tmp_path / "out", "--channel", "2") == 1
    assert "--channel goes with other data" in capsys.readouterr().err


def test_bad_utterances_are_left_out_or_end_it(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (listed.parent / "1.wav").unlink()
    assert run("prepare", "other", listed, tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "talks: 2 utterances" in said.out
    assert "1 left out (1 missing file)" in said.out
    assert "1.wav" in said.err
    assert run("prepare", "other", listed, tmp_path / "stopped", "--stop") == 1
    assert "utterance 1: missing file" in capsys.readouterr().err
    assert not (tmp_path / "stopped").exists()


def test_archives_are_unpacked_and_their_audio_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = write_archive(tmp_path / "tones.tar", TEXTS)
    assert run("prepare", "archive", archive, tmp_path / "out") == 0
    assert len(load_cuts(tmp_path / "out", "tones")) == 3
    assert run("prepare", "other", archive, tmp_path / "out") == 1
    assert "use `paraformer data shar`" in capsys.readouterr().err
    assert run("shar", archive, tmp_path / "packed") == 0
    assert "packed: 3 utterances" in capsys.readouterr().out
    assert len(open_data(tmp_path / "packed")) == 3
    assert run("shar", archive, tmp_path / "packed") == 1


def test_check_answers_by_its_exit_code(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", listed) == 0
    assert "no problems" in capsys.readouterr().out
    assert run("check", listed, "--test", listed, "--json") == 1
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["problems"]["shared with the test set"]) == 3
    assert run("check", tmp_path / "nothing") == 2
    assert "there is no" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["prepare", "shar", "check"])
def test_help_says_what_an_action_does(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(action, "--help")
    assert "xit code" in capsys.readouterr().out


def test_check_names_what_opening_left_out_once(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (listed.parent / "1.wav").unlink()
    assert run("check", listed) == 1
    said = capsys.readouterr()
    assert "missing file" in said.out
    assert said.err == ""


def test_check_against_a_model_and_with_a_picture(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert run("check", listed, "--model", tiny_bundle.directory(), "--picture", tmp_path / "a.png") == 1
    assert "unknown characters" in capsys.readouterr().out
    assert (tmp_path / "a.png").is_file()
