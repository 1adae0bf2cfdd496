"""Errors on transcribed speech, of the model on torch and of its export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paraformer.backends.base import Backend
from paraformer.bundle import Bundle
from paraformer.certificate.record import Change, Form, Measured
from paraformer.errors import DataError
from paraformer.evaluate.normalise import Normalizer
from paraformer.evaluate.results import Pass
from paraformer.evaluate.run import collect, recognize_live, recognize_whole
from paraformer.evaluate.utterances import Utterance, read_utterances
from paraformer.recognizer import Recognizer


def change_in_errors(bundle: Bundle, reference: Backend, exported: Backend, form: Form, data: Path) -> Measured:
    """Character error rates in percent, for each mode of the export. Raises DataError for data that cannot be used."""
    utterances = read_utterances(data)
    passes = [_passes(Recognizer(bundle, backend), form, utterances) for backend in (reference, exported)]
    changes: dict[str, Change] = {}
    for left, right in zip(*passes, strict=True):
        before, after = (100 * one.errors.cer for one in (left, right))
        changes[left.mode] = Change(before, after, after - before)
    return Measured(data.name, len(utterances), **changes)


def _passes(recognizer: Recognizer, form: Form, utterances: Sequence[Utterance]) -> list[Pass]:
    chunk, normalizer, passes = form.chunk(recognizer.config), Normalizer(), list[Pass]()
    if form.whole(recognizer.config):
        passes.append(collect(recognize_whole(recognizer, utterances, normalizer), "whole"))
    if chunk is not None:
        passes.append(collect(recognize_live(recognizer, utterances, normalizer, chunk), "live"))
    for failure in (failure for one in passes for failure in one.failures):
        raise DataError(f"{failure.id} could not be recognised: {failure.error}")
    return passes
