"""Voices, their groups and turns against the reference's numbers, and what must hold of any."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from test_segment_fsmn import samples

import paraformer
from paraformer.audio import read_blocks
from paraformer.checkpoint.funasr_voices import read
from paraformer.errors import CheckpointError, ConfigError, ModelNotFound, UnsupportedModel
from paraformer.speakers import CamppConfig, Turn, VoiceEncoder, VoiceSpeakers, cluster, speaker_of, turns, windows
from paraformer.speakers.campplus import features
from paraformer.speakers.clusters import by_appearance, merged
from paraformer.types import Token

GOLDEN = Path(__file__).parent / "golden" / "speakers"
SETTINGS = json.loads((GOLDEN / "campplus.config.json").read_text())


def loaded(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key].astype(np.float64 if file[key].dtype.kind == "f" else int) for key in file.files}


@cache
def golden_voices() -> VoiceEncoder:
    return VoiceEncoder(read(SETTINGS), load_file(GOLDEN / "campplus.safetensors"))


# -- voices -----------------------------------------------------------------------------------------------------------


def test_embedding() -> None:
    expected, wave = arrays("campplus"), samples()
    np.testing.assert_allclose(
        golden_voices().embed([expected["fbank"].astype(np.float32)])[0], expected["embedding"], atol=1e-4
    )
    for name, first, last in (("embedding_wave", 14400, 38400), ("embedding_long", 14400, 78400)):
        np.testing.assert_allclose(golden_voices()(wave[first:last]), expected[name], atol=1e-2)


def test_a_shorter_one_of_a_batch_is_as_alone() -> None:
    """The reference pads it with zeros and hears them (docs/quirks.md)."""
    expected, wave = arrays("campplus"), samples()
    found = golden_voices().embed([features(wave[14400:38400]), features(wave[14400:32400])])
    np.testing.assert_allclose(found[0], expected["embedding_padded_batch"][0], atol=1e-2)
    np.testing.assert_array_equal(found[1], golden_voices()(wave[14400:32400]))
    assert abs(expected["embedding_padded_batch"][1] - expected["embedding_second_alone"]).max() > 5e-3


def test_layer_by_layer() -> None:
    """The plain form of the network, inside: of the wave, for which the reference's own features were taken."""
    expected = arrays("campplus")
    weights = {name: array.astype(np.float32) for name, array in load_file(GOLDEN / "campplus.safetensors").items()}
    model = VoiceEncoder(read(SETTINGS), weights, "cpu")._network.model
    seen: dict[str, np.ndarray] = {}

    def keep(name: str, module: torch.nn.Module) -> None:
        module.register_forward_hook(lambda *call: seen.update({name: call[2][0].detach().numpy()}))

    keep("head", model.head)
    for name in ("transit1", "out_nonlinear"):
        keep(name, model.xvector[name])
    model.xvector["dense"].linear.register_forward_hook(
        lambda *call: seen.update(stats=call[1][0][0, :, 0].detach().numpy())
    )
    model(torch.from_numpy(features(samples()[14400:38400]))[None])
    np.testing.assert_allclose(seen["head"][:, :6], expected["cap_head"], atol=1e-2)
    np.testing.assert_allclose(seen["transit1"], expected["cap_transit1"], atol=1e-2)
    np.testing.assert_allclose(np.maximum(seen["out_nonlinear"], 0)[:, :6], expected["cap_out_nonlinear"], atol=1e-2)
    np.testing.assert_allclose(seen["stats"], expected["cap_stats"], atol=1e-2)


def test_features() -> None:
    expected, wave = arrays("campplus"), samples()
    np.testing.assert_allclose(features(wave[14400:38400]), expected["fbank"], atol=1e-2)
    np.testing.assert_allclose(features(wave[14400:78400])[0], expected["fbank_long_row0"], atol=1e-2)


def test_the_published_size() -> None:
    """937 tensors, 122 of which count batches."""
    shapes = CamppConfig().shapes()
    assert len(shapes) == 937 - 122
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 6_848_544 + 82_176


