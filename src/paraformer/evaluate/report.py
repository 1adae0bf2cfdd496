"""An evaluation as one page of HTML that needs no other file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from string import Template

import numpy as np

from paraformer.evaluate.cer import Cell, ErrorCounts, align, mark
from paraformer.evaluate.results import Evaluation, Pass, Scored
from paraformer.evaluate.significance import LEVEL, cer_interval
from paraformer.evaluate.summary import live_gap, mode_name, scope
from paraformer.evaluate.tables import PERCENTILES, Row, by_duration, by_speaker, delays, worst

WORST = 50

_BINS = 20
"""Of the histogram: 5 points each up to 100 %, and one for what is above."""

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; white-space: nowrap; } td:last-child { white-space: normal; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #8884; }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums; } th { text-align: left; }
.scroll { overflow-x: auto; } .note { color: #888; }
.pair { margin: 1rem 0; } .cells { font-size: 1.2rem; }
.cell { display: inline-block; vertical-align: top; min-width: 1em; text-align: center; line-height: 1.3; }
.cell b, .cell i { display: block; font-style: normal; font-weight: normal; min-height: 1.3em; }
.S { background: #f5a62355; } .D { background: #4a90e255; } .I { background: #d0021b44; }
svg { max-width: 100%; height: auto; } text { fill: currentColor; font-size: 11px; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$scope</p>
$body
</body>
</html>
""")

_MARKS = {"S": "substituted", "D": "deleted", "I": "inserted"}


def html_report(evaluation: Evaluation) -> str:
    """The page: summary, tables, histogram, worst utterances. Tables are of the first pass, recognition whole."""
    first = evaluation.passes[0]
    body = [
        *_section("Summary", _summary(evaluation)),
        *_section("By speaker", _rows("speaker", by_speaker(first.scored))),
        *_section("By duration", _rows("duration", by_duration(first.scored))),
        *_section("Utterances by error rate", _histogram(first.scored)),
        *_section("Worst utterances", _worst(first.scored)),
        *(_section("Failed", _failures(first)) if first.failures else []),
    ]
    title = f"{evaluation.model} on {evaluation.data}"
    return _PAGE.substitute(title=escape(title), scope=escape(scope(first)), body="\n".join(body))


def _section(title: str, content: Iterator[str]) -> Iterator[str]:
    yield f"<section><h2>{escape(title)}</h2>"
    yield from content
    yield "</section>"


def _summary(evaluation: Evaluation) -> Iterator[str]:
    head = ["", "CER %", f"{100 * LEVEL:g} % interval", *_COUNTS, "as written", "RTF", "one core"]
    yield from _table(head, [_figures(one) for one in evaluation.passes])
    if gap := live_gap(evaluation):
        yield f"<p>Live beside whole: {escape(gap.points)}.</p>"
    late = [[name, *(f"{v:.2f}" for v in values)] for one in evaluation.passes for name, values in delays(one).items()]
    if late:
        yield from _table(["live delay, s", *(f"{share} %" for share in PERCENTILES)], late)
        yield '<p class="note">First token: from the start of its sound to its emission. Commit: from the end of '
        yield "each token's sound to its emission. 50 % of them were no later than said there, and so on.</p>"
    yield '<p class="note">S, D, I: characters substituted, deleted, inserted. As written: CER, %, of the raw texts. '
    yield "RTF: seconds on the clock, and of one core, per second of speech. "
    yield f"Numbers, letters, width and punctuation are normalised; erhua {_erhua(evaluation)}.</p>"


_COUNTS = ("S", "D", "I", "characters")


def _erhua(evaluation: Evaluation) -> str:
    return "counts" if evaluation.erhua else "does not count"


def _figures(one: Pass) -> list[str]:
    interval = cer_interval([scored.errors for scored in one.scored])
    span = f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"
    times = [f"{one.rtf:.4f}", f"{one.rtf_per_core:.4f}"]
    return [mode_name(one), _percent(one.errors), span, *_counts(one.errors), _percent(one.raw_errors), *times]


def _rows(head: str, rows: Sequence[Row]) -> Iterator[str]:
    yield from _table(
        [head, "utterances", "minutes", "CER %", *_COUNTS],
        [
            [row.name, str(row.utterances), f"{row.audio_s / 60:.1f}", _percent(row.errors), *_counts(row.errors)]
            for row in rows
        ],
    )


def _percent(errors: ErrorCounts) -> str:
    return f"{100 * errors.cer:.2f}"


def _counts(errors: ErrorCounts) -> list[str]:
    return [str(n) for n in (errors.substitutions, errors.deletions, errors.insertions, errors.characters)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield '<div class="scroll"><table><thead><tr>'
    yield from (f"<th>{escape(name)}</th>" for name in head)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>"
    yield "</tbody></table></div>"


def _histogram(scored: Sequence[Scored]) -> Iterator[str]:
    """Bars over classes of 5 points of CER."""
    places = [min(_BINS, int(one.errors.cer * _BINS)) for one in scored]
    counts = np.bincount(places, minlength=_BINS + 1).tolist()
    yield '<svg viewBox="0 0 660 200" width="660" role="img" aria-label="Utterances by error rate">'
    for place, count in enumerate(counts):
        height, x = 150 * count / max(counts), 10 + 30 * place
        label = f"{5 * place} to {5 * place + 5} %" if place < _BINS else "100 % and more"
        yield f'<rect x="{x}" y="{170 - height:.1f}" width="28" height="{height:.1f}" fill="#4a90e2">'
        yield f"<title>{label}: {count}</title></rect>"
        yield f'<text x="{x + 14}" y="{165 - height:.1f}" text-anchor="middle">{count or ""}</text>'
        yield f'<text x="{x}" y="186">{5 * place}</text>' if place % 2 == 0 else ""
    yield "</svg>"
    yield '<p class="note">Utterances in classes of 5 points of CER, %; the last bar is 100 % and more.</p>'


def _worst(scored: Sequence[Scored]) -> Iterator[str]:
    yield '<p class="note">Reference above, hypothesis below: '
    yield ", ".join(f'<span class="{letter}">{word}</span>' for letter, word in _MARKS.items()) + ".</p>"
    for one in worst(scored, WORST):
        yield f'<div class="pair"><div class="note">{escape(one.id)}: {escape(str(one.errors))}</div>'
        yield '<div class="cells">' + "".join(map(_cell, align(*one.compared))) + "</div></div>"


def _cell(cell: Cell) -> str:
    reference, hypothesis = (escape(side) for side in cell)
    return f'<span class="cell {mark(cell)}"><b>{reference}</b><i>{hypothesis}</i></span>'


def _failures(one: Pass) -> Iterator[str]:
    yield from _table(["utterance", "why"], [[failure.id, failure.error] for failure in one.failures])
