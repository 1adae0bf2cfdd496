"""AutoModel with a detector, punctuation and speakers, against what FunASR told of the same recording."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import punctuation_goldens
import pytest
from funasr_dirs import METAS, write_funasr
from hub_server import serving
from test_segment_fsmn import funasr_dir, samples
from test_speakers import arrays, campplus_dir

from paraformer import ConfigError, UnsupportedModel
from paraformer.compat import AutoModel
from paraformer.compat.cutting import merged
from paraformer.compat.punctuation import characters, punctuate, sentence_records
from paraformer.speakers import Turn, speaker_of, turns, windows

GOLDEN = Path(__file__).parent / "golden/pipeline"
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads((GOLDEN / "cases.json").read_text("utf-8"))["cases"]
}
INPUTS = {
    "two_files": [samples()[:120_000], samples()[200_000:340_000]],
    "novad_punc": samples()[14400:70_000],
}
EXACT = [
    *("vad", "vad_punc", "sentence_nopunc", "batch10_thr3", "batch300", "spk_off", "novad_punc", "two_files"),
]
AFTER_UNKNOWN = ["vad_punc_dynamic", "hotword"]
SHIFTED = ["sentence", "sentence_raw", "sentence_en", "spk", "spk_center"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of the golden models; the recogniser is without a dictionary of English words."""
    root = tmp_path_factory.mktemp("parts")
    model = write_funasr(root / "asr", "seaco")
    (model / "seg_dict").unlink()
    metas = {**METAS, "tokenizer_conf": {"token_list": "tokens.json"}}
    (model / "configuration.json").write_text(json.dumps({"framework": "pytorch", "file_path_metas": metas}))
    return {
        "model": model,
        "vad_model": funasr_dir(root / "vad"),
        "punc_model": punctuation_goldens.write("punc", root / "punc"),
        "spk_model": campplus_dir(root / "spk"),
    }


BUILT: dict[str, AutoModel] = {}


def built(parts: dict[str, Path], build: dict[str, Any]) -> AutoModel:
    """In float32, as FunASR computes; one of each kind."""
    if (key := json.dumps(build, sort_keys=True)) not in BUILT:
        given = {key: parts[key] if one is True else one for key, one in build.items()}
        BUILT[key] = AutoModel(model=parts["model"], quantize=False, **given)
    return BUILT[key]


TOLD: dict[str, list[dict[str, Any]]] = {}


def told(parts: dict[str, Path], name: str) -> list[dict[str, Any]]:
    if name not in TOLD:
        model = built(parts, CASES[name]["build"])
        found = model.generate(input=INPUTS.get(name, samples()), **CASES[name]["generate"])
        TOLD[name] = [{key: value for key, value in one.items() if key != "key"} for one in found]
    return TOLD[name]


@pytest.mark.parametrize("name", EXACT)
def test_as_funasr(name: str, parts: dict[str, Path]) -> None:
    assert told(parts, name) == CASES[name]["result"]


@pytest.mark.parametrize("name", AFTER_UNKNOWN)
def test_times_after_an_unknown_word(name: str, parts: dict[str, Path]) -> None:
    """FunASR gives each word after one its predecessor's time, and none the last one's (docs/quirks.md)."""
    (ours,), (theirs,) = told(parts, name), CASES[name]["result"]
    assert ours["text"] == theirs["text"]
    mine, its = ({tuple(time) for time in one["timestamp"]} for one in (ours, theirs))
    assert 1 <= len(mine - its) == len(its - mine) <= 2
    assert len(ours["timestamp"]) == len(theirs["timestamp"])


@pytest.mark.parametrize("name", SHIFTED)
def test_sentences(name: str, parts: dict[str, Path]) -> None:
    """Times are FunASR's; its texts, from the first pause on, are those of other words (docs/quirks.md)."""
    (ours,), (theirs,) = told(parts, name), CASES[name]["result"]
    assert {key: ours[key] for key in ("text", "timestamp")} == {key: theirs[key] for key in ("text", "timestamp")}
    assert set(ours) == set(theirs)
    assert ours.get("raw_text") == theirs.get("raw_text")
    for mine, its in zip(ours["sentence_info"], theirs["sentence_info"], strict=True):
        assert set(mine) == set(its)
        assert [mine[key] for key in ("start", "end", "timestamp")] == [
            its[key] for key in ("start", "end", "timestamp")
        ]
    if "en_post_proc" not in CASES[name]["generate"]:
        assert "".join(one["text"] for one in ours["sentence_info"]) == ours["text"]
    if name == "sentence_raw":
        assert "".join(one["raw_text"] for one in ours["sentence_info"]) == ours["raw_text"].replace(" ", "")
    paused = next(n for n, (a, b) in enumerate(pairwise(ours["timestamp"])) if b[0] - a[1] > 800)
    before = [one["text"] for one in ours["sentence_info"] if one["end"] < ours["timestamp"][paused][1]]
    assert before == [one["text"] for one in theirs["sentence_info"][: len(before)]]


