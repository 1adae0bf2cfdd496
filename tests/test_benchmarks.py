from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny
import torch

from paraformer.bundle import Bundle
from paraformer.model.paraformer import Paraformer

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    script("large").make(tiny.config(), directory)
    return directory


def test_random_model_is_a_bundle_whose_checksums_hold(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    opened.verify()
    assert opened.config == tiny.config()
    assert (bundle / "encoder.onnx").is_file()


def test_large_is_the_published_shape() -> None:
    with torch.device("meta"):
        model = Paraformer(script("large").large())
    assert sum(parameter.numel() for parameter in model.parameters()) == 220_084_533


def test_torch_is_measured_as_well(bundle: Path) -> None:
    rtf = script("rtf")
    figures = rtf.measure(rtf.Case(str(bundle), "torch", 1, 1.0, (5, 10, 5), 1))
    assert figures["rtf"] > 0
    assert figures["step_ms"]["p50"] <= figures["step_ms"]["p99"]


def test_each_case_prints_a_line(bundle: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "rtf.py"), "--model", str(bundle)]
    command += ["--seconds", "1", "--live", "2,3,2,1,1", "--repeat", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    whole, live, machine = map(json.loads, done.stdout.splitlines())
    assert whole["live"] is None
    assert live["live"] == [2, 3, 2, 1, 1]
    assert all(row["rtf"] > 0 and row["peak_mb"] > 0 for row in (whole, live))
    assert live["step_ms"]["p50"] <= live["step_ms"]["p99"]
    assert machine["start_s"] > 0
    assert machine["installed_mb"] > 10
    assert "RTF" in done.stderr
