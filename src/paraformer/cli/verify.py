"""`paraformer verify`: whether an exported directory does on this machine what its certificate says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from paraformer.certificate.record import Difference, Measured
from paraformer.certificate.verify import Report, engine
from paraformer.certificate.verify import verify as check
from paraformer.loader import locate


def verify(options: argparse.Namespace) -> int:
    """Print a line for each check, and what follows. Returns 1 if any failed."""
    directory = locate(options.model)
    report = check(directory)
    print("\n".join([*lines(report), f"{directory} {_verdict(report)}"]))
    return 0 if report.passed else 1


def lines(report: Report) -> list[str]:
    """The report as a table."""
    certificate = report.certificate
    form = certificate.form
    heading = f"{form.runtime}, {'live, ' if form.live else ''}{form.precision}, run by {engine(form)}"
    made = ", ".join(f"{package} {version}" for package, version in certificate.versions.items())
    rows = [f"{heading}; made with {made}", f"{'check':<16} {'differs by':<28} may differ by"]
    if report.changed:
        return [*rows, f"{'files':<16} changed, missing or not certified: {', '.join(report.changed)}  FAILED"]
    rows.append(f"{'files':<16} {f'{len(certificate.sha256)} as certified':<57} ok")
    rows += [
        f"{check.name:<16} {_shown(check.found):<28} {_shown(check.limit):<28} {'ok' if check.passed else 'FAILED'}"
        for check in report.checks
    ]
    return [*rows, *_measured(certificate.measured)]


def _verdict(report: Report) -> str:
    if report.passed:
        return "recognises here as it did where it was exported"
    if report.changed:
        return "is not as it was exported: get the model again, or export it again if that was meant"
    failed = sum(not check.passed for check in report.checks)
    return f"recognises otherwise here, by {failed} of {len(report.checks)} checks: export it again on this machine"


def _shown(difference: Difference) -> str:
    return f"{difference.tokens} tokens, log-prob {difference.log_probs:.1e}"


def _measured(measured: Measured | None) -> Iterator[str]:
    modes = {} if measured is None else {"whole": measured.whole, "live": measured.live}
    for mode, change in modes.items():
        if measured and change:
            about = f"{measured.data} ({measured.utterances} utterances), {mode}"
            yield f"when made, errors on {about}: {change.torch:.2f} % by torch, {change.export:.2f} % by this export"