def funasrs(start: float, end: float, said: list[Turn]) -> int:
    """FunASR's choice of a speaker: the leading overlap counts twice (variants 6.5)."""
    best, speaker = 0.0, 0
    for turn in said:
        overlap = max(0.0, min(end, turn.end_s) - max(start, turn.start_s))
        if overlap > best:
            best, speaker = overlap, turn.speaker
        if overlap > 0 and speaker == turn.speaker:
            best += overlap
    return speaker


@pytest.fixture(scope="module")
def spans(parts: dict[str, Path]) -> list[tuple[float, float]]:
    cutting = built(parts, {"vad_model": True}).teller.cutting
    assert cutting is not None
    cuts = cutting([samples()], {"max_end_silence_time": 800})
    return [(one.start_s, one.end_s) for span, speech in cuts for one in windows(span[0] / 1000, speech)]


@pytest.mark.parametrize("name", ["spk_center", "spk_vad_segment", "spk_nopunc"])
def test_speakers(name: str, parts: dict[str, Path], spans: list[tuple[float, float]]) -> None:
    """By FunASR's groups; ours are the best of several starts, and a sentence is whose most of it is."""
    said = turns(spans, arrays("pipeline_spk")["labels"].tolist())
    (theirs,) = CASES[name]["result"]
    stretches = [(one["start"] / 1000, one["end"] / 1000) for one in theirs["sentence_info"]]
    assert [funasrs(*one, said) for one in stretches] == [one["spk"] for one in theirs["sentence_info"]]
    right = [speaker_of(*one, said) for one in stretches]
    (ours,) = told(parts, name)
    assert sum(mine != one["spk"] for mine, one in zip(right, ours["sentence_info"], strict=True)) <= 2
    if name != "spk_center":
        without = [{key: one[key] for key in one if key != "spk"} for one in ours["sentence_info"]]
        assert without == [{key: one[key] for key in one if key != "spk"} for one in theirs["sentence_info"]]


def test_one_speaker_and_mean_voices(parts: dict[str, Path]) -> None:
    (ours,), (theirs,) = told(parts, "spk"), CASES["spk"]["result"]
    assert [one["spk"] for one in ours["sentence_info"]] == [one["spk"] for one in theirs["sentence_info"]]
    (ours,), (theirs,) = told(parts, "spk_center"), CASES["spk_center"]["result"]
    np.testing.assert_allclose(ours["spk_embedding_center"], theirs["spk_embedding_center"], atol=1e-2)


