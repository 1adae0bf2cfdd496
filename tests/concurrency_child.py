"""What test_backends_concurrency.py runs in processes of their own: a model that computes, and what happens meanwhile.

    python concurrency_child.py BACKEND THREADS

Signals come while it computes, children are made while another thread does and recognise for themselves. Prints what
threads there were after a recognition of each kind, and what those that numpy brought had to do with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

import paraformer
from paraformer.audio import read

SAMPLES = Path(paraformer.__file__).parent / "samples"
LONG = 35
"""Seconds after which audio is cut at pauses, which voice activity detection finds."""


def loaded(name: str, threads: int) -> paraformer.Recognizer:
    if name in ("onnx", "torch"):
        return paraformer.load(backend=name, threads=threads, lm=False)
    return paraformer.load(backend="native", precision=name, threads=threads, lm=False)


def stop(number: int, frame: object) -> None:
    sys.exit("stopped")


def interrupted(recognizer: paraformer.Recognizer, samples: np.ndarray, number: int) -> None:
    """Again and again, at any moment of a recognition; afterwards it recognises as before."""
    signal.signal(signal.SIGTERM, stop)
    before, came = recognizer.transcribe(samples).text, 0
    moments = (0.002, 0.007, 0.02, 0.05)
    for after in moments:
        sender = threading.Timer(after, os.kill, (os.getpid(), number))
        try:
            sender.start()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                recognizer.transcribe(samples)
        except (KeyboardInterrupt, SystemExit):
            came += 1
        sender.join()
    assert came == len(moments), came
    assert recognizer.transcribe(samples).text == before


def begun(recognizer: paraformer.Recognizer, samples: np.ndarray) -> paraformer.Session:
    session = recognizer.stream()
    session.accept(samples)
    return session


def forked(recognizer: paraformer.Recognizer, samples: np.ndarray) -> None:
    """Two children, each made while another thread computes, or holds what one computes with.

    Each recognises, goes on with a stream that its parent began, and has a child itself, which does the same.
    """
    before = recognizer.transcribe(samples).text
    half = len(samples) // 2
    live = begun(recognizer, samples[:half])
    live.accept(samples[half:])
    live.finish()

    for _ in range(2):
        made = threading.Event()

        def busy(made: threading.Event = made) -> None:
            while not made.is_set():
                recognizer.transcribe(samples)

        other = threading.Thread(target=busy)
        other.start()
        time.sleep(0.03)
        session = begun(recognizer, samples[:half])
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            signal.alarm(60)
            assert recognizer.transcribe(samples).text == before
            session.accept(samples[half:])
            session.finish()
            assert session.text == live.text
            assert grandchild == 0 or os.waitpid(grandchild, 0)[1] == 0
            sys.exit(0)  # which ends every object, as a program would
        made.set()
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        other.join()
    assert recognizer.transcribe(samples).text == before


def spent() -> dict[str, int]:
    """Nanoseconds that each thread of this process has computed."""
    tasks = Path("/proc/self/task")
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()}


def settled() -> dict[str, int]:
    """The same once the threads that numpy's import made have begun to wait: a while, on a busy machine."""
    found, own = spent(), str(os.getpid())
    while True:
        time.sleep(0.1)
        now = spent()
        if all(now[task] == found.get(task) for task in now if task != own):
            return now
        found = now


def tasks(name: str, threads: int, samples: np.ndarray) -> paraformer.Recognizer:
    """Prints the threads that came, and the share of all work that those which numpy brought did."""
    at_first = settled()
    recognizer = loaded(name, threads)
    for audio in (samples, np.pad(samples, (0, LONG * 16000 - len(samples)))):
        recognizer.transcribe(audio)
    session = recognizer.stream()
    session.accept(samples)
    session.finish()
    after, own = spent(), str(os.getpid())
    others = sum(after.get(task, 0) - at_first[task] for task in at_first if task != own)
    print(json.dumps({"came": len(after.keys() - at_first.keys()), "others": others / (after[own] - at_first[own])}))
    return recognizer


def main() -> None:
    """See above."""
    name, threads = sys.argv[1], int(sys.argv[2])
    samples = read(SAMPLES / "subway.flac")
    recognizer = tasks(name, threads, samples)
    interrupted(recognizer, samples, signal.SIGINT)
    interrupted(recognizer, samples, signal.SIGTERM)
    forked(recognizer, samples)


if __name__ == "__main__":
    main()
