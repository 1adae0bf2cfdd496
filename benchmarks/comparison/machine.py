"""The machine: what it is, which cores a measurement gets, and what else it does meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paraformer.backends.native import kernels

IDLE_CORES = 0.1
"""Other processes that take more than so much of a core make a measurement doubtful."""
LOOK_S = 0.5


def describe() -> dict[str, Any]:
    """What a reader needs to know to compare figures."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    flags = info.read_text() if names else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "processor": names[0] if names else platform.processor(),
        "integers": [name for name in ("avx512_vnni", "avx_vnni", "amx_int8", "avx512f", "avx2") if name in flags],
        "kernels": kernels("int8"),
        "cores": len(cores()),
        "memory_gb": round(memory),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def pinned(command: list[str], count: int) -> list[str]:
    """The command on so many cores, the last ones, where the system can pin."""
    chosen = cores()[-count:]
    return ["taskset", "-c", ",".join(map(str, chosen)), *command] if shutil.which("taskset") else command


@dataclass(frozen=True)
class Load:
    """A moment, to tell later how busy others kept the machine since then."""

    wall_s: float
    busy_s: float
    own_s: float

    @classmethod
    def now(cls) -> Load:
        """This moment. Where the system does not say how busy it is, nobody counts as busy."""
        stat = Path("/proc/stat")
        fields = [int(field) for field in stat.read_text().split("\n", 1)[0].split()[1:9]] if stat.exists() else [0] * 8
        busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(time.monotonic(), busy, sum(usage.ru_utime + usage.ru_stime for usage in used))

    def others(self) -> float:
        """Mean number of cores that neither this process nor its ended children used since then."""
        then = Load.now()
        return max(0.0, (then.busy_s - self.busy_s - then.own_s + self.own_s) / (then.wall_s - self.wall_s))


def wait_until_idle(patience_s: float) -> float:
    """Wait until others leave the machine alone, at most so long. Returns what they use in the end, in cores."""
    end = time.monotonic() + patience_s
    while True:
        before = Load.now()
        time.sleep(LOOK_S)
        busy = before.others()
        if busy <= IDLE_CORES or time.monotonic() >= end:
            return busy
