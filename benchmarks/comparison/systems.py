"""The systems that are compared, what is measured of each, and the process that measures it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comparison import machine
from comparison.worker import Job

BENCHMARKS = Path(__file__).parent.parent
LOOK_BACK = (4, 1)
LIVE = ("live", "look-back", "streams")
ONCE = ("texts", "size")
"""What every round would give again."""
FOLDERS = {"funasr": "funasr", "funasr-onnx": "funasr", "sherpa-onnx": "sherpa-onnx"}
"""What each peer opens."""


@dataclass(frozen=True)
class System:
    """One recogniser at one precision; of ours, where a backend is named, float32 on that."""

    runtime: str
    precision: str

    @property
    def name(self) -> str:
        """As it is chosen and shown: paraformer, paraformer-int8, ..."""
        return self.runtime if self.precision == "float32" else f"{self.runtime}-{self.precision}"

    @property
    def ours(self) -> bool:
        """Whether it runs in this environment."""
        return self.runtime == "paraformer"

    def measures(self, case: str) -> bool:
        """Whether there is such a case: two runtimes have no look-back, the size does not depend on the precision."""
        if case == "size":
            return self.precision == "float32"
        return case != "look-back" or self.runtime in ("paraformer", "funasr")

    def model(self, case: str, ours: Path, folder: Path) -> Path:
        """The directory that a case opens: the peers have one for files and one for streams."""
        return ours if self.ours else folder / (FOLDERS[self.runtime] + "-live" * (case in LIVE))


SYSTEMS = {
    system.name: system
    for precision in ("float32", "int8")
    for system in (System(runtime, precision) for runtime in ("paraformer", "funasr", "funasr-onnx", "sherpa-onnx"))
}
DEFAULT = tuple(SYSTEMS)
SYSTEMS |= {f"paraformer-{other}": System("paraformer", other) for other in ("bfloat16", "native", "torch")}


@dataclass(frozen=True)
class Outcome:
    """What a process printed, or why it did not; wall_s: from its start to that; others: see machine.Load."""

    figures: dict[str, Any]
    wall_s: float
    others: float
    error: str | None = None


def run(job: Job, python: Path, log: Path, variables: Mapping[str, str]) -> Outcome:
    """Measure in a process of its own, on as many cores as it has threads. What it complains about goes to the log.

    variables: of the process, besides those of this one.
    """
    ours = job.runtime == "paraformer"
    inherited = (os.environ if ours else variables).get("PYTHONPATH")
    paths = [str(BENCHMARKS), *([inherited] if inherited else [])]
    threads = {name: str(job.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment = os.environ | threads | dict(variables) | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [str(python), "-m", "comparison.worker", json.dumps(asdict(job))]
    before, start = machine.Load.now(), time.perf_counter()
    with log.open("ab") as complaints:
        process = subprocess.Popen(
            machine.pinned(command, job.threads), stdout=subprocess.PIPE, stderr=complaints, env=environment
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        wall_s = time.perf_counter() - start
        failed = process.wait()
    if failed or not line:
        return Outcome({}, wall_s, before.others(), f"exit code {failed}, see {log.name}")
    figures = json.loads(line)
    error = figures.pop("unavailable", None)
    return Outcome(figures, wall_s, before.others(), error)
