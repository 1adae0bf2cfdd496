"""`paraformer transcribe`: one input after the other; what fails is reported and the rest goes on."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tqdm import tqdm

import paraformer
from paraformer.cli import sources
from paraformer.cli.complain import complain
from paraformer.cli.live import decisions
from paraformer.cli.results import Printed, Results, Saved
from paraformer.errors import ParaformerError
from paraformer.types import Transcript

if TYPE_CHECKING:
    from paraformer.recognizer import Recognizer

    Bar = tqdm[Any]

LONG = 1 << 20
"""Bytes of input from which on a progress bar is worth its place."""


def transcribe(options: argparse.Namespace) -> int:
    """Recognise every input. Returns 1 if any failed, 2 if the options do not go together."""
    names = sources.expand(options.files)
    if mistake := _mistake(options, names):
        complain(mistake)
        return 2
    recognizer = paraformer.load(
        options.model, chunk=options.chunk, precision=options.precision, threads=options.threads, lm=options.lm
    )
    with _progress(names, options) as bar:
        work = _Work(options, recognizer, _results(options, labelled=len(names) > 1), bar)
        done = [work.attempt(name) for name in names]
    return 0 if all(done) else 1


def _mistake(options: argparse.Namespace, names: list[str]) -> str:
    """What makes these options unusable together; empty where nothing does."""
    if names.count(sources.STDIN) > 1:
        return "standard input (-) can be given only once"
    if options.format in ("srt", "vtt") and len(names) > 1 and not options.output_dir:
        return f"one {options.format} file describes one input: give --output-dir DIR for several"
    if options.overwrite and not options.output_dir:
        return "--overwrite goes with --output-dir DIR"
    return ""


def _results(options: argparse.Namespace, *, labelled: bool) -> Results:
    if options.output_dir:
        return Saved(options.format, options.timestamps, options.output_dir, options.overwrite)
    return Printed(options.format, options.timestamps, labelled)


def _progress(names: list[str], options: argparse.Namespace) -> Bar:
    """A bar over the bytes of the inputs; shown for long work on a terminal that no live text shows to be alive."""
    total = sum(map(sources.size, names))
    shown = sys.stderr.isatty() and total >= LONG and (options.output_dir is not None or not options.stream)
    return tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=not shown)


@dataclass(frozen=True)
class _Work:
    """What all inputs share."""

    options: argparse.Namespace
    recognizer: Recognizer
    results: Results
    bar: Bar

    def attempt(self, name: str) -> bool:
        """Recognise one input and hand over its result; a failure is reported and gives False."""
        try:
            self.results.begin(name)
            with sources.opened(name, None if self.bar.disable else self.bar.update) as source:
                transcript = self._live(name, source) if self.options.stream else self._whole(source)
            with tqdm.external_write_mode():
                self.results.end(name, transcript)
        except BrokenPipeError:
            raise
        except (ParaformerError, OSError) as error:
            with tqdm.external_write_mode():
                complain(error, name)
            return False
        return True

    def _whole(self, source: Path | BinaryIO) -> Transcript:
        return self.recognizer.transcribe(sources.whole(source, self.options.raw))

    def _live(self, name: str, source: Path | BinaryIO) -> Transcript:
        session = self.recognizer.stream()
        for decision in decisions(session, sources.pieces(source, self.options.raw)):
            self.results.decided(name, decision)
        return session.transcript()
