"""`paraformer transcribe`: one input after the other; what fails is reported and the rest goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

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


def transcribe(options: argparse.Namespace) -> int:
    """Recognise every input. Returns 1 if any failed, 2 if the options do not go together."""
    names = sources.expand(options.files)
    if mistake := _mistake(options, names):
        complain(mistake)
        return 2
    recognizer = paraformer.load(options.model, chunk=options.chunk, threads=options.threads)
    results = _results(options, labelled=len(names) > 1)
    done = [_attempt(name, recognizer, results, options) for name in _progress(names, options)]
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


def _progress(names: list[str], options: argparse.Namespace) -> Iterable[str]:
    """The names, with a bar on standard error where that is a terminal and no text shows how far the work is."""
    silent = options.output_dir is not None or not sys.stdout.isatty()
    return tqdm(names, unit="file", disable=not (silent and len(names) > 1 and sys.stderr.isatty()))


def _attempt(name: str, recognizer: Recognizer, results: Results, options: argparse.Namespace) -> bool:
    """Recognise one input and hand over its result; a failure is reported and gives False."""
    try:
        results.begin(name)
        if options.stream:
            transcript = _live(name, recognizer, results, options.raw)
        else:
            transcript = recognizer.transcribe(sources.whole(name, options.raw))
        results.end(name, transcript)
    except BrokenPipeError:
        raise
    except (ParaformerError, OSError) as error:
        with tqdm.external_write_mode(file=sys.stderr):
            complain(error, name)
        return False
    return True


def _live(name: str, recognizer: Recognizer, results: Results, raw_rate: int | None) -> Transcript:
    session = recognizer.stream()
    for decision in decisions(session, sources.pieces(name, raw_rate)):
        results.decided(name, decision)
    return session.transcript()
