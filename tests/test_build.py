"""What becomes of the engine when the package is built: without a compiler a warning, with broken code an end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("PARAFORMER_ISA", "PARAFORMER_WHEEL", "CFLAGS"):
        monkeypatch.delenv(name, raising=False)
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hook(build: ModuleType, root: Path, warn: Callable[[str], None] = pytest.fail) -> Any:
    return build.NativeBuildHook(str(root), {}, None, None, "", "wheel", SimpleNamespace(display_warning=warn))


def without_compiler(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "found_compiler", lambda: None)
    monkeypatch.setattr(build, "find_spec", lambda name: None)


def test_a_compiler_comes_from_the_index_where_there_is_none(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "some-compiler --with-option")
    assert hook(build, ROOT).dependencies() == []
    monkeypatch.setenv("PARAFORMER_WHEEL", "win_amd64")
    assert hook(build, ROOT).dependencies() == [build.COMPILER_PACKAGE]
    monkeypatch.delenv("PARAFORMER_WHEEL")
    without_compiler(build, monkeypatch)
    assert hook(build, ROOT).dependencies() == [build.COMPILER_PACKAGE]
    monkeypatch.setenv("PARAFORMER_ISA", "none")
    assert hook(build, ROOT).dependencies() == []


def test_without_a_compiler_the_package_is_built_and_says_what_it_lacks(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_compiler(build, monkeypatch)
    warnings: list[str] = []
    data: dict[str, Any] = {"force_include": {}}
    hook(build, ROOT, warnings.append).initialize("standard", data)
    assert "there is no C compiler" in warnings[0] and "pip install 'paraformer[onnx]'" in warnings[0]
    assert data == {"force_include": {}}  # so it is pure Python, for any platform


def test_a_compiler_that_is_named_and_not_there_ends_the_build(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/no/such/compiler")
    with pytest.raises(SystemExit, match=r"could not be compiled: .*/no/such/compiler.*\n.*another compiler in CC"):
        hook(build, ROOT).initialize("standard", {"force_include": {}})


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler here")
def test_code_that_does_not_compile_ends_the_build(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    sources = shutil.copytree(ROOT / build.SOURCES, tmp_path / build.SOURCES)
    (sources / build.SHARED[0]).write_text("this is no C\n")
    with pytest.raises(SystemExit, match=r"(?s)could not be compiled: .*features\.c.*Name another compiler in CC"):
        hook(build, tmp_path).initialize("standard", {"force_include": {}})


def test_every_file_of_the_engine_is_compiled_for_some_processor(build: ModuleType) -> None:
    files = {name for machine in build.FAMILIES for name, _ in build._sources(machine)}
    found = {path.relative_to(ROOT / build.SOURCES).as_posix() for path in (ROOT / build.SOURCES).rglob("*.c")}
    assert files == found
    assert {target.partition("-")[0] for target in build.TARGETS.values()} == set(build.FAMILIES)
