"""Weights in the layout of the package's own engine, in memory and on disk.

A matrix lies in panels of 64 columns, in which the numbers that one instruction takes lie side by side: see
native/kernels.h. A file of packed weights is safetensors in which every panel begins at a cache line, so that it is
read, or mapped into memory, as it is: nothing is computed when it is opened, and processes that map it share one copy.
"""

from __future__ import annotations

import json
import mmap
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int8, Shaped

from paraformer.bundle import replacing
from paraformer.errors import CheckpointError, ModelError
from paraformer.weights import KIND_NAMES, check_finite, check_shape

Precision = Literal["float32", "bfloat16", "int8"]
PANEL = 64
SLICE = 128
"""Numbers along k with a scale of their own, of rows of which few numbers are large."""
LINE = 64
"""Bytes of a cache line."""
_PER_WORD: dict[Precision, int] = {"float32": 1, "bfloat16": 2, "int8": 4}


@dataclass(frozen=True, eq=False)
class Panels:
    """A matrix (n, k). words: bytes, a whole number of cache lines.

    scale, sum: of each column, for int8; sum is that of its weights as they are kept. slice: numbers along k that have
    scales and sums of their own, one slice's after the other's; 0: all.
    """

    words: np.ndarray
    scale: np.ndarray | None
    sum: np.ndarray | None
    n: int
    k: int
    slice: int = 0

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        """For a file; `from_arrays` reads them back."""
        assert self.scale is not None and self.sum is not None, "only int8 is kept in files"
        size = np.array([self.n, self.k], np.int64)
        return {
            f"{name}.words": self.words,
            f"{name}.scale": self.scale,
            f"{name}.sum": self.sum,
            f"{name}.size": size,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], name: str, n: int, k: int, slice_: int = 0) -> Panels | None:
        """The matrix (n, k) of that name, in such slices; None where it is not packed.

        Raises ModelError for a part that is missing or not finite, CheckpointError for one of another shape or type.
        """
        if f"{name}.words" not in arrays:
            return None
        if missing := [f"{name}.{part}" for part in ("scale", "sum", "size") if f"{name}.{part}" not in arrays]:
            raise ModelError(f"the weights lack {missing[0]}; get the model again")
        columns = n + -n % PANEL
        scales = columns * len(_slices(k, slice_))
        whole = {"words": columns * (k + -k % _PER_WORD["int8"]), "scale": scales, "sum": scales}
        check_shape(name, arrays[f"{name}.size"].tolist(), (n, k))
        for part, size in whole.items():
            check_shape(f"{name}.{part}", arrays[f"{name}.{part}"].shape, (size,))
            if arrays[f"{name}.{part}"].dtype != (np.uint8 if part == "words" else np.float32):
                raise CheckpointError(f"{name}.{part} of the weights has numbers of another kind; get the model again")
        for part in ("scale", "sum"):
            check_finite(f"{name}.{part}", arrays[f"{name}.{part}"])
        words, scale, total = (arrays[f"{name}.{part}"] for part in whole)
        return cls(words, scale, total, n, k, slice_)


def _slices(k: int, slice_: int) -> list[slice]:
    """All of k numbers, or those from one multiple of `slice_` to the next."""
    return [slice(start, start + (slice_ or k)) for start in range(0, k, slice_ or k)]


def pack(weight: Float32[np.ndarray, "n k"], precision: Precision, room: Room, slice_: int = 0) -> Panels:
    """Panels [n / 64][words along k][64] of a matrix, as 32-bit words, in a room.

    int8: symmetric, one scale per column, or per column of each slice, stored with 128 added; padding is 0 in value.
    """
    n, k = weight.shape
    if precision == "int8":
        parts = [weight[:, part] for part in _slices(k, slice_)]
        # At least the smallest normal number, by which a row of zeros can be divided too.
        scales = [np.maximum(np.abs(part).max(1) / np.float32(127), np.finfo(np.float32).tiny) for part in parts]
        whole = [np.rint(part / scale[:, None]) for part, scale in zip(parts, scales, strict=True)]
        return pack_whole(np.concatenate(whole, 1).astype(np.int8), np.stack(scales), room, slice_)
    weight = _padded(weight, precision)
    bits = weight.view(np.uint32)
    if precision == "bfloat16":
        # To the nearest, halves to the even one, as processors with bfloat16 round.
        bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return Panels(_laid_out(bits, room), None, None, n, k)


