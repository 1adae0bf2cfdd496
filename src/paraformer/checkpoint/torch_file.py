"""Tensors out of files that torch wrote, read without torch and without unpickling: nothing in them can be run.

Such a file is a zip of raw numbers, one member a storage, and of a pickle that says which tensors lie where in them:
see torch/serialization.py. The pickle is read opcode by opcode: those that build plain values are
followed, and of what others would import and call only what rebuilds tensors is known. The numbers stay in the file,
mapped into memory. Files from before torch 1.6 are no zips and are left to torch.
"""

from __future__ import annotations

import pickletools
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paraformer.errors import CheckpointError, MissingExtra

NESTINGS = ("state_dict", "model_state_dict", "model")
"""Where training checkpoints keep the tensors, outermost first."""
SHOWN = 5
"""Names that an error lists."""
_KINDS: Mapping[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": np.uint16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
"""Numbers of torch's storages; bfloat16 as its bits."""
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged file may raise."""
_HEADER = 30
"""Bytes of a zip member's own header, before its name."""


class _Refused(Exception):
    """The pickle holds more than tensors and plain values."""


@dataclass(frozen=True)
class _Global:
    """What a pickle names to be imported; it never is."""

    name: str


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch checkpoint under their bare names: nestings and "module." prefixes of training are gone.

    bfloat16 comes as float32. Raises CheckpointError for anything but tensors by name; in particular for pickled code,
    which is never run. MissingExtra for a file from before torch 1.6 where there is no torch.
    """
    try:
        held = _Zip(path).unpacked() if zipfile.is_zipfile(path) else _by_torch(path)
    except _Refused as error:
        raise CheckpointError(
            f"{path} was refused and nothing in it was run: it is damaged or holds more than tensors and plain values; "
            "get it again from where you trust it, or save its state_dict alone"
        ) from error
    except _DAMAGE as error:
        reason = str(error).strip().split(". ")[0].split("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint: {reason}; get the model again"
        ) from error
    for nesting in NESTINGS:
        if isinstance(held, dict) and isinstance(held.get(nesting), dict):
            held = held[nesting]
    if not isinstance(held, dict) or not all(isinstance(tensor, np.ndarray) for tensor in held.values()):
        raise CheckpointError(f"{path} does not hold tensors by name, but {_described(held)}")
    return {str(name).removeprefix("module."): tensor for name, tensor in held.items()}


def _described(held: Any) -> str:
    if not isinstance(held, dict):
        return f"a {type(held).__name__}"
    others = [str(name) for name, value in held.items() if not isinstance(value, np.ndarray)]
    return f"other things as well: {', '.join(others[:SHOWN])}"


class _Zip:
    """The members of a file, and the machine that reads its pickle."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            self._members = {info.filename: info for info in archive.infolist()}
            (pickled,) = (name for name in self._members if name.count("/") == 1 and name.endswith("/data.pkl"))
            self._folder = pickled.removesuffix("data.pkl")
            self._pickle = archive.read(pickled)
            if self._folder + "byteorder" in self._members and archive.read(self._folder + "byteorder") != b"little":
                raise ValueError("its numbers are of a machine with the other order of bytes")
        self._bytes = np.memmap(path, np.uint8, "c")  # copied where it is written to; the file stays as it is
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def unpacked(self) -> Any:
        """What the pickle describes, of plain values and arrays."""
        for opcode, value, _ in pickletools.genops(self._pickle):
            if opcode.name in _VALUES:
                self._stack.append(value)
            elif opcode.name in _MADE:
                self._stack.append(_MADE[opcode.name]())
            elif opcode.name in _ACTS:
                _ACTS[opcode.name](self, value)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise _Refused(opcode.name)
        (held,) = self._stack
        return held

    def since_mark(self) -> list[Any]:
        """What was put on the stack since the last mark, taken off it."""
        return self.last(len(self._stack) - self._marks.pop())

    def last(self, count: int) -> list[Any]:
        """The last values of the stack, taken off it."""
        if not 0 <= count <= len(self._stack):
            raise ValueError("a value is missing")
        taken = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return taken

    def mark(self) -> None:
        """Begin what `since_mark` takes."""
        self._marks.append(len(self._stack))

    def put(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def keep(self, place: int | None) -> None:
        """Remember the last value under a number, or the next one."""
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def get(self, place: int) -> None:
        """Put a remembered value on the stack."""
        self._stack.append(self._memo[place])

    def set_items(self, items: Sequence[Any]) -> None:
        """Keys and values by turns, into the dictionary before them."""
        if not isinstance(self._stack[-1], dict):
            raise _Refused("items of what is no dictionary")
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def extend(self, items: Sequence[Any]) -> None:
        """Into the list before them."""
        if not isinstance(self._stack[-1], list):
            raise _Refused("items of what is no list")
        self._stack[-1].extend(items)

    def call(self) -> None:
        """What a pickle would call, which is one of these or refused."""
        called, arguments = self.last(2)
        match called, arguments:
            case _Global("collections OrderedDict"), ():
                self.put({})
            case _Global("torch._utils _rebuild_tensor_v2"), (np.ndarray() as storage, start, shape, strides, *_):
                self.put(_tensor(storage, start, shape, strides))
            case _Global("torch._utils _rebuild_parameter"), (np.ndarray() as tensor, *_):
                self.put(tensor)
            case _Global("torch Size"), (tuple() as shape,):
                self.put(shape)
            case _:
                raise _Refused(str(called))

    def build(self) -> None:
        """What a dictionary has beside its items says nothing of tensors."""
        built, _ = self.last(2)
        if not isinstance(built, dict):
            raise _Refused("state of what is no dictionary")
        self.put(built)

    def storage(self) -> None:
        """The numbers that a persistent id names."""
        match self.last(1)[0]:
            case ("storage", _Global(name), str(key), str(), int(count)) if name.removeprefix("torch ") in _KINDS:
                kind = np.dtype(_KINDS[name.removeprefix("torch ")])
            case other:
                raise _Refused(str(other))
        member = self._members[f"{self._folder}data/{key}"]
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != count * kind.itemsize:
            raise ValueError(f"{member.filename} is not as long as its tensors, or compressed")
        header = self._bytes[member.header_offset : member.header_offset + _HEADER].tobytes()
        begin = member.header_offset + _HEADER + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        numbers = self._bytes[begin : begin + member.file_size].view(kind)
        if name == "torch BFloat16Storage":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        self.put(numbers)


def _tensor(storage: np.ndarray, start: int, shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """A view of a storage, all of it inside."""
    if min((start, *shape, *strides)) < 0 or len(shape) != len(strides):
        raise ValueError("a tensor has a place before its numbers")
    empty = 0 in shape
    end = start + (0 if empty else 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)))
    if end > len(storage):
        raise ValueError("a tensor reaches beyond its numbers")
    if empty:
        return np.zeros(shape, storage.dtype)
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[start:end], shape, steps)


