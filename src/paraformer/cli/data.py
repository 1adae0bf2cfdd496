"""`paraformer data`: prepare corpora and other data for training, pack them into shards, check them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from paraformer.cli.complain import complain
from paraformer.errors import DataError, MissingExtra, ParaformerError
from paraformer.loader import locate, open_settings
from paraformer.text import Vocabulary

if TYPE_CHECKING:
    from paraformer.data.skips import Skips

T = TypeVar("T")

COULD_NOT_RUN = 2
"""Exit code of a check that found no data to look at."""


def data(options: argparse.Namespace) -> int:
    """Run one action; see each."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {"prepare": prepare, "shar": shar, "check": check}
    return actions[options.action](options)


def prepare(options: argparse.Namespace) -> int:
    """Write the sets of a corpus, an archive or other data; a line is printed for each. 1 if anything was left out."""
    _need_lhotse()
    from paraformer.data.prepare import save_cuts
    from paraformer.data.skips import Skips

    skips = Skips("stop" if options.stop else "skip")
    options.source = options.source.absolute()  # as it is right in other processes, too
    for name, cuts in _sets(options, skips).items():
        saved = save_cuts(_measured(options, name, cuts, skips), options.target, name)
        _line(name, saved.utterances, saved.seconds)
    return _left_out(skips)


def _measured(options: argparse.Namespace, name: str, cuts: Iterable[Any], skips: Skips) -> Iterator[Any]:
    """The readable cuts, listened to here or by a cluster, which keeps what is finished beside the set."""
    cuts = _shown(cuts, name)
    if options.ray is None:
        from paraformer.data.reading import measured

        return measured(cuts, skips)
    from paraformer.batch.preparing import measured_by_many

    return measured_by_many(cuts, skips, str(options.target / f"{name}.parts"), options.ray or None)


def _need_lhotse() -> None:
    try:
        from paraformer.data import reading  # noqa: F401 - asks for lhotse
    except ImportError as error:
        raise MissingExtra("Work on training data", "train") from error


def _sets(options: argparse.Namespace, skips: Skips) -> dict[str, Iterable[Any]]:
    """What is to be prepared, by the names of the sets."""
    from paraformer.data.corpora import CORPORA, open_corpus
    from paraformer.data.prepare import prepare as unpack
    from paraformer.data.reading import spoken
    from paraformer.data.sources import each_of

    if options.kind == "archive" and options.ray is not None:
        raise DataError("one machine unpacks an archive: leave out --ray")
    if options.kind != "other" and options.channel != "mix":
        raise DataError(f"{options.kind} has one channel: --channel goes with other data")
    if options.kind in CORPORA:
        return dict(open_corpus(options.kind, options.source, skips, options.parts))
    if options.kind == "archive":
        return dict(unpack([options.source], options.target, skips))
    name = options.name or options.source.name.split(".")[0]
    cuts = each_of(options.source, skips, options.channel)
    return {name: spoken(_in_files(cuts, options.source), skips)}


def _in_files(cuts: Iterable[Any], source: Path) -> Iterator[Any]:
    """The same cuts. Raises DataError at one whose audio has no file that a manifest could name."""
    from paraformer.data.reading import in_files

    for cut in cuts:
        if not in_files(cut):
            raise DataError(f"the audio of {source} is inside it, not in files; use `paraformer data shar`")
        yield cut


def shar(options: argparse.Namespace) -> int:
    """Pack data into shards; a line is printed. 1 if anything was left out."""
    _need_lhotse()
    from paraformer.data.shar import open_shar, write_shar
    from paraformer.data.skips import Skips
    from paraformer.data.sources import open_data

    skips = Skips("stop" if options.stop else "skip")
    write_shar(_shown(open_data(options.source, skips, options.channel), options.target.name), options.target, skips)
    cuts = open_shar(options.target)
    _line(str(options.target), len(cuts), sum(cut.duration for cut in cuts))
    return _left_out(skips)


def _shown(cuts: Iterable[T], name: str) -> Iterator[T]:
    """The cuts, with a progress bar on a terminal."""
    yield from tqdm(cuts, desc=name, unit=" utterances", leave=False, disable=None)


def _line(name: str, utterances: int, seconds: float) -> None:
    print(f"{name}: {utterances} utterances, {seconds / 3600:.2f} h")


def _left_out(skips: Skips) -> int:
    if skips.found:
        print(skips)
    return 1 if skips.found else 0


def check(options: argparse.Namespace) -> int:
    """Look for what would harm training. 0 for clean data, 1 for problems, 2 if it could not be looked at."""
    try:
        return _check(options)
    except (ParaformerError, OSError) as error:
        complain(error)
        return COULD_NOT_RUN


def _check(options: argparse.Namespace) -> int:
    _need_lhotse()
    from paraformer.data.check import check as look_at
    from paraformer.data.check_report import draw, table, to_json
    from paraformer.data.skips import Skips
    from paraformer.data.sources import open_data

    skips = Skips(named=0)  # the report names them
    vocabulary = _vocabulary(options.model) if options.model else None
    cuts = open_data(options.source, skips, options.channel)
    test = open_data(options.test, skips, options.channel) if options.test else ()
    report = look_at(_shown(cuts, "data"), skips, vocabulary, _shown(test, "test"))
    print(json.dumps(to_json(report), ensure_ascii=False) if options.json else table(report))
    if options.picture:
        draw(report, options.picture)
    return 0 if report.clean else 1


def _vocabulary(model: str) -> Vocabulary:
    """The vocabulary of a native or FunASR model."""
    bundle = open_settings(locate(model))
    return Vocabulary(bundle.tokens, bundle.words)
