"""The doctor names each kind of harm, and no other."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from speech_archives import RATE, sound_of

from paraformer import audio
from paraformer.data.check import check, spoken_words
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


SAMPLE = audio.read(Path(str(files("paraformer"))) / "samples/weather.flac")
CHANGES = {
    "nothing": lambda sound: sound,
    "level": lambda sound: 0.3 * sound,
    "polarity": lambda sound: -sound,
    "silence around it": lambda sound: np.concatenate([np.zeros(3000), sound, np.zeros(5000)]),
    "telephone": lambda sound: soxr.resample(soxr.resample(sound, 16000, 8000), 8000, 16000),
    "mp3": lambda sound: coded(sound, "MP3", "MPEG_LAYER_III"),
    "opus": lambda sound: coded(sound, "OGG", "OPUS"),
    "noise": lambda sound: sound + np.random.default_rng(0).normal(0, 1e-3, len(sound)),
}


def coded(sound: np.ndarray, form: str, subtype: str) -> np.ndarray:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, 16000, subtype, format=form)
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0]


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_sound_is_found_by_sound(tmp_path: Path, change: str) -> None:
    """Whatever was done to it, and whatever its transcript is there."""
    train = write(tmp_path / "train", {"a": "一二三四", "b": "一二三"}, {"a": SAMPLE})
    test = write(tmp_path / "test", {"x": "四三一"}, {"x": CHANGES[change](SAMPLE).astype(np.float32)})
    problems = found(train, test=test)
    assert problems["shared with the test set"] == ["a"]
    assert "'四三一'" in shared(train, test)[0]


def shared(train: Path, test: Path) -> list[str]:
    report = check(open_data(train), Skips(named=0), None, open_data(test))
    return [one.detail for one in report.findings if one.kind == "shared with the test set"]


@pytest.mark.parametrize(
    "other",
    [SAMPLE[::-1], SAMPLE[: len(SAMPLE) // 2], np.roll(SAMPLE, 16000), np.concatenate([SAMPLE[8000:], SAMPLE[:8000]])],
    ids=["backwards", "half of it", "turned", "in another order"],
)
def test_other_sounds_are_not_shared(tmp_path: Path, other: np.ndarray) -> None:
    train, test = (write(tmp_path / name, {"a": "一"}, {"a": x}) for name, x in (("train", SAMPLE), ("test", other)))
    assert shared(train, test) == []


def test_one_sound_has_one_text(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": "一二", "b": "三四", "c": "一，二"}, {"b": sound_of("一二"), "c": sound_of("一二")})
    assert found(path) == {"same sound, another text": ["b"]}


@given(st.text(st.sampled_from("一二ab 3"), max_size=12))
def test_words_are_the_text_in_pieces(text: str) -> None:
    assert "".join(spoken_words(text)) == text.replace(" ", "")
    assert all(len(word) == 1 or word.isalpha() for word in spoken_words(text))
    assert spoken_words("今天hello world好1") == ["今", "天", "hello", "world", "好", "1"]


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