def pack_whole(
    whole: Int8[np.ndarray, "n k"], scales: Float32[np.ndarray, "_ n"], room: Room, slice_: int = 0
) -> Panels:
    """What `pack` makes in int8, of whole numbers and the scales by which they are multiplied: of rows, or of slices.

    One row of scales stands for all slices.
    """
    n, k = whole.shape
    parts = _slices(k, slice_)
    scales = np.pad(scales, ((0, 0), (0, -n % PANEL)), constant_values=np.finfo(np.float32).tiny)
    scales = np.broadcast_to(scales, (len(parts), scales.shape[1]))
    numbers = _padded(whole, "int8")
    sums = np.stack([numbers[:, part].sum(1, dtype=np.int32) for part in parts])
    # w + 128 as a byte: x86 multiplies unsigned bytes by signed ones, and the engine takes 128 times the others off.
    words = _laid_out(numbers.view(np.uint8) ^ np.uint8(128), room)
    return Panels(words, scales.ravel(), (scales * sums).astype(np.float32).ravel(), n, k, slice_)


def _padded(matrix: Shaped[np.ndarray, "_ _"], precision: Precision) -> Shaped[np.ndarray, "_ _"]:
    """With zeros up to whole panels of whole words."""
    n, k = matrix.shape
    return np.pad(matrix, ((0, -n % PANEL), (0, -k % _PER_WORD[precision])))


def _laid_out(numbers: Shaped[np.ndarray, "_ _"], room: Room) -> np.ndarray:
    """Panels of a padded matrix: words as they lie in its rows, panel by panel, 64 rows of one word side by side."""
    panels = numbers.view(np.uint32).reshape(len(numbers) // PANEL, PANEL, -1).transpose(0, 2, 1)
    words = room.bytes(panels.nbytes)
    words.view(np.uint32).reshape(panels.shape)[...] = panels
    return words


class Room:
    """Memory for many arrays, in pages of 2 MB where the system has them.

    Every pass over the weights looks up the address of each page: with pages of 4 KB, two hundredths of the time, and
    of a live step of a large model, which reads all of its weights, a tenth.
    """

    _LEAST = 16 << 20

    def __init__(self) -> None:
        self._free = np.empty(0, np.uint8)

    def bytes(self, size: int) -> np.ndarray:
        """So many that belong to nobody yet and begin at a cache line."""
        taken = size + -size % LINE
        if taken > len(self._free):
            length = max(self._LEAST, taken)
            if sys.platform == "win32":
                memory = mmap.mmap(-1, length)
            else:
                # Private: forked processes share the pages, since nobody writes to them again.
                memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with suppress(AttributeError, OSError):  # a system, or one without such pages
                memory.madvise(mmap.MADV_HUGEPAGE)
            self._free = np.frombuffer(memory, np.uint8)
        found, self._free = self._free[:size], self._free[taken:]
        return found


def save(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write a safetensors file in which those arrays that fill whole cache lines begin at one, in the order given."""
    # Whole lines first, so that each of them begins where one ends; what is shorter follows.
    order = sorted(arrays, key=lambda name: arrays[name].nbytes % LINE > 0)
    header, end = {}, 0
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": KIND_NAMES[array.dtype], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    # Spaces end the header where a line begins, as the format allows.
    text += b" " * (-(8 + len(text)) % LINE)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(np.ascontiguousarray(arrays[name]).data)
