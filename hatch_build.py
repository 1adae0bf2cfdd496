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
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("src/paraformer/native")
ENGINE = SOURCES / "engine.so"
COMPILER_PACKAGE = "ziglang>=0.13"
COMMON = ("-std=c11", "-O3", "-fPIC", "-Wall", "-Wextra")
PLAIN = ("detect.c",)
"""Runs on every processor, to tell what the others need."""
FAST = ("kernels.c", "model.c", "fbank.c")
INSTRUCTIONS = (*(f"-mavx512{name}" for name in ("f", "bw", "dq", "vl", "vnni", "bf16")), "-mfma")


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
    return platform.machine().lower() in ("x86_64", "amd64") and sys.platform in ("linux", "darwin")


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
        command = [sys.executable, "-m", "ziglang", "cc", "-mcpu=x86_64"]
    with TemporaryDirectory() as directory:
        objects = []
        for name in (*PLAIN, *FAST):
            objects.append(f"{directory}/{name}.o")
            instructions = INSTRUCTIONS if name in FAST else ()
            _run([*command, *COMMON, *instructions, "-c", str(root / SOURCES / name), "-o", objects[-1]])
        built = Path(directory) / ENGINE.name
        _run([*command, "-shared", *objects, "-o", str(built), "-lm"])
        shutil.copy(built, root / SOURCES / f".{ENGINE.name}")
    (root / SOURCES / f".{ENGINE.name}").replace(root / ENGINE)  # in one move: a running process keeps the old one


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    compile_engine(Path(__file__).parent)
