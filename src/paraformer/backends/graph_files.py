"""Whether a graph file fits the settings and weights beside it, read without the onnx package.

ONNX Runtime takes a graph's word for where its weights lie: beside a file of another layout it reads other numbers, and
says nothing. So the places are compared before it runs. What is read here are a few fields of ONNX's protocol buffers,
by the numbers that stand beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from paraformer import contract
from paraformer.config import ModelConfig
from paraformer.errors import ModelError
from paraformer.weights import Place

_KINDS = {"F32": 1, "I8": 3, "F16": 10}
"""How ONNX numbers the kinds of weights, and below those of inputs and outputs."""
_DTYPES = {"float32": 1, "int32": 6, "int64": 7, "bool": 9}

Field = tuple[int, int | memoryview]


def check(
    path: Path, graph: contract.Graph, weights: Mapping[str, Place], config: ModelConfig, *, sealed: bool = False
) -> None:
    """Raise ModelError unless a graph fits the settings and weights beside it.

    Inputs and outputs must be those of the table, weights lie where the file has them, and the settings be those that
    it was traced with. sealed: these are known to be so of graphs of earlier versions, which do not tell.
    """
    try:
        # Fields by their numbers in onnx.proto3: of a model 7 is the graph and 14 what it tells of itself; of a graph
        # 5 are weights, 11 inputs and 12 outputs.
        message = memoryview(path.read_bytes())
        (body,) = _parts(message, 7)
        told = {_text(pair, 1): _text(pair, 2) for pair in _parts(message, 14)}.get(contract.SETTINGS)
        traced = json.loads(told) if told is not None else None
        ports = [_port(part) for number in (11, 12) for part in _parts(body, number)]
        places = [found for part in _parts(body, 5) if (found := _place(part))]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a graph that can be read; {_advice(path)}") from error
    expected = [(port.name, _DTYPES[port.dtype], _sizes(port)) for port in (*graph.inputs, *graph.outputs)]
    if ports != expected:
        other = next((port[0] for port, found in zip_longest(expected, ports) if port and port != found), ports[-1][0])
        raise ModelError(f"{path} does not fit the settings beside it, at {other}; {_advice(path)}")
    _check_settings(path, traced, contract.settings(config), sealed=sealed)
    for name, place in places:
        there = weights.get(name)
        if there is None or _flat(there) != place:
            raise ModelError(f"{path} does not fit {contract.WEIGHTS} beside it, at {name}; {_advice(path)}")


def _check_settings(path: Path, traced: object, now: Mapping[str, Any], *, sealed: bool) -> None:
    """Of what this version has more than the one that traced it, a graph says nothing."""
    if traced is None and sealed:
        return
    if not isinstance(traced, dict):
        raise ModelError(
            f"{path} does not tell which settings it was made with, and {path.parent} has no seal; {_advice(path)}"
        )
    missing = object()
    if other := next((name for name, value in traced.items() if now.get(name, missing) != value), None):
        raise ModelError(
            f"{path} was made with {other} {traced[other]}, and the settings beside it say {now.get(other)}; "
            f"{_advice(path)}"
        )


def _advice(path: Path) -> str:
    return f"get the model again, or run `paraformer export {path.parent}` where torch is installed"


def _sizes(port: contract.Port) -> list[int | None]:
    """Of its axes; None: any."""
    return [axis if isinstance(axis, int) else None for axis in port.axes]


def _flat(place: Place) -> tuple[int, tuple[int, ...], int, int]:
    """Kind, shape without ones (scales of rows have them in the file alone), and bytes."""
    return _KINDS.get(place.kind, 0), tuple(size for size in place.shape if size != 1), place.begin, place.size


def _port(part: memoryview) -> tuple[str, int, list[int | None]]:
    """Name, type and sizes of an input or output, of which one that varies is None."""
    # Of a port 1 is its name, 2 its type; of a tensor's type 1 are its elements, 2 its shape, of which 1 is an axis.
    (kind,) = _parts(part, 2)
    (tensor,) = _parts(kind, 1)
    (element,), (shape,) = _numbers(tensor, 1), _parts(tensor, 2)
    sizes = [next(iter(_numbers(axis, 1)), None) for axis in _parts(shape, 1)]
    return _text(part, 1), element, sizes


def _place(part: memoryview) -> tuple[str, tuple[int, tuple[int, ...], int, int]] | None:
    """A tensor of the weights file by its name there, as `_flat` has it; None for one within the graph."""
    # Of a tensor 1 are its sizes, 2 its type, 8 its name and 13 where in another file it lies.
    outside = {_text(pair, 1): _text(pair, 2) for pair in _parts(part, 13)}
    if not outside:
        return None
    (kind,) = _numbers(part, 2)
    sizes = tuple(size for size in _numbers(part, 1) if size != 1)
    # ".kept": as `export.graphs` calls what a node brings to float32.
    known = _text(part, 8).removeprefix("model.").removesuffix(".kept")
    return known, (kind, sizes, int(outside["offset"]), int(outside["length"]))


def _text(message: memoryview, number: int) -> str:
    (found,) = _parts(message, number)
    return str(found, "utf-8")


def _parts(message: memoryview, number: int) -> list[memoryview]:
    """The fields of this number that hold bytes: texts and messages."""
    return [value for field, value in _fields(message) if field == number and isinstance(value, memoryview)]


def _numbers(message: memoryview, number: int) -> list[int]:
    """The fields of this number that are whole numbers, one by one or packed."""
    found: list[int] = []
    for field, value in _fields(message):
        if field == number and isinstance(value, int):
            found.append(value)
        elif field == number and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                one, at = _varint(value, at)
                found.append(one)
    return found


def _fields(message: memoryview) -> Iterator[Field]:
    """Number and value of each field of a message, in order."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        # Three bits tell how a value lies: 0 a number, 1 eight bytes, 5 four, 2 as many as the number before them says.
        wide = {1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wide is None:
            if key & 7 != 2:
                raise ValueError(f"wire type {key & 7}")
            wide, at = _varint(message, at)
        if at + wide > len(message):
            raise ValueError("cut")
        yield key >> 3, message[at : at + wide]
        at += wide


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return value, at
