from __future__ import annotations

import subprocess
import sys

import pytest

import paraformer
from paraformer import errors

OPTIONAL = (
    "torch",
    "ray",
    "pyarrow",
    "lhotse",
    "onnx",
    "yaml",
    "huggingface_hub",
    "modelscope_hub",
    "av",
    "sounddevice",
)


def modules_after(code: str) -> set[str]:
    listing = f"import sys; {code}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    )


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert paraformer.__all__ == sorted(paraformer.__all__)
    assert set(paraformer.__all__) <= set(dir(paraformer))
    for name in paraformer.__all__:
        assert getattr(paraformer, name).__name__ == name


def test_every_error_is_public() -> None:
    names = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert names <= set(paraformer.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'recognise'"):
        _ = paraformer.recognise  # type: ignore[attr-defined]


def test_import_loads_nothing_heavy() -> None:
    assert modules_after("import paraformer").isdisjoint({*OPTIONAL, "numpy", "onnxruntime", "soundfile"})


def test_loading_the_recognizer_needs_no_optional_package() -> None:
    assert modules_after("import paraformer; paraformer.load").isdisjoint(OPTIONAL)
