"""Tensors of a model as layers of the package's own engine: see native/layout.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from paraformer import native
from paraformer.backends import panels
from paraformer.backends.panels import Precision
from paraformer.errors import ModelError
from paraformer.native import BFLOAT16, FLOAT32, INT8
from paraformer.native.layout import Linear, Lstm, Memory, Norm
from paraformer.weights import Stored, check_finite, check_shape

FORMATS: dict[Precision, int] = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}
_EPSILON = 1e-12
"""Of norms in the decoder, as in paraformer.model.layers."""


def beside(precision: Precision) -> Precision:
    """What is computed beside 8-bit products: a front's first layer, integrate-and-fire, units and the output layer."""
    return precision if precision != "int8" else "bfloat16" if native.fast(BFLOAT16) else "float32"


class Weights:
    """Tensors of a model in the engine's layout.

    kept: every array that a structure points to. used: what a file of int8 must hold to make the same structures.
    """

    def __init__(self, tensors: Mapping[str, ArrayLike], precision: Precision) -> None:
        self.precision = precision
        self.kept: list[Any] = []
        self.used: dict[str, np.ndarray] = {}
        self._tensors = tensors
        self._room = panels.Room()

    def tensor(self, name: str, *shape: int) -> np.ndarray:
        """A tensor as float32. What is compiled takes its size on trust, so it is the one that the settings say."""
        if name not in self._tensors:
            raise ModelError(f"the weights lack {name}; get the model again")
        tensor = self._tensors[name]
        check_shape(name, np.shape(tensor), shape)
        self.used[name] = np.ascontiguousarray(tensor, np.float32)
        check_finite(name, self.used[name])
        return self.used[name]

    def keep(self, array: np.ndarray) -> int:
        """The address of an array that stays alive with the model."""
        self.kept.append(array)
        return int(array.ctypes.data)

    def vector(self, name: str, *shape: int) -> int:
        """The address of a tensor."""
        return self.keep(self.tensor(name, *shape))

    def norm(self, name: str, size: int, epsilon: float = _EPSILON) -> Norm:
        """A layer norm."""
        return Norm(self.vector(f"{name}.weight", size), self.vector(f"{name}.bias", size), size, epsilon)

    def memory(self, name: str, dim: int, kernel: int, left: int) -> Memory:
        """An FSMN memory: (dim, 1, kernel) to (kernel, dim). With a kernel of 0 there is none."""
        if not kernel:
            return Memory()
        # By place: one tap of all channels is one vector to the kernels.
        taps = np.ascontiguousarray(self.tensor(f"{name}.weight", dim, 1, kernel)[:, 0].T)
        return Memory(self.keep(taps), kernel, left)

    def linear(
        self, name: str, *shape: int, bias: bool = True, precision: Precision | None = None, sliced: bool = False
    ) -> Linear:
        """A linear layer (n, k), or a convolution (n, channels, width) as one over its width side by side.

        sliced: in int8 a few numbers of a row have a scale of their own, where others may be much larger.
        """
        precision, k = precision or self.precision, math.prod(shape[1:])
        slice_ = panels.SLICE if sliced and precision == "int8" and k > panels.SLICE else 0
        matrix = self._matrix(f"{name}.weight", shape, precision, slice_)
        return self._layer(matrix, self.tensor(f"{name}.bias", shape[0]) if bias else None, precision)

    def upsampling(self, name: str, dim: int, rate: int) -> Linear:
        """A transposed convolution (dim, dim, rate), whose rows do not overlap: a layer that makes `rate` of each."""
        matrix = self._matrix(f"{name}.weight", (dim, dim, rate), self.precision, 0, transposed=True)
        return self._layer(matrix, np.tile(self.tensor(f"{name}.bias", dim), rate), self.precision)

    def lstm(self, name: str, width: int, dim: int, layers: int, *, both: bool) -> list[Any]:
        """The layers of an LSTM, each an array of one direction or two."""
        suffixes = ("", "_reverse") if both else ("",)
        made = []
        for layer in range(layers):
            given = dim * len(suffixes) if layer else width
            made.append((Lstm * len(suffixes))(*(self._way(name, f"l{layer}{end}", given, dim) for end in suffixes)))
        self.kept += made
        return made

    def _way(self, name: str, which: str, width: int, dim: int) -> Lstm:
        given, before = (
            self._matrix(f"{name}.weight_{kind}_{which}", (4 * dim, size), self.precision, 0)
            for kind, size in (("ih", width), ("hh", dim))
        )
        # torch keeps two biases, which are only ever added.
        bias = self.tensor(f"{name}.bias_ih_{which}", 4 * dim) + self.tensor(f"{name}.bias_hh_{which}", 4 * dim)
        return Lstm(self._layer(given, bias, self.precision), self._layer(before, None, self.precision))

    def _matrix(
        self, at: str, shape: tuple[int, ...], precision: Precision, slice_: int, *, transposed: bool = False
    ) -> panels.Panels:
        """A tensor in panels, as it lies in a file of int8 or packed now."""
        n, k = shape[0], math.prod(shape[1:])
        if transposed:
            n, k = shape[1] * shape[2], shape[0]
        matrix = panels.Panels.from_arrays(self._tensors, at, n, k, slice_) if precision == "int8" else None
        if matrix is None:
            matrix = self._packed(at, shape, precision, slice_, transposed=transposed)
        # A file of int8 need not hold what lies in panels as a tensor too, but layers in float beside those are packed
        # each time.
        if self.precision != "int8" or precision == "int8":
            self.used.pop(at, None)
        if precision == "int8":
            self.used |= matrix.to_arrays(at)
        return matrix

    def _packed(
        self, name: str, shape: tuple[int, ...], precision: Precision, slice_: int, *, transposed: bool
    ) -> panels.Panels:
        """A matrix in panels; what is in 8 bits on disk, a scale for each column, keeps its whole numbers in int8."""
        pair = None
        if isinstance(self._tensors, Stored) and precision == "int8" and not transposed:
            pair = self._tensors.in_8_bits(name)
        if pair is None:
            weight = self.tensor(name, *shape)
            if transposed:
                # (in, out, rate) to (rate * out, in): the finer rows that one row makes, one after another.
                weight = np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, shape[0]))
            return panels.pack(_as_matrix(weight), precision, self._room, slice_)
        # As they are: rounded once more, they would come out with another scale.
        whole, scale = pair
        check_shape(name, whole.shape, shape)
        return panels.pack_whole(_as_matrix(whole), scale.reshape(1, -1), self._room, slice_)

    def _layer(self, matrix: panels.Panels, bias: np.ndarray | None, precision: Precision) -> Linear:
        arrays = (matrix.words, matrix.scale, matrix.sum, None if bias is None else _whole_panels(bias))
        addresses = [None if array is None else self.keep(array) for array in arrays]
        columns = matrix.n + -matrix.n % panels.PANEL
        return Linear(*addresses, matrix.k, matrix.n, FORMATS[precision], matrix.slice, columns)


def _as_matrix(weight: np.ndarray) -> np.ndarray:
    """Of a convolution (n, channels, width), one over its width side by side."""
    return weight if weight.ndim == 2 else np.ascontiguousarray(weight.transpose(0, 2, 1).reshape(len(weight), -1))


def _whole_panels(row: np.ndarray) -> np.ndarray:
    return np.pad(row, (0, -len(row) % panels.PANEL))


class Asked(Weights):
    """Asked for the tensors of a model, gives none and keeps their shapes, by name."""

    def __init__(self) -> None:
        super().__init__({}, "float32")
        self.shapes: dict[str, tuple[int, ...]] = {}

    def tensor(self, name: str, *shape: int) -> np.ndarray:
        """Zeros that take no memory."""
        self.shapes[name] = shape
        return np.broadcast_to(np.float32(0), shape)

    def _packed(self, name: str, shape: tuple[int, ...], *_: object, **__: object) -> panels.Panels:
        self.shapes[name] = shape
        return panels.Panels(np.zeros(0, np.uint8), None, None, shape[0], 0)
