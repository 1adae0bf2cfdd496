"""`paraformer transcribe`: one input after the other; what fails is reported and the rest goes on."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, BinaryIO

import paraformer
from paraformer.cli import many, sources
from paraformer.cli.complain import complain
from paraformer.cli.computing import computing, faster
from paraformer.cli.live import decisions
from paraformer.cli.options import loading
from paraformer.cli.results import Printed, Results, Saved, make_writable, refusal, targets
from paraformer.errors import attempt
from paraformer.loader import choose, locate, open_settings
from paraformer.second_pass import revised
from paraformer.types import Revision, Transcript

if TYPE_CHECKING:
    import numpy as np
    from tqdm import tqdm

    from paraformer.recognizer import Recognizer

    Bar = tqdm[Any]

LONG = 1 << 20
"""Bytes of input from which on a progress bar is worth its place."""


def transcribe(options: argparse.Namespace) -> int:
    """Recognise every input. Returns 1 if any failed, 2 if the options do not go together."""
    if options.ray is not None:
        return many.transcribe(options)
    names = sources.expand(options.files)
    if mistake := _mistake(options, names):
        complain(mistake)
        return 2
    results, possible = _results(options, names)
    if not possible:
        return 1
    recognizer = paraformer.load(options.model, chunk=options.chunk, **loading(options))
    if options.verbose:
        complain(f"{recognizer!r}")
        _tell_what_computes(options)
    with _progress(possible, options) as bar:
        work = _Work(options, recognizer, results, bar)
        done = [work.attempt(name) for name in possible]
    return 0 if all(done) and len(possible) == len(names) else 1


def _tell_what_computes(options: argparse.Namespace) -> None:
    """The engine, kernels, precision and threads, and what would be faster."""
    directory, given = locate(options.model), loading(options)
    asked = {name: given[name] for name in ("backend", "precision", "device") if name in given}
    choice = choose(directory, **asked)
    engine, threads = computing(choice), options.threads or os.cpu_count()
    complain(f"{engine}, threads: {threads}")
    if better := faster(choice, open_settings(directory).config, options.threads):
        complain(f"faster here: {better}")


def _mistake(options: argparse.Namespace, names: list[str]) -> str:
    """What makes these options unusable together; empty where nothing does."""
    if names.count(sources.STDIN) > 1:
        return "standard input (-) can be given only once"
    if options.format in ("srt", "vtt") and len(names) > 1 and not options.output_dir:
        return f"one {options.format} file describes one input: give --output-dir DIR for several"
    if options.channel is not None and options.raw is not None:
        return "--raw is of one channel, so that --channel cannot go with it"
    if options.format == "rttm" and not hasattr(options, "speakers"):
        return "--format rttm goes with --speakers"
    if hasattr(options, "alternatives") and options.format != "json":
        return "--alternatives goes with --format json"
    if options.overwrite and not options.output_dir:
        return "--overwrite goes with --output-dir DIR"
    if options.format == "parquet" or isinstance(options.output_dir, str):
        return "--format parquet and --output-dir URL go with --ray"
    return _live_mistake(options)


def _live_mistake(options: argparse.Namespace) -> str:
    """The same, of live recognition."""
    if not options.stream:
        return "--second-pass goes with --stream" if options.second_pass else ""
    if options.channel == "each":
        return "--stream hears one channel: give --channel 1, or leave --stream out"
    if hasattr(options, "speakers"):
        return "--speakers compares all voices of a recording: leave --stream out"
    if hasattr(options, "vad"):
        return "--vad cuts whole recordings: leave --stream out"
    return ""


def _results(options: argparse.Namespace, names: list[str]) -> tuple[Results, list[str]]:
    """Where results go, and the inputs whose results can go there; what stands in the way of others is said at once."""
    tokens = options.timestamps or hasattr(options, "alternatives")
    if not options.output_dir:
        return Printed(options.format, tokens, len(names) > 1, options.second_pass), names
    make_writable(options.output_dir)
    files = targets(names, options.format)
    refused = {name: refusal(options.output_dir / file, overwrite=options.overwrite) for name, file in files.items()}
    for name, why in refused.items():
        if why:
            complain(why, name)
    saved = Saved(options.format, tokens, options.output_dir, files)
    return saved, [name for name in files if not refused[name]]


def _progress(names: list[str], options: argparse.Namespace) -> AbstractContextManager[Bar | None]:
    """A bar over the bytes of the inputs; shown for long work on a terminal that no live text shows to be alive."""
    total = sum(map(sources.size, names))
    shown = sys.stderr.isatty() and total >= LONG and (options.output_dir is not None or not options.stream)
    if not shown:
        return nullcontext()
    from tqdm import tqdm  # not before it is wanted: with what it imports it takes a tenth of a short command's time

    return tqdm(total=total, unit="B", unit_scale=True, leave=False)


_OF_THE_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT)
"""Errors of the system that befall what is written: nobody reads it, or there is no room."""


@dataclass(frozen=True)
class _Work:
    """What all inputs share."""

    options: argparse.Namespace
    recognizer: Recognizer
    results: Results
    bar: Bar | None

    def attempt(self, name: str) -> bool:
        """Recognise one input and hand over its result; a failure is reported and gives False."""
        started = perf_counter()
        with attempt(name) as work:
            self.results.begin(name)
            with sources.opened(name, None if self.bar is None else self.bar.update) as source:
                heard = self._live(name, source) if self.options.stream else self._whole(source)
            with self._beside_the_bar():
                self.results.end(name, heard)
        if work.error is None:
            longest_s = max([one.duration_s for one in heard] if isinstance(heard, list) else [heard.duration_s])
            self._tell(name, longest_s, perf_counter() - started)
            return True
        cause = work.error.__cause__
        if isinstance(cause, OSError) and cause.errno in _OF_THE_OUTPUT:  # no failure of this input
            raise cause
        with self._beside_the_bar():
            complain(work.error, name)
        return False

    def _beside_the_bar(self) -> AbstractContextManager[object]:
        """What is written meanwhile leaves the bar whole."""
        return nullcontext() if self.bar is None else self.bar.external_write_mode()

    def _tell(self, name: str, duration_s: float, took_s: float) -> None:
        if self.options.verbose:
            with self._beside_the_bar():
                complain(f"{duration_s:.1f} s of audio in {took_s:.2f} s", name)

    def _whole(self, source: Path | BinaryIO) -> Transcript | list[Transcript]:
        """The transcript, or one for each channel."""
        asked = {"batch_s": self.options.batch, "channel": self.options.channel}
        given = {name: value for name, value in asked.items() if value is not None}
        heard: Transcript | list[Transcript]
        heard = self.recognizer.transcribe(sources.whole(source, self.options.raw), **given)
        return heard

    def _live(self, name: str, source: Path | BinaryIO) -> Transcript:
        pieces = sources.pieces(source, self.options.raw, self.options.channel or "mix")
        if self.options.second_pass:
            return self._in_two_passes(name, pieces)
        session = self.recognizer.stream()
        for decision in decisions(session, pieces):
            self.results.decided(name, decision)
        return session.transcript()

    def _in_two_passes(self, name: str, pieces: Iterable[np.ndarray]) -> Transcript:
        session, revisions = self.recognizer.stream(second_pass=True), list[Revision]()
        for decision in decisions(session, pieces, second_pass=True):
            self.results.decided(name, decision)
            revisions += decision.revisions
        return revised(session.transcript(), revisions)
