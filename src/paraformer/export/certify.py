"""Export with a certificate: what torch computes on two recordings, and how far the export is from it."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from paraformer import __version__
from paraformer.backends import native
from paraformer.backends.torch import TorchBackend
from paraformer.bundle import Bundle, checksum, making
from paraformer.certificate import golden
from paraformer.certificate.checks import recognizers
from paraformer.certificate.golden import Golden
from paraformer.certificate.record import Certificate, Form, Measured
from paraformer.certificate.verify import open_backend, run_checks
from paraformer.checkpoint import native as native_files
from paraformer.contract import WEIGHTS
from paraformer.errors import ModelError, UnsupportedModel
from paraformer.export.directories import write
from paraformer.model.paraformer import Paraformer

PACKAGES = ("numpy", "torch", "onnx", "onnxruntime")


def export_certified(
    bundle: Bundle, model: Paraformer, directory: Path, form: Form, *, measure: Path | None = None
) -> Certificate:
    """Write a model as `form` asks, with golden results and a certificate; what was certified is returned.

    measure: transcribed speech, as `paraformer evaluate` takes it, on which to count the errors of both.
    Weights that are kept in fewer bits than 32 are rounded before anything is computed with them.
    All of it is written or nothing. Raises what `directories.write` raises, UnsupportedModel for int8 where nothing
    could check it, and ModelError if a float32 export does not compute what torch computes.
    """
    if form.runtime == "paraformer" and form.precision == "int8" and not native.available("int8"):
        raise UnsupportedModel(
            "the package's own engine was not built here, so nothing could check an int8 directory; export where it "
            "was, or with --precision fp16"
        )
    weights = directory / WEIGHTS
    into_itself = bundle.directory is not None and directory.resolve() == bundle.directory.resolve()
    with making(directory) as made:
        if into_itself:
            _link(weights, made / WEIGHTS)
        certificate = _certified(bundle, model, made, form, measure)
        if into_itself:
            (made / WEIGHTS).unlink()  # those that are there stay
    return certificate


def _link(source: Path, target: Path) -> None:
    """One file under two names, or a copy where the disk has no links."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def _certified(bundle: Bundle, model: Paraformer, directory: Path, form: Form, measure: Path | None) -> Certificate:
    if form.stored != "float32":
        native_files.save(bundle, model, directory, stored=form.stored)
        _, model = native_files.load(directory)  # what those compute with who open it
    files = write(bundle, model, directory, form)
    reference = _reference(bundle, model, form)
    reference.save(directory)
    certificate = Certificate(
        form=form,
        model=bundle.config,
        versions=_versions(),
        sha256={name: checksum(directory / name) for name in (*files, golden.FILE)},
        differences=run_checks(directory, form, bundle.config, reference),
        measured=_measured(bundle, model, directory, form, measure) if measure else None,
    )
    _refuse(certificate)
    certificate.write(directory)
    return certificate


def _reference(bundle: Bundle, model: Paraformer, form: Form) -> Golden:
    """Golden results of torch, each recording alone."""
    recordings = golden.recordings()
    feats = Golden(recordings, bundle.cmvn, {}).feats(bundle.config.frontend)
    modes = recognizers(TorchBackend(model), form)
    outcomes = {mode: tuple(recognize([rows])[0] for rows in feats) for mode, recognize in modes.items()}
    return Golden(recordings, bundle.cmvn, outcomes)


def _refuse(certificate: Certificate) -> None:
    wrong = {
        name: found for name, found in certificate.differences.items() if not found.within(certificate.limit(name))
    }
    for name, found in wrong.items():
        raise ModelError(
            f"the export does not compute what torch computes: {name}: {found.tokens} tokens differ, log-probabilities "
            f"by {found.log_probs:.1e}; no certificate was written"
        )


def _measured(bundle: Bundle, model: Paraformer, directory: Path, form: Form, data: Path) -> Measured:
    from paraformer.export.measure import change_in_errors

    return change_in_errors(bundle, TorchBackend(model), open_backend(directory, form, bundle.config, 1), form, data)


def _versions() -> dict[str, str]:
    """Of what made the export."""
    found = {"paraformer": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # under another name, as builds for other processors are
    return found
