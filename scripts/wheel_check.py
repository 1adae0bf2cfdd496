"""What a wheel must be: right for its platform, with the engine and nothing in it that others would miss.

    python scripts/wheel_check.py dist/*.whl

Needs lief, which reads the libraries of every system, ziglang, which knows how large structures are there, and
packaging and trove-classifiers, which know what an index takes.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import lief
from packaging.metadata import Metadata
from trove_classifiers import classifiers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hatch_build import SOURCES, TARGETS  # noqa: E402

sys.path.insert(0, str(ROOT / SOURCES))

import layout  # noqa: E402  # alone: the package wants numpy

SYSTEM = re.compile(
    r"lib(c|m|pthread)\.so|ld-linux|/usr/lib/libSystem\.B\.dylib|@rpath/engine\.so|(kernel32|ntdll|ucrtbase)\.dll|api-ms-win-",
    re.IGNORECASE,
)
"""Libraries that every system of a platform has; on macOS a library names itself as well."""
LINKERS = {"__mh_dylib_header", "___dso_handle"}
"""Names that macOS's linker puts into every library."""


def main() -> None:
    """Check all wheels that are named; the first fault ends it."""
    for name in sys.argv[1:]:
        check(Path(name))
        print(f"{name}: as it should be")


def check(wheel: Path) -> None:
    """One wheel. Raises SystemExit that says what is wrong."""
    _, _, python, abi, platform = wheel.stem.split("-")
    with zipfile.ZipFile(wheel) as archive, TemporaryDirectory() as directory:
        engines = [name for name in archive.namelist() if "/native/engine." in name]
        wanted = ["paraformer/native/engine.dll" if platform == "win_amd64" else "paraformer/native/engine.so"]
        _expect(wheel, "engines", engines, wanted)
        (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        tags = re.findall(r"^Tag: (.+)$", archive.read(record).decode(), re.MULTILINE)
        _expect(wheel, "tags", sorted(tags), sorted(f"{python}-{abi}-{part}" for part in platform.split(".")))
        _check_metadata(wheel, archive, record.rpartition("/")[0])
        binary = lief.parse(archive.extract(engines[0], directory))
    _check_library(wheel, binary)
    _check_layout(wheel, TARGETS[platform])


def _check_metadata(wheel: Path, archive: zipfile.ZipFile, place: str) -> None:
    """What an index shows and refuses, the licences that it names, and the commands that are installed."""
    metadata = Metadata.from_email(archive.read(f"{place}/METADATA"))
    _expect(wheel, "name and version", [metadata.name, str(metadata.version)], wheel.stem.split("-")[:2])
    _expect(wheel, "unknown classifiers", sorted(set(metadata.classifiers or []) - classifiers), [])
    licences = [f"{place}/licenses/{path}" for path in metadata.license_files or []]
    _expect(wheel, "licences that are missing", sorted({*licences} - {*archive.namelist()}), [])
    _expect(wheel, "form of the description", metadata.description_content_type, "text/markdown")
    commands = archive.read(f"{place}/entry_points.txt").decode().split()
    _expect(wheel, "commands", commands, ["[console_scripts]", "paraformer", "=", "paraformer.cli:main"])


def _check_library(wheel: Path, binary: lief.Binary) -> None:
    kept = [symbol for symbol in _exported(binary) if not symbol.startswith("pf_") and symbol not in LINKERS]
    _expect(wheel, "exported names that are not ours", kept, [])
    _expect(wheel, "libraries", [name for name in map(str, _needed(binary)) if not SYSTEM.search(name)], [])
    if isinstance(binary, lief.ELF.Binary):
        versions = [
            str(aux.name) for need in binary.symbols_version_requirement for aux in need.get_auxiliary_symbols()
        ]
        later = [name for name in versions if name.startswith("GLIBC_") and _number(name) > (2, 17)]
        _expect(wheel, "versions of the C library", later, [])


def _exported(binary: lief.Binary) -> list[str]:
    if isinstance(binary, lief.PE.Binary):
        export = binary.get_export()
        return [str(entry.name) for entry in export.entries] if export else []
    names = [str(symbol.name) for symbol in binary.exported_symbols]
    return [name.removeprefix("_") if name.startswith("_pf_") else name for name in names]


def _needed(binary: lief.Binary) -> list[str]:
    return [str(getattr(library, "name", library)) for library in binary.libraries]


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.removeprefix("GLIBC_").split(".")))


def _check_layout(wheel: Path, target: str) -> None:
    """Whether structures have the sizes there that Python gives them here."""
    sizes = [(each.__name__, ctypes.sizeof(each)) for each in layout.STRUCTURES]
    asserts = "\n".join(f'_Static_assert(sizeof({name}) == {size}, "{name}");' for name, size in sizes)
    text = f'#include "model.h"\n#include "beam.h"\n#include "candidates.h"\n{asserts}\n'
    with TemporaryDirectory() as directory:
        source = Path(directory) / "sizes.c"
        source.write_text(text)
        places = [f"-iquote{ROOT / SOURCES}", "-c", str(source), "-o", str(source.with_suffix(".o"))]
        command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *places]
        done = subprocess.run(command, text=True, capture_output=True, check=False)
    _expect(wheel, "sizes of structures", done.stderr if done.returncode else "", "")


def _expect(wheel: Path, what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"{wheel.name}: {what} are {found}, not {wanted}")


if __name__ == "__main__":
    main()
