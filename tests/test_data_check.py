"""The doctor names each kind of harm, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from speech_archives import RATE, sound_of

from paraformer.data.check import check, units
from paraformer.data.check_report import draw, table, to_json
from paraformer.data.skips import Skips
from paraformer.data.sources import open_data
from paraformer.text import Vocabulary

GOOD = ["一二", "三四", "一二三", "四三二一"]


def write(
    directory: Path, texts: dict[str, str], sounds: dict[str, np.ndarray] | None = None, rate: int = RATE
) -> Path:
    """A table of utterances; each sounds as its text does unless told otherwise."""
    directory.mkdir(exist_ok=True)
    rows = ["path\ttext"]
    for name, text in texts.items():
        sound = (sounds or {}).get(name)
        soundfile.write(directory / f"{name}.flac", sound_of(text) if sound is None else sound, rate)
        rows.append(f"{name}.flac\t{text}")
    (directory / "list.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return directory / "list.tsv"


def found(path: Path, vocabulary: Vocabulary | None = None, test: Path | None = None) -> dict[str, list[str]]:
    skips = Skips(named=0)
    report = check(open_data(path, skips), skips, vocabulary, open_data(test, skips) if test else ())
    problems = to_json(report)["problems"]
    assert report.clean == (not problems)
    return {kind: [one["id"] for one in ones] for kind, ones in problems.items()}


def good() -> dict[str, str]:
    return {f"good{i}": text for i, text in enumerate(GOOD)}


def test_clean_data_are_clean(tmp_path: Path) -> None:
    assert found(write(tmp_path, good())) == {}


def test_files_that_are_missing_broken_or_silent(tmp_path: Path) -> None:
    path = write(tmp_path, {**good(), "silent": "一"}, {"silent": np.zeros(8000)})
    (tmp_path / "cut.flac").write_bytes((tmp_path / "good3.flac").read_bytes()[:3000])
    (tmp_path / "noise.flac").write_bytes(b"noise")
    with path.open("a", encoding="utf-8") as file:
        file.write("gone.flac\t一\ncut.flac\t一\nnoise.flac\t一\n")
    assert found(path) == {
        "unreadable audio": ["noise", "cut"],
        "missing file": ["gone"],
        "silent audio": ["silent"],
    }


@pytest.mark.parametrize("rate", [8000, 48000])
def test_other_sample_rates(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path, {"other": "一二三"}, {"other": np.repeat(sound_of("一二三"), 3)[: 3 * RATE]}, rate)
    assert found(path)["other sample rate"] == ["other"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty text"),
        ("……", "empty text"),
        ("一3", "odd text"),
        ("一\u200b二", "odd text"),
        ("一\ufffd", "odd text"),
        ("<noise>一二", "odd text"),
        ("一ねこ", "odd text"),
        ("〇一，二！Ok", None),
    ],
)
def test_texts(tmp_path: Path, text: str, kind: str | None) -> None:
    problems = found(write(tmp_path, {"odd": text}, {"odd": sound_of("一二")}))
    assert problems.get(kind or "odd text", []) == (["odd"] if kind else [])


def test_durations_and_speaking_rates(tmp_path: Path) -> None:
    many = {f"good{i}": "一二三四" for i in range(20)}
    sounds = {"short": sound_of("一")[:3000], "long": np.tile(sound_of("一二三四"), 23), "slow": sound_of("一" * 20)}
    texts = {"short": "一", "long": "一二三四" * 23, "fast": "一二三四" * 5, "slow": "一二"}
    problems = found(write(tmp_path, {**many, **texts}, {**sounds, "fast": sound_of("一二")}))
    assert problems == {"duration out of line": ["short", "long"], "speaking rate out of line": ["fast", "slow"]}


def test_characters_outside_a_vocabulary(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": "一二", "b": "三hello"}, {"b": sound_of("三三三")})
    assert found(path, Vocabulary(["一", "二", "三", "<unk>"])) == {"unknown characters": ["b"]}
    assert found(
        path, Vocabulary(["一", "三", "hel@@", "lo"], {"hello": ("hel@@", "lo"), "三": ("三",), "一": ("一",)})
    ) == {"unknown characters": ["a"]}


def test_a_test_set_is_held_against_the_training_set(tmp_path: Path) -> None:
    train = write(tmp_path / "train", {"a": "一二", "b": "三一", "c": "二三"})
    other = sound_of("三一")[::-1].copy()
    test = write(tmp_path / "test", {"x": "一，二", "y": "三一", "z": "四"}, {"x": sound_of("一二"), "y": other})
    assert found(train, test=test) == {"shared with the test set": ["a"], "unknown characters": ["z"]}


@given(st.text(st.sampled_from("一二ab 3"), max_size=12))
def test_units_are_the_text_in_pieces(text: str) -> None:
    assert "".join(units(text)) == text.replace(" ", "")
    assert all(len(unit) == 1 or unit.isalpha() for unit in units(text))
    assert units("今天hello world好1") == ["今", "天", "hello", "world", "好", "1"]


def test_reports(tmp_path: Path) -> None:
    skips = Skips()
    report = check(open_data(write(tmp_path, {**good(), "odd": "一2"}, {"odd": sound_of("一二")}), skips), skips)
    shown = table(report)
    assert "5 utterances, 0.00 h; 5 at 16000 Hz" in shown
    assert "odd: '2' can be read in more than one way in '一2'" in shown
    assert json.loads(json.dumps(to_json(report)))["problems"]["odd text"][0]["id"] == "odd"
    pytest.importorskip("matplotlib")
    draw(report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
