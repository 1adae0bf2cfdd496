"""FunASR's SeACo, BiCif and Contextual Paraformers: from their directories to texts and times, and the way back."""

from __future__ import annotations

import csv
import json
import wave as wave_file
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from funasr_dirs import GOLDEN, golden_settings, golden_tensors, write_funasr
from test_model_hotwords import variant

from paraformer import checkpoint, load
from paraformer.bundle import Bundle
from paraformer.certificate.record import Form
from paraformer.checkpoint import funasr, funasr_config, funasr_directory, funasr_writer, strict, torch_file
from paraformer.checkpoint.keys import funasr_names
from paraformer.cli import main
from paraformer.compat import AutoModel
from paraformer.config import (
    ContextualConfig,
    ModelConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SeacoConfig,
    TimingConfig,
)
from paraformer.errors import CheckpointError, ConfigError, UnsupportedModel
from paraformer.export.directories import write
from paraformer.frontend import Cmvn
from paraformer.model.paraformer import Paraformer
from paraformer.recognizer import Recognizer

KINDS = ("bicif", "seaco", "contextual")
E2E = {name: json.loads((GOLDEN / f"{name}_e2e.json").read_text()) for name in KINDS}


def variant_dir(path: Path, name: str) -> Path:
    """A FunASR directory of a golden model, with the words of its fixture."""
    names = funasr_names(variant(name).config, variant(name).state_dict())
    weights = golden_tensors("seaco" if name == "bicif" else name)
    write_funasr(path, name, weights={theirs: weights[theirs].float() for theirs in names.values()})
    words = E2E[name].get("seg_dict", {"hello": "一@@ 丁"})
    (path / "seg_dict").write_text("".join(f"{word} {pieces}\n" for word, pieces in words.items()))
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recognizer]:
    return {name: load(variant_dir(tmp_path_factory.mktemp(name), name), backend="torch") for name in KINDS}


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    with np.load(GOLDEN / "frontend_offline.npz") as arrays:
        return arrays["wav_int16"].astype(np.float32) / 32768


def told(transcript: Any) -> dict[str, Any]:
    """A result as FunASR's: text of units with spaces, times in milliseconds."""
    return {
        "text": " ".join(token.text for token in transcript.tokens),
        "timestamp": [[round(token.start_s * 1000), round(token.end_s * 1000)] for token in transcript.tokens],
    }


def expected(result: dict[str, Any], offset: int = 0) -> dict[str, Any]:
    moved = [[start - offset, end - offset] for start, end in result["timestamp"]]
    return {"text": result["text"], "timestamp": moved}


# -- texts and times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in E2E["seaco"]["cases"] if case["seg_dict"] and "batch" not in case])
def test_seaco_hears_hotwords(case: dict[str, Any], opened: dict[str, Recognizer], wave: np.ndarray) -> None:
    hotwords = None if case["hotword"] is None else case["hotword"].split()
    assert told(opened["seaco"].transcribe(wave, hotwords=hotwords)) == expected(case["result"][0])


@pytest.mark.parametrize("case", [case for case in E2E["seaco"]["cases"] if case["seg_dict"] and case.get("ids")])
def test_hotwords_have_the_reference_ids(case: dict[str, Any], opened: dict[str, Recognizer]) -> None:
    """Where it has nothing but <unk>, the reference listens for that; we leave the word out."""
    vocabulary = opened["seaco"]._model.vocabulary
    ids = [vocabulary.hotword(word) for word in case["hotword"].split()]
    assert [one or [49] for one in ids] + [[1]] == case["ids"]
    assert [one for one in ids if one] == [one for one in case["ids"][:-1] if set(one) != {49}]


def test_a_batch_of_two(opened: dict[str, Recognizer], wave: np.ndarray) -> None:
    case = E2E["seaco"]["cases"][-1]
    results = opened["seaco"].transcribe([wave, wave[20000:50001]], hotwords=case["hotword"].split())
    for result, theirs in zip(results, case["result"], strict=True):
        assert told(result)["text"] == theirs["text"]
        np.testing.assert_allclose(told(result)["timestamp"], expected(theirs, 1000)["timestamp"], atol=1)


