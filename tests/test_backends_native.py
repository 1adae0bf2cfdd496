"""The package's own engine: its layout, its precisions, and what happens where it cannot run."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

import paraformer
from paraformer import contract
from paraformer.backends import layers, native, panels
from paraformer.backends.base import Decoded, LiveState
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.torch import TorchBackend
from paraformer.config import (
    ChunkConfig,
    FrontConfig,
    ModelConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
    TextConfig,
    TimingConfig,
    TransformerDecoderConfig,
)
from paraformer.errors import CheckpointError, ConfigError, ModelError, UnsupportedModel
from paraformer.model.paraformer import Paraformer
from paraformer.native import SWITCH, families
from paraformer.weights import Stored

REDUCED = [name for name in ("bfloat16", "int8") if native.available(name)]
pytestmark = pytest.mark.skipif(not native.available("float32"), reason="the engine was not built")
FRONTS: list[dict[str, Any]] = [
    {},
    {"activation": "relu", "kernel": 5, "shift": 1, "windows": dataclasses.replace(tiny.WINDOWS, layers=0)},
    {"front": FrontConfig(kernels=(5,), strides=(2,)), "windows": dataclasses.replace(tiny.WINDOWS, layers=2)},
    {"front": FrontConfig(kernels=(1, 2, 7), strides=(1, 2, 3), period=4), "windows": None},
    {"front": FrontConfig(kernels=(6, 1), strides=(1, 1), period=1000)},
    {"front": None},
    {"front": None, "windows": None, "kernel": 3},
]
"""Of encoders: one, two, three or six rows to a window, and each part with and without the others."""
MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 130), st.integers(1, 9)),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False),
)


def engine(
    precision: panels.Precision, threads: int = 1, kind: tiny.Kind = "published", model: Paraformer | None = None
) -> GraphBackend:
    made = model or tiny.model(kind)
    return GraphBackend(native.NativeEngine(made.state_dict(), made.config, precision, threads), made.config)


def unpacked(words: np.ndarray, kind: type, n: int, k: int) -> np.ndarray:
    """The numbers of panels, (n, k)."""
    per_word = 4 // np.dtype(kind).itemsize
    panels = words.view(kind).reshape(-(-n // 64), -1, 64, per_word)
    return panels.transpose(0, 2, 1, 3).reshape(-(-n // 64) * 64, -1)[:n, :k]


@given(MATRICES)
def test_packed_weights_are_the_weights(weight: np.ndarray) -> None:
    exact = panels.pack(weight, "float32", panels.Room()).words
    np.testing.assert_array_equal(unpacked(exact, np.float32, *weight.shape), weight)
    half = panels.pack(weight, "bfloat16", panels.Room()).words
    bits = unpacked(half, np.uint16, *weight.shape).astype(np.uint32) << 16
    np.testing.assert_allclose(bits.view(np.float32), weight, rtol=2**-8, atol=1e-37)
    packed = panels.pack(weight, "int8", panels.Room())
    assert packed.scale is not None and packed.sum is not None
    scale = packed.scale
    whole = unpacked(packed.words, np.uint8, *weight.shape).astype(np.int32) - 128
    assert np.abs(whole).max() <= 127
    np.testing.assert_allclose(packed.sum[: len(weight)], scale[: len(weight)] * whole.sum(1), rtol=1e-5, atol=1e-30)
    error = np.abs(whole * scale[: len(weight), None] - weight)
    assert (error <= 0.5001 * scale[: len(weight), None] + 1e-37).all()


def test_slices_have_scales_of_their_own() -> None:
    weight = np.random.default_rng(0).standard_normal((70, 300)).astype(np.float32)
    weight[:, 130] = 300
    packed, alone = (panels.pack(weight, "int8", panels.Room(), size) for size in (128, 0))
    assert packed.scale is not None and packed.sum is not None and alone.scale is not None
    whole = unpacked(packed.words, np.uint8, *weight.shape).astype(np.int32) - 128
    for number, part in enumerate(panels._slices(300, 128)):
        own = slice(number * 128, number * 128 + 70)
        scale = packed.scale[own, None]
        assert (np.abs(whole[:, part] * scale - weight[:, part]) <= 0.5001 * scale).all()
        np.testing.assert_allclose(packed.sum[own], scale[:, 0] * whole[:, part].sum(1), rtol=1e-5, atol=1e-6)
        assert (scale[:, 0] < 0.5 * alone.scale[:70]).all() == (number != 1)


def test_arrays_in_a_room_begin_at_cache_lines_and_apart() -> None:
    room = panels.Room()
    taken = [room.bytes(size) for size in (1, 63, 64, 1000, 20 << 20, 1)]
    assert all(array.ctypes.data % 64 == 0 for array in taken)
    for index, array in enumerate(taken):
        array[:] = index
    assert all((array == index).all() for index, array in enumerate(taken))


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-5), ("bfloat16", 0.02), ("int8", 0.05)])
def test_scores_are_near_those_of_onnx_runtime(precision: panels.Precision, close: float, kind: tiny.Kind) -> None:
    """Relative to the largest score; in float32 that is 1e-4 on the scores themselves."""
    if not native.available(precision):
        pytest.skip(f"this processor has no {precision}")
    graph, rng = contract.decoder(tiny.config(kind)), np.random.default_rng(0)
    sizes = {"B": 2, "K": 9, "L": 4}
    shapes = {port.name: [sizes.get(str(axis), axis) for axis in port.axes] for port in graph.inputs}
    inputs = {name: rng.standard_normal(shapes[name]).astype(np.float32) for name in ("memory", "embeds", "fsmn")}
    inputs |= {"memory_mask": np.arange(9)[None] < np.array([[9], [6]]), "counts": np.array([4, 2])}
    backend = tiny.backend("onnx", kind)
    assert isinstance(backend, GraphBackend)
    runners = (backend._runner, engine(precision, kind=kind)._runner)
    expected, got = (runner.run(graph, inputs) for runner in runners)
    for row, count in enumerate(inputs["counts"]):
        error = np.abs(got[0][row, :count] - expected[0][row, :count]).max()
        assert error <= close * np.abs(expected[0]).max()
    np.testing.assert_allclose(got[1], expected[1], atol=10 * close)


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("encoder", FRONTS)
@pytest.mark.parametrize("text", [None, TextConfig(units=1, layers=0, ffn_dim=30), TextConfig(units=70, ffn_dim=20)])
def test_encoders_and_decoders_of_every_setting(
    encoder: dict[str, Any], text: TextConfig | None, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARAFORMER_ISA", family)
    model = made_of(tuple(encoder.items()), text)
    utterances = [np.random.default_rng(n).standard_normal((n, 560)).astype(np.float32) for n in (1, 30)]
    chunk = ChunkConfig(left=2, chunk=3, right=1, encoder_look_back=1, decoder_look_back=1)
    torch_, ours = TorchBackend(model), engine("float32", 2, model=model)
    for got, expected in zip(ours.whole(utterances), torch_.whole(utterances), strict=True):
        assert_near(got, expected)
    states: list[list[LiveState]] = [[backend.init_state(chunk)] for backend in (torch_, ours)]
    for start in range(0, 13, 3):
        rows = [utterances[1][start : min(start + 3, 13)]]
        steps = [
            backend.step(rows, [start == 12], state, chunk)
            for backend, state in zip((torch_, ours), states, strict=True)
        ]
        states = [state for _, state in steps]
        assert_near(steps[1][0][0], steps[0][0][0])
        for name in ("keys", "values", "fsmn", "memory"):
            np.testing.assert_allclose(states[1][0][name], states[0][0][name], atol=1e-4)


def assert_near(got: Decoded, expected: Decoded) -> None:
    np.testing.assert_array_equal(got.ids, expected.ids)
    np.testing.assert_allclose(got.weights, expected.weights, atol=1e-5)
    np.testing.assert_allclose(got.confidences, expected.confidences, atol=1e-4)
    assert (got.units is None) == (expected.units is None)
    if got.units is not None and expected.units is not None:
        np.testing.assert_allclose(got.units, expected.units, atol=1e-3)


@cache
def made_of(encoder: tuple[tuple[str, Any], ...], text: TextConfig | None) -> Paraformer:
    """A tiny model with some settings changed."""
    config = tiny.config("whisper")
    assert isinstance(config.encoder, SanmEncoderConfig) and isinstance(config.decoder, SanmDecoderConfig)
    torch.manual_seed(3)
    parts = {
        "encoder": dataclasses.replace(config.encoder, **dict(encoder)),
        "decoder": dataclasses.replace(config.decoder, text=text),
    }
    model = Paraformer(dataclasses.replace(config, **parts)).eval()
    with torch.no_grad():
        model.predictor.output.weight.mul_(4.0)
        model.decoder.output.weight.mul_(6.0)
    return model


LAYERS = {
    "published": ("qkv", "out", "up", "down", "cross", "final", "output", "conv"),
    "whisper": ("front", "windows_of_rows", "merge", "up", "text", "units", "back"),
}


@pytest.mark.parametrize(("kind", "layer"), [(kind, layer) for kind in tiny.KINDS for layer in LAYERS[kind]])
def test_layers_of_all_formats_may_follow_each_other(
    layer: str, kind: tiny.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share the space that their rows are made ready in."""
    if not all(native.available(precision) for precision in ("bfloat16", "int8")):
        pytest.skip("this processor has not both")
    linear = layers.Weights.linear

    def mixed(self: layers.Weights, name: str, *shape: int, **settings: Any) -> Any:
        if layer in name.split("."):
            settings["precision"] = "float32"
        return linear(self, name, *shape, **settings)

    rows = np.random.default_rng(7).standard_normal((30, 560)).astype(np.float32)
    (expected,) = engine("float32", kind=kind).whole([rows])
    monkeypatch.setattr(layers.Weights, "linear", mixed)
    (got,) = engine("int8", kind=kind).whole([rows])
    np.testing.assert_allclose(got.weights, expected.weights, atol=0.05)
    np.testing.assert_allclose(got.scores, expected.scores, atol=0.1 * np.abs(expected.scores).max())


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=4), precision=st.sampled_from(REDUCED or ["float32"]))
def test_not_one_bit_depends_on_the_batch(kind: tiny.Kind, lengths: list[int], precision: panels.Precision) -> None:
    """A row's sums are taken in one order, whatever stands beside it."""
    utterances = [np.random.default_rng(n).standard_normal((n, 560)).astype(np.float32) for n in lengths]
    backend = tiny.backend(precision, kind)
    for decoded, rows in zip(backend.whole(utterances), utterances, strict=True):
        (alone,) = backend.whole([rows])
        np.testing.assert_array_equal(decoded.ids, alone.ids)
        np.testing.assert_array_equal(decoded.weights, alone.weights)
        np.testing.assert_array_equal(decoded.confidences, alone.confidences)


