"""An evaluation in words, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paraformer.errors import DataError
from paraformer.evaluate.cer import align
from paraformer.evaluate.results import Evaluation, Pass, common
from paraformer.evaluate.significance import Comparison, cer_interval, compare
from paraformer.evaluate.tables import PERCENTILES, Row, aligned_lines, by_duration, by_speaker, delays, worst

SPEAKERS = 20
"""So many are shown, those with the most errors."""
WORST = 5


def summary(evaluation: Evaluation) -> str:
    """Error rates, times, tables and the worst utterances of an evaluation that recognised something."""
    first = evaluation.passes[0]
    lines = [f"{evaluation.model} on {evaluation.data}: {scope(first)}"]
    for one in evaluation.passes:
        lines += ["", *_figures(one)]
    if gap := live_gap(evaluation):
        lines += ["", f"live beside whole: {gap.points}"]
    speakers = by_speaker(first.scored)
    lines += ["", *_table("speaker", speakers[:SPEAKERS])]
    if len(speakers) > SPEAKERS:
        lines.append(f"and {len(speakers) - SPEAKERS} speakers with fewer errors; --report shows them all")
    lines += ["", *_table("duration", by_duration(first.scored)), "", *_worst(first)]
    return "\n".join(lines)


def scope(one: Pass) -> str:
    """How much was recognised, and how much was not."""
    speakers = len({scored.speaker for scored in one.scored} - {""})
    said = [_counted(len(one.scored), "utterance"), *([_counted(speakers, "speaker")] if speakers else [])]
    failed = [f"{len(one.failures)} failed"] if one.failures else []
    return ", ".join([*said, f"{one.audio_s / 3600:.2f} h", *failed])


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def live_gap(evaluation: Evaluation) -> Comparison | None:
    """Live recognition compared with whole; None unless there are both."""
    modes = {one.mode: one for one in evaluation.passes}
    return compare_passes(modes["whole"], modes["live"]) if len(modes) == 2 else None


def compare_passes(before: Pass, after: Pass) -> Comparison:
    """Two results on the utterances that both have. Raises DataError as `common` does."""
    first, second = common(before, after)
    return compare([one.errors for one in first], [one.errors for one in second])


def compare_evaluations(before: Evaluation, after: Evaluation) -> str:
    """What the second evaluation shows beside the first, mode by mode.

    Raises DataError where they cannot be compared: other rules, no mode or utterance in common, other references.
    """
    if before.erhua != after.erhua:
        raise DataError("one result counts erhua and the other does not; evaluate both by one rule")
    modes = {one.mode: one for one in after.passes}
    lines = [f"first: {before.model} on {before.data}", f"second: {after.model} on {after.data}"]
    for one in before.passes:
        if one.mode in modes:
            lines += _compared(one, modes[one.mode])
    if len(lines) == 2:
        raise DataError("the two results have no mode in common; evaluate both whole, or both also with --live")
    return "\n".join(lines)


def _compared(before: Pass, after: Pass) -> Iterator[str]:
    shared = len(common(before, after)[0])
    yield f"{before.mode}, {_counted(shared, 'utterance')}: {compare_passes(before, after)}"
    if left_out := len(before.scored) + len(after.scored) - 2 * shared:
        yield f"left out, because one result only has them: {left_out}"


def mode_name(one: Pass) -> str:
    """The mode with its setting."""
    return f"{one.mode} {one.setting}".rstrip()


def _figures(one: Pass) -> Iterator[str]:
    interval = cer_interval([scored.errors for scored in one.scored])
    low, high = 100 * interval.low, 100 * interval.high
    yield f"{mode_name(one)}: {one.errors}, {100 * interval.level:g} % interval {low:.2f} to {high:.2f}"
    if one.raw_errors != one.errors:
        yield f"  as written: {one.raw_errors}"
    yield f"  real-time factor: {one.rtf:.4f} on the clock, {one.rtf_per_core:.4f} of one core"
    for name, values in delays(one).items():
        shares = ", ".join(f"{value:.2f} s ({share} %)" for share, value in zip(PERCENTILES, values, strict=True))
        yield f"  {name} within {shares}"


def _table(head: str, rows: Sequence[Row]) -> Iterator[str]:
    width = max(len(head), *(len(row.name) for row in rows))
    yield f"{head:<{width}}  utterances  minutes    CER %       S       D       I  characters"
    for row in rows:
        e = row.errors
        counts = f"{e.substitutions:7} {e.deletions:7} {e.insertions:7} {e.characters:11}"
        yield f"{row.name:<{width}}  {row.utterances:10} {row.audio_s / 60:8.1f} {100 * e.cer:8.2f} {counts}"


def _worst(one: Pass) -> Iterator[str]:
    for scored in worst(one.scored, WORST):
        yield f"{scored.id}: {scored.errors}"
        yield from (f"  {line}" for line in aligned_lines(align(*scored.compared)))
