"""`paraformer export`: a model for the base install or for another runtime, with a certificate."""

from __future__ import annotations

import argparse
from pathlib import Path

from paraformer.bundle import check_empty
from paraformer.certificate.record import Form
from paraformer.cli.complain import complain
from paraformer.errors import MissingExtra
from paraformer.loader import locate


def export(options: argparse.Namespace) -> int:
    """Write the directory, or graphs into the model's own; it is printed. Returns 2 for options at odds."""
    if mistake := _mistake(options):
        complain(mistake)
        return 2
    form = Form(runtime=options.format, live=options.live, precision=options.precision)
    print(write(locate(options.model), options.out, form, measure=options.measure))
    return 0


def _mistake(options: argparse.Namespace) -> str:
    """What makes these options unusable together; empty where nothing does."""
    if options.live and options.format == "paraformer":
        return "--live goes with the formats of other runtimes; a directory for the base install does both"
    if options.precision != "fp32" and options.format == "funasr":
        return "FunASR directories hold weights in float32; --precision goes with the other formats"
    if options.precision in ("fp16", "w8") and options.format != "paraformer":
        return "--precision fp16 and w8 go with directories for the base install; other runtimes take fp32 and int8"
    if options.out is None and (
        options.precision != "fp32" or options.format != "paraformer" or not Path(options.model).is_dir()
    ):
        return "name the directory to make as well: paraformer export MODEL OUT"
    return ""


def write(model: Path, out: Path | None, form: Form, *, measure: Path | None = None) -> Path:
    """Export a model directory to another, or into itself; returns where to. Raises as `export_certified` does."""
    try:
        from paraformer.export.certify import export_certified
    except ImportError as error:
        raise MissingExtra("Exporting a model", "export") from error
    from paraformer.checkpoint import native, open_any

    if out is not None:
        check_empty(out, f"export {model} into")
    bundle, opened = native.load(model) if out is None else open_any(model)
    directory = model if out is None else out
    export_certified(bundle, opened, directory, form, measure=measure)
    return directory