@cache
def divided(precision: panels.Precision, threads: int, kind: tiny.Kind = "published") -> GraphBackend:
    return engine(precision, threads, kind)


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    threads=st.integers(2, 5),
    precision=st.sampled_from(["float32", *REDUCED]),
    chunk=st.sampled_from(tiny.CHUNKS),
)
def test_not_one_bit_depends_on_the_threads(
    kind: tiny.Kind, lengths: list[int], threads: int, precision: panels.Precision, chunk: ChunkConfig
) -> None:
    utterances = [np.random.default_rng(n).standard_normal((n, 560)).astype(np.float32) for n in lengths]
    alone, together = divided(precision, 1, kind), divided(precision, threads, kind)
    for one, two in zip(alone.whole(utterances), together.whole(utterances), strict=True):
        assert_same(one, two)
    states = [backend.init_state(chunk) for backend in (alone, together)]
    for start in (0, chunk.chunk, 2 * chunk.chunk):
        outcomes = []
        for number, backend in enumerate((alone, together)):
            rows = np.random.default_rng(start).standard_normal((chunk.chunk, 560)).astype(np.float32)
            decoded, (states[number], *_) = backend.step([rows] * 3, [False] * 3, [states[number]] * 3, chunk)
            outcomes.append(decoded[2])
        assert_same(*outcomes)
        for name, array in states[0].items():
            np.testing.assert_array_equal(array, states[1][name])


