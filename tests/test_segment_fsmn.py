"""FSMN-VAD against the reference's numbers, and what must hold of any detector."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

import paraformer
from paraformer.checkpoint.funasr_detector import read
from paraformer.companions.detector import detector_config
from paraformer.compat import AutoModel
from paraformer.errors import CheckpointError, ConfigError, ModelNotFound, UnsupportedModel
from paraformer.frontend import Cmvn, Frontend
from paraformer.segment.endpoints import EndpointConfig, Endpointer, Span
from paraformer.segment.fsmn import FRONTEND, FsmnConfig, FsmnNetwork, FsmnStream, FsmnVad
from paraformer.settings import from_mapping

GOLDEN = Path(__file__).parent / "golden"
VAD = GOLDEN / "vad"
SETTINGS = json.loads((VAD / "vad.config.json").read_text())


def loaded(name: str) -> Any:
    return json.loads((VAD / f"{name}.json").read_text())


def rules_of(settings: dict[str, Any]) -> EndpointConfig:
    return from_mapping(EndpointConfig, read(settings)["endpoints"], "endpoints")


@cache
def detector() -> FsmnVad:
    network = detector_config(read(SETTINGS)["network"])
    weights = {name: array.astype(np.float32) for name, array in load_file(VAD / "vad.safetensors").items()}
    return FsmnVad(FsmnNetwork(network, weights), Cmvn.parse((VAD / "vad.mvn").read_text()), rules_of(SETTINGS))


@cache
def recording() -> np.ndarray:
    """The recording of the fixtures, int16."""
    with np.load(GOLDEN / "frontend_offline.npz") as arrays:
        wav = arrays["wav_int16"].astype(np.float32) / 32768
    rng = np.random.RandomState(2024)  # as the fixtures were made
    plan = [(0.9, 0), (2.6, 1), (0.35, 0), (1.2, 1), (1.0, 0), (0.25, 2), (1.1, 0), (4.0, 2), (2.4, 0), (3.1, 1)]
    plan += [(0.6, 0), (2.2, 2), (2.3, 0), (6.5, 1), (0.75, 0), (1.0, 2), (1.3, 0)]
    out, pos, speech = [], 0, wav[2000:52000]
    for seconds, who in plan:
        n = int(seconds * 16000)
        x = rng.randn(n).astype(np.float32) * 0.0005
        if who:
            y = speech[(np.arange(n) + pos) % len(speech)]
            pos += n
            x = x + (y if who == 1 else y * (1 - 2 * (np.arange(n) % 2)).astype(np.float32))
        out.append(x)
    return np.clip(np.round(np.concatenate(out) * 32768), -32768, 32767).astype(np.int16)


def samples() -> np.ndarray:
    return recording().astype(np.float32) / 32768


def told(spans: list[Span], began: bool) -> tuple[list[list[int]], bool]:
    """As FunASR tells of them live; began: whether the beginning of the first was told before."""
    out = []
    for span in spans:
        out.append([-1 if began else span.start_ms, span.end_ms if span.closed else -1])
        began = not span.closed
    return out, began


def test_the_recording_is_the_one_of_the_fixtures() -> None:
    told_of, wave = loaded("vad_e2e")["wave"], recording().astype(np.int64)
    assert [len(wave), wave.sum(), abs(wave).sum()] == [told_of["samples"], told_of["sum"], told_of["abs_sum"]]


# -- network and features ---------------------------------------------------------------------------------------------


def test_network() -> None:
    with np.load(VAD / "vad_net.npz") as arrays:
        feats, scores, cache0 = arrays["feats"].astype(np.float32), arrays["scores"], arrays["cache_layer_0"]
    network = detector().network
    whole, past = network.step(feats, network.init_state())
    np.testing.assert_allclose(whole, scores, atol=1e-5)
    # The fixture's features are rounded to 16 bits, which these show, being no probabilities.
    np.testing.assert_allclose(past[0].T[None, :, :, None], cache0, rtol=1e-4, atol=1e-4)
    rows, parts, state = 0, [], network.init_state()
    for size in (1, 0, 7, 30, 2, 80):
        part, state = network.step(feats[rows : rows + size], state)
        parts.append(part)
        rows += size
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


@pytest.mark.parametrize(("tag", "ms"), [("c60", 60), ("c200", 200), ("c10", 10), ("c25", 25)])
def test_features_come_as_soon_as_in_the_reference(tag: str, ms: int) -> None:
    with np.load(VAD / "vad_net.npz") as arrays:
        counts = arrays[f"{tag}__rows"].tolist()
        expected = {name: arrays[name] for name in arrays.files if name.startswith(f"{tag}__") and name[-1].isdigit()}
    wave, frontend = samples()[14000:27577], Frontend(FRONTEND, detector().cmvn)
    state, got = frontend.init_state(), []
    size = ms * 16
    for number in range(len(counts)):
        last = number == len(counts) - 1
        rows, state = frontend.step(wave[number * size : (number + 1) * size], state, final=last)
        got.append(len(rows))
        if f"{tag}__{number}" in expected:
            np.testing.assert_allclose(rows, expected[f"{tag}__{number}"], atol=2e-3)
    assert got == counts


def test_the_published_shape() -> None:
    with (VAD / "state_dict.tsv").open(encoding="utf-8") as file:
        published = {row["key"]: tuple(json.loads(row["shape"])) for row in csv.DictReader(file, delimiter="\t")}
    assert FsmnConfig().shapes() == published


# -- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", loaded("vad_states"), ids=lambda case: f"{case['name']}-{case['mode']}{case['block']}")
def test_rules(case: dict[str, Any]) -> None:
    with np.load(VAD / "vad_states.npz") as arrays:
        silence = arrays[f"sil_prob_{case['name']}"].tolist()
    endpoints = rules_of({**SETTINGS, "model_conf": {**SETTINGS["model_conf"], **case["over"]}})
    rules, block, out, announced, closed = Endpointer(endpoints), case["block"], [], -1, 0
    for start in range(0, len(silence), block):
        for index, score in enumerate(silence[start : start + block], start):
            rules.push(score, -20.0, last=index == len(silence) - 1)
        last = start + block >= len(silence)
        new: list[list[int]] = []
        for span in rules.spans:
            new.append([-1 if announced == closed and case["mode"] == "stream" else span.start_ms, span.end_ms])
            closed += 1
        rules.spans.clear()
        if (span := rules.state.open) and case["mode"] == "stream" and announced < closed:
            new.append([span.start_ms, -1])
            announced = closed
        if span and case["mode"] == "off" and last:
            new.append([span.start_ms, span.end_ms])
        out.append(new)
    assert out == case["out"]


# -- whole and live ---------------------------------------------------------------------------------------------------


def run(stream: FsmnStream, case: dict[str, Any], live: bool) -> list[list[list[int]]]:
    wave, deliver = samples(), case.get("deliver") or len(samples())
    out, began = [], False
    for start in range(0, len(wave), deliver):
        spans = stream.events(wave[start : start + deliver], final=start + deliver >= len(wave))
        if live:
            new, began = told(spans, began)
            out.append(new)
        else:
            out.append([[span.start_ms, span.end_ms] for span in spans if span.closed])
    return out


@pytest.mark.parametrize("case", loaded("vad_e2e")["cases"])
def test_recordings(case: dict[str, Any]) -> None:
    endpoints = rules_of({**SETTINGS, **case["over"]})  # from the top level, as FunASR's vad_kwargs
    vad = replace(detector(), endpoints=endpoints)
    live = case.get("is_streaming_input", case["chunk"] < 15000)
    if silence := case.get("max_end_silence_time"):
        vad = vad.with_endpoints(end_silence_ms=silence)
    dynamic = case.get("dynamic_silence", silence is None)
    if dynamic:
        assert run(vad.stream(dynamic_ms=case["chunk"], live=live), case, live) == case["out"]
        return
    found = run(vad.stream(), case, live)
    if (case.get("deliver") or 0) % (case["chunk"] * 16) == 0:
        assert found == case["out"]
    else:  # FunASR waits for whole pieces, ours does not
        assert list(chain(*found)) == list(chain(*case["out"]))


def test_a_long_recording() -> None:
    expected, wave = loaded("vad_long"), np.tile(samples(), 3)
    assert [[round(a * 1000), round(b * 1000)] for a, b in detector().spans(wave)] == expected["fixed800"]
    for chunk, name in ((60000, "dynamic"), (15000, "chunk15s_dynamic")):
        stream = detector().stream(dynamic_ms=chunk, live=False)
        spans = [*stream.push(wave), *stream.finish()]
        assert [[span.start_ms, span.end_ms] for span in spans] == expected[name]


def test_packets_change_nothing() -> None:
    wave, whole = samples(), detector().spans(samples())
    rng, stream, spans, at = np.random.default_rng(0), detector().stream(), [], 0
    while at < len(wave):
        size = int(rng.integers(0, 9000))
        spans += stream.push(wave[at : at + size])
        at += size
    spans += stream.finish()
    assert [(span.start_ms / 1000, span.end_ms / 1000) for span in spans] == whole


@pytest.mark.parametrize("size", [701, 16000, 504800])
def test_a_recogniser_gets_the_samples_of_segments(size: int) -> None:
    wave = samples()
    cuts = list(detector()(wave[at : at + size] for at in range(0, len(wave), size)))
    for (start, piece), (begins, ends) in zip(cuts, detector().spans(wave), strict=True):
        assert start == begins
        np.testing.assert_array_equal(piece, wave[round(begins * 16000) : round(ends * 16000)])


def test_nothing_and_silence() -> None:
    for wave in (np.zeros(0, np.float32), np.zeros(1, np.float32), np.zeros(48000, np.float32)):
        assert detector().spans(wave) == []


def test_certain_scores_are_no_error() -> None:
    """The reference takes logarithms of them."""
    rules = Endpointer(EndpointConfig())
    for index in range(100):
        rules.push(0.0, -20.0, last=index == 99)
    assert [span.end_ms for span in rules.spans] == [1000]


# -- directories ------------------------------------------------------------------------------------------------------


def funasr_dir(path: Path, **settings: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, **settings}))
    (path / "am.mvn").write_bytes((VAD / "vad.mvn").read_bytes())
    weights = {name: torch.from_numpy(array) for name, array in load_file(VAD / "vad.safetensors").items()}
    torch.save(weights, path / "model.pt")
    return path


def test_from_funasr_to_ours(tmp_path: Path) -> None:
    theirs = FsmnVad.open(funasr_dir(tmp_path / "theirs"))
    theirs.save(tmp_path / "ours")
    ours = FsmnVad.open(tmp_path / "ours")
    assert ours.endpoints == theirs.endpoints
    assert ours.spans(samples()) == theirs.spans(samples()) == detector().spans(samples())


def test_what_is_no_detector(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedModel, match=r"\(CTTransformer\) is a punctuation model and not a detector of speech"
    ):
        FsmnVad.open(funasr_dir(tmp_path, model="CTTransformer"))
    with pytest.raises(UnsupportedModel, match="snr_mode is 1"):
        FsmnVad.open(funasr_dir(tmp_path, model_conf={**SETTINGS["model_conf"], "snr_mode": 1}))
    with pytest.raises(ModelNotFound, match="no model directory"):
        FsmnVad.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="of the wrong shape: encoder"):
        FsmnVad.open(funasr_dir(tmp_path, encoder_conf={**SETTINGS["encoder_conf"], "linear_dim": 25}))
    funasr_dir(tmp_path)
    (tmp_path / "am.mvn").unlink()
    with pytest.raises(ModelNotFound, match=r"am\.mvn"):
        FsmnVad.open(tmp_path)


# -- beside a recogniser ----------------------------------------------------------------------------------------------


def test_beside_a_recogniser(tmp_path: Path) -> None:
    """What is over 30 s long is cut by it; so is what FunASR's calls are given."""
    vad = funasr_dir(tmp_path / "vad")
    wave = samples()
    spoken = [round(start, 3) for start, _ in detector().spans(wave)]
    recognizer = paraformer.load(vad=vad)
    assert [round(start, 3) for start, _ in recognizer.pieces(np.array_split(wave, 40))] == spoken
    theirs = AutoModel("zh-small", vad_model=str(vad), vad_kwargs={"max_single_segment_time": 3000})
    longest = [len(piece) / 16000 for _, piece in theirs.recognizer.pieces(np.array_split(wave, 40))]
    assert len(longest) > len(spoken)
    assert max(longest) <= 3.01
    with pytest.raises(ConfigError, match="nonsense means nothing to FSMN-VAD"):
        AutoModel("zh-small", vad_model=str(vad), vad_kwargs={"nonsense": 1})


def test_mixed_up(tmp_path: Path) -> None:
    vad = funasr_dir(tmp_path / "vad")
    with pytest.raises(
        UnsupportedModel, match="FsmnVADStreaming is a detector of speech and not a recogniser; give it as vad"
    ):
        paraformer.load(vad)
    with pytest.raises(ConfigError, match="vad must be true, false or"):
        paraformer.load(vad=3)  # type: ignore[arg-type]
    with pytest.raises(ModelNotFound):
        paraformer.load(vad=tmp_path)