@pytest.mark.parametrize("length", [1, 400, 401, 24000])
def test_any_length_has_a_voice(length: int) -> None:
    assert np.isfinite(golden_voices()(samples()[14400 : 14400 + length])).all()


# -- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["two", "three", "one", "five", "few", "close", "noisy"])
def test_groups(name: str) -> None:
    expected = arrays("cluster")
    assert cluster(expected[f"{name}__X"]).tolist() == expected[f"{name}__labels"].tolist()


def test_groups_of_a_known_number() -> None:
    expected = arrays("cluster")
    found = cluster(expected["oracle__X"], 3)
    assert found.max() == 2
    assert found.tolist() == expected["oracle__labels"].tolist()


def test_near_groups_are_one() -> None:
    expected = arrays("cluster")
    found = merged(expected["merge__X"], expected["merge__in"])
    assert by_appearance(found).tolist() == by_appearance(expected["merge__out"]).tolist()


def test_groups_of_the_pipeline() -> None:
    """Of an untrained network: the best of several starts puts one of 29 elsewhere than the reference's single one."""
    expected = arrays("pipeline_spk")
    found = cluster(expected["embeddings"], 2)
    assert (found != by_appearance(expected["labels"])).sum() == 1


@pytest.mark.parametrize("speakers", [1, 2, 7, 15, 16, 30, 50])
def test_far_voices_are_told_apart(speakers: int) -> None:
    rng = np.random.default_rng(speakers)
    centres = rng.normal(size=(speakers, 64))
    who = np.repeat(np.arange(speakers), 40 if speakers < 20 else 12)
    rows = centres[who] + 0.05 * rng.normal(size=(len(who), 64))
    assert cluster(rows).tolist() == who.tolist()
    assert cluster(rows, speakers).tolist() == who.tolist()


def test_more_windows_than_fit_at_once() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 16))
    who = rng.integers(0, 3, 2600)
    rows = centres[who] + 0.05 * rng.normal(size=(2600, 16))
    assert cluster(rows).tolist() == by_appearance(who).tolist() == cluster(rows, 3).tolist()


# -- windows and turns ------------------------------------------------------------------------------------------------


def test_windows() -> None:
    expected, wave = loaded("sv_chunk"), samples()
    found = []
    for start, _, length in expected["segments"]:
        first = round(start * 16000)
        found += list(windows(start, wave[first : first + length]))
    assert [[round(w.start_s, 6), round(w.end_s, 6), len(w.samples)] for w in found] == [
        [round(start, 6), round(end, 6), length] for start, end, length, _ in expected["chunks"]
    ]
    np.testing.assert_allclose([abs(w.samples).sum() for w in found], [row[3] for row in expected["chunks"]], rtol=1e-5)


@pytest.mark.parametrize("case", loaded("spk_post")["postprocess"])
def test_turns(case: dict[str, Any]) -> None:
    found = turns([(start, end) for start, end in case["segments"]], case["labels"])
    np.testing.assert_allclose([list(turn) for turn in found], case["out"], atol=1e-9)


@pytest.mark.parametrize("name", loaded("spk_post")["cluster"])
def test_numbers_of_speakers(name: str) -> None:
    expected = loaded("spk_post")["cluster"][name]
    voices = arrays("cluster")[f"{name}__X"]
    known = 3 if name == "oracle" else None
    assert cluster(voices, known).max() + 1 == expected["after_merge"]
    assert cluster(voices, known, near=2.0).max() + 1 == expected["num_from_gap"]


@pytest.mark.parametrize("case", loaded("spk_post")["distribute"])
def test_who_says_a_sentence(case: dict[str, Any]) -> None:
    """As the reference but where it counts the longest turn so far twice (docs/quirks.md)."""
    said = [Turn(*turn) for turn in case["sd"]]
    for sentence, theirs in zip(case["sentences"], case["spk"], strict=True):
        start, end = sentence["start"] / 1000, sentence["end"] / 1000
        shares = {
            speaker: sum(max(0.0, min(end, b) - max(start, a)) for a, b, who in case["sd"] if who == speaker)
            for speaker in {0, theirs, *(who for _, _, who in case["sd"])}
        }
        ours = speaker_of(start, end, said)
        assert shares[ours] == pytest.approx(max(shares.values()))
        assert ours == theirs or shares[ours] > shares[theirs]