def assert_same(one: Decoded, two: Decoded) -> None:
    np.testing.assert_array_equal(one.ids, two.ids)
    np.testing.assert_array_equal(one.weights, two.weights)
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.units, two.units)


def test_callers_that_come_together_do_not_wait_for_each_other_for_ever() -> None:
    rows = [np.random.default_rng(n).standard_normal((30 + n, 560)).astype(np.float32) for n in range(24)]
    expected = [divided("float32", 1).whole([one])[0] for one in rows]
    with ThreadPoolExecutor(6) as callers:
        for one, two in zip(
            callers.map(lambda one: divided("float32", 3).whole([one])[0], rows), expected, strict=True
        ):
            assert_same(one, two)


SMALL_STACKS = """
import ctypes
from pathlib import Path
import numpy as np
import paraformer
from paraformer.backends import native
from paraformer.backends.graphs import GraphBackend
from paraformer.bundle import Bundle
from paraformer.weights import Stored

attributes, system = ctypes.create_string_buffer(64), ctypes.CDLL(None)
assert not system.pthread_attr_init(attributes)
assert not system.pthread_attr_setstacksize(attributes, ctypes.c_size_t(1 << 16))
assert not system.pthread_setattr_default_np(attributes)
model = Path(paraformer.__file__).parent / "models" / "zh-small"
config = Bundle.open(model).config
engine = native.NativeEngine(Stored(model / "model.safetensors", mapped=False), config, "int8", 2)
GraphBackend(engine, config).whole([np.ones((20, config.frontend.input_dim), np.float32)])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="where stacks are small is told glibc alone")
@pytest.mark.parametrize("family", families())
def test_helpers_have_stacks_of_their_own_size(family: str) -> None:
    """Where a system's threads have less than kernels need."""
    environment = os.environ | {SWITCH: family}
    subprocess.run([sys.executable, "-c", SMALL_STACKS], env=environment, check=True)


