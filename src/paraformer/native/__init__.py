"""The compiled part of the package, from the C sources beside this file: where it was built, and what may run here.

`PARAFORMER_ISA` names the family of processors whose kernels are to be used, of those that this one has: "amx",
"avx512", "avxvnni", "avx2", "neon", "plain"; "none" does without compiled code. So a machine can do what a lesser one
would.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from ctypes import POINTER, c_int64
from functools import cache
from itertools import count
from pathlib import Path

from paraformer.errors import ConfigError
from paraformer.native import layout
from paraformer.native.layout import BFLOAT16, FLOAT32, INT8

__all__ = [
    "BFLOAT16",
    "FLOAT32",
    "INT8",
    "SWITCH",
    "code",
    "families",
    "family",
    "fast",
    "faster",
    "kernels_for",
    "layout",
    "library",
]

SWITCH = "PARAFORMER_ISA"
NONE = "none"


@cache
def library() -> ctypes.CDLL | None:
    """The compiled code, where it was built. What is of other sources or no library is refused, with a warning."""
    path = Path(__file__).with_name("engine.dll" if sys.platform == "win32" else "engine.so")
    if not path.is_file():
        return None
    try:
        code = ctypes.CDLL(str(path))
    except OSError as error:
        fault = f"cannot be loaded ({error})"
    else:
        if _fits(code):
            code.pf_kernels.restype = POINTER(layout.Kernels)
            return code
        fault = "was built from other sources"
    advice = "install the package again, or run `python hatch_build.py` in its source"
    warnings.warn(f"{path} {fault} and is left alone; {advice}", RuntimeWarning, stacklevel=2)
    return None


def code() -> ctypes.CDLL | None:
    """The compiled code, for what is the same on every family of processors; None where none is to be used."""
    return None if family(FLOAT32) is None else library()


def _fits(code: ctypes.CDLL) -> bool:
    """Whether the code has the layout of this Python: else every address handed over would be misread."""
    try:
        tell = code.pf_layout
    except AttributeError:
        return False
    tell.restype = c_int64
    wanted = [layout.ABI, *(ctypes.sizeof(structure) for structure in layout.STRUCTURES), 0]
    return [tell(which) for which in range(len(wanted))] == wanted


@cache
def families() -> dict[str, layout.Kernels]:
    """Kernels by the name of their family, the fastest first, of those that this processor has for some format."""
    code, found = library(), dict[str, layout.Kernels]()
    if code is None:
        return found
    for which in count():
        pointer = code.pf_kernels(which)
        if not pointer:
            return found
        if any(_has(needed) for needed in pointer.contents.needs):
            found[pointer.contents.name.decode()] = pointer.contents
    raise AssertionError


def family(number: int) -> layout.Kernels | None:
    """The best kernels here for a format; None where there is no compiled code.

    Raises ConfigError where PARAFORMER_ISA names what there is not.
    """
    named = os.environ.get(SWITCH) or None
    if named is not None and named not in (NONE, *families()):
        here = ", ".join((*families(), NONE))
        raise ConfigError(f"{SWITCH}={named} names no family of processors that this one belongs to; here are {here}")
    for name, kernels in families().items():
        if named in (None, name) and _has(kernels.needs[number]):
            return kernels
    return None


def kernels_for(number: int) -> str:
    """The name of the best kernels here for a format, as in "avx2"; "none" where there is no compiled code."""
    found = family(number)
    return NONE if found is None else str(found.name.decode())


def faster() -> str | None:
    """What would compute faster on this very processor, and how to have it, in words; None: nothing would."""
    if library() is None:
        return (
            "the engine of this package, which was not built: install a wheel for this platform, or a C compiler first"
        )
    here, named = list(families()), os.environ.get(SWITCH)
    if named and here and named != here[0]:
        return f"the {here[0]} kernels, without {SWITCH}={named} in the environment"
    return None


def fast(number: int) -> bool:
    """Whether the best kernels here for a format have instructions made for it, and so leave other runtimes behind."""
    kernels = family(number)
    return kernels is not None and bool(kernels.fast[number])


def _has(needed: int) -> bool:
    """Whether this processor has all of a sum of what features.h lists."""
    return _features() & needed == needed


@cache
def _features() -> int:
    code = library()
    assert code is not None, "asked for kernels that there are"
    return int(code.pf_features())