def test_who_speaks_most() -> None:
    said = [Turn(0, 1, 0), Turn(1, 2.5, 1), Turn(2.5, 4, 0)]
    stretches = ((0, 1), (0.4, 1.3), (0.5, 4), (9, 10))
    assert [speaker_of(start, end, said) for start, end in stretches] == [0, 0, 0, 0]
    assert speaker_of(0.9, 2.6, said) == 1


# -- directories ------------------------------------------------------------------------------------------------------


def test_directories(tmp_path: Path) -> None:
    weights = {name: torch.from_numpy(array) for name, array in load_file(GOLDEN / "campplus.safetensors").items()}
    torch.save(weights, tmp_path / "campplus_cn_common.bin")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    wave = samples()[14400:38400]
    np.testing.assert_array_equal(VoiceEncoder.open(tmp_path)(wave), golden_voices()(wave))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, "model": "FsmnVADStreaming"}))
    with pytest.raises(UnsupportedModel, match="is a detector of speech and not a model of voices"):
        VoiceEncoder.open(tmp_path)
    conf = {**SETTINGS["model_conf"], "growth_rate": 8}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, "model_conf": conf}))
    with pytest.raises(CheckpointError, match="of the wrong shape"):
        VoiceEncoder.open(tmp_path)
    with pytest.raises(ModelNotFound):
        VoiceEncoder.open(tmp_path / "nowhere")


# -- beside a recogniser ----------------------------------------------------------------------------------------------


def campplus_dir(path: Path) -> Path:
    path.mkdir()
    weights = {name: torch.from_numpy(array) for name, array in load_file(GOLDEN / "campplus.safetensors").items()}
    torch.save(weights, path / "campplus_cn_common.bin")
    (path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    return path


def test_tokens_tell_who_says_them(tmp_path: Path) -> None:
    directory = campplus_dir(tmp_path / "voices")
    names = ("company", "meeting", "subway", "weather", "company", "meeting")
    paths = [files("paraformer") / "samples" / f"{name}.flac" for name in names]
    wave = np.concatenate([block for path in paths for block in read_blocks(str(path))])
    told = paraformer.load(speakers=directory, speaker_count=2).transcribe(wave)
    one = paraformer.load(speakers=directory, speaker_count=1).transcribe(wave)
    assert len(told.tokens) > 40
    assert {token.speaker for token in told.tokens} == {0, 1}
    assert {token.speaker for token in one.tokens} == {0}
    assert [replace(token, speaker=0) for token in told.tokens] == list(one.tokens)
    silence = np.zeros(32000, np.float32)
    assert paraformer.load(speakers=directory).transcribe(silence).tokens == ()


def test_labels() -> None:
    rng = np.random.default_rng(0)
    voices = [(n * 0.75, n * 0.75 + 1.5, np.eye(16)[n // 20] + 0.01 * rng.normal(size=16)) for n in range(40)]
    tokens = [Token("好", at, at + 0.2, 1.0) for at in (0.0, 7.0, 20.0, 40.0)]
    found = VoiceSpeakers(golden_voices()).label(tokens, voices)
    assert [token.speaker for token in found] == [0, 0, 1, 1]
    assert VoiceSpeakers(golden_voices()).label(tokens, []) == tokens
    late = [token for token in tokens if token.start_s >= 20]  # the first voice says nothing, as noise does
    assert [token.speaker for token in VoiceSpeakers(golden_voices()).label(late, voices)] == [0, 0]


def test_mixed_up(tmp_path: Path) -> None:
    directory = campplus_dir(tmp_path / "voices")
    with pytest.raises(
        UnsupportedModel, match="CAMPPlus is a model of voices and not a recogniser; give it as speakers"
    ):
        paraformer.load(directory)
    for options in ({"speakers": directory, "speaker_count": 0}, {"speaker_count": 2}):
        with pytest.raises(ConfigError, match="speaker_count"):
            paraformer.load(**options)
