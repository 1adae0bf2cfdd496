"""What computes on this machine, and what would be faster, in words: for `info` and `transcribe --verbose`."""

from __future__ import annotations

import os
from importlib.util import find_spec

from paraformer import native
from paraformer.backends.native import fast, kernels, supports
from paraformer.config import ModelConfig
from paraformer.loader import Choice

_PACKAGES = {"onnx": "onnxruntime", "torch": "torch"}
"""By the names of backends and of their extras."""


def computing(choice: Choice) -> str:
    """The engine, the precision and, of the package's own engine, the kernels: "native int8, avx2 kernels"."""
    return f"{choice}, {kernels(choice.precision)} kernels" if choice.backend == "native" else str(choice)


def needed(choice: Choice) -> str:
    """By what it is computed; where that is not installed, what to type."""
    if choice.backend == "native":
        return "by the base install"
    if find_spec(_PACKAGES[choice.backend]):
        return f"by the extra [{choice.backend}]"
    return f"once there is the extra: pip install 'paraformer[{choice.backend}]'"


def faster(choice: Choice, config: ModelConfig, threads: int = 0) -> str:
    """What would be faster on this machine and how to have it; empty where nothing would. threads: 0 for all cores."""
    ways, cores = [native.faster()], os.cpu_count() or 1
    if supports(config) and fast("int8") and choice != Choice("native", "int8"):
        ways.append("native int8, without --backend, --precision and --device")
    if threads and threads < cores:
        ways.append(f"all {cores} cores, by --threads 0")
    return "; ".join(filter(None, ways))
