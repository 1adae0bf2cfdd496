"""The tensors of a bundle's `model.safetensors`: in float32, in float16, or with matrices in 8 bits. Torch-free.

A matrix in 8 bits is two tensors: NAME, whole numbers from -127 to 127, and NAME.scale, float32 (rows, 1, ...), by
which the numbers of a row are multiplied. Each product is rounded once, so all that read it hold the same weights to
the bit, and quantising these again gives the same whole numbers. What is no matrix stays in float32 beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int8
from safetensors import SafetensorError, safe_open

from paraformer.errors import CheckpointError, ModelError

Storage = Literal["float32", "float16", "int8"]
"""How weights lie on disk; what is computed with them is always made of floating-point numbers."""
SCALE = ".scale"
_LEAST = 16
"""Rows, and channels of a row, of what is kept in 8 bits: taps of one channel and single rows would save nothing."""
_KINDS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
}
KIND_NAMES = {kind: name for name, kind in _KINDS.items()}
"""Of numbers that `Stored` reads, as safetensors calls them."""


def quantised(weight: Float32[np.ndarray, "*shape"]) -> tuple[Int8[np.ndarray, "*shape"], np.ndarray] | None:
    """A matrix or convolution as whole numbers and the scale of each row, (rows, 1, ...); None for what stays as it is.

    The largest number of a row becomes 127 or -127.

    >>> whole, scale = quantised(np.full((16, 16), 0.5, np.float32))
    >>> whole[0, 0], scale.shape
    (np.int8(127), (16, 1))
    """
    if weight.ndim < 2 or min(weight.shape[:2]) < _LEAST:
        return None
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    scale = np.maximum(largest / np.float32(127), np.finfo(np.float32).tiny)
    return np.rint(weight / scale).astype(np.int8), scale


@dataclass(frozen=True)
class Place:
    """A tensor in a safetensors file: its type as safetensors calls it, its shape, and its bytes in the file."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    size: int


def places(path: Path) -> dict[str, Place]:
    """Those of all tensors, by name, from the header alone.

    Raises CheckpointError for a damaged file, or a matrix in 8 bits whose scales are missing or of another shape.
    """
    if not path.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{path} is not a file; get the model again")
    try:
        with safe_open(path, "np"):  # checks that names, sizes and places are sound
            pass
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}; get the model again") from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        found[name] = Place(entry["dtype"], tuple(entry["shape"]), 8 + size + begin, end - begin)
    for name, place in found.items():
        if place.kind == "I8":
            _check_pair(path, name, place.shape, found.get(name + SCALE))
    return found


def _check_pair(path: Path, name: str, shape: tuple[int, ...], scale: Place | None) -> None:
    if scale is None:
        raise CheckpointError(f"{path} holds {name} in 8 bits without {name}{SCALE}; get the model again")
    expected = (*shape[:1], *(1 for _ in shape[1:]))
    if (scale.kind, scale.shape) != ("F32", expected):
        raise CheckpointError(
            f"{path} holds {name}{SCALE} as {scale.kind} of shape {scale.shape}, not as F32 of shape {expected}; "
            "get the model again"
        )


def check_scale(name: str, scale: Float32[np.ndarray, "*rows"]) -> None:
    """Raise ModelError unless the scales of the matrix `name` are positive and finite."""
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ModelError(f"{name}{SCALE} of the weights holds numbers that are no scale; get the model again")


def in_8_bits(found: Mapping[str, Place]) -> list[str]:
    """Names of the matrices that are kept so."""
    return [name for name, place in found.items() if place.kind == "I8"]


def storage(path: Path) -> Storage:
    """How a file keeps its weights. Raises as `places`."""
    return _storage(places(path))


def _storage(found: Mapping[str, Place]) -> Storage:
    kinds = {place.kind for place in found.values()}
    return "int8" if "I8" in kinds else "float16" if kinds == {"F16"} else "float32"


