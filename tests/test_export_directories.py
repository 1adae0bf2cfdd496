"""Directories for other runtimes: what each expects to find, and graphs that compute what torch computes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tiny
import tiny_bundle
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from model_goldens import GOLDEN, golden_model

from paraformer.bundle import Bundle
from paraformer.certificate.checks import stream
from paraformer.certificate.foreign import ForeignBackend
from paraformer.certificate.record import Form
from paraformer.config import ChunkConfig, ConformerEncoderConfig, ModelConfig, SanmDecoderConfig, TrainingChunk
from paraformer.errors import ConfigError, ModelError, UnsupportedModel
from paraformer.export.directories import write
from paraformer.export.foreign import NEVER, first_place, spoken_first
from paraformer.frontend import Cmvn, Frontend
from paraformer.model.paraformer import Paraformer

FORMS = [
    Form(runtime=runtime, live=live, precision=precision)
    for runtime in ("sherpa-onnx", "funasr-onnx")
    for live in (False, True)
    for precision in ("fp32", "int8")
]
WHOLE, LIVE = Form(runtime="sherpa-onnx"), Form(runtime="funasr-onnx", live=True)


def bundle() -> Bundle:
    return Bundle.open(tiny_bundle.directory())


@cache
def exported(form: Form, kind: tiny.Kind = "published") -> Path:
    directory = Path(mkdtemp(prefix="paraformer-export-"))
    write(bundle() if kind == "published" else described(tiny.model(kind)), tiny.model(kind), directory, form)
    return directory


@cache
def backend(form: Form, kind: tiny.Kind = "published") -> ForeignBackend:
    return ForeignBackend(exported(form, kind), form, tiny.config(kind), 1)


def feats(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 560)).astype(np.float32)


def ports(graph: onnx.GraphProto) -> tuple[list[str], list[str]]:
    return [value.name for value in graph.input], [value.name for value in graph.output]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_files_are_those_that_the_runtime_opens(form: Form) -> None:
    around = {"sherpa-onnx": ["tokens.txt"], "funasr-onnx": ["am.mvn", "config.yaml", "tokens.json"]}
    assert sorted(path.name for path in exported(form).iterdir()) == sorted([*form.graphs, *around[form.runtime]])


def test_graphs_have_the_names_that_the_runtimes_document() -> None:
    assert Form(runtime="sherpa-onnx", live=True, precision="int8").graphs == ("encoder.int8.onnx", "decoder.int8.onnx")
    assert Form(runtime="funasr-onnx", live=True, precision="int8").graphs == ("model_quant.onnx", "decoder_quant.onnx")
    assert LIVE.graphs == ("model.onnx", "decoder.onnx")
    whole = onnx.load(exported(WHOLE) / "model.onnx")
    encoder, decoder = (onnx.load(exported(LIVE) / name) for name in LIVE.graphs)
    assert ports(whole.graph) == (["speech", "speech_lengths"], ["logits", "token_num"])
    assert ports(encoder.graph) == (["speech", "speech_lengths"], ["enc", "enc_len", "alphas"])
    fixed = ["enc", "enc_len", "acoustic_embeds", "acoustic_embeds_len"]
    assert ports(decoder.graph) == (
        [*fixed, "in_cache_0", "in_cache_1"],
        ["logits", "sample_ids", "out_cache_0", "out_cache_1"],
    )


@pytest.mark.parametrize("form", [form for form in FORMS if form.runtime == "sherpa-onnx"], ids=str)
def test_metadata_of_sherpa_onnx(form: Form) -> None:
    first = onnx.load(exported(form) / form.graphs[0])
    metadata = {entry.key: entry.value for entry in first.metadata_props}
    numbers = {"vocab_size": "28", "lfr_window_size": "7", "lfr_window_shift": "6"}
    live = {"encoder_output_size": "16", "decoder_num_blocks": "2", "decoder_kernel_size": "5"}
    assert metadata.items() >= {"model_type": "paraformer", **numbers, **(live if form.live else {})}.items()
    cmvn = bundle().cmvn
    np.testing.assert_array_equal(np.array(metadata["neg_mean"].split(","), np.float32), cmvn.shift)
    np.testing.assert_array_equal(np.array(metadata["inv_stddev"].split(","), np.float32), cmvn.scale)
    lines = (exported(form) / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [f"{token} {index}" for index, token in enumerate(tiny.TOKENS)]


def test_settings_of_funasr_onnx() -> None:
    settings = yaml.safe_load((exported(LIVE) / "config.yaml").read_text(encoding="utf-8"))
    assert settings["model_conf"]["predictor_bias"] == 0
    assert settings["frontend_conf"]["dither"] == 0
    assert settings["encoder_conf"]["output_size"] == 16
    assert (settings["decoder_conf"]["num_blocks"], settings["decoder_conf"]["kernel_size"]) == (2, 5)
    assert settings["predictor_conf"]["tail_threshold"] == 0.45
    assert json.loads((exported(LIVE) / "tokens.json").read_text(encoding="utf-8")) == list(tiny.TOKENS)


@pytest.mark.parametrize("form", [form for form in FORMS if form.precision == "int8"], ids=str)
def test_int8_weights_are_signed_and_symmetric_and_the_outputs_stay_in_float(form: Form) -> None:
    for name in form.graphs:
        graph = onnx.load(exported(form) / name).graph
        kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
        products = [node for node in graph.node if node.op_type == "MatMulInteger"]
        assert products
        assert all(kinds[node.input[1]] == onnx.TensorProto.INT8 for node in products)
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        weights = [onnx.numpy_helper.to_array(tensors[node.input[1]]).astype(np.int64) for node in products]
        # Two products with activations of 0 to 255 fit into 16 bits, where processors without VNNI add them up.
        pairs = [2 * 255 * np.abs(weight).max() for weight in weights]
        assert all(2**14 <= pair < 2**15 for pair in pairs)
        points = {node.input[3] for node in products}
        zeros = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in points]
        assert len(zeros) == len(points) and not any(zero.any() for zero in zeros)
        assert any(node.op_type == "MatMul" and "/output/" in f"/{node.name}" for node in graph.node)
        assert not any("/output/" in f"/{node.name}" for node in products)


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_whole_graph_recognises_what_torch_does_in_any_batch(kind: tiny.Kind, lengths: list[int]) -> None:
    utterances = [feats(seed, rows) for seed, rows in enumerate(lengths)]
    got = backend(WHOLE, kind).whole(utterances)
    for rows, decoded in zip(utterances, got, strict=True):
        (expected,) = tiny.backend("torch", kind).whole([rows])
        speaks = expected.ids > 2
        assert len(decoded.ids) == len(expected.ids)
        np.testing.assert_array_equal(decoded.ids[: speaks.sum()], expected.ids[speaks])
        np.testing.assert_allclose(decoded.confidences[: speaks.sum()], expected.confidences[speaks], atol=1e-4)
        assert (decoded.ids[speaks.sum() :] == 2).all()


@given(st.data())
def test_tokens_without_text_come_last_and_as_an_end(data: st.DataObject) -> None:
    ids = torch.tensor(data.draw(st.lists(st.lists(st.integers(0, 6), min_size=4, max_size=4), min_size=1, max_size=3)))
    counts = data.draw(st.lists(st.integers(0, 4), min_size=len(ids), max_size=len(ids)))
    present = torch.arange(4) < torch.tensor(counts)[:, None]
    scores = torch.randn(*ids.shape, 7).log_softmax(-1).scatter(2, ids[..., None], 1.0)
    moved = spoken_first(scores, present)
    for row, mask, out in zip(ids, present, moved, strict=True):
        text = [index for index, there in zip(row.tolist(), mask.tolist(), strict=True) if there and index > 2]
        assert out.argmax(-1).tolist() == text + [2] * (4 - len(text))
    assert moved.min() >= NEVER


@pytest.mark.parametrize("form", [LIVE, Form(runtime="sherpa-onnx", live=True)], ids=str)
@pytest.mark.parametrize("kind", tiny.KINDS)
@given(st.lists(st.integers(1, 35), min_size=1, max_size=3))
def test_live_graphs_step_as_torch_does(form: Form, kind: tiny.Kind, lengths: list[int]) -> None:
    chunk = form.chunk(tiny.config(kind))
    utterances = [feats(seed, rows) for seed, rows in enumerate(lengths)]
    got = stream(backend(form, kind), utterances, chunk)
    expected = stream(tiny.backend("torch", kind), utterances, chunk)
    for ours, theirs in zip(got, expected, strict=True):
        for left, right in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(left.ids, right.ids)
            np.testing.assert_allclose(left.confidences, right.confidences, atol=1e-4)
            np.testing.assert_allclose(left.weights, right.weights, atol=1e-5)


def test_live_graphs_give_the_numbers_of_funasrs_own_export(tmp_path: Path) -> None:
    """Every full step of a recording that funasr-onnx recognised with FunASR's graphs of the golden streaming model."""
    model = golden_model("online")
    tokens = tuple(json.loads((GOLDEN / "tokens.json").read_text(encoding="utf-8")))
    cmvn = Cmvn.parse((GOLDEN / "am.mvn").read_text(encoding="utf-8"))
    write(Bundle(None, model.config, tokens, cmvn), model, tmp_path, LIVE)
    encoder = ort.InferenceSession(str(tmp_path / "model.onnx"))
    runs, chunk = ForeignBackend(tmp_path, LIVE, model.config, 1), ChunkConfig()
    wave = np.load(GOLDEN / "frontend_offline.npz")["wav_int16"].astype(np.float32) / 32768
    rows, state = Frontend(model.config.frontend, cmvn).whole(wave), runs.init_state(chunk)
    with np.load(GOLDEN / "onnx_stream.npz") as arrays:
        for step in range(len(wave) // 9600):
            expected = {name: arrays[f"5_10_5__56100__s{step}__{name}"] for name in ("enc", "alphas", "ids")}
            new = rows[step * 10 : step * 10 + 10]
            speech = np.concatenate([state["overlap"][None], runs._embed(new[None], state["position"][None])], 1)
            got = encoder.run(["enc", "alphas"], {"speech": speech, "speech_lengths": np.array([20], np.int32)})
            np.testing.assert_allclose(got[0], expected["enc"], atol=1e-4)
            np.testing.assert_allclose(got[1], expected["alphas"], atol=1e-4)
            (decoded,), (state,) = runs.step([new], [False], [state], chunk)
            np.testing.assert_array_equal(decoded.ids, expected["ids"][0])


@given(st.integers(-14, 580_000), st.integers(1, 20), st.integers(0, 5))
def test_a_front_finds_its_place_in_the_positions_of_a_runtime(start: int, rows: int, after: int) -> None:
    """Computed in float32, as runtimes do: for ten hours."""
    positions = start + np.arange(rows)
    rates = np.exp(np.arange(280, dtype=np.float32) * (-np.log(np.float32(10000)) / 279))
    marks = np.cos(positions[:, None].astype(np.float32) * rates)[:, 200:] * (positions > 0)[:, None]
    marks = np.pad(marks, ((0, after), (0, 0)))
    place = first_place(torch.from_numpy(marks[None].astype(np.float32)), 280)
    assert place.tolist() == [start if positions[-1] > 0 else -rows - after]


def test_live_graphs_say_0_for_what_is_no_text() -> None:
    decoder = ort.InferenceSession(str(exported(LIVE) / "decoder.onnx"))
    rng = np.random.default_rng(0)
    inputs = {"enc": rng.standard_normal((1, 20, 16)), "acoustic_embeds": 9 * rng.standard_normal((1, 200, 16))}
    inputs |= {f"in_cache_{layer}": np.zeros((1, 16, 4)) for layer in range(2)}
    inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
    inputs |= {"enc_len": np.array([20], np.int32), "acoustic_embeds_len": np.array([200], np.int32)}
    logits, ids = decoder.run(["logits", "sample_ids"], inputs)
    best = logits.argmax(-1)
    np.testing.assert_array_equal(ids, np.where(best > 2, best, 0))


def small(**changes) -> Paraformer:
    return Paraformer(replace(tiny.config(), **changes)).eval()


def described(model: Paraformer, tokens: tuple[str, ...] = tiny.TOKENS) -> Bundle:
    return Bundle(None, model.config, tokens)


def refused(model: Paraformer, form: Form, tmp_path: Path, tokens: tuple[str, ...] = tiny.TOKENS) -> str:
    with pytest.raises((UnsupportedModel, ModelError)) as caught:
        write(described(model, tokens), model, tmp_path, form)
    return str(caught.value)


def test_what_a_runtime_could_not_compute_is_refused(tmp_path: Path) -> None:
    conformer = ConformerEncoderConfig(dim=16, heads=2, ffn_dim=24, layers=1)
    assert "conformer" in refused(small(encoder=conformer, live=None), WHOLE, tmp_path)
    chunked = small(training_chunks=(TrainingChunk(size=12, stride=8),))
    assert "--live" in refused(chunked, WHOLE, tmp_path)
    assert "--live" in refused(chunked, Form(runtime="funasr"), tmp_path)
    decoder = SanmDecoderConfig(heads=2, ffn_dim=24, layers=1, attention_layers=1, kernel=5)
    assert "whole utterances only" in refused(small(decoder=decoder, live=None), LIVE, tmp_path)
    tight = replace(tiny.config("whisper"), frontend=replace(tiny.config().frontend, lfr_m=6))
    assert "where it is" in refused(Paraformer(tight).eval(), LIVE, tmp_path)
    wide = replace(tiny.config().frontend, window="povey")
    assert "its own features" in refused(small(frontend=wide), WHOLE, tmp_path)
    assert "</s>" in refused(tiny.model(), WHOLE, tmp_path, ("<blank>", "</s>", "<s>", *tiny.TOKENS[3:]))


@pytest.mark.parametrize(
    "form",
    [{"live": True}, {"runtime": "funasr", "precision": "int8"}, {"runtime": "sherpa-onnx", "precision": "fp16"}],
    ids=str,
)
def test_forms_that_make_no_sense(form: dict) -> None:
    with pytest.raises(ConfigError):
        Form(**form)


def test_without_statistics_the_runtimes_get_some_that_change_nothing(tmp_path: Path) -> None:
    write(described(tiny.model()), tiny.model(), tmp_path, LIVE)
    cmvn = Cmvn.parse((tmp_path / "am.mvn").read_text(encoding="utf-8"))
    assert (cmvn.shift == 0).all() and (cmvn.scale == 1).all()


@pytest.mark.parametrize(("live", "kind"), [(False, "Paraformer"), (True, "ParaformerStreaming")])
def test_funasr_gets_the_class_for_files_or_for_streams(live: bool, kind: str, tmp_path: Path) -> None:
    config: ModelConfig = tiny.config()
    write(bundle(), tiny.model(), tmp_path, Form(runtime="funasr", live=live))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))["model"] == kind
    assert tiny.model().config == config