def test_a_stretch_without_words_loses_no_others(parts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """FunASR then loses the text of the whole recording (docs/quirks.md)."""
    from paraformer.compat.recordings import Stretch

    made = Stretch.of
    monkeypatch.setattr(Stretch, "of", lambda span, tokens, *rest: made(span, () if span[0] == 7120 else tokens, *rest))
    (ours,), (whole,) = told(parts, "one_empty_segment"), CASES["vad_punc"]["result"]
    assert ours["timestamp"] == [time for time in whole["timestamp"] if not 7120 <= time[0] < 11550]
    assert len(ours["text"]) > 90
    assert CASES["one_empty_segment"]["result"] == [{"text": "", "timestamp": []}]


@pytest.mark.parametrize("case", json.loads((GOLDEN / "merge_vad.json").read_text()))
def test_merged_stretches(case: dict[str, Any]) -> None:
    assert merged([(start, end) for start, end in case["in"]], case["max_length"]) == [
        tuple(one) for one in case["out"]
    ]


def test_longer_pieces(parts: dict[str, Path]) -> None:
    asked = {"max_end_silence_time": 800, "merge_vad": True}
    for length in (15.0, 4.0):
        model = AutoModel(parts["model"], vad_model=parts["vad_model"], merge_length_s=length)
        (one,) = model.generate(input=samples(), **asked)
        assert model.teller.cutting is not None
        pieces = [span for span, _ in model.teller.cutting([samples()], asked)]
        assert pieces[0][0] == 0
        assert len(pieces) > 1
        assert one["timestamp"][-1][1] <= pieces[-1][1]
    assert built(parts, {"vad_model": True}).generate(input=np.zeros(32_000, np.float32)) == [
        {"key": "audio0", "text": "", "timestamp": []}
    ]


def test_english_sentences() -> None:
    marks = ("<unk>", "_", "，", "。", "？", "、")
    for case in filter(lambda one: one["punc"], punctuation_goldens.cases("timestamp_sentence")):
        found = sentence_records(case["punc"], marks, case["timestamps"], case["text"].split(), raw=True, english=True)
        expected = case["out_en"]
        assert [one["text"].replace(" ", "") for one in found] == [one["text"].replace(" ", "") for one in expected]
        assert [one["timestamp"] for one in found] == [one["timestamp"] for one in expected]


def test_words_of_a_dictionary_are_counted_in_characters(tmp_path: Path) -> None:
    pytest.importorskip("jieba")
    model = punctuation_goldens.model("punc", tmp_path / "punc", words="万丁丂 100\n")
    marked = punctuate(model, "万 丁 丂 OK 万 丁 丂")
    assert marked.words == ["万丁丂", "OK", "万丁丂"]
    assert characters(model, marked) == ["万", "丁", "丂", "OK", "万", "丁", "丂"]


def test_the_program_of_funasrs_page(parts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published names, of models that a hub has: the import line is all that is changed."""
    modelscope = pytest.importorskip("modelscope_hub")
    names = {
        "iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch": parts["model"],
        "iic/punc_ct-transformer_cn-en-common-vocab471067-large": parts["punc_model"],
        "iic/speech_campplus_sv_zh-cn_16k-common": parts["spk_model"],
        "iic/speech_fsmn_vad_zh-cn-16k-common-pytorch": parts["vad_model"],
    }
    with serving(names) as hub:
        usual = modelscope.get_default_config()
        config = modelscope.HubConfig(endpoint=hub.url, cache_dir=tmp_path / "cache", config_dir=tmp_path / "home")
        modelscope.set_default_config(config)
        model = AutoModel(model="paraformer-zh", vad_model="fsmn-vad", punc_model="ct-punc", spk_model="cam++")
        modelscope.set_default_config(usual)
        (res,) = model.generate(input=samples(), batch_size_s=300, hotword="魔搭")
    assert model.teller.cutting is not None
    assert model.teller.cutting.vad is not None
    assert list(res) == ["key", "text", "timestamp", "sentence_info"]
    assert {"text", "start", "end", "timestamp", "spk"} == set(res["sentence_info"][0])


def test_mistakes(parts: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    for options, words in (
        ({"spk_mode": "default"}, "not one of punc_segment, vad_segment"),
        ({"spk_kwargs": {"cb_kwargs": {"merge": 1}}}, "merge means nothing here"),
        ({"vad_kwargs": {"nonsense": 1}}, "nonsense means nothing"),
        ({"merge_length_s": "long"}, "merge_length_s"),
    ):
        with pytest.raises(ConfigError, match=words):
            AutoModel(**{**{key: parts[key] for key in ("model", "vad_model", "spk_model")}, **options})
    with pytest.raises(UnsupportedModel, match="FsmnVADStreaming"):
        AutoModel(parts["model"], vad_model=parts["vad_model"], spk_model=parts["vad_model"])
    with pytest.raises(UnsupportedModel, match="give vad_model too"):
        AutoModel(parts["model"], spk_model=parts["spk_model"])
    with pytest.raises(UnsupportedModel, match="preset_spk_num is about speakers"):
        AutoModel(parts["model"]).generate(input=samples()[:32_000], preset_spk_num=2)
    model = AutoModel(parts["model"], vad_model="fsmn-vad", spk_model=parts["spk_model"])
    assert "this package's own detector of speech is used" in caplog.text
    for options, words in (
        ({"preset_spk_num": 0}, "preset_spk_num"),
        ({"return_spk_center": "yes"}, "return_spk_center"),
        ({"merge_vads": True}, "merge_vads"),
    ):
        with pytest.raises(ConfigError, match=words):
            model.generate(input=samples()[:32_000], **options)
