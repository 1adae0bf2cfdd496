"""Weights on disk: in 8 bits what the scales say, the same numbers for all that read them, and refused when damaged."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

import paraformer
from paraformer import contract
from paraformer.backends import panels
from paraformer.backends.base import Decoded
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.native import NativeEngine, available, packed
from paraformer.backends.onnx import OnnxRunner, session_options
from paraformer.backends.torch import TorchBackend
from paraformer.bundle import Bundle
from paraformer.certificate.record import Form
from paraformer.certificate.verify import verify
from paraformer.checkpoint import native
from paraformer.cli import main
from paraformer.errors import CheckpointError, ModelError, ParaformerError
from paraformer.export.certify import export_certified
from paraformer.train.checkpoints import read_weights
from paraformer.weights import SCALE, Stored, places, quantised, storage

MATRICES = hnp.arrays(
    np.float32,
    st.one_of(
        st.tuples(st.integers(16, 40), st.integers(16, 40)),
        st.tuples(st.integers(16, 20), st.integers(16, 20), st.integers(1, 3)),
    ),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
)
NAME = "encoder.blocks.1.feed_forward.up.weight"


@cache
def directory() -> Path:
    """The tiny model with matrices in 8 bits, its graphs and certificate; tests must not write to it."""
    path = Path(mkdtemp(prefix="paraformer-8-bits-")) / "model"
    bundle = Bundle(None, tiny.config(), tiny.TOKENS, tiny.engine().frontend.cmvn)
    export_certified(bundle, tiny.model(), path, Form(precision="w8"))
    return path


@given(MATRICES)
def test_a_weight_is_off_by_half_a_scale_at_most(weight: np.ndarray) -> None:
    pair = quantised(weight)
    assert pair is not None
    whole, scale = pair
    assert (whole.dtype, scale.dtype) == (np.int8, np.float32)
    assert whole.shape == weight.shape and scale.shape == (len(weight), *[1] * (weight.ndim - 1))
    assert whole.min() >= -127 and (scale > 0).all()
    assert (np.abs(whole * scale - weight) <= 0.5001 * scale).all()
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    assert (np.abs(whole).reshape(len(weight), -1).max(1) == 127)[largest > 2e-36].all()


@given(MATRICES)
def test_quantising_again_changes_no_whole_number(weight: np.ndarray) -> None:
    whole, scale = quantised(weight) or (None, None)
    assert whole is not None and scale is not None
    again = quantised(whole * scale)
    assert again is not None
    np.testing.assert_array_equal(again[0], whole)
    np.testing.assert_allclose(again[1], scale, rtol=2**-22)


@pytest.mark.parametrize("shape", [(), (40,), (1, 40), (15, 40), (40, 15), (40, 1, 11), (15, 15, 9)])
def test_what_is_no_matrix_stays_as_it_is(shape: tuple[int, ...]) -> None:
    assert quantised(np.ones(shape, np.float32)) is None


@given(st.dictionaries(st.sampled_from("abc"), MATRICES, max_size=3), st.booleans())
def test_all_that_read_a_file_get_the_same_numbers(matrices: dict[str, np.ndarray], mapped: bool) -> None:
    arrays = {"d.scale": np.ones(3, np.float32), "e": np.full((2, 2), 0.1, np.float32)}
    for name, matrix in matrices.items():
        arrays[name], arrays[name + SCALE] = quantised(matrix) or (None, None)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "some.safetensors"
        save_file(arrays, path)
        stored, tensors = Stored(path, mapped=mapped), native.read(path)
        stored.check_finite()
        assert stored.keys() == tensors.keys() == {"d.scale", "e", *matrices}
        assert len(stored) == len(tensors) and not {name + SCALE for name in matrices} & set(stored)
        for name, tensor in tensors.items():
            assert tensor.dtype == torch.float32
            expected = arrays[name] * arrays[name + SCALE] if name in matrices else arrays[name]
            np.testing.assert_array_equal(tensor.numpy(), expected)
            np.testing.assert_array_equal(stored[name], expected)
        assert storage(path) == ("int8" if matrices else "float32")


def test_matrices_alone_are_kept_in_8_bits() -> None:
    found = places(directory() / contract.WEIGHTS)
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny.model().state_dict().items()}
    small = {name for name, shape in shapes.items() if len(shape) >= 2 and min(shape[:2]) >= 16}
    assert {name for name, place in found.items() if place.kind == "I8"} == small and NAME in small
    assert set(found) == shapes.keys() | {name + SCALE for name in small}
    assert {place.kind for name, place in found.items() if name not in small} == {"F32"}
    assert storage(directory() / contract.WEIGHTS) == "int8"


@cache
def opened() -> dict[str, TorchBackend | GraphBackend]:
    """The model on every engine that computes in float32."""
    bundle, model = native.load(directory())
    config, stored = bundle.config, Stored(directory() / contract.WEIGHTS, mapped=False)
    engines: dict[str, TorchBackend | GraphBackend] = {"torch": TorchBackend(model)}
    engines["onnx"] = GraphBackend(OnnxRunner(directory(), config), config)
    if available("float32"):
        engines["native"] = GraphBackend(NativeEngine(stored, config, "float32"), config)
    return engines


@given(st.integers(1, 40))
def test_every_backend_computes_with_the_same_weights(rows: int) -> None:
    feats = np.random.default_rng(rows).standard_normal((rows, 560)).astype(np.float32)
    found = {name: backend.whole([feats])[0] for name, backend in opened().items()}
    atol = max(1e-4, 2 * tiny.rounding(opened()["torch"], feats))
    for decoded in found.values():
        np.testing.assert_array_equal(decoded.ids, found["torch"].ids)
        np.testing.assert_allclose(log_probs(decoded), log_probs(found["torch"]), atol=atol)
        np.testing.assert_allclose(decoded.weights, found["torch"].weights, atol=1e-5)


def log_probs(decoded: Decoded) -> np.ndarray:
    return torch.from_numpy(decoded.scores).log_softmax(-1).numpy()


@pytest.mark.skipif(not available("int8"), reason="the engine was not built")
def test_the_engine_multiplies_by_the_same_whole_numbers_as_without() -> None:
    config, stored = tiny.config(), Stored(directory() / contract.WEIGHTS, mapped=False)
    ours, plain = packed(stored, config), packed(tiny.model().state_dict(), config)
    assert ours.keys() == plain.keys()
    for name in ours:
        if name.endswith(".words"):
            np.testing.assert_array_equal(ours[name], plain[name])
        elif name.endswith((".scale", ".sum")):
            np.testing.assert_allclose(ours[name], plain[name], rtol=1e-5, atol=1e-6)


@given(MATRICES, st.sampled_from([0, 8]))
def test_panels_of_whole_numbers_are_those_of_the_matrix(weight: np.ndarray, slice_: int) -> None:
    """Slices of one row have its scale, so that nothing is rounded again."""
    matrix = weight.reshape(len(weight), -1)
    whole, scale = quantised(matrix) or (None, None)
    assert whole is not None and scale is not None
    found = panels.pack_whole(whole, scale.reshape(1, -1), panels.Room(), slice_)
    expected = panels.pack(whole * scale, "int8", panels.Room())
    np.testing.assert_array_equal(found.words, expected.words)
    assert found.scale is not None and expected.scale is not None and found.sum is not None
    of_slices = found.scale.reshape(-1, len(expected.scale))
    assert len(of_slices) == (-(-matrix.shape[1] // slice_) if slice_ else 1)
    np.testing.assert_allclose(of_slices, np.broadcast_to(expected.scale, of_slices.shape), rtol=2**-22)
    total = (whole.astype(np.float64) * scale).sum(1)
    sums = found.sum.reshape(of_slices.shape).sum(0, dtype=np.float64)[: len(weight)]
    np.testing.assert_allclose(sums, total, rtol=1e-5, atol=1e-5 * scale.max() * 127)


def test_whether_a_tensor_is_there_is_told_without_reading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Stored(directory() / contract.WEIGHTS, mapped=False)
    monkeypatch.setattr(np, "fromfile", None)
    assert NAME in stored and NAME + SCALE not in stored and "nothing" not in stored


def test_a_directory_in_8_bits_shows_what_every_export_shows(capsys: pytest.CaptureFixture[str]) -> None:
    report = verify(directory())
    assert report.passed and report.certificate.form.precision == "w8"
    Bundle.open(directory()).verify()
    assert main(["info", str(directory())]) == 0
    parameters = sum(tensor.numel() for tensor in tiny.model().state_dict().values())
    assert f"parameters:  {parameters / 1e6:.1f} million" in capsys.readouterr().out


def test_graphs_hold_nothing_of_the_weights() -> None:
    for graph in contract.graphs(tiny.config()):
        held = onnx.load(directory() / graph.file, load_external_data=False).graph
        own = [tensor for tensor in held.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
        assert sum(len(tensor.raw_data) for tensor in own) < 1000
        kinds = {tensor.name: tensor.data_type for tensor in held.initializer}
        assert onnx.TensorProto.INT8 in kinds.values()


def test_a_graph_of_8_bits_costs_no_more_than_one_of_32(tmp_path: Path) -> None:
    """Weights become floating-point numbers when the graph is opened, not in every run."""
    options = session_options(1)
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    onnxruntime.InferenceSession(str(directory() / contract.ENCODER), options, ["CPUExecutionProvider"])
    opened = onnx.load(tmp_path / "opened.onnx", load_external_data=False).graph
    kinds = {node.op_type for node in opened.node}
    assert "MatMul" in kinds and not {kind for kind in kinds if "Linear" in kind or "Integer" in kind}


def test_training_goes_on_from_them() -> None:
    _, model = native.load(directory())
    weights = read_weights(directory() / contract.WEIGHTS)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    feats, lengths = torch.randn(2, 30, 560), torch.tensor([30, 20])
    model.train().encode(feats, lengths).hidden.sum().backward()
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model.encoder.blocks[1].feed_forward.up.weight.grad is not None
    with torch.no_grad():
        model.encoder.blocks[1].feed_forward.up.weight.add_(1.0)
    assert torch.equal(native.read(directory() / contract.WEIGHTS)[NAME], weights[NAME])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_put_in_8_bits(tmp_path: Path, value: float) -> None:
    bundle, model = native.load(directory())
    with torch.no_grad():
        model.encoder.blocks[1].feed_forward.up.weight[0, 0] = value
    with pytest.raises(ModelError, match=rf"{NAME} of the weights holds NaN or infinity".replace(".", r"\.")):
        native.save(bundle, model, tmp_path, stored="int8")
    assert not any(path.suffix == ".safetensors" for path in tmp_path.iterdir())


Arrays = dict[str, np.ndarray]


def without(arrays: Arrays) -> None:
    del arrays[NAME + SCALE]


def set_to(value: float) -> Callable[[Arrays], None]:
    def harm(arrays: Arrays) -> None:
        arrays[NAME + SCALE][-1] = value

    return harm


def shaped(*shape: int) -> Callable[[Arrays], None]:
    def harm(arrays: Arrays) -> None:
        arrays[NAME + SCALE] = np.ones(shape, np.float32)

    return harm


def of_another_kind(arrays: Arrays) -> None:
    arrays[NAME + SCALE] = arrays[NAME + SCALE].astype(np.float16)


HARMS = {
    "missing": (without, rf"holds {NAME} in 8 bits without {NAME}.scale"),
    "NaN": (set_to(np.nan), rf"{NAME}.scale of the weights holds numbers that are no scale"),
    "infinite": (set_to(np.inf), "numbers that are no scale"),
    "zero": (set_to(0.0), "numbers that are no scale"),
    "negative": (set_to(-1.0), "numbers that are no scale"),
    "flat": (shaped(24), rf"{NAME}.scale as F32 of shape \(24,\), not as F32 of shape \(24, 1\)"),
    "short": (shaped(23, 1), r"of shape \(23, 1\)"),
    "for every number": (shaped(24, 16), r"of shape \(24, 16\)"),
    "half": (of_another_kind, r"as F16 of shape \(24, 1\)"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_damaged_scales_are_named_by_all_that_read_them(tmp_path: Path, harm: str) -> None:
    bundle, _ = native.load(directory())
    for path in directory().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    arrays = load_file(tmp_path / contract.WEIGHTS)
    spoil, message = HARMS[harm]
    spoil(arrays)
    save_file(arrays, tmp_path / contract.WEIGHTS)
    Bundle.open(tmp_path).save(tmp_path)  # so that nothing but the scales is wrong
    backends = ["torch", "onnx", *(["native"] if available("float32") else [])]
    for backend in backends:
        with pytest.raises(ParaformerError, match=message):
            paraformer.load(tmp_path, backend=backend, precision="float32")
    for read in (native.load, lambda path: read_weights(path / contract.WEIGHTS)):
        with pytest.raises(CheckpointError if harm in ("missing", "flat") else ModelError, match=message):
            read(tmp_path)
    assert bundle.config == tiny.config()


def test_a_scale_without_its_matrix_is_a_tensor_too_many(tmp_path: Path) -> None:
    bundle, model = native.load(directory())
    native.save(bundle, model, tmp_path)
    arrays = load_file(tmp_path / contract.WEIGHTS)
    save_file({**arrays, NAME + SCALE: np.ones((24, 1), np.float32)}, tmp_path / contract.WEIGHTS)
    with pytest.raises(CheckpointError, match=f"1 unexpected: {NAME}.scale"):
        native.load(tmp_path)