class Stored(Mapping[str, np.ndarray]):
    """The arrays of a safetensors file; matrices in 8 bits come as the float32 that they stand for.

    mapped: others stay in the file, mapped into memory. Else each is read when it is asked for, and never kept here, so
    that a model can be brought into another layout without being in memory twice. memory: gives so many bytes for one.
    """

    def __init__(self, path: Path, *, mapped: bool, memory: Callable[[int], np.ndarray] | None = None) -> None:
        """Raises as `places`, and CheckpointError for numbers of a kind that is not read here."""
        self._path, self._memory = path, memory or partial(np.empty, dtype=np.uint8)
        self._places = places(path)
        for name, place in self._places.items():
            if place.kind not in _KINDS:
                raise CheckpointError(f"{path} cannot be read: {name} is in {place.kind}, which is not read here")
        self._scales = {name + SCALE for name in in_8_bits(self._places)}
        self._bytes = np.memmap(path, np.uint8, "r") if mapped else None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self:
            raise KeyError(name)
        if (pair := self.in_8_bits(name)) is None:
            return self._read(name)
        whole, scale = pair
        product: np.ndarray = whole * scale
        return product

    @property
    def storage(self) -> Storage:
        """How the weights are kept."""
        return _storage(self._places)

    def in_8_bits(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The whole numbers and scales of a matrix, as `quantised` makes them; None where it is not kept so."""
        if name not in self or self._places[name].kind != "I8":
            return None
        return self._read(name), self._scale(name)

    def check_finite(self) -> None:
        """Raise ModelError that names a tensor which holds NaN or infinity, without looking at what is in 8 bits."""
        for name, place in self._places.items():
            if place.kind == "I8":
                self._scale(name)
            elif name not in self._scales:
                check_finite(name, self._read(name))

    def _scale(self, name: str) -> np.ndarray:
        scale = self._read(name + SCALE)
        check_scale(name, scale)
        return scale

    def _read(self, name: str) -> np.ndarray:
        place, kind = self._places[name], _KINDS[self._places[name].kind]
        if self._bytes is not None:
            return self._bytes[place.begin : place.begin + place.size].view(kind).reshape(place.shape)
        found = self._memory(place.size)
        with self._path.open("rb") as file:
            file.seek(place.begin)
            if file.readinto(found.data) < place.size:
                raise CheckpointError(f"{self._path} became shorter while it was read; get the model again")
        return found.view(kind).reshape(place.shape)

    def __contains__(self, name: object) -> bool:
        return name in self._places and name not in self._scales  # without a look at the numbers

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._places if name not in self._scales)

    def __len__(self) -> int:
        return len(self._places) - len(self._scales)


def check_shape(name: str, shape: Sequence[int], expected: Sequence[int]) -> None:
    """Raise CheckpointError for a tensor of another shape than the settings of its model say."""
    if tuple(shape) != tuple(expected):
        raise CheckpointError(
            f"{name} of the weights is {_sizes(shape)}, not {_sizes(expected)} as the model's settings say"
        )


def check_names(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], source: str, shown: int = 5
) -> None:
    """Raise CheckpointError, naming `source`, unless the shapes of tensors are exactly the expected ones, by name."""
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    misshapen = [
        f"{name} is {_sizes(found[name])}, not {_sizes(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    parts = (("missing", missing), ("unexpected", extra), ("of the wrong shape", misshapen))
    faults = [
        f"{len(names)} {fault}: {', '.join(names[:shown])}{', ...' if len(names) > shown else ''}"
        for fault, names in parts
        if names
    ]
    if faults:
        raise CheckpointError(f"{source} does not hold the tensors of its configuration; {'; '.join(faults)}")


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def checked(
    whose: str, weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Float32[np.ndarray, "..."]]:
    """All tensors of a small network as float32. Raises CheckpointError unless they are of `shapes`, and finite."""
    arrays = {name: np.asarray(weights[name]) for name in weights}
    check_names(shapes, {name: array.shape for name, array in arrays.items()}, whose)
    if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise CheckpointError(f"tensors of {whose} hold numbers that are not finite: {', '.join(broken[:5])}")
    return {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise ModelError for a tensor with NaN or infinity, which would make nothing but blanks or noise of speech."""
    if not is_finite(array):
        raise ModelError(f"{name} of the weights holds NaN or infinity; get the model again, or train it again")


def check_all_finite(arrays: Iterable[tuple[str, np.ndarray]], source: str, shown: int = 5) -> None:
    """Raise CheckpointError, naming `source` and what in it holds NaN or infinity."""
    if broken := [name for name, array in arrays if not is_finite(array)]:
        names = ", ".join(broken[:shown]) + (", ..." if len(broken) > shown else "")
        raise CheckpointError(
            f"{source} holds numbers that are not finite in {names}; take an earlier checkpoint of the run"
        )


def is_finite(array: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity.

    By the sum, which cannot be finite then and costs a fifth of looking at each number: 0.1 s for 220 million.
    """
    if array.dtype == np.float16:
        return bool(array.size == 0 or (array.view(np.uint16) & 0x7FFF).max() < 0x7C00)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum(dtype=array.dtype)) or np.isfinite(array).all())
