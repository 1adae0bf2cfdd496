"""`paraformer transcribe --ray` and `paraformer data prepare --ray`: the same work by a cluster."""

from __future__ import annotations

import argparse

from paraformer.cli.complain import complain
from paraformer.cli.options import loading


def transcribe(options: argparse.Namespace) -> int:
    """Recognise all inputs on a cluster; a line with their digest is printed. Returns as `transcribe` without."""
    if mistake := _mistake(options):
        complain(mistake)
        return 2
    from paraformer import batch

    given = {"batch_s": options.batch, "channel": options.channel}
    outcome = batch.transcribe(
        options.files,
        str(options.output_dir),
        options.model,
        form=options.format,
        tokens=options.timestamps or hasattr(options, "alternatives"),
        options=loading(options) | ({} if options.chunk is None else {"chunk": options.chunk}),
        address=options.ray or None,
        **{name: value for name, value in given.items() if value is not None},
    )
    for name, why in outcome.failures:
        complain(why, name)
    if more := outcome.failed - len(outcome.failures):
        complain(f"{more} more failed; `error` in {options.output_dir} says why")
    print(f"{outcome.inputs} inputs, {outcome.failed} failed, sha256 {outcome.sha256}")
    return 1 if outcome.failed else 0


def _mistake(options: argparse.Namespace) -> str:
    """What makes these options unusable together; empty where nothing does."""
    if options.output_dir is None or options.format not in ("json", "parquet"):
        return "--ray goes with --output-dir DIR and --format json or parquet"
    if options.channel == "each":
        return "--channel each goes without --ray"
    if options.stream or options.raw is not None or options.overwrite:
        return "--ray hears whole files and goes on where it stopped: no --stream, --raw, --overwrite"
    if hasattr(options, "alternatives") and options.format != "json":
        return "--alternatives goes with --format json"
    return ""
