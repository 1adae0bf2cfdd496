"""Recognise utterances with a loaded model, whole or live, and score what comes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from paraformer.audio import SAMPLE_RATE, Samples
from paraformer.config import ChunkConfig
from paraformer.errors import ParaformerError, attempt
from paraformer.evaluate.latency import transcribe_live
from paraformer.evaluate.normalise import Normalizer
from paraformer.evaluate.results import Failure, Mode, Pass, Scored, score
from paraformer.manifests import Utterance
from paraformer.recognizer import Recognizer
from paraformer.second_pass import revised

Recognised = Scored | Failure
"""What became of one utterance."""


def recognize_whole(
    recognizer: Recognizer, utterances: Sequence[Utterance], normalizer: Normalizer, *, batch_s: float = 60.0
) -> Iterator[Recognised]:
    """Each utterance in view of all of itself, batch_s seconds in a batch; one that fails gives its failure."""
    unreadable: dict[str, ParaformerError] = {}
    results = recognizer.transcribe_each(samples_of(utterances, unreadable), batch_s=batch_s)
    for utterance, result in zip(utterances, results, strict=True):
        outcome = unreadable.get(utterance.id, result)
        if isinstance(outcome, ParaformerError):
            yield Failure(utterance.id, str(outcome))
        else:
            yield score(utterance, outcome.duration_s, outcome.text, normalizer)


def recognize_live(
    recognizer: Recognizer,
    utterances: Iterable[Utterance],
    normalizer: Normalizer,
    chunk: ChunkConfig,
    *,
    second_pass: bool = False,
) -> Iterator[Recognised]:
    """Each utterance as a stream of its own, with the delays of its tokens. second_pass: scored is what that says.

    Raises UnsupportedModel if the model recognises whole utterances only.
    """
    for utterance in utterances:
        session = recognizer.stream(chunk, second_pass=second_pass)
        with attempt(utterance.id) as work:
            samples = utterance.load()
            transcript, timing = transcribe_live(session, samples)
            transcript = revised(transcript, session.take_revisions()) if second_pass else transcript
        if work.error is not None:
            yield Failure(utterance.id, str(work.error))
            continue
        scored = score(utterance, len(samples) / SAMPLE_RATE, transcript.text, normalizer)
        yield replace(scored, first_token_s=timing.first_token_s, commit_s=timing.commit_s)


def collect(results: Iterable[Recognised], mode: Mode, setting: str = "") -> Pass:
    """Take all results, and the time that they took to come."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    taken = list(results)
    return Pass(
        mode=mode,
        setting=setting,
        scored=tuple(one for one in taken if isinstance(one, Scored)),
        failures=tuple(one for one in taken if isinstance(one, Failure)),
        wall_s=time.perf_counter() - wall_s,
        cpu_s=time.process_time() - cpu_s,
    )


def samples_of(utterances: Iterable[Utterance], unreadable: dict[str, ParaformerError]) -> Iterator[Samples]:
    """Samples of each utterance; nothing, in its place, of one that cannot be read, whose error is noted by its id."""
    for utterance in utterances:
        samples = np.zeros(0, np.float32)
        with attempt(utterance.id) as reading:
            samples = utterance.load()
        if reading.error is not None:
            unreadable[utterance.id] = reading.error
        yield samples
