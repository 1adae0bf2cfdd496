"""The engines behind one protocol: they agree with each other, and a batch is as good as one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from typing import Literal, get_args

import numpy as np
import onnx
import pytest
import tiny
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file

from paraformer import contract
from paraformer.backends import cif, native
from paraformer.backends.base import pad_rows, split_state, stack_states
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.native import NativeEngine, available
from paraformer.backends.onnx import OnnxRunner
from paraformer.backends.panels import Precision
from paraformer.backends.torch import TorchBackend
from paraformer.config import ModelConfig, PredictorConfig, SanmEncoderConfig
from paraformer.errors import ModelError, ModelNotFound
from paraformer.model import cif as torch_cif
from paraformer.model.paraformer import Paraformer
from paraformer.weights import Stored, check_finite

FLOATS = {"min_value": 0, "max_value": 1, "width": 32, "allow_subnormal": False}
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WEIGHTS = hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.floats(**FLOATS))


def feats(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 560)).astype(np.float32)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.sampled_from(tiny.ENGINES), st.sampled_from(tiny.KINDS))
def test_padding_and_order_change_nothing(lengths: list[int], name: str, kind: tiny.Kind) -> None:
    utterances = [feats(seed, rows) for seed, rows in enumerate(lengths)]
    backend = tiny.backend(name, kind)
    alone = [backend.whole([rows])[0] for rows in utterances]
    for order in (list(range(len(lengths))), list(reversed(range(len(lengths))))):
        batch = backend.whole([utterances[index] for index in order])
        for index, got in zip(order, batch, strict=True):
            np.testing.assert_array_equal(got.ids, alone[index].ids)
            np.testing.assert_allclose(got.confidences, alone[index].confidences, atol=1e-4)
            np.testing.assert_allclose(got.weights, alone[index].weights, atol=1e-5)


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(st.integers(1, 60), st.sampled_from(tiny.EXACT))
def test_engines_agree_on_whole_utterances(kind: tiny.Kind, rows: int, name: str) -> None:
    (got,), (torch_,) = (tiny.backend(engine, kind).whole([feats(3, rows)]) for engine in (name, "torch"))
    np.testing.assert_array_equal(got.ids, torch_.ids)
    np.testing.assert_allclose(got.confidences, torch_.confidences, atol=1e-4)
    np.testing.assert_allclose(got.weights, torch_.weights, atol=1e-5)


@given(WEIGHTS)
def test_numpy_and_torch_integrate_and_fire_alike(weights: np.ndarray) -> None:
    hidden = np.random.default_rng(0).standard_normal((*weights.shape, 4)).astype(np.float32)
    counts = cif.token_counts(weights)
    np.testing.assert_array_equal(counts, torch_cif.token_counts(torch.from_numpy(weights)).numpy())
    ours = cif.integrate(hidden, weights, int(counts.max()))
    theirs = torch_cif.integrate(torch.from_numpy(hidden), torch.from_numpy(weights), int(counts.max()))
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@given(WEIGHTS, st.sampled_from(["fixed", "dynamic"]))
def test_numpy_and_torch_complete_utterances_alike(weights: np.ndarray, threshold: Literal["fixed", "dynamic"]) -> None:
    config, lengths = PredictorConfig(threshold=threshold), np.full(len(weights), weights.shape[1])
    total = weights.sum(-1, dtype=np.float64)
    assume(np.abs((total + 1) % 1 - 0.5).min() > 1e-3)  # a sum on the edge may be rounded to either side
    hidden = np.random.default_rng(0).standard_normal((*weights.shape, 4)).astype(np.float32)
    ours = cif.complete(config, hidden, weights, lengths)
    predictor = torch_cif.Predictor(config, 4)
    theirs = predictor.complete(*(torch.from_numpy(array) for array in (hidden, weights, lengths)))
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(left, right.numpy(), atol=1e-5)


@given(WEIGHTS, st.integers(0, 40))
def test_carried_weight_joins_two_stretches(weights: np.ndarray, cut: int) -> None:
    hidden = np.random.default_rng(0).standard_normal((*weights.shape, 4)).astype(np.float32)
    batch = len(weights)
    nothing = np.zeros(batch, np.float32), np.zeros((batch, 4), np.float32)
    whole, counts, rest, _ = cif.step(hidden, weights, *nothing)
    first, first_counts, *carry = cif.step(hidden[:, :cut], weights[:, :cut], *nothing)
    second, second_counts, second_rest, _ = cif.step(hidden[:, cut:], weights[:, cut:], *carry)
    if np.abs((rest + 0.5) % 1 - 0.5).min() < 1e-4 or np.abs((carry[0] + 0.5) % 1 - 0.5).min() < 1e-4:
        return  # a sum on the edge of a whole number may fall to either side
    np.testing.assert_array_equal(first_counts + second_counts, counts)
    np.testing.assert_allclose(second_rest, rest, atol=1e-5)
    for row in range(batch):
        joined = np.concatenate([first[row, : first_counts[row]], second[row, : second_counts[row]]])
        np.testing.assert_allclose(joined, whole[row, : counts[row]], atol=1e-4)


@given(WEIGHTS, st.integers(1, 10), st.integers(0, 2**31))
def test_the_same_steps_are_pauses(weights: np.ndarray, windows: int, seed: int) -> None:
    config = PredictorConfig(pause_weight=0.7)
    carried = np.random.default_rng(seed).random(len(weights), np.float32)
    state = torch_cif.CifState(torch.from_numpy(carried), torch.zeros(len(weights), 4))
    theirs = torch_cif.Predictor(config, 4).paused(torch.from_numpy(weights), windows, state)
    np.testing.assert_array_equal(cif.paused(config, weights, windows, carried), theirs.numpy())


def test_tail_weight_goes_after_the_last_row_of_final_streams() -> None:
    weights = np.full((2, 3), 0.1, np.float32)
    hidden, summed = cif.add_tail(
        PredictorConfig(), np.ones((2, 3, 1), np.float32), weights, np.array([2, 3]), np.array([True, False])
    )
    np.testing.assert_allclose(summed, [[0.1, 0.1, 0.55, 0], [0.1, 0.1, 0.1, 0]], atol=1e-6)
    assert hidden.shape == (2, 4, 1)


@given(st.sampled_from(tiny.CHUNKS))
def test_states_stack_and_split(chunk) -> None:
    backend = tiny.backend("onnx")
    states = [backend.init_state(chunk) for _ in range(3)]
    _, states[1:2] = backend.step([feats(0, chunk.chunk)], [False], [states[1]], chunk)
    unlimited = chunk.encoder_look_back < 0
    for before, after in zip(states, split_state(stack_states(states), unlimited=unlimited), strict=True):
        for name, array in before.items():
            np.testing.assert_array_equal(array, after[name])


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("chunk", tiny.CHUNKS)
def test_first_states_are_the_same_on_both_engines(chunk, kind: tiny.Kind) -> None:
    onnx, torch_ = (tiny.backend(name, kind).init_state(chunk) for name in ("onnx", "torch"))
    assert {name: (array.shape, array.dtype) for name, array in onnx.items()} == {
        name: (array.shape, array.dtype) for name, array in torch_.items()
    }


def test_pad_rows() -> None:
    stacked, lengths = pad_rows([np.ones((2, 1)), np.ones((1, 1))])
    assert stacked.tolist() == [[[1], [1]], [[1], [0]]]
    assert lengths.tolist() == [2, 1]


def test_a_directory_without_graphs_is_named(tmp_path) -> None:
    with pytest.raises(ModelNotFound, match=r"holds no encoder\.onnx"):
        OnnxRunner(tmp_path, tiny.config())


@pytest.mark.parametrize("file", [graph.file for graph in contract.graphs(tiny.config())])
@pytest.mark.parametrize("kept", [0, 9, 1000, -1])
def test_a_broken_graph_is_named(file, kept, tmp_path) -> None:
    """However much of it is left, and whether or not it is needed at once."""
    shutil.copytree(tiny.directory(), tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:kept])
    with pytest.raises(ModelError, match=f"{file} is not a graph"):
        OnnxRunner(tmp_path, tiny.config())
    (tmp_path / file).write_bytes(b"no graph")
    with pytest.raises(ModelError, match=f"{file} is not a graph"):
        OnnxRunner(tmp_path, tiny.config())


def changed(**changes) -> ModelConfig:
    c = tiny.config()
    return replace(c, **{name: replace(getattr(c, name), **values) for name, values in changes.items()})


@pytest.mark.parametrize(
    ("config", "file", "port"),
    [
        (replace(tiny.config(), vocab_size=29), "decoder", "logits"),
        (changed(encoder={"dim": 32}), "encoder", "hidden"),
        (changed(encoder={"layers": 3}), "look_back", "past_keys"),
        (changed(decoder={"kernel": 7, "shift": 3}), "decoder", "fsmn"),
        (changed(frontend={"lfr_m": 6}), "encoder", "feats"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_graphs_of_other_settings_are_named(config, file, port) -> None:
    """By the ports of the first graph that has others, or by what a graph before it tells of its settings."""
    told = rf"({file}\.onnx does not fit the settings beside it, at {port}|encoder\.onnx was made with \S+ \d+, .*)"
    with pytest.raises(ModelError, match=told + "; .* export"):
        OnnxRunner(tiny.directory(), config)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("encoder", "heads", 1),
        ("encoder", "norm_epsilon", 1e-3),
        ("predictor", "smooth_factor", 0.9),
        ("predictor", "noise_threshold", 0.1),
        ("decoder", "heads", 1),
    ],
)
def test_a_graph_of_settings_that_change_no_shape_is_named(kind, part, name, value) -> None:
    config = tiny.config(kind)
    other = replace(config, **{part: replace(getattr(config, part), **{name: value})})
    with pytest.raises(
        ModelError, match=rf"encoder\.onnx was made with {part}\.{name} .*, and the settings .* {value};"
    ):
        OnnxRunner(tiny.directory(kind), other)


def test_settings_that_no_graph_computes_with_may_be_others() -> None:
    OnnxRunner(tiny.directory(), changed(encoder={"dropout": 0.5}, predictor={"tail_threshold": 0.3}))


def test_a_graph_that_does_not_tell_its_settings_needs_a_seal(tmp_path) -> None:
    """Those of earlier versions."""
    shutil.copytree(tiny.directory(), tmp_path, dirs_exist_ok=True)
    for graph in contract.graphs(tiny.config()):
        old = onnx.load(tmp_path / graph.file, load_external_data=False)
        del old.metadata_props[:]
        onnx.save(old, tmp_path / graph.file)
    OnnxRunner(tmp_path, tiny.config(), sealed=True)
    with pytest.raises(ModelError, match=r"encoder\.onnx does not tell which settings .* has no seal; .* export"):
        OnnxRunner(tmp_path, tiny.config())


def test_graphs_in_each_others_place_are_named(tmp_path) -> None:
    shutil.copytree(tiny.directory(), tmp_path, dirs_exist_ok=True)
    shutil.copyfile(tmp_path / "decoder.onnx", tmp_path / "encoder.onnx")
    with pytest.raises(ModelError, match=r"encoder\.onnx does not fit the settings beside it, at feats"):
        OnnxRunner(tmp_path, tiny.config())


def other_weights() -> dict[str, dict[str, torch.Tensor]]:
    """Weights that lie elsewhere in the file, all of them or only some, in a file that is long enough."""
    own, name = tiny.model().state_dict(), "encoder.blocks.0.attention.qkv.weight"
    assert name in own
    return {
        "in float16": {key: tensor.half() for key, tensor in own.items()},
        "of another shape": own | {name: own[name].T.contiguous()},
        "with more before them": {"a": torch.ones(3)} | own,
        "without one": {key: tensor for key, tensor in own.items() if key != name} | {"z": torch.zeros(99_999)},
    }


@pytest.mark.parametrize("case", other_weights())
def test_graphs_beside_other_weights_are_named(case, tmp_path) -> None:
    """ONNX Runtime reads whatever lies where the graph says."""
    shutil.copytree(tiny.directory(), tmp_path, dirs_exist_ok=True)
    save_file(other_weights()[case], tmp_path / contract.WEIGHTS)
    with pytest.raises(ModelError, match=r"encoder\.onnx does not fit model\.safetensors beside it, at .* export"):
        OnnxRunner(tmp_path, tiny.config())


@cache
def wide(kind: tiny.Kind) -> Paraformer:
    """A model all of whose products have three panels of columns and more, and heads that have two."""
    narrow = tiny.config(kind)
    encoder, decoder = (replace(part, ffn_dim=200) for part in (narrow.encoder, narrow.decoder))
    encoder = replace(encoder, dim=144)
    if kind == "whisper":
        assert isinstance(encoder, SanmEncoderConfig) and encoder.windows and decoder.text
        encoder = replace(encoder, windows=replace(encoder.windows, dim=136, ffn_dim=196, layers=2))
        decoder = replace(decoder, text=replace(decoder.text, units=150, ffn_dim=170))
    torch.manual_seed(2)
    model = Paraformer(replace(narrow, vocab_size=300, encoder=encoder, decoder=decoder)).eval()
    with torch.no_grad():
        model.decoder.output.weight.mul_(6.0)
    return model


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("rows", [1, 7, 30, 100])
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-5), ("bfloat16", 0.02), ("int8", 0.04)])
def test_products_of_many_panels(precision: Precision, close: float, rows: int, kind: tiny.Kind) -> None:
    """Relative to the largest log-probability of torch's; every column of every panel is compared."""
    if not native.available(precision):
        pytest.skip(f"the package's engine has no {precision} here")
    config, weights = wide(kind).config, wide(kind).state_dict()
    feats = np.random.default_rng(rows).standard_normal((rows, 560)).astype(np.float32)
    (expected,) = TorchBackend(wide(kind)).whole([feats])
    (got,) = GraphBackend(native.NativeEngine(weights, config, precision), config).whole([feats])
    np.testing.assert_allclose(got.weights, expected.weights, atol=close)
    count = min(len(got.ids), len(expected.ids))  # which may differ by one where a sum is nearly whole
    assert abs(len(got.ids) - len(expected.ids)) <= (precision != "float32")
    scores = [torch.from_numpy(decoded.scores[:count]).log_softmax(-1).numpy() for decoded in (got, expected)]
    np.testing.assert_allclose(scores[0], scores[1], atol=close * np.abs(scores[1]).max(initial=0))