_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
"""Opcodes that stand for the value that pickletools finds in them."""
_MADE: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_ACTS: Mapping[str, Callable[[_Zip, Any], None]] = {
    "MARK": lambda zip_, _: zip_.mark(),
    "TUPLE": lambda zip_, _: zip_.put(tuple(zip_.since_mark())),
    "TUPLE1": lambda zip_, _: zip_.put(tuple(zip_.last(1))),
    "TUPLE2": lambda zip_, _: zip_.put(tuple(zip_.last(2))),
    "TUPLE3": lambda zip_, _: zip_.put(tuple(zip_.last(3))),
    "SETITEM": lambda zip_, _: zip_.set_items(zip_.last(2)),
    "SETITEMS": lambda zip_, _: zip_.set_items(zip_.since_mark()),
    "APPEND": lambda zip_, _: zip_.extend(zip_.last(1)),
    "APPENDS": lambda zip_, _: zip_.extend(zip_.since_mark()),
    "BINPUT": lambda zip_, place: zip_.keep(place),
    "LONG_BINPUT": lambda zip_, place: zip_.keep(place),
    "MEMOIZE": lambda zip_, _: zip_.keep(None),
    "BINGET": lambda zip_, place: zip_.get(place),
    "LONG_BINGET": lambda zip_, place: zip_.get(place),
    "GLOBAL": lambda zip_, name: zip_.put(_Global(name)),
    "STACK_GLOBAL": lambda zip_, _: zip_.put(_Global(" ".join(zip_.last(2)))),
    "BINPERSID": lambda zip_, _: zip_.storage(),
    "REDUCE": lambda zip_, _: zip_.call(),
    "BUILD": lambda zip_, _: zip_.build(),
}
"""What the other opcodes do to the stack and what is remembered."""


def _by_torch(path: Path) -> Any:
    """A file of the older kind, tensors as arrays; torch refuses what is neither tensor nor plain value."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtra(f"{path} is no zip, as torch has written since 2020; opening it", "torch") from error
    import pickle
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; the error says what matters
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _Refused(str(error)) from error
    return _arrays(held)


def _arrays(held: Any) -> Any:
    if isinstance(held, dict):
        return {name: _arrays(value) for name, value in held.items()}
    if hasattr(held, "detach"):
        kept = held.detach()
        return (kept.float() if str(kept.dtype) == "torch.bfloat16" else kept).numpy()
    return held
