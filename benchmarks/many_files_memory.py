"""Memory of a long run of many files: `python benchmarks/many_files_memory.py --hours 100`.

Recognition is stood in for, so that a hundred hours take minutes: each file is read, decoded and digested as ever, and
its transcript, of as many tokens as speech has, is made up. All else is as in any run: listing, parts, Ray's
objects, tries, rows, progress. `--recognise` recognises. The files are links to an hour of recordings.

Printed are megabytes that are of one process alone (`Private` of /proc/PID/smaps_rollup), at each tenth of the parts:
the driver, the largest worker, all other processes of Ray together; and what is in its store of objects.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from many_files import Watch, below, make

from paraformer import audio, batch
from paraformer.batch.recognising import Recognising, Recognition
from paraformer.types import Segment, Token, Transcript

HOUR_S = 3600.0
TOKENS_A_SECOND = 4


class StandIn:
    """What takes a recogniser's place: hears nothing, and says as much as one that does."""

    random = np.random.default_rng(0)

    def transcribe_each(self, files: Iterable[Any], **_: Any) -> Iterator[Transcript]:
        """A transcript of each file, after all of its audio was read."""
        for file in files:
            duration_s = len(audio.read(file)) / audio.SAMPLE_RATE
            count = round(duration_s * TOKENS_A_SECOND)
            step_s = 1 / TOKENS_A_SECOND
            said = zip(range(count), self.random.integers(0x4E00, 0x9000, count).tolist(), strict=True)
            tokens = tuple(Token(chr(one), at * step_s, (at + 1) * step_s, 0.9) for at, one in said)
            text = "".join(token.text for token in tokens)
            yield Transcript(text, duration_s, (Segment(text, 0.0, duration_s, tokens),))


class StoodInFor(Recognition):
    """Recognition with all around it as ever, the model included."""

    def __call__(self, alive: Callable[[], None]) -> Recognising:
        """See Recognition."""
        work = super().__call__(alive)
        work._recognizer = StandIn()  # type: ignore[assignment]  # noqa: SLF001  # only here is it replaced
        return work


def main() -> None:
    """Make the files, run over them, print a line for each tenth."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hours", type=float, default=100.0)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--recognise", action="store_true")
    asked = options.parse_args()
    import ray

    with tempfile.TemporaryDirectory() as directory:
        source, out = Path(directory) / "in", Path(directory) / "out"
        count = linked(source, asked.hours)
        print(f"{count} files, {asked.hours:g} h, {asked.workers} workers")
        if not asked.recognise:
            batch.Recognition = StoodInFor  # type: ignore[misc]
        ray.init("local", num_cpus=asked.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        before = os.times()
        with Memory(out) as watch:
            outcome = batch.transcribe([str(source)], str(out), form="json", tokens=True)
        assert (outcome.inputs, outcome.failed) == (count, 0)
        print(watch.table(len(list(out.glob("part-*")))))
        spent = sum(os.times()[:2]) - sum(before[:2])
        print(f"driver: {spent:.1f} s of a processor")
        ray.shutdown()


def linked(directory: Path, hours: float) -> int:
    """Recordings of so many hours, an hour of them made and linked to under other names; returns how many."""
    seconds = make(directory, min(hours * HOUR_S, HOUR_S))
    names = sorted(directory.iterdir())
    count = round(hours * HOUR_S / seconds * len(names))
    for number in range(len(names), count):
        os.link(names[number % len(names)], directory / f"{number:07d}.flac")
    return count


@dataclass
class Memory(Watch):
    """Memory of each kind of process, with how many parts there are."""

    every_s = 1.0
    out: Path
    seen: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def look(self) -> None:
        """At all of them."""
        sizes = {"driver": private(os.getpid()), "worker": 0.0, "others": 0.0, "store": shared_mb()}
        for pid, _ in below(os.getpid()):
            try:
                name = Path(f"/proc/{pid}/cmdline").read_bytes()
                size = private(pid)
            except OSError:
                continue
            if b"MapWorker" in name:
                sizes["worker"] = max(sizes["worker"], size)
            else:
                sizes["others"] += size
        if self.out.is_dir():
            self.seen.append((sum(1 for _ in self.out.glob("part-*")), sizes))

    def table(self, parts: int) -> str:
        """The largest sizes within each tenth of the parts."""
        lines = [" parts  " + "".join(f"{name:>9}" for name in self.seen[0][1])]
        for tenth in range(1, 11):
            some = [sizes for done, sizes in self.seen if (tenth - 1) * parts < 10 * done <= tenth * parts]
            if some:
                largest = {name: max(one[name] for one in some) for name in some[0]}
                lines.append(f"{tenth / 10:6.0%}  " + "".join(f"{size:9.0f}" for size in largest.values()))
        return "\n".join(lines)


def private(pid: int) -> float:
    """Megabytes of a process that no other has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 1000


def shared_mb() -> float:
    """Megabytes of Ray's store of objects that are in use."""
    files = os.statvfs(Path("/dev", "shm"))  # where Ray has it
    return (files.f_blocks - files.f_bfree) * files.f_frsize / 1e6


if __name__ == "__main__":
    main()
