"""Products of matrices by NumPy that stay in the thread which asks for them.

NumPy's BLAS divides a product of some size among threads of its own, one for each processor, whatever the caller asked
for. Where one of these is busy, all wait for the thread that was to run there: a text took thirty times as long.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

SERIAL = 1 << 18
"""Multiplications up to which BLAS makes a product in the calling thread (OpenBLAS, interface/gemm.c)."""
_DEPTH, _EDGE = 256, 32
"""Of the blocks that larger ones are made of: how many numbers are summed up, and rows, and columns."""


def product(a: Float[np.ndarray, "... rows k"], b: Float[np.ndarray, "... k columns"]) -> Float[np.ndarray, "..."]:
    """a @ b, without BLAS where that is a product with a vector, else in blocks that BLAS makes in this thread."""
    (rows, k), columns = a.shape[-2:], b.shape[-1]
    if 1 in (rows, columns):
        vector: np.ndarray = np.einsum("...ij,...jk->...ik", a, b)
        return vector
    if rows * k * columns <= SERIAL:
        whole: np.ndarray = a @ b
        return whole
    depth, across = min(k, _DEPTH), min(columns, _EDGE)
    down = SERIAL // (depth * across)
    stacked = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = np.zeros((*stacked, rows, columns), np.result_type(a, b))
    for at in range(0, k, depth):
        left, right = a[..., at : at + depth], b[..., at : at + depth, :]
        for top in range(0, rows, down):
            for begin in range(0, columns, across):
                block = left[..., top : top + down, :] @ right[..., begin : begin + across]
                out[..., top : top + down, begin : begin + across] += block
    return out
