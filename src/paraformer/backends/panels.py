"""Weights in the layout of the package's own engine, in memory and on disk.

A matrix lies in panels of 64 columns, in which the numbers that one instruction takes lie side by side: see
native/kernels.h. A file of packed weights is safetensors in which every panel begins at a cache line, so that it is
mapped into memory as it is: nothing is computed when it is opened, and processes that open it share one copy.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open

from paraformer.bundle import replacing
from paraformer.errors import CheckpointError, ModelError

Precision = Literal["float32", "bfloat16", "int8"]
PANEL = 64
LINE = 64
"""Bytes of a cache line."""
_PER_WORD: dict[Precision, int] = {"float32": 1, "bfloat16": 2, "int8": 4}
_NAMES: dict[np.dtype[Any], str] = {
    np.dtype(np.float32): "F32",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int64): "I64",
    np.dtype(np.float16): "F16",
}


@dataclass(frozen=True, eq=False)
class Panels:
    """A matrix (n, k). words: bytes, a whole number of cache lines.

    scale, sum: of each column, for int8; sum is that of its weights as they are kept.
    """

    words: np.ndarray
    scale: np.ndarray | None
    sum: np.ndarray | None
    n: int
    k: int

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
    def from_arrays(cls, arrays: Mapping[str, Any], name: str, n: int, k: int) -> Panels | None:
        """The matrix (n, k) of that name; None where it is not packed.

        Raises ModelError for a part that is missing or not finite, CheckpointError for one of another shape or type.
        """
        if f"{name}.words" not in arrays:
            return None
        if missing := [f"{name}.{part}" for part in ("scale", "sum", "size") if f"{name}.{part}" not in arrays]:
            raise ModelError(f"the weights lack {missing[0]}; get the model again")
        columns = n + -n % PANEL
        whole = {"words": columns * (k + -k % _PER_WORD["int8"]), "scale": columns, "sum": columns}
        check_shape(name, arrays[f"{name}.size"].tolist(), (n, k))
        for part, size in whole.items():
            check_shape(f"{name}.{part}", arrays[f"{name}.{part}"].shape, (size,))
            if arrays[f"{name}.{part}"].dtype != (np.uint8 if part == "words" else np.float32):
                raise CheckpointError(f"{name}.{part} of the weights has numbers of another kind; get the model again")
        for part in ("scale", "sum"):
            check_finite(f"{name}.{part}", arrays[f"{name}.{part}"])
        words, scale, total = (arrays[f"{name}.{part}"] for part in whole)
        return cls(words, scale, total, n, k)


def pack(weight: Float32[np.ndarray, "n k"], precision: Precision, room: Room) -> Panels:
    """Panels [n / 64][words along k][64] of a matrix, as 32-bit words, in a room.

    int8: symmetric, one scale per column, stored with 128 added; padding is 0 in value.
    """
    n, k = weight.shape
    per_word, scale, total = _PER_WORD[precision], None, None
    weight = np.pad(weight, ((0, -n % PANEL), (0, -k % per_word)))
    match precision:
        case "float32":
            numbers = weight.view(np.uint32)
        case "bfloat16":
            bits = weight.view(np.uint32)
            numbers = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        case "int8":
            scale = np.maximum(np.abs(weight).max(1) / np.float32(127), np.finfo(np.float32).tiny)
            whole = np.rint(weight / scale[:, None])
            total = scale * whole.sum(1)
            numbers = (whole + 128).astype(np.uint8)
    panels = numbers.reshape(len(weight) // PANEL, PANEL, weight.shape[1] // per_word, per_word)
    words = room.bytes(panels.nbytes)
    words.view(numbers.dtype).reshape(panels.transpose(0, 2, 1, 3).shape)[...] = panels.transpose(0, 2, 1, 3)
    return Panels(words, scale, total, n, k)


class Room:
    """Memory for many arrays, in pages of 2 MB where the system has them.

    Every pass over the weights looks up the address of each page: with pages of 4 KB, two hundredths of the time.
    """

    _LEAST = 16 << 20

    def __init__(self) -> None:
        self._free = np.empty(0, np.uint8)

    def bytes(self, size: int) -> np.ndarray:
        """So many that belong to nobody yet and begin at a cache line."""
        taken = size + -size % LINE
        if taken > len(self._free):
            memory = mmap.mmap(-1, max(self._LEAST, taken), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with suppress(AttributeError, OSError):  # a system, or one without such pages
                memory.madvise(mmap.MADV_HUGEPAGE)
            self._free = np.frombuffer(memory, np.uint8)
        found, self._free = self._free[:size], self._free[taken:]
        return found


def save(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write a safetensors file in which those arrays that fill whole cache lines begin at one, in the order given."""
    order = sorted(arrays, key=lambda name: arrays[name].nbytes % LINE > 0)
    header, end = {}, 0
    for name in order:
        array = arrays[name]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % LINE)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(np.ascontiguousarray(arrays[name]).data)


def check_shape(name: str, shape: Sequence[int], expected: Sequence[int]) -> None:
    """Raise CheckpointError for a tensor of another shape than the settings of its model say."""
    if tuple(shape) != tuple(expected):
        found, meant = ("x".join(map(str, sizes)) or "a single number" for sizes in (shape, expected))
        raise CheckpointError(f"{name} of the weights is {found}, not {meant} as the model's settings say")


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise ModelError for a tensor that holds NaN or infinity, which would make nothing but blanks or noise of speech.

    By its sum, which cannot be finite then and costs a fifth of looking at each number: 0.1 s for 220 million.
    """
    if array.dtype == np.float16:
        finite = array.size == 0 or (array.view(np.uint16) & 0x7FFF).max() < 0x7C00
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            finite = bool(np.isfinite(array.sum(dtype=array.dtype)) or np.isfinite(array).all())
    if not finite:
        raise ModelError(f"{name} of the weights holds NaN or infinity; get the model again, or train it again")


class Stored(Mapping[str, np.ndarray]):
    """The arrays of a safetensors file.

    mapped: they stay in the file, mapped into memory. Else each is read when it is asked for, and never kept here, so
    that a model can be brought into another layout without being in memory twice.
    """

    def __init__(self, path: Path, *, mapped: bool) -> None:
        """Raises ModelError for a damaged file, or for numbers of a kind that is not read here."""
        self._path = path
        dtypes = {name: dtype for dtype, name in _NAMES.items()}
        try:
            with safe_open(path, "np"):  # checks that names, sizes and places are sound
                pass
            self._bytes = np.memmap(path, np.uint8, "r") if mapped else None
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{path} cannot be read: {error}; get the model again") from error
        self._places: dict[str, tuple[np.dtype[Any], list[int], int]] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in dtypes:
                raise ModelError(f"{path} cannot be read: {name} is in {entry['dtype']}, which is not read here")
            self._places[name] = dtypes[entry["dtype"]], entry["shape"], 8 + size + entry["data_offsets"][0]

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, at = self._places[name]
        count = math.prod(shape)
        if self._bytes is not None:
            return self._bytes[at : at + count * dtype.itemsize].view(dtype).reshape(shape)
        return np.fromfile(self._path, dtype, count, offset=at).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
