"""`paraformer finetune`: what is printed, the exit codes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_bundle
from speech_archives import write_archive
from training import TEXTS, stopping_after

from paraformer.bundle import Bundle
from paraformer.cli import main
from paraformer.cli.options import parser


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    data = write_archive(tmp_path / "tones.tar", TEXTS)
    command = ["finetune", "--model", str(tiny_bundle.directory()), "--data", str(data), "--out", str(tmp_path / "out")]
    return [*command, "--steps", "3", "--no-gate"]


def test_verdicts_and_the_bundle_are_printed(command: list[str], tmp_path: Path, capsys) -> None:
    assert main([*command, "--general", str(tmp_path / "tones.tar"), "--lora", "1", "--lr", "1e-3"]) == 0
    domain, general, bundle = capsys.readouterr().out.splitlines()
    assert domain.startswith("new domain: ")
    assert general.startswith("general: ")
    assert Bundle.open(bundle).card["fine_tuned"]["lora_rank"] == 1
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert (config["optimiser"]["peak_lr"], config["steps"]) == (1e-3, 3)


def test_a_signal_saves_and_the_same_command_goes_on(command: list[str], tmp_path: Path, capsys) -> None:
    with stopping_after(1):
        assert main(command) == 143
    assert "saved, and the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "out" / "bundle").exists()
    assert main(command) == 0
    assert (tmp_path / "out" / "bundle" / "config.json").is_file()


def test_the_gate_is_shut_for_a_model_without_knowledge(command: list[str], tmp_path: Path, capsys) -> None:
    command.remove("--no-gate")
    assert main(command) == 1
    assert "utterances were not learnt in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [["--lr", "0"], ["--lr", "nan"], ["--lora", "0"], ["--live", "maybe"]])
def test_impossible_values_are_refused(wrong: list[str], command: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command, *wrong])


def test_the_rank_has_a_default() -> None:
    options = parser().parse_args(["finetune", "--data", "d", "--out", "o", "--lora"])
    assert (options.lora, options.gate, options.live) == (8, True, "auto")
