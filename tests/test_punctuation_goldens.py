"""Punctuation against the reference: scores, texts, classes, streams, sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from punctuation_goldens import GOLDEN, cases, model, tensors, write

from paraformer import load_punctuation
from paraformer.checkpoint.funasr_punctuation import _theirs, read_config
from paraformer.compat.punctuation import by_character, punctuate, punctuate_live, sentence_records
from paraformer.model.punctuation import PunctuationModel
from paraformer.punctuation import Punctuation, PunctuationConfig
from paraformer.punctuation.directory import save_bundle
from paraformer.punctuation.network import shapes

MARKS = ("<unk>", "_", "，", "。", "？", "、")


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Punctuation:
    return model("punc", tmp_path_factory.mktemp("punc"))


@pytest.fixture(scope="module")
def realtime(tmp_path_factory: pytest.TempPathFactory) -> Punctuation:
    return model("punc_rt", tmp_path_factory.mktemp("punc_rt"))


def torch_model(name: str) -> PunctuationModel:
    plain = PunctuationModel(read_config(cases(f"{name}.config"), len(cases("punc_tokens")))).eval()
    known = tensors(name)
    plain.load_state_dict({ours: known[_theirs(ours)] for ours in plain.state_dict()})
    return plain


def spoilt(text: str) -> str:
    """What only FunASR's capitals, first space and unknown marks make different."""
    return text.replace("<unk>.", "<unk>。").replace("<unk>", "").strip().casefold()


def test_scores_of_both_forms(offline: Punctuation):
    golden = np.load(GOLDEN / "punc_logits.npz")
    ids = golden["ids"]
    assert np.abs(offline._network.scores(ids) - golden["logits"][0]).max() < 1e-5
    with torch.no_grad():
        scores = torch_model("punc")(torch.from_numpy(ids)[None].long(), torch.tensor([len(ids)]))
    assert np.abs(scores.numpy() - golden["logits"]).max() < 1e-5


def test_scores_without_the_engine_and_in_8_bits(offline: Punctuation, tmp_path: Path):
    golden = np.load(GOLDEN / "punc_logits.npz")
    ids, expected = golden["ids"], golden["logits"][0]
    assert np.abs(Punctuation(offline.bundle)._network.scores(ids) - expected).max() < 1e-5
    save_bundle(offline.bundle, tmp_path, stored="int8")
    assert 0 < np.abs(load_punctuation(tmp_path)._network.scores(ids) - expected).max() < 0.1 * expected.std()


@pytest.mark.parametrize("heard", [0, 1, 2, 7, 25])
def test_scores_of_both_live_forms(heard: int, realtime: Punctuation):
    golden = np.load(GOLDEN / "punc_logits.npz")
    ids, expected = golden["rt_ids"], golden[f"rt_logits_vad{heard}"][0]
    assert np.abs(realtime._network.scores(ids, heard) - expected).max() < 1e-5
    with torch.no_grad():
        scores = torch_model("punc_rt")(
            torch.from_numpy(ids)[None].long(), torch.tensor([len(ids)]), torch.tensor([heard])
        )
    assert np.abs(scores[0].numpy() - expected).max() < 1e-5


def test_padding_and_neighbours_change_nothing():
    plain, ids = torch_model("punc"), torch.arange(1, 22)[None]
    padded = torch.cat([torch.cat([ids, torch.zeros(1, 9, dtype=torch.long)], 1), torch.arange(5, 35)[None]])
    with torch.no_grad():
        alone, among = plain(ids, torch.tensor([21])), plain(padded, torch.tensor([21, 30]))
    assert torch.allclose(alone[0], among[0, :21], atol=1e-5)


def check(found: Any, case: dict[str, Any], classes: list[int]) -> None:
    assert spoilt(found.text.replace(".", "。") if "<unk>" in case["text"] else found.text) == spoilt(case["text"])
    if "<unk>" not in case["text"] and case["text"] == case["text"].casefold() and not case["text"].startswith(" "):
        assert found.text == case["text"]
    assert classes == (case["punc_array"] or [])


