"""Compiles the package's own engine (src/paraformer/native) into the wheel, with any C compiler or one from the index.

Where there is no compiler the wheel is made without it, with a warning, and recognises only with the extra [onnx], as
with PARAFORMER_ISA=none; code that does not compile ends the build. PARAFORMER_WHEEL names a platform of TARGETS to
compile for with zig (scripts/wheels). `python hatch_build.py` compiles in place for this machine; so does an editable
install.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("src/paraformer/native")
COMPILER_PACKAGE = "ziglang>=0.13"
COMMON = (
    "-std=gnu11",
    "-O3",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-trapping-math",
    "-pthread",
    "-Wall",
    "-Wextra",
)
SHARED = (
    "features.c",
    "threads.c",
    "workspace.c",
    "attention.c",
    "model.c",
    "front.c",
    "encoder.c",
    "decoder.c",
    "lstm.c",
    "candidates.c",
    "beam.c",
)
"""For every processor."""
_AVX512 = (*(f"-mavx512{name}" for name in ("f", "bw", "dq", "vl", "vnni", "bf16")), "-mfma")
FAMILIES = {
    "x86_64": (
        ("plain", ()),
        ("avx2", ("-mavx2", "-mfma")),
        ("avxvnni", ("-mavx2", "-mfma", "-mavxvnni")),
        ("avx512", _AVX512),
        ("amx", (*_AVX512, "-mamx-tile", "-mamx-int8", "-mamx-bf16")),
    ),
    "aarch64": (("plain", ()), ("neon", ("-march=armv8.2-a+dotprod",))),
}
"""Of processors: name and instructions. On other machines the plain one alone."""
TARGETS = {
    "manylinux_2_17_x86_64.manylinux2014_x86_64": "x86_64-linux-gnu.2.17",
    "manylinux_2_17_aarch64.manylinux2014_aarch64": "aarch64-linux-gnu.2.17",
    "macosx_11_0_arm64": "aarch64-macos.11.0",
    "macosx_11_0_x86_64": "x86_64-macos.11.0",
    "win_amd64": "x86_64-windows-gnu",
}
"""Platforms as wheels name them, and as zig does."""
_ZIG = {"-march=armv8.2-a+dotprod": "-mcpu=baseline+dotprod"}
"""How zig calls instructions that it calls otherwise."""
_SAME = {"amd64": "x86_64", "arm64": "aarch64"}
FBANK = ("-ffp-contract=fast", "-Wno-psabi")
"""Each lane is a frame for itself, so products may be fused with sums where the processor can; vectors stay inside."""


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the compiled engine to a wheel, which then is for one platform."""

    def dependencies(self) -> list[str]:
        """A compiler, where there is none."""
        wanted = os.environ.get("PARAFORMER_WHEEL") or not found_compiler()
        return [COMPILER_PACKAGE] if wanted and not unwanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; see hatchling."""
        if self.target_name != "wheel" or unwanted():
            return
        named, root, editable = os.environ.get("PARAFORMER_WHEEL"), Path(self.root), version == "editable"
        with ExitStack() as made:
            to = root / SOURCES if editable else Path(made.enter_context(TemporaryDirectory()))
            try:
                engine = compile_engine(root, to, TARGETS[named] if named else None)
            except FileNotFoundError as error:
                self.app.display_warning(
                    f"made without the package's own engine: {error}; until there is one, "
                    "recognition needs pip install 'paraformer[onnx]' and takes two to ten times as long"
                )
                return
            except subprocess.CalledProcessError as error:
                raise SystemExit(
                    f"the package's own engine could not be compiled: {error.stderr}\n"
                    "Name another compiler in CC, or set PARAFORMER_ISA=none to install without it."
                ) from error
            self.made = made.pop_all()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{named or _platform_tag()}"
        if not editable:
            build_data["force_include"][str(engine)] = f"paraformer/native/{engine.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind; see hatchling."""
        if hasattr(self, "made"):
            self.made.close()


def unwanted() -> bool:
    """Whether the package is to be made without compiled code."""
    return os.environ.get("PARAFORMER_ISA") == "none"


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def found_compiler() -> list[str] | None:
    """The command of a C compiler of this machine: of CC, or cc, gcc or clang."""
    if os.environ.get("CC"):
        return os.environ["CC"].split()
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def compile_engine(root: Path, to: Path, target: str | None = None) -> Path:
    """Write the engine of the sources below `root` into a directory, by zig for one of TARGETS, else for this machine.

    Returns where it is. Raises FileNotFoundError where there is no compiler, CalledProcessError where it fails.
    """
    command = _compiler(target)
    windows = "windows" in target if target else sys.platform == "win32"
    engine = to / ("engine.dll" if windows else "engine.so")
    command += [*COMMON, *(() if windows else ("-fPIC",)), *os.environ.get("CFLAGS", "").split()]
    machine = target.partition("-")[0] if target else platform.machine().lower()
    with TemporaryDirectory() as directory:
        objects = []
        for number, (source, flags) in enumerate(_sources(_SAME.get(machine, machine))):
            objects.append(f"{directory}/{number}.o")
            named = [_ZIG.get(flag, flag) if "ziglang" in command else flag for flag in flags]
            _run([*command, *named, "-c", str(root / SOURCES / source), "-o", objects[-1]])
        built = Path(directory) / engine.name
        link = ["-shared", *(["-s"] if target else [])]
        if "macos" in (target or sys.platform.replace("darwin", "macos")):
            link.append(f"-Wl,-install_name,@rpath/{engine.name}")  # else the path of this build stands in it
        _run([*command, *link, *objects, "-o", str(built), "-lm"])
        shutil.copy(built, to / f".{engine.name}")
    return (to / f".{engine.name}").replace(engine)  # in one move: a running process keeps the old one


def _compiler(target: str | None) -> list[str]:
    """The command that compiles for one of TARGETS or this machine. Raises FileNotFoundError where there is none."""
    command = None if target else found_compiler()
    if command is not None:
        return command
    if find_spec("ziglang") is None:
        raise FileNotFoundError("there is no C compiler (cc, gcc, clang, or the package ziglang)")
    return [sys.executable, "-m", "ziglang", "cc", *(["-target", target] if target else ["-mcpu=baseline"])]


def _sources(machine: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each file, and how it is compiled."""
    for source in SHARED:
        yield source, ()
    for name, instructions in FAMILIES.get(machine, (("plain", ()),)):
        yield f"isa/{name}.c", (*instructions, f"-DISA={name}")
        yield "isa/fbank.c", (*instructions, *FBANK, f"-DISA={name}")


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:  # CC names what is no program
        raise subprocess.CalledProcessError(1, command, stderr=str(error)) from error


if __name__ == "__main__":
    compile_engine(Path(__file__).parent, Path(__file__).parent / SOURCES)
