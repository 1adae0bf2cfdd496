"""How far confidences can be relied on, and the curve that makes them so, fitted on recordings with known texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from paraformer.confidence import SPEECH, SPEECH_MOST, UNCALIBRATED, Curve, Mode, logits_of
from paraformer.errors import DataError, ParaformerError, attempt
from paraformer.evaluate.cer import align, nearest
from paraformer.evaluate.normalise import PLAIN, Normalizer
from paraformer.evaluate.results import Failure
from paraformer.evaluate.run import samples_of
from paraformer.manifests import Utterance
from paraformer.recognizer import Recognizer
from paraformer.text import CONTINUED
from paraformer.types import Token

BINS = 15
LEAST_TOKENS = 100
"""Fewer say nothing of how often tokens are right."""
_ROUNDS = 50


@dataclass(frozen=True, eq=False)
class Judged:
    """Tokens of one utterance that stand for something spoken: their confidences, and whether each is right."""

    confidences: Float[np.ndarray, " tokens"]
    right: Bool[np.ndarray, " tokens"]

    @classmethod
    def of(cls, utterances: Iterable[Judged]) -> Judged:
        """All tokens of several."""
        every = [cls(np.zeros(0, np.float32), np.zeros(0, bool)), *utterances]
        return cls(np.concatenate([one.confidences for one in every]), np.concatenate([one.right for one in every]))


@dataclass(frozen=True)
class Fitted:
    """before, after: expected calibration errors; after: of curves that were fitted on the other half of the data."""

    curve: Curve
    tokens: int
    before: float
    after: float


def judge(tokens: Sequence[Token], reference: str, normalizer: Normalizer) -> Judged:
    """Which tokens are right, as the alignment with the fewest edits has them: those all of whose characters are.

    >>> tokens = [Token("今", 0, 1, 0.9), Token("添", 1, 2, 0.5)]
    >>> judge(tokens, "今天", Normalizer()).right.tolist()
    [True, False]
    """
    texts = [PLAIN(token.text.removesuffix(CONTINUED)) for token in tokens]
    heard = "".join(texts)
    said, _ = nearest(normalizer.readings(reference), [heard])
    matches = iter([left == right for left, right in align(said, heard) if right])
    each = [[next(matches) for _ in text] for text in texts]
    right = [all(one) for one in each]
    spoken = np.array([bool(text) for text in texts], bool)
    confidences = np.array([token.confidence for token in tokens], np.float32)
    return Judged(confidences[spoken], np.array(right, bool)[spoken])


def calibrate(
    recognizer: Recognizer, utterances: Sequence[Utterance], normalizer: Normalizer, *, batch_s: float = 60.0
) -> tuple[dict[Mode, Fitted], list[Failure]]:
    """What was fitted for each way in which the model recognises, and the utterances that could not be recognised.

    Raises DataError where they do not tell enough.
    """
    plain, fits, failures = recognizer.calibrated(UNCALIBRATED), dict[Mode, Fitted](), []
    ways: dict[Mode, Iterator[Judged | Failure]] = {}
    if not plain.config.training_chunks:
        ways["whole"] = judged_whole(plain, utterances, normalizer, batch_s=batch_s)
    if plain.config.streaming:
        ways["live"] = judged_live(plain, utterances, normalizer)
    for mode, outcomes in ways.items():
        taken = list(outcomes)
        failures += [one for one in taken if isinstance(one, Failure)]
        try:
            fits[mode] = fit([one for one in taken if isinstance(one, Judged)], mode)
        except DataError as error:
            if not failures:
                raise
            first = failures[0]
            raise DataError(
                f"{error} ({len(failures)} utterances failed, the first {first.id}: {first.error})"
            ) from None
    return fits, failures


def clear_as_speech(recognizer: Recognizer, utterances: Sequence[Utterance]) -> float:
    """How clear speech is at least, by the utterances that can be read; 0 for a model that hears no units."""
    if not recognizer.config.units:
        return 0.0
    found = [1.0]
    for utterance in utterances:
        with attempt(utterance.id):
            found.append(recognizer.clarity(utterance.load()))
    return round(min(SPEECH * min(found), SPEECH_MOST), 3)


def judged_whole(
    recognizer: Recognizer, utterances: Sequence[Utterance], normalizer: Normalizer, *, batch_s: float
) -> Iterator[Judged | Failure]:
    """Each utterance in view of all of itself, batch_s seconds in a batch; one that fails gives its failure."""
    unreadable: dict[str, ParaformerError] = {}
    results = recognizer.transcribe_each(samples_of(utterances, unreadable), batch_s=batch_s)
    for utterance, result in zip(utterances, results, strict=True):
        outcome = unreadable.get(utterance.id, result)
        if isinstance(outcome, ParaformerError):
            yield Failure(utterance.id, str(outcome))
        else:
            yield judge(outcome.tokens, utterance.text, normalizer)


def judged_live(
    recognizer: Recognizer, utterances: Iterable[Utterance], normalizer: Normalizer
) -> Iterator[Judged | Failure]:
    """Each utterance as a stream of its own. Raises UnsupportedModel if the model recognises whole utterances only."""
    for utterance in utterances:
        session = recognizer.stream()
        with attempt(utterance.id) as work:
            session.accept(utterance.load())
            session.finish()
        if work.error is not None:
            yield Failure(utterance.id, str(work.error))
        else:
            yield judge(session.tokens, utterance.text, normalizer)


def fit(utterances: Sequence[Judged], mode: Mode) -> Fitted:
    """The curve of a mode, from what was said without one. Raises DataError where that is too little."""
    every = Judged.of(utterances)
    if len(every.right) < LEAST_TOKENS or every.right.all() or not every.right.any():
        raise DataError(
            f"{len(every.right)} tokens, {int(every.right.sum())} of them right, do not tell how sure a {mode} result "
            f"is; give recordings with {LEAST_TOKENS} tokens or more, some right and some wrong"
        )
    halves = [Judged.of(utterances[start::2]) for start in (0, 1)]
    others = [fitted(half) for half in reversed(halves)]
    unseen = Judged.of(Judged(curve(half.confidences), half.right) for curve, half in zip(others, halves, strict=True))
    return Fitted(fitted(every), len(every.right), calibration_error(every), calibration_error(unseen))


def calibration_error(judged: Judged) -> float:
    """How far, on average, the confidence of a token is from the share of right ones among those of like confidence.

    Expected calibration error over 15 bins of equal width (Guo et al., ICML 2017).
    """
    bins = np.minimum((judged.confidences * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, judged.confidences - judged.right, minlength=BINS)
    return float(np.abs(gaps).sum() / max(len(bins), 1))


def fitted(judged: Judged) -> Curve:
    """The curve that makes what was right most probable; without tokens, nearly, the one that changes nothing.

    Newton's method on a convex loss. One token's worth of it holds the curve to (1, 1, 0), so that it has an end even
    where the confidences part right from wrong. A slope that would fall is 0, and the rest is fitted without it.
    """
    inputs, start = logits_of(judged.confidences), np.array([1.0, 1.0, 0.0])
    free = np.ones(3, bool)
    while True:
        weights = _newton(inputs, judged.right.astype(np.float64), np.where(free, start, 0.0), free)
        falling = free & (weights < 0) & np.array([True, True, False])
        if not falling.any():
            return Curve(*weights.tolist())
        free &= ~(falling & (weights == weights[falling].min()))


def _newton(
    inputs: Float[np.ndarray, "n 3"],
    right: Float[np.ndarray, " n"],
    start: Float[np.ndarray, "3"],
    free: Bool[np.ndarray, "3"],
) -> Float[np.ndarray, "3"]:
    """The minimum over the free weights, with steps halved until the loss falls."""
    weights = start.copy()

    def loss(at: Float[np.ndarray, "3"]) -> float:
        score = inputs @ at
        return float((np.logaddexp(0, score) - right * score).sum() + 0.5 * np.square(at - start).sum())

    for _ in range(_ROUNDS):
        p = np.exp(-np.logaddexp(0, -(inputs @ weights)))
        slope = (inputs.T @ (p - right) + weights - start)[free]
        curvature = (inputs.T * (p * (1 - p))) @ inputs + np.eye(3)
        step, size = np.zeros(3), 1.0
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], slope)
        while loss(weights - size * step) > loss(weights) and size > 1e-6:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return weights
