"""`paraformer verify`: whether an exported directory does on this machine what its certificate says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from paraformer.certificate.record import Difference
from paraformer.certificate.verify import Report
from paraformer.certificate.verify import verify as check
from paraformer.loader import locate


def verify(options: argparse.Namespace) -> int:
    """Print a line for each check. Returns 1 if any failed."""
    report = check(locate(options.model))
    print("\n".join(lines(report)))
    return 0 if report.passed else 1


def lines(report: Report) -> list[str]:
    """The report as a table."""
    certificate = report.certificate
    form = certificate.form
    heading = f"{form.runtime}, {'live, ' if form.live else ''}{form.precision}"
    made = ", ".join(f"{package} {version}" for package, version in certificate.versions.items())
    rows = [f"{heading}; made with {made}", f"{'check':<16} {'found':<28} {'limit':<28}"]
    if report.changed:
        return [*rows, f"{'files':<16} changed or missing: {', '.join(report.changed)}  FAILED"]
    rows.append(f"{'files':<16} {f'{len(certificate.sha256)} as certified':<57} ok")
    rows += [
        f"{check.name:<16} {_shown(check.found):<28} {_shown(check.limit):<28} {'ok' if check.passed else 'FAILED'}"
        for check in report.checks
    ]
    return [*rows, *_measured(certificate.measured or {})]


def _shown(difference: Difference) -> str:
    return f"{difference.tokens} tokens, log-prob {difference.log_probs:.1e}"


def _measured(measured: Mapping[str, Any]) -> Iterator[str]:
    for mode in ("whole", "live"):
        if mode in measured:
            before, after = measured[mode]["torch"], measured[mode]["export"]
            about = f"{measured['data']} ({measured['utterances']} utterances), {mode}"
            yield f"when made, errors on {about}: {before:.2f} % by torch, {after:.2f} % by this export"
