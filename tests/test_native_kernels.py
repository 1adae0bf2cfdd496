"""Each kernel of each family of processors, alone, over shapes that cross every panel, word and tail.

All are held to numpy in float64, and to plain C: integers to the last bit, the rest within rounding.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import platform
import subprocess
import sys
from collections.abc import Iterator
from ctypes import byref, c_float
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer import native
from paraformer.backends import panels
from paraformer.native import layout

FAMILIES = native.families()
pytestmark = pytest.mark.skipif(not FAMILIES, reason="the engine was not built")
PRECISIONS: tuple[panels.Precision, ...] = get_args(panels.Precision)
FORMATS = dict(zip(PRECISIONS, (native.FLOAT32, native.BFLOAT16, native.INT8), strict=True))
PER_WORD = (1, 2, 4)
WIDTHS = (1, 3, 15, 16, 17, 63, 64, 65, 200, 300, 301)
ROWS = (*range(1, 18), 31, 32, 33, 47, 65)


def computing(format_: int) -> list[str]:
    """Families that can compute in a format here: those that need nothing that the processor lacks."""
    return [name for name, kernels in FAMILIES.items() if native._has(kernels.needs[format_])]


BOTH = [(name, precision) for precision in PRECISIONS for name in computing(FORMATS[precision])]
each = pytest.mark.parametrize(("name", "precision"), BOTH)


def address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


def noise(*shape: int, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * 2 + offset).astype(np.float32)


@dataclass
class Rows:
    """Rows made ready by a family."""

    words: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    begin: np.ndarray
    acts: layout.Acts

    @classmethod
    def empty(cls, format_: int, rows: int, k: int, slice_: int = 0) -> Rows:
        count = -(-k // PER_WORD[format_])
        words = np.full((rows, count), 0xAAAAAAAA, np.uint32)  # what a kernel does not write, shows
        scales = rows * len(panels._slices(k, slice_))
        scale, zero, begin = np.ones(scales, np.float32), np.zeros(scales, np.float32), np.ones(scales, np.int32)
        addresses = [address(array) for array in (words, scale, zero, begin)]
        return cls(words, scale, zero, begin, layout.Acts(*addresses, format_, rows, count, slice_, rows))

    @classmethod
    def of(cls, name: str, x: np.ndarray, format_: int, *, asymmetric: bool = False, slice_: int = 0) -> Rows:
        made = cls.empty(format_, *x.shape, slice_)
        FAMILIES[name].acts_fill(byref(made.acts), address(x), x.strides[0] // 4, x.shape[1], asymmetric)
        return made


def rounded(x: np.ndarray) -> np.ndarray:
    """To bfloat16, of two as near the even one."""
    bits = np.ascontiguousarray(x).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


# -- rows -------------------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("asymmetric", [False, True])
def test_rows_are_converted_to_the_same_bits_everywhere(
    name: str, precision: panels.Precision, asymmetric: bool
) -> None:
    format_ = FORMATS[precision]
    for k, offset in itertools.product(WIDTHS, (0.0, 30.0)):
        x = noise(5, k, offset=offset)
        x = np.concatenate([x, np.zeros((1, k), np.float32)])
        if precision == "int8":  # and rows of numbers that are too small for a whole one
            x = np.concatenate([x, x * np.float32(1e-38), x * np.float32(1e-43)])
        got, expected = (Rows.of(one, x, format_, asymmetric=asymmetric) for one in (name, "plain"))
        for field in ("words", "begin", *(("scale", "zero") if precision == "int8" else ())):
            np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=f"{field}, k {k}")


def test_plain_rows_are_what_they_stand_for() -> None:
    for k, asymmetric in itertools.product(WIDTHS, (False, True)):
        x = noise(4, k, offset=3.0)
        exact = Rows.of("plain", x, native.FLOAT32)
        np.testing.assert_array_equal(exact.words.view(np.float32), x)
        half = Rows.of("plain", x, native.BFLOAT16).words.view(np.uint16)
        np.testing.assert_array_equal(half[:, :k].astype(np.uint32) << 16, rounded(x).view(np.uint32))
        assert not half[:, k:].any()
        small = Rows.of("plain", x, native.INT8, asymmetric=asymmetric)
        q = small.words.view(np.int8).astype(np.int32)
        assert not q[:, k:].any()
        np.testing.assert_array_equal(small.begin, -128 * q.sum(1))
        assert np.abs(q).max() == (0 if k == 1 and asymmetric else 127)
        np.testing.assert_allclose(
            q[:, :k] * small.scale[:, None] + small.zero[:, None], x, atol=0.51 * small.scale.max()
        )
        assert bool(small.zero.any()) == asymmetric


@pytest.mark.parametrize("name", FAMILIES)
def test_layer_norm(name: str) -> None:
    for k, epsilon in itertools.product((2, *WIDTHS[1:]), (1e-12, 1e-5, 0.5)):
        x, gain, shift = noise(6, k + 2, offset=1.0), noise(k, seed=1), noise(k, seed=2)
        y, norm = np.full((6, k + 1), np.float32(7)), layout.Norm(address(gain), address(shift), k, epsilon)
        FAMILIES[name].layer_norm(byref(norm), address(x), k + 2, 6, address(y), k + 1)
        wide = x[:, :k].astype(np.float64)
        normed = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + epsilon)
        np.testing.assert_allclose(y[:, :k], normed * gain + shift, atol=2e-5)
        assert (y[:, k] == 7).all()


# -- products ---------------------------------------------------------------------------------------------------------


@dataclass
class Product:
    """A layer, rows, and what becomes of their product."""

    weight: np.ndarray
    bias: np.ndarray | None
    x: np.ndarray
    add: np.ndarray | None
    add2: np.ndarray | None
    activation: int
    asymmetric: bool

    @classmethod
    def drawn(cls, n: int, k: int, rows: int, seed: int, *, asymmetric: bool) -> Product:
        """Each of what may be there is there for about half of the seeds, and every activation for a third."""
        bias = np.pad(noise(n, seed=1), (0, -n % panels.PANEL)) if seed & 1 else None
        add, add2 = (noise(rows, n + 3, seed=s) if seed & s else None for s in (2, 4))
        return cls(noise(n, k), bias, noise(rows, k, seed=9, offset=1.0), add, add2, seed % 3, asymmetric)

    def by(self, name: str, precision: panels.Precision, slice_: int = 0, *, centred: bool = False) -> np.ndarray:
        """What a family makes of it. centred: as if zero were zero in all rows, so that integers alone are added up."""
        format_, (n, k) = FORMATS[precision], self.weight.shape
        packed = panels.pack(self.weight, precision, panels.Room(), slice_)
        total = packed.sum if self.asymmetric else None
        pointers = [address(array) for array in (packed.words, packed.scale, total, self.bias)]
        rows = Rows.of(name, self.x, format_, asymmetric=self.asymmetric and precision == "int8", slice_=slice_)
        if centred:
            rows.zero[:] = 0
        out = np.full((len(self.x), n + 1), np.float32(7))
        target = layout.Target(
            address(out), n + 1, address(self.add), address(self.add2), n + 3, n + 3, self.activation
        )
        layer = layout.Linear(*pointers, k, n, format_, slice_, n + -n % panels.PANEL)
        FAMILIES[name].multiply(byref(rows.acts), byref(layer), byref(target))
        assert (out[:, n] == 7).all(), "wrote past the last column"
        return out[:, :n]

    def exact(self, precision: panels.Precision) -> tuple[np.ndarray, np.ndarray]:
        """The same in float64 from the numbers that the format keeps, and the sum of all magnitudes."""
        x, weight = self.x.astype(np.float64), self.weight.astype(np.float64)
        if precision == "bfloat16":
            x, weight = rounded(self.x).astype(np.float64), rounded(self.weight).astype(np.float64)
        if precision == "int8":
            rows = Rows.of("plain", self.x, native.INT8, asymmetric=self.asymmetric)
            x = rows.words.view(np.int8)[:, : x.shape[1]] * rows.scale[:, None].astype(np.float64)
            x = x + rows.zero[:, None]
            scale = np.abs(self.weight).max(1, keepdims=True) / np.float32(127)
            weight = np.rint(self.weight / scale) * scale.astype(np.float64)
        y, size = x @ weight.T, np.abs(x) @ np.abs(weight.T)
        if self.bias is not None:
            y = y + self.bias[: y.shape[1]]
        if self.activation == layout.RELU:
            y = np.maximum(y, 0)
        if self.activation == layout.GELU:
            y = gelu(y)
        for add in (self.add, self.add2):
            y = y if add is None else y + add[:, : y.shape[1]]
        return y, size + 10


def gelu(x: np.ndarray) -> np.ndarray:
    """As torch has it, in float64."""
    return x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))) / 2


def products(*, asymmetric: bool) -> Iterator[Product]:
    """Every number of rows, and every width against some others."""
    for seed, rows in enumerate(ROWS):
        yield Product.drawn(200, 300, rows, seed, asymmetric=asymmetric)
    for seed, (n, k) in enumerate(itertools.product((1, 17, 64, 65, 129, 200, 300), (1, 2, 5, 64, 67, 301))):
        yield Product.drawn(n, k, 1 + seed % 7, seed, asymmetric=asymmetric)


@each
@pytest.mark.parametrize("asymmetric", [False, True])
def test_products(name: str, precision: panels.Precision, asymmetric: bool) -> None:
    for product in products(asymmetric=asymmetric):
        got, (expected, size) = product.by(name, precision), product.exact(precision)
        assert (np.abs(got - expected) <= 3e-6 * size).all(), (product.weight.shape, len(product.x))


@pytest.mark.parametrize("name", computing(native.INT8))
@pytest.mark.parametrize("asymmetric", [False, True])
def test_slices_are_products_of_their_own(name: str, asymmetric: bool) -> None:
    """A sliced layer is, to the last bit but one, the sum of the layers that its slices would be."""
    for rows, (n, k) in itertools.product((1, 7, 13, 35), ((65, 300), (200, 129), (17, 256), (17, 60))):
        whole = Product.drawn(n, k, rows, 0, asymmetric=asymmetric)
        whole.bias, whole.add = noise(n + -n % panels.PANEL, seed=5), noise(rows, n + 3, seed=6)
        expected = whole.bias[:n] + whole.add[:, :n].astype(np.float64)
        for part in panels._slices(k, 128):
            weight, x = (np.ascontiguousarray(array[:, part]) for array in (whole.weight, whole.x))
            alone = Product(weight, None, x, None, None, layout.UNCHANGED, asymmetric)
            expected = expected + alone.by(name, "int8")
        np.testing.assert_allclose(
            whole.by(name, "int8", slice_=128), expected, atol=3e-6 * np.abs(expected).max() + 1e-4
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_gelu_is_exact(name: str) -> None:
    """To a rounding or two, and far from zero to the last bit: nothing, or the number itself."""
    x = np.concatenate([np.linspace(-9, 9, 20000), np.linspace(-0.01, 0.01, 999), [-1e6, 1e6]]).astype(np.float32)
    rows, y = Rows.of(name, x[:, None], native.FLOAT32), np.zeros((len(x), 1), np.float32)
    one = panels.pack(np.ones((1, 1), np.float32), "float32", panels.Room())
    layer = layout.Linear(address(one.words), None, None, None, 1, 1, native.FLOAT32)
    target = layout.Target(address(y), 1, None, None, 0, 0, layout.GELU)
    FAMILIES[name].multiply(byref(rows.acts), byref(layer), byref(target))
    got, expected = y[:, 0], gelu(x.astype(np.float64))
    assert (np.abs(got - expected) <= 2e-7 * np.maximum(np.abs(x), 1e-3)).all()
    np.testing.assert_array_equal(got[np.abs(x) > 6], np.maximum(x, 0)[np.abs(x) > 6])


@pytest.mark.parametrize("name", computing(native.INT8))
def test_products_of_integers_are_the_same_to_the_last_bit(name: str) -> None:
    """Also at the ends of their range, where instructions that add pairs in 16 bits would saturate."""
    for n, k in itertools.product((200, 65), (300, 301)):
        for x in (noise(35, k), np.full((35, k), 127, np.float32), np.full((7, k), -127, np.float32)):
            for weight in (noise(n, k, seed=3), np.full((n, k), -1, np.float32), np.ones((n, k), np.float32)):
                product = Product(weight, None, x, None, None, layout.UNCHANGED, asymmetric=False)
                np.testing.assert_array_equal(product.by(name, "int8"), product.by("plain", "int8"))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_added_may_lie_where_the_result_goes(name: str) -> None:
    for n in (1, 12, 64, 77):
        product = Product(
            noise(n, 9), None, noise(3, 9, seed=1), noise(3, n + 3, seed=2), None, layout.UNCHANGED, False
        )
        expected = product.by(name, "float32")
        packed, rows = panels.pack(product.weight, "float32", panels.Room()), Rows.of(name, product.x, native.FLOAT32)
        assert product.add is not None
        out = product.add.copy()
        layer = layout.Linear(address(packed.words), None, None, None, 9, n, native.FLOAT32)
        for add, add2 in ((address(out), None), (None, address(out))):
            out[:] = product.add
            target = layout.Target(address(out), n + 3, add, add2, n + 3, n + 3, layout.UNCHANGED)
            FAMILIES[name].multiply(byref(rows.acts), byref(layer), byref(target))
            np.testing.assert_array_equal(out[:, :n], expected)


def kinds_of_rows(rows: int, k: int) -> Iterator[np.ndarray]:
    """Around zero or around another number, behind an activation, with a few large numbers; all as far as can be."""
    x = noise(rows, k, seed=rows)
    few = np.random.default_rng(k).random((rows, k)) < 0.01
    yield from (x, x + 9, np.maximum(x, 0), np.where(few, 40 * x, x), np.sign(x), np.abs(np.sign(x)) + few)


@pytest.mark.parametrize("name", computing(native.INT8))
@pytest.mark.parametrize("asymmetric", [False, True])
def test_products_of_rows_of_every_kind_are_the_same_to_the_last_bit(name: str, asymmetric: bool) -> None:
    for rows, k, slice_ in (
        (1, 3, 0),
        (5, 33, 0),
        (61, 130, 0),
        (7, 515, 256),
        (130, 512, 0),
        (9, 2048, 0),
        (3, 4101, 0),
        (2, 9000, 4800),
    ):
        for x in kinds_of_rows(rows, k):
            product = Product(noise(65, k, seed=3), None, x, None, None, layout.UNCHANGED, asymmetric)
            got, expected = (product.by(one, "int8", slice_, centred=True) for one in (name, "plain"))
            np.testing.assert_array_equal(got, expected, err_msg=f"{rows} rows of {k}")


@pytest.mark.parametrize("name", computing(native.INT8))
def test_rows_that_hold_nan_are_multiplied_too(name: str) -> None:
    """To what is of no use, but in finite time, and beside others as if those were alone."""
    product = Product(noise(65, 63, seed=3), None, noise(400, 63), None, None, layout.UNCHANGED, asymmetric=True)
    expected = product.by(name, "int8")
    # The largest number stands before NaN where vectors would lose it.
    product.x[::2, 1], product.x[::2, 33] = np.logspace(3, 12, 200), np.nan
    np.testing.assert_array_equal(product.by(name, "int8")[1::2], expected[1::2])


# -- attention --------------------------------------------------------------------------------------------------------


@dataclass
class Heads:
    """Keys or values of a head, some of them before the others."""

    before: np.ndarray
    x: np.ndarray
    attended: layout.Attended

    @classmethod
    def of(cls, past: int, count: int, width: int) -> Heads:
        before, x = noise(past, width + 3, seed=1, offset=2.0), noise(count, width + 5, seed=2, offset=2.0)
        counts = [width + 3, width + 5, past, count]
        return cls(before, x, layout.Attended(address(before), address(x), *counts))

    def rows(self, width: int) -> np.ndarray:
        return np.concatenate([self.before[:, :width], self.x[:, :width]])


HEADS = [(0, 1, 8), (3, 10, 64), (0, 63, 65), (64, 1, 17), (100, 100, 128), (0, 301, 40), (7, 122, 3)]


@pytest.mark.parametrize("name", FAMILIES)
def test_means_and_ranges_of_columns(name: str) -> None:
    for past, count, width in HEADS:
        heads = Heads.of(past, count, width)
        x = heads.rows(width).astype(np.float64)
        mean, middle, reach = np.zeros((3, width + 64), np.float32)
        FAMILIES[name].means(byref(heads.attended), width, address(mean))
        FAMILIES[name].ranges(byref(heads.attended), width, address(middle), address(reach))
        np.testing.assert_allclose(mean[:width], x.mean(0), atol=1e-5)
        np.testing.assert_allclose(middle[:width], (x.min(0) + x.max(0)) / 2, atol=1e-6)
        np.testing.assert_allclose(reach[:width], (x.max(0) - x.min(0)) / 2, atol=2e-6)


def unpacked(words: np.ndarray, precision: panels.Precision, n: int, k: int) -> np.ndarray:
    """The numbers of panels, (n, k)."""
    kind = {"float32": np.uint32, "bfloat16": np.uint16, "int8": np.uint8}[precision]
    whole = words.view(kind).reshape(-(-n // 64), -1, 64, PER_WORD[FORMATS[precision]])
    return whole.transpose(0, 2, 1, 3).reshape(-(-n // 64) * 64, -1)[:n, :k]


def in_format(x: np.ndarray, precision: panels.Precision) -> np.ndarray:
    bits = (x if precision == "float32" else rounded(x)).view(np.uint32)
    return bits if precision == "float32" else (bits >> 16).astype(np.uint16)


@each
def test_rows_become_columns(name: str, precision: panels.Precision) -> None:
    format_ = FORMATS[precision]
    for past, count, width in HEADS:
        heads, keys = Heads.of(past, count, width), past + count
        x, middle = heads.rows(width), noise(width, seed=5)
        per_row = -(-width // PER_WORD[format_])
        words, scale = np.zeros(-(-keys // 64) * 64 * per_row, np.uint32), np.zeros(keys, np.float32)
        row, centred = np.zeros(per_row, np.uint32), np.zeros(width, np.float32)
        arrays = [address(array) for array in (middle, words, scale, row, centred)]
        FAMILIES[name].pack_columns(format_, byref(heads.attended), width, *arrays)
        got = unpacked(words, precision, keys, width)
        if precision == "int8":
            expected = Rows.of("plain", np.ascontiguousarray(x - middle), format_)
            np.testing.assert_array_equal(got.astype(np.int32) - 128, expected.words.view(np.int8)[:, :width])
            np.testing.assert_array_equal(scale, expected.scale)
        else:
            np.testing.assert_array_equal(got, in_format(x, precision))


@each
def test_rows_stay_rows(name: str, precision: panels.Precision) -> None:
    format_ = FORMATS[precision]
    for past, count, width in HEADS:
        heads, keys, columns = Heads.of(past, count, width), past + count, -(-width // 64) * 64
        x, along_k = heads.rows(width), -(-keys // PER_WORD[format_])
        middle, rate, scale, sums = np.zeros((4, columns), np.float32)
        middle[:width], rate[:width], scale[:width] = x.mean(0), 9.0, 0.5
        words = np.full(along_k * columns, 0xAAAAAAAA, np.uint32)
        arrays = [address(array) for array in (middle, rate, words, scale, sums)]
        FAMILIES[name].pack_rows(format_, byref(heads.attended), width, *arrays)
        got = unpacked(words, precision, width, along_k * PER_WORD[format_])
        if precision == "int8":
            q = np.rint((x - middle[:width]) * rate[:width]).astype(np.int32)
            np.testing.assert_array_equal(got[:, :keys].astype(np.int32) - 128, q.T)
            assert (got[:, keys:] == 128).all()
            np.testing.assert_array_equal(sums[:width], q.sum(0) * np.float32(0.5))
        else:
            np.testing.assert_array_equal(got[:, :keys], in_format(x, precision).T)
            assert not got[:, keys:].any()


@each
def test_softmax(name: str, precision: panels.Precision) -> None:
    format_ = FORMATS[precision]
    for count, size in itertools.product(WIDTHS, (1.0, 30.0)):
        x, made = noise(count) * np.float32(size), Rows.empty(format_, 2, count)
        FAMILIES[name].softmax(byref(made.acts), 1, address(x), count, c_float(0.3))
        expected = np.exp((x - x.max()).astype(np.float64) * np.float64(np.float32(0.3)))
        row = made.words[1]
        if precision == "int8":
            q = row.view(np.int8)[:count].astype(np.int32)
            assert (np.abs((q + 127) / 254 - expected) <= 0.501 / 254 + 2e-6 * size).all()
            assert not row.view(np.int8)[count:].any()
            assert made.begin[1] == -128 * q.sum()
            np.testing.assert_allclose(made.scale[1], 1 / (q + 127).sum(), rtol=1e-6)
            np.testing.assert_allclose(made.zero[1], 127 * made.scale[1], rtol=1e-6)
        else:
            y = row.view(np.float32) if precision == "float32" else (row.view(np.uint16).astype(np.uint32) << 16)
            close = 1e-5 if precision == "float32" else 2**-8
            np.testing.assert_allclose(y.view(np.float32)[:count], expected, rtol=close * max(1, size / 10), atol=1e-37)
            np.testing.assert_allclose(made.scale[1], 1 / expected.sum(), rtol=1e-5)
            assert made.begin[1] == 0
        assert made.words[0].tolist() == [0xAAAAAAAA] * len(row), "wrote into another row"


# -- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@given(rows=st.integers(1, 12), dim=st.sampled_from(WIDTHS), past=st.booleans(), seed=st.integers(0, 9), data=st.data())
def test_filters(name: str, rows: int, dim: int, past: bool, seed: int, data: st.DataObject) -> None:
    kernel = data.draw(st.integers(1, 11))
    left = data.draw(st.integers(0, kernel - 1))
    start, end = sorted((data.draw(st.integers(0, rows)), data.draw(st.integers(0, rows))))
    x, taps = noise(rows, dim + 2, seed=seed), noise(kernel, dim, seed=seed + 1)
    before = noise(left, dim + 1, seed=seed + 2) if past else None
    y = np.full((rows, dim + 3), np.float32(7))
    settings: dict[str, Any] = {"stride": dim + 2, "before_stride": dim + 1, "y_stride": dim + 3}
    settings |= {"rows": rows, "dim": dim, "kernel": kernel, "left": left}
    given_ = layout.Filter(address(x), address(taps), address(before), address(y), **settings)
    FAMILIES[name].filter(byref(given_), start, end)
    ahead = np.zeros((left, dim)) if before is None else before[:, :dim]
    seen = np.concatenate([ahead, x[:, :dim], np.zeros((kernel, dim))]).astype(np.float64)
    for t in range(rows):
        expected = x[t, :dim] + (taps * seen[t : t + kernel]).sum(0) if start <= t < end else np.full(dim, 7.0)
        np.testing.assert_allclose(y[t, :dim], expected, atol=3e-5)
    assert (y[:, dim:] == 7).all()


# -- the library ------------------------------------------------------------------------------------------------------


def test_only_our_own_names_are_visible() -> None:
    nm = which("nm")
    if nm is None:
        pytest.skip("no nm here")
    (path,) = Path(native.__file__).parent.glob("engine.*")
    listed = subprocess.run([nm, "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    ours = ("beam", "blocks", "candidates", "decode", "encode", "fbank", "features", "kernels", "layout", "linear")
    assert names == {f"pf_{name}" for name in (*ours, "lstm")}


def test_code_that_cannot_be_loaded_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside it for other systems is not looked at."""
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / ("engine.so" if sys.platform == "win32" else "engine.dll")).write_bytes(b"of another system")
    assert native.library.__wrapped__() is None
    (path,) = Path(layout.__file__).parent.glob("engine.*")
    (tmp_path / path.name).write_bytes(b"of another machine")
    with pytest.warns(
        RuntimeWarning, match=r"engine\..* cannot be loaded \(.*\) and is left alone; install the package"
    ):
        assert native.library.__wrapped__() is None


