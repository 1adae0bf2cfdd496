"""The package's own engine: its layout, its precisions, and what happens where it cannot run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

import paraformer
from paraformer import contract
from paraformer.backends import native, panels
from paraformer.backends.base import Decoded
from paraformer.backends.graphs import GraphBackend
from paraformer.config import ChunkConfig, ModelConfig, PredictorConfig, TransformerDecoderConfig
from paraformer.errors import CheckpointError, ConfigError, ModelError, UnsupportedModel
from paraformer.native import families
from paraformer.weights import Stored

REDUCED = [name for name in ("bfloat16", "int8") if native.available(name)]
pytestmark = pytest.mark.skipif(not native.available("float32"), reason="the engine was not built")
MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 130), st.integers(1, 9)),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False),
)


def engine(precision: panels.Precision, threads: int = 1) -> native.NativeEngine:
    return native.NativeEngine(tiny.model().state_dict(), tiny.config(), precision, threads)


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


def test_arrays_in_a_room_begin_at_cache_lines_and_apart() -> None:
    room = panels.Room()
    taken = [room.bytes(size) for size in (1, 63, 64, 1000, 20 << 20, 1)]
    assert all(array.ctypes.data % 64 == 0 for array in taken)
    for index, array in enumerate(taken):
        array[:] = index
    assert all((array == index).all() for index, array in enumerate(taken))


@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-5), ("bfloat16", 0.02), ("int8", 0.05)])
def test_scores_are_near_those_of_onnx_runtime(precision: panels.Precision, close: float) -> None:
    """Relative to the largest score; in float32 that is 1e-4 on the scores themselves."""
    if not native.available(precision):
        pytest.skip(f"this processor has no {precision}")
    rng = np.random.default_rng(0)
    inputs = {
        "memory": rng.standard_normal((2, 9, 16)).astype(np.float32),
        "memory_mask": np.arange(9)[None] < np.array([[9], [6]]),
        "embeds": rng.standard_normal((2, 4, 16)).astype(np.float32),
        "counts": np.array([4, 2]),
        "fsmn": rng.standard_normal((2, 2, 4, 16)).astype(np.float32),
    }
    graph = contract.decoder(tiny.config())
    backend = tiny.backend("onnx")
    assert isinstance(backend, GraphBackend)
    expected, got = backend._runner.run(graph, inputs), engine(precision).run(graph, inputs)
    for row, count in enumerate(inputs["counts"]):
        error = np.abs(got[0][row, :count] - expected[0][row, :count]).max()
        assert error <= close * np.abs(expected[0]).max()
    np.testing.assert_allclose(got[1], expected[1], atol=10 * close)


@pytest.mark.parametrize("layer", ["qkv", "out", "up", "down", "cross", "final", "output", "conv"])
def test_layers_of_all_formats_may_follow_each_other(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the space that their rows are made ready in."""
    if not all(native.available(precision) for precision in ("bfloat16", "int8")):
        pytest.skip("this processor has not both")
    linear = native._Weights.linear

    def mixed(self: native._Weights, name: str, *shape: int, **settings: Any) -> Any:
        if layer in name.split("."):
            settings["precision"] = "float32"
        return linear(self, name, *shape, **settings)

    rows = np.random.default_rng(7).standard_normal((30, 560)).astype(np.float32)
    (expected,) = GraphBackend(engine("float32"), tiny.config()).whole([rows])
    monkeypatch.setattr(native._Weights, "linear", mixed)
    (got,) = GraphBackend(engine("int8"), tiny.config()).whole([rows])
    np.testing.assert_allclose(got.weights, expected.weights, atol=0.05)
    np.testing.assert_allclose(got.scores, expected.scores, atol=0.1 * np.abs(expected.scores).max())


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.sampled_from(REDUCED or ["float32"]))
def test_not_one_bit_depends_on_the_batch(lengths: list[int], precision: panels.Precision) -> None:
    """A row's sums are taken in one order, whatever stands beside it."""
    utterances = [np.random.default_rng(n).standard_normal((n, 560)).astype(np.float32) for n in lengths]
    backend = tiny.backend(precision)
    for decoded, rows in zip(backend.whole(utterances), utterances, strict=True):
        (alone,) = backend.whole([rows])
        np.testing.assert_array_equal(decoded.ids, alone.ids)
        np.testing.assert_array_equal(decoded.weights, alone.weights)
        np.testing.assert_array_equal(decoded.confidences, alone.confidences)


@cache
def divided(precision: panels.Precision, threads: int) -> GraphBackend:
    return GraphBackend(engine(precision, threads), tiny.config())


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(2, 5),
    st.sampled_from(["float32", *REDUCED]),
    st.sampled_from(tiny.CHUNKS),
)
def test_not_one_bit_depends_on_the_threads(
    lengths: list[int], threads: int, precision: panels.Precision, chunk: ChunkConfig
) -> None:
    utterances = [np.random.default_rng(n).standard_normal((n, 560)).astype(np.float32) for n in lengths]
    alone, together = divided(precision, 1), divided(precision, threads)
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


