"""What every exported model must show: it computes what torch computed, and nothing around it changes what it computes.

parity    each recording alone, against torch when the export was made
batch     beside two copies of itself
padding   beside a recording of another length, in either order
threads   computed by all processors instead of one (not on torch, which has one setting for the process)
packets   live, in packets of other sizes (for runtimes of other makers, theirs to show)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher

import numpy as np

from paraformer.backends.base import Backend, Decoded, LiveState
from paraformer.certificate.golden import Feats, Golden, Outcome
from paraformer.certificate.record import Difference, Form
from paraformer.config import ChunkConfig
from paraformer.recognizer import Recognizer

PACKETS = (160, 1601, 30000)
"""Samples."""

Recognize = Callable[[Sequence[Feats]], list[Outcome]]
Open = Callable[[int], Backend]
"""From a number of threads to the model under test."""


def recognizers(backend: Backend, form: Form) -> dict[str, Recognize]:
    """Mode -> recognition in that mode, for each that the export is made for."""
    chunk, modes = form.chunk(backend.config), dict[str, Recognize]()
    if form.whole(backend.config):
        modes["whole"] = lambda feats: [Outcome.of([decoded]) for decoded in backend.whole(feats)]
    if chunk is not None:
        modes["live"] = lambda feats: [Outcome.of(parts) for parts in stream(backend, feats, chunk)]
    return modes


def stream(backend: Backend, feats: Sequence[Feats], chunk: ChunkConfig) -> list[list[Decoded]]:
    """Live steps of several utterances side by side; each leaves when it ends. Returns the steps of each."""
    steps: list[list[Decoded]] = [[] for _ in feats]
    states: list[LiveState] = [backend.init_state(chunk) for _ in feats]
    last = [len(rows) // chunk.chunk for rows in feats]
    for step in range(max(last) + 1):
        here = [index for index in range(len(feats)) if step <= last[index]]
        rows = [feats[index][step * chunk.chunk : (step + 1) * chunk.chunk] for index in here]
        final = [step == last[index] for index in here]
        decoded, following = backend.step(rows, final, [states[index] for index in here], chunk)
        for index, outcome, state in zip(here, decoded, following, strict=True):
            steps[index].append(outcome)
            states[index] = state
    return steps


def differences(opened: Open, form: Form, golden: Golden, recognizer: Recognizer | None) -> dict[str, Difference]:
    """Every check, "parity, whole" and so on, and what it found. recognizer: for packets, None where they are not ours.

    It must be on the same model as `opened`, which is asked for one thread first and for more only after.
    """
    backend = opened(1)
    feats, found, alone = golden.feats(backend.config.frontend), dict[str, Difference](), dict[str, list[Outcome]]()
    for mode, recognize in recognizers(backend, form).items():
        alone[mode] = [recognize([rows])[0] for rows in feats]
        found[f"parity, {mode}"] = worst(golden.outcomes[mode], alone[mode])
        found |= {f"{law}, {mode}": difference for law, difference in _neighbours(recognize, feats, alone[mode])}
    if recognizer is not None and "live" in alone:
        found["packets, live"] = _packets(recognizer, form, golden, alone["live"])
    if form.runtime == "funasr":
        return found  # torch's number of threads is one setting for the whole process
    for mode, recognize in recognizers(opened(max(2, os.cpu_count() or 2)), form).items():
        found[f"threads, {mode}"] = worst(alone[mode], [recognize([rows])[0] for rows in feats])
    return found


def worst(expected: Sequence[Outcome], got: Sequence[Outcome]) -> Difference:
    """All tokens to edit, and the largest distance of log-probabilities."""
    each = [compare(left, right) for left, right in zip(expected, got, strict=True)]
    return Difference(sum(one.tokens for one in each), max(one.log_probs for one in each))


def compare(expected: Outcome, got: Outcome) -> Difference:
    """Tokens to replace, insert or delete, and the largest distance over those that are the same in both.

    As difflib aligns them: none where they are equal, else not always the fewest there could be.
    """
    matcher = SequenceMatcher(None, expected.ids.tolist(), got.ids.tolist(), autojunk=False)
    edits, distance = 0, 0.0
    for tag, left, left_end, right, right_end in matcher.get_opcodes():
        if tag != "equal":
            edits += max(left_end - left, right_end - right)
        else:
            apart = np.abs(expected.log_probs[left:left_end] - got.log_probs[right:right_end])
            distance = max(distance, float(apart.max()))
    return Difference(edits, distance)


def _neighbours(
    recognize: Recognize, feats: Sequence[Feats], alone: Sequence[Outcome]
) -> Iterator[tuple[str, Difference]]:
    copies = [(recognize([rows] * 3), [outcome] * 3) for rows, outcome in zip(feats, alone, strict=True)]
    yield "batch", worst([one for _, same in copies for one in same], [one for got, _ in copies for one in got])
    there, back = recognize(feats), recognize(feats[::-1])[::-1]
    yield "padding", worst([*alone, *alone], [*there, *back])


def _packets(recognizer: Recognizer, form: Form, golden: Golden, alone: Sequence[Outcome]) -> Difference:
    """Each recording as a session, in packets of each size."""
    ids = {token: index for index, token in enumerate(recognizer.bundle.tokens)}
    got = [_session(recognizer, form, ids, signal, size) for size in PACKETS for signal in golden.signals()]
    return worst([*alone] * len(PACKETS), got)


def _session(recognizer: Recognizer, form: Form, ids: Mapping[str, int], signal: np.ndarray, size: int) -> Outcome:
    session = recognizer.stream(form.chunk(recognizer.config))
    for start in range(0, len(signal), size):
        session.accept(signal[start : start + size])
    session.finish()
    confidences = np.array([token.confidence for token in session.tokens], np.float32)
    return Outcome(np.array([ids[token.text] for token in session.tokens], np.int64), np.log(confidences))
