"""Lives of a worker without a cluster, until one is not cut short; prints how many: SOURCE OUT PATIENCE.

Files that are called so kill it, stop it, or take all memory.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from paraformer.batch.parts import Shelf, parts_of
from paraformer.batch.places import Input, inputs_of
from paraformer.batch.worker import Job, Worker, digest_of_file, state_of_file


class Dangerous:
    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive

    def state(self, one: Input) -> object:
        return state_of_file(one.place)

    def key(self, one: Input) -> str:
        return digest_of_file(one, self._alive)

    def results(self, inputs: Iterable[Input]) -> Iterator[Any]:
        for one in inputs:
            if "crash" in one.name:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "killed" in one.name:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in one.name:
                time.sleep(1000)
            if "memory" in one.name:
                raise MemoryError
            yield {"text": one.name}


def live(source: str, directory: str, patience_s: str) -> None:
    shelf = Shelf(directory, "json")
    shelf.open()
    worker = Worker(Job(directory, "json", Dangerous, float(patience_s)))
    for part in map(shelf.plan, parts_of(inputs_of([source]))):
        worker(part)


if __name__ == "__main__":
    lives = 1
    while (pid := os.fork()) and os.waitpid(pid, 0)[1]:
        lives += 1
    if pid:
        print(lives)
    else:
        live(*sys.argv[1:])
