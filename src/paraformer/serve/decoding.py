"""Uploads to samples, in a process of its own with limits: no file can take the server's time, memory or secrets."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from multiprocessing import reduction
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from time import monotonic
from types import ModuleType
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import Float32

from paraformer.audio import SAMPLE_RATE, pcm16_blocks, read_blocks
from paraformer.errors import AudioError, ParaformerError, attempt
from paraformer.serve.config import Limits

Block = Float32[np.ndarray, " _"]
_BLOCK_S = 10.0


def blocks(file: int, rate: int | None, limits: Limits) -> Iterator[Block]:
    """The samples of a file, mono at 16 kHz, as another process decodes them.

    file: its descriptor, whose place moves. rate: of headerless 16-bit samples; None: the content tells. Raises
    AudioError for what cannot be decoded, is longer than `limits.audio_s`, or takes more time or memory than the limits
    allow.
    """
    here, there = _context().Pipe(duplex=False)
    child = _started(_decode, there, _Descriptor(file), rate, limits)
    there.close()
    heard_s, until = 0.0, monotonic() + 2 * limits.decode_s
    try:
        while (block := _received(here, until)) is not None:
            heard_s += len(block) / SAMPLE_RATE
            if heard_s > limits.audio_s:
                raise AudioError(f"the audio is longer than {limits.audio_s:g} s, which is the most that is taken here")
            yield block
    finally:
        here.close()
        child.kill()
        child.join()


def _received(pipe: Connection, until: float) -> Block | None:
    """The next block; None at the end. Raises AudioError for what the other process says, or if it does not answer."""
    if not pipe.poll(max(0.0, until - monotonic())):
        raise AudioError("the audio takes too long to decode")
    try:
        data = pipe.recv_bytes()
    except EOFError as error:
        raise AudioError("the audio cannot be decoded within the limits of time and memory that there are") from error
    match data[:1]:
        case b"s":
            return np.frombuffer(data[1:], np.float32)
        case b"e":
            raise AudioError(data[1:].decode())
        case _:
            return None


@cache
def _context() -> BaseContext:
    """Children of a clean process that has read what decoding needs, where there is such a thing."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["paraformer.serve.decoding"])
        return context  # type: ignore[no-any-return]
    return multiprocessing.get_context("spawn")


def warm() -> None:
    """Start the process that children come from."""
    _started(int).join()


_STARTING = threading.Lock()


def _started(target: Callable[..., Any], *args: Any) -> Any:
    """A child at work. It does not run the program that the server is part of again, as children do by themselves."""
    child = _context().Process(target=target, args=args, daemon=True)  # type: ignore[attr-defined]
    with _STARTING:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            child.start()
        finally:
            sys.modules["__main__"] = program
    return child


class _Descriptor:
    """An open file on its way to a child that is being started."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.number)

    def __setstate__(self, sent: Any) -> None:
        self.number = sent.detach()


# -- in the other process --------------------------------------------------------------------------------------------


def _decode(pipe: Connection, descriptor: _Descriptor, rate: int | None, limits: Limits) -> None:
    _confine(limits)
    try:
        with attempt("the audio") as decoding, open(descriptor.number, "rb") as file:  # noqa: PTH123
            file.seek(0)
            for block in _sound(file, rate):
                pipe.send_bytes(b"s" + block.astype(np.float32, copy=False).tobytes())
        pipe.send_bytes(b"." if decoding.error is None else b"e" + _said(decoding.error).encode())
    except (MemoryError, BrokenPipeError):
        sys.exit(1)


def _sound(file: BinaryIO, rate: int | None) -> Iterator[Block]:
    return (
        read_blocks(cast("BinaryIO", _Named(file)), _BLOCK_S)
        if rate is None
        else pcm16_blocks(file, rate, block_s=_BLOCK_S)
    )


def _said(error: ParaformerError) -> str:
    return " ".join(str(error).split())[:300]


class _Named:
    """The file under a name that says nothing of the server's directories."""

    name = "the audio"

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def seekable(self) -> bool:
        """Yes."""
        return True


def _confine(limits: Limits) -> None:
    """Bounds on processor time, memory and files; nothing can be written any more, and nothing is logged."""
    logging.disable()
    with suppress(ImportError):
        import resource

        for kind, most in (
            (resource.RLIMIT_CPU, int(limits.decode_s)),
            (resource.RLIMIT_AS, limits.decode_bytes),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            with suppress(ValueError, OSError):
                resource.setrlimit(kind, (most, most))