@pytest.mark.parametrize("case", cases("punc_cases")["cases"], ids=lambda case: case["in"][:12])
def test_texts(case: dict[str, Any], offline: Punctuation):
    found = punctuate(offline, case["in"])
    assert found.words == case["words"]
    check(found, case, found.classes)


@pytest.mark.parametrize("case", cases("punc_cases")["override"], ids=lambda case: f"{case['name']} {case['in'][:9]}")
def test_texts_of_other_biases(case: dict[str, Any], tmp_path: Path):
    other = model("punc", tmp_path, **{"decoder.bias": torch.tensor([float(bias) for bias in case["bias"]])})
    found = punctuate(other, case["in"])
    check(found, case, found.classes)


@pytest.mark.parametrize("case", cases("punc_cases")["split_size"])
def test_texts_in_other_pieces(case: dict[str, Any], offline: Punctuation):
    found = punctuate(offline, case["in"], case["split_size"])
    check(found, case, found.classes)


def test_texts_cut_by_a_dictionary(tmp_path: Path):
    pytest.importorskip("jieba")
    told = cases("punc_cases")
    other = model("punc", tmp_path, words="\n".join(told["jieba_user_dict"]) + "\n")
    for case in told["jieba"]:
        found = punctuate(other, case["in"])
        assert found.words == case["words"]
        check(found, case, by_character(other, found))


@pytest.mark.parametrize("stream", range(len(cases("punc_rt_cases")["streams"])))
def test_streams(stream: int, realtime: Punctuation):
    before: list[str] = []
    for call in cases("punc_rt_cases")["streams"][stream]:
        found, before = punctuate_live(realtime, call["in"], before)
        assert found.text.replace("<unk>", "") == call["text"].replace("<unk>", "")
        assert found.classes[-len(call["punc_array"]) :] == call["punc_array"]  # the reference tells the last piece
        assert before == call["pre_text"]


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_nothing_is_nothing(text: str, offline: Punctuation, realtime: Punctuation):
    assert punctuate(offline, text).text == ""
    assert punctuate_live(realtime, text, []) == (punctuate(offline, ""), [])


@pytest.mark.parametrize("case", cases("timestamp_sentence"))
def test_sentences(case: dict[str, Any]):
    found = sentence_records(case["punc"], MARKS, case["timestamps"], case["text"].split(), raw=True)
    expected = case["out"]
    assert [{**one, "raw_text": ""} for one in found] == [{**one, "raw_text": ""} for one in expected]
    told = [one["raw_text"].replace(" ", "") for one in found if "raw_text" in one]
    assert told == [one["raw_text"] for one in expected if "raw_text" in one]


def test_a_program_of_funasrs_punctuates_texts(tmp_path: Path):
    from paraformer.compat import AutoModel

    case = cases("punc_cases")["cases"][5]
    told = AutoModel(model=write("punc", tmp_path / "whole")).generate(input=case["in"])
    assert told[0]["text"] == case["text"]
    assert told[0]["punc_array"].tolist() == case["punc_array"]
    assert AutoModel(model=tmp_path / "whole").generate(input="")[0]["punc_array"] is None
    stream, cache = cases("punc_rt_cases")["streams"][0], {}
    live = AutoModel(model=write("punc_rt", tmp_path / "live"))
    for call in stream:
        assert live.generate(input=call["in"], cache=cache)[0]["text"] == call["text"]
        assert cache["pre_text"] == call["pre_text"]


@pytest.mark.parametrize("name", ["ct_punc_c", "ct_punc_large", "ct_punc_realtime"])
def test_published_shapes(name: str):
    """Names and shapes of published models, as their classes make them."""
    lines = (GOLDEN / f"sd_{name}.tsv").read_text("utf-8").splitlines()[1:]
    published = {
        key: tuple(map(int, shape.strip("[]").split(","))) for key, shape, *_ in (line.split("\t") for line in lines)
    }
    large = name.endswith("large")
    config = PunctuationConfig(
        vocab_size=471067 if large else 272727,
        marks=MARKS,
        dim=516 if large else 256,
        heads=12 if large else 8,
        ffn_dim=2048 if large else 1024,
        layers=12 if large else 3 if name.endswith("realtime") else 4,
    )
    assert {_theirs(key): shape for key, shape in shapes(config).items()} == published