def spoilt(name: str, value: float) -> dict[str, torch.Tensor]:
    weights = {key: tensor.clone() for key, tensor in tiny.model().state_dict().items()}
    weights[name].view(-1)[-1] = value
    return weights


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kept", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["encoder.blocks.1.feed_forward.up.weight", "predictor.output.bias"])
def test_weights_that_are_not_finite_are_named_when_they_are_opened(name, kept, value, tmp_path) -> None:
    weights = {key: tensor.to(kept) for key, tensor in spoilt(name, value).items()}
    message = f"{name} of the weights holds NaN or infinity".replace(".", r"\.")
    model = Paraformer(tiny.config())
    model.load_state_dict(weights)
    with pytest.raises(ModelError, match=message):
        TorchBackend(model)
    for path in tiny.directory().glob("*.onnx"):  # which hold no weights
        shutil.copy(path, tmp_path)
    save_file(weights, tmp_path / contract.WEIGHTS)
    with pytest.raises(ModelError, match=message):
        OnnxRunner(tmp_path, tiny.config())
    for precision in PRECISIONS:
        if available(precision):
            with pytest.raises(ModelError, match=message):
                NativeEngine(Stored(tmp_path / contract.WEIGHTS, mapped=False), tiny.config(), precision)


def test_numbers_whose_sum_is_too_large_are_finite_all_the_same() -> None:
    check_finite("large", np.full(9, np.finfo(np.float32).max))


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("name", tiny.ENGINES)
@pytest.mark.parametrize("chunk", tiny.CHUNKS[2:4])
def test_a_step_that_fails_changes_nothing_and_can_be_taken_again(name, chunk, kind, monkeypatch) -> None:
    """At each of the functions that a step calls."""
    backend = tiny.backend(name, kind)
    state, chunks = backend.init_state(chunk), [feats(seed, chunk.chunk) for seed in range(3)]
    for rows in chunks[:2]:
        _, (state,) = backend.step([rows], [False], [state], chunk)
    before = {key: array.copy() for key, array in state.items()}
    (expected,), (after,) = backend.step([chunks[2]], [False], [state], chunk)
    owner, function = (backend.model.decoder, "step") if name == "torch" else (type(backend._runner), "run")
    original, calls = getattr(owner, function), []

    def failing(*arguments, **named):
        if calls.pop() == "fails":
            raise MemoryError("short")
        return original(*arguments, **named)

    for outcomes in (["fails"], *([["fails", "goes well"]] if name != "torch" else [])):
        calls.extend(outcomes)
        with monkeypatch.context() as patched:
            patched.setattr(owner, function, failing)
            with pytest.raises(MemoryError):
                backend.step([chunks[2]], [False], [state], chunk)
        for key, array in before.items():
            np.testing.assert_array_equal(state[key], array)
        (again,), (following,) = backend.step([chunks[2]], [False], [state], chunk)
        np.testing.assert_array_equal(again.scores, expected.scores)
        for key, array in after.items():
            np.testing.assert_array_equal(following[key], array)
