from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from comparison import hidden, machine, models, plots, report, results, roofline, streams, systems, worker
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from paraformer.bundle import Bundle
from paraformer.checkpoint import native
from paraformer.config import ChunkConfig
from paraformer.loader import locate

ROOT = Path(__file__).parent.parent


def row(number: int, system: str, *, others: float = 0.0, error: str | None = None, **figures: Any) -> dict[str, Any]:
    base = {"round": number, "system": system, "case": "whole", "figures": figures, "wall_s": 1.0}
    return base | {"others": others, "error": error}


ROWS = [
    row(1, "paraformer", whole_10=0.02, streams=10, tokens_per_s=4.0),
    row(1, "funasr", whole_10=0.06, streams=5),
    row(2, "paraformer", whole_10=0.03, streams=12),
    row(2, "funasr", whole_10=0.06, streams=6, others=0.5),
    row(3, "paraformer", whole_10=0.02, streams=11),
    row(1, "paraformer-int8", error="not available here: TypeError"),
    row(1, "funasr-int8", whole_10=0.01),
    {**row(1, "machine", fp32_gops=100.0, int8_gops=300.0), "case": "roofline"},
]


# -- streams ----------------------------------------------------------------------------------------------------------


def test_an_idle_engine_answers_after_its_step() -> None:
    found = list(streams.latencies(2, 3, 0.6, lambda numbers: 0.1, together=False))
    assert found == pytest.approx([0.1] * 6)


def test_packets_wait_for_the_step_before() -> None:
    found = list(streams.latencies(3, 1, 0.6, lambda numbers: 0.5, together=False))  # arrive at 0, 0.2 and 0.4 s
    assert found == pytest.approx([0.5, 0.8, 1.1])


def test_what_has_arrived_is_stepped_together() -> None:
    steps: list[list[int]] = []

    def step(numbers: list[int]) -> float:
        steps.append(numbers)
        return 0.5

    found = list(streams.latencies(3, 1, 0.6, step, together=True))
    assert steps == [[0], [1, 2]]
    assert found == pytest.approx([0.5, 0.8, 0.6])


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.booleans())
def test_every_packet_has_its_text_once_and_none_before_it_came(
    count: int, packets: int, taken_s: float, together: bool
) -> None:
    steps: list[int] = []

    def step(numbers: list[int]) -> float:
        steps.extend(numbers)
        return taken_s

    found = list(streams.latencies(count, packets, 0.6, step, together=together))
    assert sorted(steps) == sorted(list(range(count)) * packets)
    assert len(found) == count * packets
    assert min(found) >= taken_s - 1e-9


def test_a_few_late_packets_are_allowed_but_none_too_many() -> None:
    late = [1.0] * 5 + [0.1] * 95
    assert streams.in_time(late, 100, 0.3, 0.95)
    assert not streams.in_time([1.0, *late[:-1]], 100, 0.3, 0.95)


def test_a_queue_that_grows_at_the_end_is_late() -> None:
    assert not streams.in_time([0.1] * 96 + [0.4] * 4, 100, 0.3, 0.95)


def test_search_stops_at_the_first_packet_that_decides() -> None:
    def found() -> Iterator[float]:
        yield from [1.0] * 6
        raise AssertionError("read too far")

    assert not streams.in_time(found(), 100, 0.3, 0.95)