@given(st.integers(1, 99), st.integers(0, 300), st.sampled_from([16, 64, 512]))
def test_threads_have_enough_to_do(threads: int, rows: int, dim: int) -> None:
    """A panel of the narrowest layer each, or six rows; no thread is left out that would have them."""
    parts, columns = native.division(threads, rows, dim)
    assert 1 <= parts <= threads
    enough = dim // 64 if columns else rows // 6
    assert parts == 1 or parts <= enough
    assert parts == threads or parts == max(1, enough)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("family", families())
def test_packed_weights_on_disk_are_those_in_memory(
    family: str, kind: tiny.Kind, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed anywhere, and opened on any processor, at whatever speed."""
    panels.save(native.packed(tiny.model(kind).state_dict(), tiny.config(kind)), tmp_path / "packed")
    monkeypatch.setenv("PARAFORMER_ISA", family)
    mapped = Stored(tmp_path / "packed", mapped=True)
    assert len(mapped) == len(set(mapped))
    assert all(array.ctypes.data % 64 == 0 for name, array in mapped.items() if name.endswith(".words"))
    rows = [np.random.default_rng(0).standard_normal((30, 560)).astype(np.float32)]
    from_file = GraphBackend(native.NativeEngine(mapped, tiny.config(kind), "int8"), tiny.config(kind)).whole(rows)
    in_memory = engine("int8", kind=kind).whole(rows)
    np.testing.assert_array_equal(from_file[0].ids, in_memory[0].ids)
    np.testing.assert_array_equal(from_file[0].confidences, in_memory[0].confidences)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("family", families())
def test_long_utterances_on_every_family(family: str, kind: tiny.Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more keys than any panel, and as many tokens."""
    utterances = [np.random.default_rng(n).standard_normal((n, 560)).astype(np.float32) for n in (230, 65)]
    expected = tiny.backend("onnx", kind).whole(utterances)
    monkeypatch.setenv("PARAFORMER_ISA", family)
    got = engine("float32", 3, kind).whole(utterances)
    assert len(got[0].ids) > 70
    for feats, one, two in zip(utterances, got, expected, strict=True):
        np.testing.assert_array_equal(one.ids, two.ids)
        np.testing.assert_allclose(one.weights, two.weights, atol=1e-5)
        atol = max(1e-4, 2 * tiny.rounding(tiny.backend("torch", kind), feats))
        np.testing.assert_allclose(one.scores, two.scores, atol=atol)


def test_a_missing_weight_is_named() -> None:
    weights = tiny.model().state_dict()
    del weights["encoder.norm.bias"]
    with pytest.raises(ModelError, match=r"lack encoder\.norm\.bias"):
        native.NativeEngine(weights, tiny.config(), "float32")


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_every_weight_of_another_shape_is_named(precision: panels.Precision, kind: tiny.Kind) -> None:
    """What is compiled would read beyond the end of one that is too small."""
    if not native.available(precision):
        pytest.skip(f"this processor has no {precision}")
    plain = {name: tensor.numpy() for name, tensor in tiny.model(kind).state_dict().items()}
    del plain["decoder.embed.weight"]  # of training alone
    used = native.packed(plain, tiny.config(kind)) if precision == "int8" else plain
    engine = partial(native.NativeEngine, config=tiny.config(kind), precision=precision)
    engine(used)
    for name in used if kind == "published" else used.keys() - tiny.model().state_dict().keys():
        for other in (used[name][:-1], used[name][..., :-1], np.concatenate([used[name]] * 2), used[name][None]):
            with pytest.raises(CheckpointError, match=name.removesuffix(".size")):
                engine({**used, name: other})


@pytest.mark.parametrize("part", ["words", "scale", "sum", "size"])
def test_packed_parts_that_are_missing_or_of_another_kind_are_named(part: str) -> None:
    used = native.packed(tiny.model().state_dict(), tiny.config())
    name = "decoder.blocks.0.cross.q.weight"
    lacking = {key: array for key, array in used.items() if key != f"{name}.{part}"}
    with pytest.raises(ModelError, match=rf"lack {name}".replace(".", r"\.")):
        native.NativeEngine(lacking, tiny.config(), "int8")
    if part != "size":
        odd = {**used, f"{name}.{part}": used[f"{name}.{part}"].astype(np.float16)}
        with pytest.raises(CheckpointError, match="numbers of another kind"):
            native.NativeEngine(odd, tiny.config(), "int8")


def test_a_damaged_file_is_named(tmp_path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        Stored(tmp_path / "model.safetensors", mapped=False)


@given(st.dictionaries(st.text("abc", min_size=1), MATRICES, max_size=3), st.booleans())
def test_stored_arrays_are_read_as_they_were_written(arrays: dict[str, np.ndarray], mapped: bool) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "some.safetensors"
        panels.save(arrays, path)
        stored = Stored(path, mapped=mapped)
        assert stored.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(stored[name], array)


def test_numbers_of_another_kind_are_named(tmp_path) -> None:
    save_file({"odd": np.zeros(3, np.int16)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="odd is in I16, which is not read here"):
        Stored(tmp_path / "model.safetensors", mapped=True)


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(vocab_size=9, predictor=PredictorConfig(version=1, timing=TimingConfig(from_conv=True))),
        ModelConfig(vocab_size=9, decoder=TransformerDecoderConfig()),
        ModelConfig(vocab_size=9, decoder=SanmDecoderConfig(text=TextConfig())),
    ],
)
def test_other_models_are_refused(config: ModelConfig) -> None:
    assert not native.supports(config)
    with pytest.raises(UnsupportedModel, match="SAN-M"):
        native.NativeEngine({}, config, "float32")


def test_the_embedded_model_runs_on_what_is_fastest_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, found in (("auto", "int8"), ("float32", "float32")):
        expected = f"native {found}" if native.fast(found) else "onnx float32"
        assert paraformer.load(precision=asked).engine == expected
    for name in (*families(), "none"):
        monkeypatch.setenv("PARAFORMER_ISA", name)
        assert paraformer.load().engine == ("onnx float32" if name in ("plain", "none") else "native int8")
    with pytest.raises(
        UnsupportedModel, match=r"was not built here, or PARAFORMER_ISA .* cannot compute in int8; .*\[onnx\]"
    ):
        paraformer.load(precision="int8")


@pytest.mark.parametrize("name", ["avx1024", "AVX512", " "])
def test_a_family_that_there_is_not_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAFORMER_ISA", name)
    with pytest.raises(ConfigError, match=f"PARAFORMER_ISA={name} names no family .* here are .*plain, none"):
        paraformer.load()


def test_other_backends_compute_in_float32_only() -> None:
    with pytest.raises(ConfigError, match="onnx backend computes in float32 only"):
        paraformer.load(backend="onnx", precision="int8")
