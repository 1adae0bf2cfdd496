"""SAN-M blocks for what stands beside a recogniser: by the package's own engine where that is fast, else by NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import byref, c_int, c_void_p
from functools import partial
from typing import Any

import numpy as np

from paraformer import native
from paraformer.backends import structures
from paraformer.backends.layers import FORMATS, Weights
from paraformer.backends.panels import Precision
from paraformer.config import SanmEncoderConfig
from paraformer.sanm import Blocks, MakesStack, Rows


def stacks(precision: Precision) -> MakesStack:
    """What makes stacks here: of the engine's, which compute in a precision, or `Blocks`.

    Raises ConfigError as `native.family`.
    """
    return partial(NativeStack, precision=precision) if native.fast(FORMATS[precision]) else Blocks


class NativeStack:
    """Blocks by the package's own engine, in the thread that asks; any number of threads may share them."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        config: SanmEncoderConfig,
        width: int,
        at: str,
        precision: Precision,
    ) -> None:
        """As `Blocks`, where the engine was built. Raises ModelError for weights that are not finite."""
        library, kernels = native.library(), native.family(FORMATS[precision])
        assert library is not None and kernels is not None, "made where the engine is"
        self._compute, self._kernels, self._attention = library.pf_blocks, kernels, FORMATS[precision]
        self._made_of = (weights, config, width, at, precision)
        packed = Weights(weights, precision)
        self._stack, self._kept = structures.stack(packed, at, "norm", config, width), packed.kept

    def __call__(self, x: Rows) -> Rows:
        """As `Blocks`."""
        x = np.ascontiguousarray(x, np.float32)
        assert x.shape[1] == self._stack.input, "rows of the width that was told"
        y = np.empty((len(x), self._stack.dim), np.float32)
        how = (byref(self._kernels), byref(self._stack), c_int(self._attention), c_int(len(x)))
        if self._compute(*how, c_void_p(x.ctypes.data), c_void_p(y.ctypes.data)):
            raise MemoryError("not enough memory for these rows")
        return y

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process may run on another processor, and chooses itself."""
        return _made, self._made_of


def _made(
    weights: Mapping[str, np.ndarray], config: SanmEncoderConfig, width: int, at: str, precision: Precision
) -> Any:
    return stacks(precision)(weights, config, width, at)