def test_bicif(opened: dict[str, Recognizer], wave: np.ndarray) -> None:
    assert told(opened["bicif"].transcribe(wave)) == expected(E2E["bicif"]["single"][0])
    results = opened["bicif"].transcribe([wave, wave[20000:50001]])
    assert [told(one) for one in results] == [expected(one, 250) for one in E2E["bicif"]["batch_begin_time_250"]]


@pytest.mark.parametrize("case", [case for case in E2E["contextual"]["cases"] if "clas_scale" not in case])
def test_contextual(case: dict[str, Any], opened: dict[str, Recognizer], wave: np.ndarray) -> None:
    hotwords = None if case["hotword"] is None else case["hotword"].split()
    assert opened["contextual"].transcribe(wave, hotwords=hotwords).text == case["result"][0]["text"]


def test_neighbours_change_nothing(opened: dict[str, Recognizer], wave: np.ndarray) -> None:
    for name in KINDS:
        recognizer = opened[name] if name == "bicif" else opened[name].with_hotwords(["万丈", "三上"])
        parts = [wave, wave[5000:31000], wave[:9000], wave[20000:50001]]
        together = recognizer.transcribe(parts)
        assert [told(one) for one in together] == [told(recognizer.transcribe(part)) for part in parts]


def test_words_that_the_model_does_not_know(
    opened: dict[str, Recognizer], wave: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = opened["seaco"].transcribe(wave, hotwords=["zzz", "万x"])
    assert "left out 2 of 2 hotwords, of which the model knows no character: zzz, 万x" in caplog.text
    assert unknown == opened["seaco"].transcribe(wave, hotwords=[])
    twice = opened["seaco"].transcribe(wave, hotwords=["AB", "ab"])
    assert twice == opened["seaco"].transcribe(wave, hotwords=["ab"])


def test_a_recogniser_keeps_its_hotwords(opened: dict[str, Recognizer], wave: np.ndarray) -> None:
    listening = opened["seaco"].with_hotwords(["万丈"])
    assert listening.transcribe(wave) == opened["seaco"].transcribe(wave, hotwords=["万丈"])
    assert told(opened["seaco"].transcribe(wave)) == expected(E2E["seaco"]["cases"][3]["result"][0])


def test_a_bicif_listens_by_sound(opened: dict[str, Recognizer], wave: np.ndarray) -> None:
    """It has no way of its own; a list of words that sound like nothing heard changes nothing."""
    assert told(opened["bicif"].with_hotwords(["饕餮"]).transcribe(wave)) == told(opened["bicif"].transcribe(wave))


def test_live_recognition_is_refused(opened: dict[str, Recognizer]) -> None:
    for name in KINDS:
        with pytest.raises(UnsupportedModel, match="whole utterances only"):
            opened[name].stream()


# -- directories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    source = variant_dir(tmp_path / "source", name)
    checkpoint.convert(source, tmp_path / "ours")
    checkpoint.convert(tmp_path / "ours", tmp_path / "theirs")
    first, last = (torch_file.read(path / "model.pt") for path in (source, tmp_path / "theirs"))
    assert first.keys() == last.keys()
    assert all(np.array_equal(array, last[key]) for key, array in first.items())
    configs = [funasr_directory.read(path).config for path in (tmp_path / "theirs", source)]
    assert configs == [variant(name).config] * 2
    assert Bundle.open(tmp_path / "ours").config == variant(name).config


@pytest.mark.parametrize("name", KINDS)
def test_without_torch(name: str, tmp_path: Path, opened: dict[str, Recognizer], wave: np.ndarray) -> None:
    bundle, model = funasr.load(variant_dir(tmp_path / "source", name))
    write(bundle, model, tmp_path / "ours", Form(runtime="paraformer"))
    recognizer = load(tmp_path / "ours", backend="onnx")
    assert recognizer.engine == "onnx float32"
    many = [chr(0x4E07 + index // 3) + chr(0x4E08 + index % 40) for index in range(90)]
    for hotwords in [None] if name == "bicif" else [None, [], ["万丈", "三上", "AB"], many]:
        ours, theirs = (
            [told(one) for one in which.transcribe([wave, wave[20000:50001]], hotwords=hotwords)]
            for which in (recognizer, opened[name])
        )
        assert ours == theirs


@pytest.mark.parametrize("runtime", ["funasr-onnx", "sherpa-onnx"])
def test_other_runtimes_have_no_place_for_hotwords(runtime: Any, tmp_path: Path) -> None:
    bundle, model = funasr.load(variant_dir(tmp_path / "source", "seaco"))
    with pytest.raises(UnsupportedModel, match="hotwords"):
        write(bundle, model, tmp_path / "out", Form(runtime=runtime))


PUBLISHED = {
    "seaco": (
        ModelConfig(vocab_size=8404, predictor=PredictorConfig(timing=TimingConfig()), hotwords=SeacoConfig()),
        1095,
        247_339_018,
    ),
    "bicif": (ModelConfig(vocab_size=8404, predictor=PredictorConfig(timing=TimingConfig())), 968, 225_074_998),
    "contextual": (ModelConfig(vocab_size=8404, hotwords=ContextualConfig()), 970, 228_064_565),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_large_shapes_are_the_published_ones(name: str) -> None:
    config, tensors, parameters = PUBLISHED[name]
    with (GOLDEN / f"state_dict_{name}.tsv").open(encoding="utf-8") as file:
        published = {row["key"]: json.loads(row["shape"]) for row in csv.DictReader(file, delimiter="\t")}
    model = strict.skeleton(config)
    names = funasr_names(config, model.state_dict())
    shapes = {names[ours]: list(tensor.shape) for ours, tensor in model.state_dict().items()}
    assert shapes == published
    assert len(shapes) == tensors
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert funasr_config.read(funasr_writer.write(config), 8404) == config


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_directory_of_published_size(name: str, tmp_path: Path, wave: np.ndarray) -> None:
    """Random weights: it opens, recognises, and comes back from our form as it was."""
    config, tensors, _ = PUBLISHED[name]
    torch.manual_seed(0)
    model = Paraformer(config)
    listed = ("<blank>", "<s>", "</s>", *(chr(0x4E00 + index) for index in range(8400)), "<unk>")
    cmvn = Cmvn(np.zeros(560, np.float32), np.ones(560, np.float32))
    funasr.save(Bundle(None, config, listed, cmvn), model, tmp_path / "theirs")
    del model
    hotwords = None if name == "bicif" else ["一丁", "七"]
    heard = load(tmp_path / "theirs", backend="torch", hotwords=hotwords).transcribe(wave[:32000])
    checkpoint.convert(tmp_path / "theirs", tmp_path / "ours")
    assert load(tmp_path / "ours", backend="torch", hotwords=hotwords).transcribe(wave[:32000]) == heard
    checkpoint.convert(tmp_path / "ours", tmp_path / "back")
    first, last = (torch_file.read(tmp_path / form / "model.pt") for form in ("theirs", "back"))
    assert len(first) == len(last) == tensors
    assert all(np.array_equal(array, last[key]) for key, array in first.items())


@pytest.mark.parametrize(
    ("name", "section", "changes", "kind", "message"),
    [
        ("seaco", "model_conf", {"inner_dim": 64}, ConfigError, "inner_dim is 64"),
        ("seaco", "model_conf", {"bias_encoder_type": "mean"}, UnsupportedModel, "bias_encoder_type is 'mean'"),
        ("seaco", "model_conf", {"NO_BIAS": 50}, ConfigError, "no_bias_id is 50"),
        ("seaco", "model_conf", {"NO_BIAS": "x"}, ConfigError, "NO_BIAS must be like"),
        ("seaco", "seaco_decoder_conf", {"use_output_layer": True}, UnsupportedModel, "use_output_layer is True"),
        ("seaco", "seaco_decoder_conf", {"surprise": 1}, ConfigError, "in seaco_decoder_conf: surprise"),
        ("seaco", "predictor_conf", {"upsample_type": "cnn_attn"}, UnsupportedModel, "upsample_type is 'cnn_attn'"),
        ("bicif", "predictor_conf", {"upsampel_times": 3}, ConfigError, "upsampel_times"),
        ("contextual", "decoder_conf", {"att_layer_num": 0}, ConfigError, "attention"),
    ],
)
def test_settings_that_cannot_be(
    name: str, section: str, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    settings = golden_settings(name)
    settings[section].update(changes)
    with pytest.raises(kind, match=message):
        funasr_config.read(settings, 50)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("seaco", {"predictor": "CifPredictorV2"}),
        ("seaco", {"seaco_decoder": "ParaformerSANDecoder"}),
        ("seaco", {"decoder": "ContextualParaformerDecoder"}),
        ("contextual", {"decoder": "ParaformerSANMDecoder"}),
        ("bicif", {"model": "Paraformer"}),
        ("bicif", {"encoder": "SANMEncoderChunkOpt"}),
    ],
)
def test_parts_that_do_not_go_together(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match=r"not supported"):
        funasr_config.read({**golden_settings(name), **changes}, 50)


def test_what_funasr_has_no_model_for(tmp_path: Path) -> None:
    base = variant("seaco").config
    for config in (
        ModelConfig(**{**vars(base), "predictor": PredictorConfig()}),
        ModelConfig(**{**vars(base), "hotwords": SeacoConfig(no_bias_id=7, recurrent_layers=3)}),
        ModelConfig(**{**vars(base), "hotwords": ContextualConfig(), "decoder": SanmDecoderConfig()}),
    ):
        with pytest.raises(UnsupportedModel, match="FunASR"):
            funasr_writer.check_parts(config)


def test_tensors_are_all_accounted_for(tmp_path: Path) -> None:
    path = variant_dir(tmp_path, "seaco")
    tensors = {key: torch.from_numpy(array.copy()) for key, array in torch_file.read(path / "model.pt").items()}
    (path / "model.pt").rename(path / "whole.pt")  # which is mapped
    torch.save({key: tensor for key, tensor in tensors.items() if key != "bias_encoder.bias_hh_l1"}, path / "model.pt")
    with pytest.raises(CheckpointError, match=r"1 missing: bias_encoder\.bias_hh_l1"):
        funasr.load(path)


# -- where users name hotwords ----------------------------------------------------------------------------------------


def test_hotwords_of_the_command(tmp_path: Path, wave: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    model = variant_dir(tmp_path / "model", "seaco")
    with wave_file.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((wave * 32768).astype(np.int16).tobytes())
    (tmp_path / "words.txt").write_text("万丈\n三上\nAB\n")
    said = []
    for given in (["--hotwords", "万丈 三上 AB"], ["--hotwords", str(tmp_path / "words.txt")], []):
        asked = ["transcribe", "--model", str(model), "--precision", "float32", str(tmp_path / "a.wav"), *given]
        assert main(asked) == 0
        said.append(capsys.readouterr().out.strip().replace(" ", ""))
    assert said[0] == said[1] == "丩丨丞丩丑丞丢上丞丞丞丟"
    assert said[2] == "三丞丞丟丞丞丞丞丞丞丞丞"
    with pytest.raises(SystemExit):
        main(["transcribe", "--model", str(model), str(tmp_path / "a.wav"), "--hotwords", "nowhere.txt"])
    assert "there is no file nowhere.txt" in capsys.readouterr().err


def test_hotwords_of_funasr(tmp_path: Path, wave: np.ndarray) -> None:
    model = AutoModel(str(variant_dir(tmp_path / "model", "seaco")), quantize=False)
    (tmp_path / "words.txt").write_text("万丈\n三上\n")
    heard = [
        model.generate(wave, **options)[0]["text"].replace(" ", "")
        for options in (
            {"hotword": "万丈 三上"},
            {"hotword": str(tmp_path / "words.txt")},
            {"hotword": ["万丈", "三上"]},
        )
    ]
    assert set(heard) == {"丩丨丞丩丑丞丢上丞丞丞丟"}
    plain = model.generate(wave)[0]
    assert model.generate(wave, hotword="nowhere.txt")[0] == plain
    assert plain["timestamp"] == E2E["bicif"]["single"][0]["timestamp"]
