"""`paraformer plan`: how many streams, and hours of files an hour, this machine carries."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict

import paraformer
from paraformer.bundle import naming
from paraformer.cli.options import loading
from paraformer.errors import MissingExtra


def plan(options: argparse.Namespace) -> int:
    """Measure, and print a table or JSON."""
    try:
        from paraformer.serve.plan import measure, plans
    except ImportError as error:
        raise MissingExtra("paraformer plan", "serve") from error
    threads = options.threads or os.cpu_count() or 1
    recognizer = paraformer.load(options.model, chunk=options.chunk, **loading(options))
    measured = measure(recognizer, threads, options.seconds)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = list(plans(measured, cores, options.latency))
    if options.json:
        print(json.dumps({"measured": asdict(measured), "plans": [asdict(row) for row in rows]}))
        return 0
    print(f"{recognizer!r}")
    print(
        f"a live step of {measured.chunk_s:g} s of audio takes {1000 * measured.step_s:.1f} ms on {threads} thread(s)"
    )
    print(f"a second of a file takes {1000 * measured.whole:.1f} ms\n")
    print("workers  live streams  text after (p99)  file hours/hour  memory of streams")
    for row in rows:
        late = f"{1000 * row.latency_s:.0f} ms"
        print(f"{row.workers:7}  {row.streams:12}  {late:>16}  {row.file_hours:15.0f}  {row.memory_mb:14.0f} MB")
    if options.values:
        with naming(options.values):
            options.values.write_text(_values(rows[-1].streams, rows[-1].workers, threads), encoding="utf-8")
    return 0


def _values(streams: int, workers: int, threads: int) -> str:
    """For the Helm chart."""
    return (
        f"server:\n  workers: {workers}\n  threads: {threads}\n  streams: {streams // workers}\n"
        f"resources:\n  requests:\n    cpu: {workers * threads}\n  limits:\n    cpu: {workers * threads}\n"
    )