@pytest.mark.parametrize("change", ["abi", "size", "nothing there"])
def test_code_of_other_sources_is_refused(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if change == "abi":
        monkeypatch.setattr(layout, "ABI", layout.ABI + 1)
    elif change == "size":
        monkeypatch.setattr(layout, "STRUCTURES", (layout.Kernels, *layout.STRUCTURES[1:]))
    else:
        monkeypatch.setattr(native.ctypes, "CDLL", lambda path: object())
    with pytest.warns(RuntimeWarning, match=r"engine\..* was built from other sources and is left alone"):
        assert native.library.__wrapped__() is None


def test_what_a_family_needs_is_what_the_processor_must_have() -> None:
    """The bits as features.h has them: AVX-512 alone is enough for float32 there."""
    needs = {name: list(kernels.needs) for name, kernels in FAMILIES.items()}
    expected = {
        "amx": [1 | 64, 1 | 4 | 128, 1 | 2 | 64],
        "avx512": [1, 1 | 4, 1 | 2],
        "avxvnni": [8 | 16] * 3,
        "avx2": [8, 8, 8],
        "neon": [32] * 3,
        "plain": [0, 0, 0],
    }
    assert needs == {name: expected[name] for name in FAMILIES}
    assert list(FAMILIES) == [name for name in expected if name in FAMILIES]


@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="not told there")
def test_what_the_processor_has_is_what_the_system_says() -> None:
    (flags, *_) = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    wanted = {
        1: {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
        2: {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
        4: {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"},
        8: {"avx2", "fma"},
        16: {"avx_vnni"},
        64: {"amx_tile", "amx_int8"},
        128: {"amx_tile", "amx_bf16"},
    }
    has = set(flags.split())
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    if ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data):  # a container may refuse it
        has.discard("amx_tile")
    assert native._features() == sum(bit for bit, names in wanted.items() if names <= has)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (0, {"float32": "plain", "bfloat16": "plain", "int8": "plain"}),
        (8, {"float32": "avx2", "bfloat16": "avx2", "int8": "avx2"}),
        (24, {"float32": "avxvnni", "bfloat16": "avxvnni", "int8": "avxvnni"}),
        (9, {"float32": "avx512", "bfloat16": "avx2", "int8": "avx2"}),
        (11, {"float32": "avx512", "bfloat16": "avx2", "int8": "avx512"}),
        (25, {"float32": "avx512", "bfloat16": "avxvnni", "int8": "avxvnni"}),
        (31, {"float32": "avx512", "bfloat16": "avx512", "int8": "avx512"}),
        (15, {"float32": "avx512", "bfloat16": "avx512", "int8": "avx512"}),
        (31 | 64, {"float32": "amx", "bfloat16": "avx512", "int8": "amx"}),
        (31 | 64 | 128, {"float32": "amx", "bfloat16": "amx", "int8": "amx"}),
    ],
)
def test_every_processor_gets_the_best_that_it_can_run(
    features: int, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not {"avx512", *expected.values()} <= set(FAMILIES):
        pytest.skip("this processor has not all of them")
    monkeypatch.delenv("PARAFORMER_ISA", raising=False)
    monkeypatch.setattr(native, "_features", lambda: features)
    monkeypatch.setattr(native, "families", native.families.__wrapped__)
    for precision, name in expected.items():
        kernels = native.family(FORMATS[precision])
        assert kernels is not None and kernels.name.decode() == name
        assert native.fast(FORMATS[precision]) == (
            name in ("amx", "avx512") or (name != "plain" and precision != "bfloat16")
        )