def test_callers_that_come_together_do_not_wait_for_each_other_for_ever() -> None:
    rows = [np.random.default_rng(n).standard_normal((30 + n, 560)).astype(np.float32) for n in range(24)]
    expected = [divided("float32", 1).whole([one])[0] for one in rows]
    with ThreadPoolExecutor(6) as callers:
        for one, two in zip(
            callers.map(lambda one: divided("float32", 3).whole([one])[0], rows), expected, strict=True
        ):
            assert_same(one, two)


@given(st.integers(1, 9), st.integers(0, 100))
def test_a_thread_has_at_least_six_rows(threads: int, rows: int) -> None:
    """And no thread is left out that would have them."""
    parts = native.parts_of(threads, rows)
    assert 1 <= parts <= threads
    assert parts == 1 or rows >= 6 * parts
    assert parts == threads or rows < 6 * (parts + 1)


@pytest.mark.parametrize("family", families())
def test_packed_weights_on_disk_are_those_in_memory(family: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed anywhere, and opened on any processor, at whatever speed."""
    panels.save(native.packed(tiny.model().state_dict(), tiny.config()), tmp_path / "packed")
    monkeypatch.setenv("PARAFORMER_ISA", family)
    mapped = Stored(tmp_path / "packed", mapped=True)
    assert len(mapped) == len(set(mapped))
    assert all(array.ctypes.data % 64 == 0 for name, array in mapped.items() if name.endswith(".words"))
    rows = [np.random.default_rng(0).standard_normal((30, 560)).astype(np.float32)]
    from_file = GraphBackend(native.NativeEngine(mapped, tiny.config(), "int8"), tiny.config()).whole(rows)
    in_memory = GraphBackend(engine("int8"), tiny.config()).whole(rows)
    np.testing.assert_array_equal(from_file[0].ids, in_memory[0].ids)
    np.testing.assert_array_equal(from_file[0].confidences, in_memory[0].confidences)


@pytest.mark.parametrize("family", families())
def test_long_utterances_on_every_family(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more keys than any panel, and as many tokens."""
    utterances = [np.random.default_rng(n).standard_normal((n, 560)).astype(np.float32) for n in (230, 65)]
    expected = tiny.backend("onnx").whole(utterances)
    monkeypatch.setenv("PARAFORMER_ISA", family)
    got = GraphBackend(engine("float32", 3), tiny.config()).whole(utterances)
    assert len(got[0].ids) > 70
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.ids, two.ids)
        np.testing.assert_allclose(one.weights, two.weights, atol=1e-5)
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)


def test_a_missing_weight_is_named() -> None:
    weights = tiny.model().state_dict()
    del weights["encoder.norm.bias"]
    with pytest.raises(ModelError, match=r"lack encoder\.norm\.bias"):
        native.NativeEngine(weights, tiny.config(), "float32")


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_every_weight_of_another_shape_is_named(precision: panels.Precision) -> None:
    """What is compiled would read beyond the end of one that is too small."""
    if not native.available(precision):
        pytest.skip(f"this processor has no {precision}")
    plain = {name: tensor.numpy() for name, tensor in tiny.model().state_dict().items()}
    del plain["decoder.embed.weight"]  # of training alone
    used = native.packed(plain, tiny.config()) if precision == "int8" else plain
    engine = partial(native.NativeEngine, config=tiny.config(), precision=precision)
    engine(used)
    for name in used:
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
        ModelConfig(vocab_size=9, predictor=PredictorConfig(version=1)),
        ModelConfig(vocab_size=9, decoder=TransformerDecoderConfig()),
    ],
)
def test_other_models_are_refused(config: ModelConfig) -> None:
    assert not native.supports(config)
    with pytest.raises(UnsupportedModel, match="SAN-M"):
        native.NativeEngine({}, config, "float32")


def test_the_embedded_model_runs_on_what_is_fastest_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paraformer.load().engine == ("native int8" if native.fast("int8") else "onnx float32")
    for lesser in ("avx2", "plain", "none"):
        if lesser in (*families(), "none"):
            monkeypatch.setenv("PARAFORMER_ISA", lesser)
            assert paraformer.load().engine == "onnx float32"
    with pytest.raises(UnsupportedModel, match="was not built here and cannot compute in int8"):
        paraformer.load(precision="int8")


@pytest.mark.parametrize("name", ["avx1024", "AVX512", " "])
def test_a_family_that_there_is_not_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAFORMER_ISA", name)
    with pytest.raises(ConfigError, match=f"PARAFORMER_ISA={name} names no family .* here are .*plain, none"):
        paraformer.load()


def test_other_backends_compute_in_float32_only() -> None:
    with pytest.raises(ConfigError, match="onnx backend computes in float32 only"):
        paraformer.load(backend="onnx", precision="int8")
