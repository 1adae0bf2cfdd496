"""Check an exported directory again, on the machine and with the packages that will run it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from paraformer.backends.base import Backend
from paraformer.certificate.checks import differences
from paraformer.certificate.golden import Golden
from paraformer.certificate.record import Certificate, Difference, Form, changed_files
from paraformer.confidence import UNCALIBRATED
from paraformer.config import ModelConfig
from paraformer.errors import ModelError
from paraformer.loader import open_model
from paraformer.recognizer import Recognizer


@dataclass(frozen=True)
class Check:
    """One check, "parity, whole" and so on: what it found here, and what it may find."""

    name: str
    found: Difference
    limit: Difference

    @property
    def passed(self) -> bool:
        """Whether it is within the limit."""
        return self.found.within(self.limit)


@dataclass(frozen=True)
class Report:
    """What `verify` found; changed: files that are gone or not what they were, before which nothing else is checked."""

    certificate: Certificate
    changed: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all is as certified."""
        return not self.changed and all(check.passed for check in self.checks)


def verify(directory: str | Path) -> Report:
    """Compare files, results and their independence of batch, padding, packets and threads with the certificate.

    Raises ModelNotFound without a certificate, ModelError where something cannot be read or run, MissingExtra where
    running it needs torch.
    """
    directory = Path(directory)
    certificate = Certificate.read(directory)
    changed = changed_files(directory, certificate.sha256)
    if changed:
        return Report(certificate, tuple(changed), ())
    found = run_checks(directory, certificate.form, certificate.model, Golden.read(directory))
    if set(found) != set(certificate.differences):
        raise ModelError(f"{directory} was certified by other checks than this version does; export the model again")
    checks = (Check(name, found[name], certificate.limit(name)) for name in certificate.differences)
    return Report(certificate, (), tuple(checks))


def run_checks(directory: Path, form: Form, config: ModelConfig, golden: Golden) -> dict[str, Difference]:
    """The checks of `checks.differences` on an exported directory."""
    recognizer = None
    if not form.foreign:  # without calibration, as goldens are of the network alone
        recognizer = Recognizer(*open_model(directory, engine(form))).calibrated(UNCALIBRATED)
        if form.runtime == "paraformer" and recognizer.config != config:  # FunASR's settings do not say all of ours
            raise ModelError(f"{directory} was certified with other settings than it has; export the model again")
    return differences(partial(open_backend, directory, form, config), form, golden, recognizer)


def open_backend(directory: Path, form: Form, config: ModelConfig, threads: int) -> Backend:
    """The exported model, ready to run; errors as those of `verify`."""
    if form.foreign:
        from paraformer.certificate.foreign import ForeignBackend

        return ForeignBackend(directory, form, config, threads)
    return open_model(directory, engine(form), threads=threads)[1]


def engine(form: Form) -> Literal["native", "onnx", "torch"]:
    """What runs an export when it is checked."""
    if form.runtime == "funasr":
        return "torch"
    return "native" if form.precision == "int8" and not form.foreign else "onnx"