@given(st.integers(0, 400), st.integers(0, 500))
def test_largest_is_found_from_any_guess(limit: int, guess: int) -> None:
    found = streams.largest(lambda number: number <= limit, guess)
    assert found <= limit <= found + max(1, limit // 16)
    assert limit > 20 or found == limit


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [streams.percentile(values, p) for p in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert streams.percentile([7.0], 50) == 7


# -- results ----------------------------------------------------------------------------------------------------------


def test_ratios_are_of_one_round() -> None:
    assert results.ratio(ROWS, "funasr", "paraformer", "whole_10") == results.Spread(2.5, 2.0, 3.0)
    assert results.spread(ROWS, "paraformer", "whole_10") == results.Spread(0.02, 0.02, 0.03)
    assert results.spread(ROWS, "paraformer", "whole_3") is None


def test_figures_from_a_busy_machine_are_marked() -> None:
    found = results.spread(ROWS, "funasr", "whole_10")
    assert found is not None
    assert found.doubtful
    assert "0.06*<br>× 2.50 (2.00–3.00)" in results.table(ROWS, ["paraformer", "funasr"])


def test_table_has_what_was_measured_and_nothing_else() -> None:
    lines = results.table(ROWS, ["paraformer", "funasr"]).splitlines()
    assert lines[0] == "| | paraformer | funasr |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["whole, 10 s: RTF", "live streams on one core"]
    assert "0.02 (0.02–0.03)" in lines[2]


def test_int8_is_compared_with_int8() -> None:
    assert results.reference("funasr-int8") == "paraformer-int8"
    assert "×" not in results.table(ROWS, ["funasr-int8"])


@pytest.mark.parametrize(("value", "text"), [(0.012345, "0.0123"), (1234.5, "1234"), (99.96, "100"), (7, "7")])
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert results.written(value) == text


def test_a_directory_is_made_once_of_each_model(tmp_path: Path) -> None:
    made: list[str] = []

    def write() -> None:
        (tmp_path / "of").mkdir(exist_ok=True)
        made.append("")

    for of in ("one", "one", "other", "other"):
        models.once(tmp_path / "of", of, write)
    assert len(made) == 2


@pytest.mark.parametrize(("kind", "known"), [("published", True), ("whisper", False)])
def test_a_model_that_funasr_does_not_know_goes_to_the_others_as_we_export_it(
    kind: tiny.Kind, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(ours: Path, theirs: Path, live: bool, python: Path) -> None:
        assert known
        theirs.mkdir(parents=True)
        native.save(bundle, tiny.model(kind), theirs)
        for name in ("model", "decoder") if live else ("model",):
            for suffix in ("", "_quant"):
                onnx.save(onnx.ModelProto(), theirs / f"{name}{suffix}.onnx")

    bundle = Bundle(None, tiny.config(kind), tiny.TOKENS)
    native.save(bundle, tiny.model(kind), tmp_path / "ours")
    monkeypatch.setattr(models, "directory", lambda shape, folder: tmp_path / "ours")
    monkeypatch.setattr(models, "_write_funasr", export)
    models.prepare("embedded", tmp_path, Path("python"))
    assert models.known_to_funasr(tmp_path / "ours") == known
    graphs = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.onnx")}
    assert graphs == {
        *(f"funasr/model{suffix}.onnx" for suffix in ("", "_quant")),
        *(f"funasr-live/{name}{suffix}.onnx" for name in ("model", "decoder") for suffix in ("", "_quant")),
        *(f"sherpa-onnx/model{suffix}.onnx" for suffix in ("", ".int8")),
        *(f"sherpa-onnx-live/{name}{suffix}.onnx" for name in ("encoder", "decoder") for suffix in ("", ".int8")),
    }


def test_agreement_counts_characters() -> None:
    assert results.agreement(["今天 天气", ""], ["今天天气", ""]) == 100
    assert results.agreement(["今天天气"], ["今天天"]) == 75
    rows = [
        row(1, "paraformer", texts=["今天"]),
        row(1, "funasr", texts=["今 天"]),
        row(1, "funasr-int8", texts=["今"]),
    ]
    assert [one["figures"] for one in results.with_agreement(rows)] == [{}, {"same": 100}, {"agreement": 50}]


# -- roofline ---------------------------------------------------------------------------------------------------------


def test_operations_are_those_that_torch_counts() -> None:
    model = tiny.model()
    config, rows, tokens = model.config, 30, 7
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hidden, _ = model.encoder(torch.zeros(1, rows, config.frontend.input_dim), torch.tensor([rows]))
        model.decoder(hidden, None, torch.zeros(1, tokens, config.encoder.dim), None)
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "convolution" not in str(op))
    reach = config.predictor.left + 1 + config.predictor.right
    predicted = 2 * rows * reach * config.encoder.dim**2 * (config.predictor.version == 2)
    assert roofline.operations(config, rows, tokens) == counted + predicted


def test_live_steps_do_more_than_whole_recognition() -> None:
    config = tiny.config()
    assert roofline.per_second_live(config, ChunkConfig(), 4) > roofline.per_second(config, 1, 4)


# -- the machine and the page -----------------------------------------------------------------------------------------


def test_load_of_others_is_no_more_than_the_machine() -> None:
    before = machine.Load.now()
    sum(range(100_000))
    assert 0 <= before.others() < 10_000
    assert machine.describe()["cores"] == len(machine.cores())
    assert machine.pinned(["true"], 1)[-1] == "true"


def test_page_says_what_failed_what_was_doubtful_and_what_was_reached(tmp_path: Path) -> None:
    settings = {"shape": "tiny", "device": "cpu", "rounds": 3, "command": "compare", "limit_s": 0.3, "share": 0.95}
    settings |= {"files_s": 240.0, "streams_s": 6.0, "kernels": None}
    data = {"machine": machine.describe(), "versions": {"paraformer": "0"}, "settings": settings, "rows": ROWS}
    page = report.write(data, tiny.config(), tmp_path)
    assert json.loads((tmp_path / "tiny.json").read_text())["rows"] == ROWS
    assert (tmp_path / "tiny.md").read_text() == page
    assert "- paraformer-int8: not available here: TypeError (whole)" in page
    assert "Not an idle machine" in page
    assert "100 a second measured; whole 10 s:" in page
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("tiny-whole.png", "tiny-live.png"))
    assert "![tiny-whole.png](tiny-whole.png)" in page
    assert not (tmp_path / "tiny-costs.png").exists()


def test_a_comparison_is_a_row_of_readmes_table() -> None:
    rows = [row(1, "paraformer-int8", whole_10=0.02, live_rtf=0.04), row(1, "funasr-int8", whole_10=0.05)]
    rows += [row(1, "funasr-onnx-int8", whole_10=0.03), row(1, "funasr", whole_10=0.01)]
    described = {"processor": "Zen 3", "kernels": "avx2"}
    found = report.row({"machine": described, "settings": {"shape": "large"}, "rows": rows})
    assert found == "| Zen 3, avx2 kernels | large | 0.02 | 0.03 | 0.04 |  |"


def test_what_lesser_kernels_took_lies_apart(tmp_path: Path) -> None:
    settings = {"shape": "tiny", "device": "cuda:0", "rounds": 1, "command": "compare", "limit_s": 0.3, "share": 0.95}
    settings |= {"files_s": 240.0, "streams_s": 6.0, "kernels": "avx2"}
    described = machine.describe() | {"kernels": "avx2"}
    data = {"machine": described, "versions": {}, "settings": settings, "rows": []}
    assert "ours in int8 by avx2 kernels" in report.write(data, tiny.config(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny-cuda-0-avx2.json", "tiny-cuda-0-avx2.md"}


def test_every_picture_shows_known_figures() -> None:
    known = {metric.key for metric in results.METRICS}
    assert {key for keys in plots.PICTURES.values() for key in keys} <= known


def test_systems_open_what_was_made_for_them() -> None:
    ours, folder = Path("ours"), Path("runs")
    found = {name: system.model("live", ours, folder) for name, system in systems.SYSTEMS.items()}
    assert found["paraformer-int8"] == ours
    assert found["funasr-onnx"] == found["funasr-int8"] == folder / "funasr-live"
    assert systems.SYSTEMS["sherpa-onnx"].model("whole", ours, folder) == folder / "sherpa-onnx"


def test_what_cannot_be_opened_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    job = worker.Job("paraformer", "int8", "whole", "no such directory", "")
    with pytest.raises(worker.Unavailable, match="not available here"):
        job.open()
    assert capfd.readouterr().err


def test_command_measures_ours(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "compare.py", "--systems", "paraformer", "--rounds", "1"]
    command += ["--cases", "whole,live,streams,files,start,size,roofline"]
    command += ["--seconds", "3,10", "--live-s", "3", "--streams-s", "1.2", "--files-s", "6", "--patience-s", "0"]
    command += ["--out", tmp_path / "out", "--runs", tmp_path / "runs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "out" / "embedded.json").read_text())
    assert all(one["error"] is None for one in data["rows"])
    measured = {key: figure for one in data["rows"] for key, figure in one["figures"].items()}
    assert {"whole_3", "whole_10", "live_p99_ms", "streams", "hour_s", "start_s"} <= measured.keys()
    assert {"whole_peak_mb", "live_peak_mb", "installed_mb"} <= measured.keys()
    assert measured["fp32_gops"] > 0 and measured["int8_gops"] > 0
    page = (tmp_path / "out" / "embedded.md").read_text()
    assert "a second measured; whole 10 s:" in page
    assert str(tmp_path / "runs") not in json.dumps(data["rows"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_a_card_would_run_runs_on_a_numbered_cpu(precision: str) -> None:
    engine = worker.Job("paraformer", precision, "streams", str(locate(None)), "", device="cpu:0").open()
    assert engine.recognizer.engine == f"torch {precision}"
    streams_ = [engine.open() for _ in range(2)]
    assert engine.step(streams_, [np.zeros(worker.PACKET, np.float32)] * 2) == ["", ""]


# -- hidden -----------------------------------------------------------------------------------------------------------

ASKS = """
#include <cpuid.h>
unsigned integers(void) {
    unsigned a, b, c, d;
    __cpuid_count(7, 0, a, b, c, d);
    return b;
}
"""


@pytest.mark.skipif(
    platform.machine() != "x86_64"
    or sys.platform != "linux"
    or not all(map(shutil.which, ("cc", "objdump", "readelf"))),
    reason="needs x86-64, Linux, a compiler and binutils",
)
def test_a_hidden_unit_is_not_seen_and_another_is(tmp_path: Path) -> None:
    """By a library that asks the processor itself."""
    (tmp_path / "asks.c").write_text(ASKS)
    library = tmp_path / "asks.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", tmp_path / "asks.c", "-o", library], check=True)
    seen = ctypes.CDLL(str(library)).integers()
    changed = shutil.copy(library, tmp_path / "changed.so")
    assert hidden.hide(changed) == 1
    variables = hidden.answering(tmp_path)
    code = f"import ctypes; print(ctypes.CDLL({str(changed)!r}).integers())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    avx2, avx512f, avx512bw = 1 << 5, 1 << 16, 1 << 30
    assert int(done.stdout) & (avx512f | avx512bw) == 0
    assert int(done.stdout) & avx2 == seen & avx2
    assert hidden.hide(changed) == 0
