"""The peers as they are on a processor that has AVX2 alone, on one that has more.

Their libraries ask the processor by the instruction `cpuid`, which an ordinary process cannot be kept from. So copies
of the libraries get another instruction in its place, one that no processor executes, and `hidden.c` answers. Needs
x86-64, Linux, a C compiler, objdump and readelf. A processor whose wider units are hidden is not an older one: caches,
clock and units stay its own, for all that are compared.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

CPUID, REPLACED = b"\x0f\xa2", b"\x0f\xff"
KERNELS = "avx2"
"""Ours, beside which the peers are to see such a processor."""
SOURCE = Path(__file__).parent / "hidden.c"


def environment(python: Path, folder: Path) -> dict[str, str]:
    """Variables for a peer's process. python: of the peers; folder: for copies of what is installed there."""
    site, recipe = folder / "site-packages", folder / "recipe"
    installed = python.parent.parent / "recipe"  # what scripts/peers leaves
    if not (recipe.exists() and recipe.read_bytes() == installed.read_bytes()):
        shutil.rmtree(site, ignore_errors=True)
        shutil.rmtree(making := folder / "making", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        shutil.copytree(found, making, symlinks=True)
        for library in making.rglob("*.so*"):
            if library.is_file() and not library.is_symlink():
                hide(library)
        making.rename(site)
        shutil.copy(installed, recipe)
    return answering(folder) | {"PYTHONPATH": str(site.resolve())}


def answering(folder: Path) -> dict[str, str]:
    """Variables for a process whose libraries are changed."""
    answers = folder / "hidden.so"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", SOURCE, "-o", answers], check=True)
    return {"LD_PRELOAD": str(answers.resolve())}


def hide(library: Path) -> int:
    """Put a changed copy in the place of a library that asks the processor. Returns in how many places it does."""
    content = bytearray(library.read_bytes())
    if CPUID not in content:
        return 0
    segments = list(_segments(library))
    places = 0
    for address in _questions(library):
        at = next(address - begin + offset for offset, begin, size in segments if begin <= address < begin + size)
        if content[at : at + 2] != CPUID:
            raise RuntimeError(f"{library} has no cpuid at {at:#x}, where objdump found one")
        content[at : at + 2] = REPLACED
        places += 1
    if places:
        library.write_bytes(content)
    return places


def _questions(library: Path) -> Iterator[int]:
    """Addresses of the instructions `cpuid`."""
    command = ["objdump", "-d", "--no-show-raw-insn", "-w", str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.rstrip().endswith("\tcpuid"):
                yield int(line.partition(":")[0], 16)


def _segments(library: Path) -> Iterator[tuple[int, int, int]]:
    """Of a library's file, where it is loaded: offset, address, size."""
    command = ["readelf", "-lW", str(library)]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if line.split()[:1] == ["LOAD"]:
            offset, address, _, size = (int(field, 16) for field in line.split()[1:5])
            yield offset, address, size
