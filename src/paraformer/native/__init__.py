"""The compiled part of the package, from the C sources beside this file: where it was built, and what may run here."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

AVX512, VNNI, BF16 = 1, 2, 4
"""What a processor may have, as detect.c tells it."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled code, where it was built for this platform."""
    for path in sorted(Path(__file__).parent.glob("engine.*")):
        if path.suffix in (".so", ".dylib", ".dll"):
            try:
                code = ctypes.CDLL(str(path))
            except OSError:
                return None
            code.pf_encoding.restype = code.pf_decoding.restype = ctypes.c_void_p
            return code
    return None


def runs(needed: int) -> bool:
    """Whether the code was built and this processor has all that is `needed`, a sum of the constants above."""
    code = library()
    return code is not None and code.pf_processor() & needed == needed
