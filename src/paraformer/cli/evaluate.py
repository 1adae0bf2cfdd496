"""`paraformer evaluate`: error rates, speed and delays of a model on transcribed speech; or two results compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

import paraformer
from paraformer.audio import Channel
from paraformer.bundle import naming
from paraformer.cli.complain import complain
from paraformer.cli.options import loading
from paraformer.config import ChunkConfig
from paraformer.errors import DataError, MissingExtra
from paraformer.evaluate.hotwords import hotword_lines
from paraformer.evaluate.normalise import Normalizer
from paraformer.evaluate.report import html_report
from paraformer.evaluate.results import Evaluation, Failure, read_evaluation
from paraformer.evaluate.run import collect, recognize_live, recognize_whole
from paraformer.evaluate.summary import compare_evaluations, summary
from paraformer.evaluate.utterances import is_plain, read_utterances
from paraformer.hotwords import listed
from paraformer.manifests import Utterance

if TYPE_CHECKING:
    from paraformer.recognizer import Recognizer

T = TypeVar("T")


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate, or compare. Returns 1 if any utterance failed, 2 if the options do not go together."""
    if mistake := _mistake(options):
        complain(mistake)
        return 2
    if options.compare:
        print(compare_evaluations(*map(read_evaluation, options.compare)))
        return 0
    evaluation = _evaluated(options)
    plain = _evaluated(options, plain=True) if hasattr(options, "hotwords") else None
    failures = {failure.id: failure.error for one in evaluation.passes for failure in one.failures}
    for name, error in failures.items():
        complain(error, name)
    if not all(one.scored for one in evaluation.passes):
        raise DataError(f"none of the utterances of {options.data} could be recognised")
    print(evaluation.to_json() if options.json else summary(evaluation))
    if plain is not None and not options.json:
        words = listed(options.hotwords)
        for without, listening in zip(plain.passes, evaluation.passes, strict=True):
            print("", *hotword_lines(without, listening, words), sep="\n")
    if options.report:
        with naming(options.report):
            options.report.write_text(html_report(evaluation), encoding="utf-8")
    return 1 if failures else 0


def _mistake(options: argparse.Namespace) -> str:
    """What makes these options unusable together; empty where nothing does."""
    if bool(options.compare) == bool(options.data):
        return "evaluate takes either --data DATA or --compare A.json B.json"
    if (options.look_back or options.second_pass) and not options.live:
        return f"{'--look-back' if options.look_back else '--second-pass'} goes with --live"
    if options.report and not options.report.parent.is_dir():
        return f"there is no directory {options.report.parent} for the report"
    return ""


def _evaluated(options: argparse.Namespace, *, plain: bool = False) -> Evaluation:
    """The model on the data, whole and, if asked for, live. plain: without its hotwords."""
    utterances, unusable = opened(options.data, options.channel)
    normalizer = Normalizer(erhua=options.erhua == "keep")
    asked = loading(options)
    recognizer = paraformer.load(options.model, **({**asked, "hotwords": None} if plain else asked))
    chunk = _chunk(options, recognizer) if options.live else None
    name = str(options.model or recognizer.bundle.card.get("name", "embedded model"))
    batch = {} if options.batch is None else {"batch_s": options.batch}
    outcomes = _shown(recognize_whole(recognizer, utterances, normalizer, **batch), utterances)
    whole = collect(chain(unusable, outcomes), "whole")
    if chunk is None:
        return Evaluation(name, str(options.data), normalizer.erhua, (whole,))
    again = bool(options.second_pass)
    outcomes = _shown(recognize_live(recognizer, utterances, normalizer, chunk, second_pass=again), utterances)
    live = collect(outcomes, "live", _words(chunk) + (", second pass" if again else ""))
    return Evaluation(name, str(options.data), normalizer.erhua, (whole, live))


def opened(data: Path, channel: Channel) -> tuple[list[Utterance], list[Failure]]:
    """The utterances of some data, and those that are of no use; what is more than a plain list, lhotse opens."""
    if is_plain(data):
        return read_utterances(data, channel), []
    try:
        from paraformer.data.skips import Skips
        from paraformer.data.sources import open_data
        from paraformer.data.utterances import utterances
    except ImportError as error:
        raise MissingExtra(f"{data} is neither .jsonl, .tsv, .csv nor a prepared set; opening it", "train") from error
    skips = Skips(named=0)
    opened = utterances(open_data(data, skips, channel))
    return opened, [Failure(one.id, f"{one.reason} {one.detail}".rstrip()) for one in skips.found]


def _chunk(options: argparse.Namespace, recognizer: Recognizer) -> ChunkConfig:
    """The setting of the live pass. Raises UnsupportedModel if the model has none of its own and none was given."""
    chunk = recognizer.stream(options.live if isinstance(options.live, ChunkConfig) else None).chunk
    if options.look_back is None:
        return chunk
    encoder, decoder = options.look_back
    return replace(chunk, encoder_look_back=encoder, decoder_look_back=decoder)


def _words(chunk: ChunkConfig) -> str:
    look_back = f"{chunk.encoder_look_back}/{chunk.decoder_look_back}"
    return f"[{chunk.left},{chunk.chunk},{chunk.right}] look-back {look_back}"


def _shown(outcomes: Iterable[T], utterances: list[Utterance]) -> Iterable[T]:
    """The same, with a progress bar on a terminal."""
    shown = sys.stderr.isatty()
    return tqdm(outcomes, total=len(utterances), unit=" utterances", leave=False, disable=not shown)
