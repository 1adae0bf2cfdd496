"""Compiles the package's own engine (src/paraformer/native) into the wheel, with any C compiler or one from the index.

Where it cannot be compiled the wheel is made without it, and ONNX Runtime does all the work. `python hatch_build.py`
compiles it in place.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("src/paraformer/native")
ENGINE = SOURCES / "engine.so"
COMPILER_PACKAGE = "ziglang>=0.13"
COMMON = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread", "-Wall", "-Wextra")
SHARED = (
    "features.c",
    "threads.c",
    "workspace.c",
    "attention.c",
    "model.c",
    "front.c",
    "encoder.c",
    "decoder.c",
    "beam.c",
)
"""For every processor."""
FAMILIES = (
    ("plain", "plain.c", ()),
    ("avx2", "avx2.c", ("-mavx2", "-mfma")),
    ("avxvnni", "avxvnni.c", ("-mavx2", "-mfma", "-mavxvnni")),
    ("avx512", "avx512.c", (*(f"-mavx512{name}" for name in ("f", "bw", "dq", "vl", "vnni", "bf16")), "-mfma")),
)
"""Of processors: name, kernels, instructions. On machines that are not x86-64 the first one alone."""
FBANK = ("-ffp-contract=fast", "-Wno-psabi")
"""Each lane is a frame for itself, so products may be fused with sums where the processor can; vectors stay inside."""


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the compiled engine to a wheel, which then is for this platform."""

    def dependencies(self) -> list[str]:
        """A compiler, where there is none."""
        return [COMPILER_PACKAGE] if supported() and not found_compiler() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; see hatchling."""
        if self.target_name != "wheel" or not supported():
            return
        try:
            compile_engine(Path(self.root))
        except (OSError, subprocess.CalledProcessError) as error:
            reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
            self.app.display_warning(f"made without its own engine, which could not be compiled: {reason}")
            return
        build_data["pure_python"] = False
        build_data["artifacts"].append(f"/{ENGINE}")
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def supported() -> bool:
    """Whether the engine is written for this kind of machine."""
    return sys.platform in ("linux", "darwin")


def found_compiler() -> list[str] | None:
    """The command of a C compiler of this machine: of CC, or cc, gcc or clang."""
    if os.environ.get("CC"):
        return os.environ["CC"].split()
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def compile_engine(root: Path) -> None:
    """Write the engine below `root`. Raises OSError or CalledProcessError where that fails."""
    command = found_compiler()
    if command is None:
        if find_spec("ziglang") is None:
            raise OSError("there is no C compiler")
        command = [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"]
    command += [*COMMON, *os.environ.get("CFLAGS", "").split()]
    with TemporaryDirectory() as directory:
        objects = []
        for number, (source, flags) in enumerate(_sources()):
            objects.append(f"{directory}/{number}.o")
            _run([*command, *flags, "-c", str(root / SOURCES / source), "-o", objects[-1]])
        built = Path(directory) / ENGINE.name
        _run([*command, "-shared", *objects, "-o", str(built), "-lm"])
        shutil.copy(built, root / SOURCES / f".{ENGINE.name}")
    (root / SOURCES / f".{ENGINE.name}").replace(root / ENGINE)  # in one move: a running process keeps the old one


def _sources() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each file, and how it is compiled."""
    for source in SHARED:
        yield source, ()
    families = FAMILIES if platform.machine().lower() in ("x86_64", "amd64") else FAMILIES[:1]
    for name, kernels, instructions in families:
        yield f"isa/{kernels}", (*instructions, f"-DISA={name}")
        yield "isa/fbank.c", (*instructions, *FBANK, f"-DISA={name}")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    compile_engine(Path(__file__).parent)
