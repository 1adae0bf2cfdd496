"""What an evaluation found: texts, failures and times of every utterance, and all that follows from them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from paraformer.errors import DataError
from paraformer.evaluate.cer import ErrorCounts, count_edits, nearest
from paraformer.evaluate.normalise import PLAIN, Normalizer, written
from paraformer.manifests import Utterance

FORMAT = 1

Mode = Literal["whole", "live"]


@dataclass(frozen=True)
class Scored:
    """One recognised utterance. Texts as they were written, and as they are compared."""

    id: str
    speaker: str
    duration_s: float
    reference: str
    hypothesis: str
    compared: tuple[str, str]
    """Reference and hypothesis, normalised; of several readings those nearest each other."""
    first_token_s: float | None = None
    """Live: from the start of the first token's sound to its emission; None without tokens."""
    commit_s: tuple[float, ...] = ()
    """Live: from the end of each token's sound to its emission."""

    @cached_property
    def errors(self) -> ErrorCounts:
        """Edits between the texts that are compared."""
        return count_edits(*self.compared)

    @cached_property
    def raw_errors(self) -> ErrorCounts:
        """Edits between the texts as written, white space apart."""
        return count_edits(written(self.reference), written(self.hypothesis))


@dataclass(frozen=True)
class Failure:
    """An utterance that could not be recognised, and why."""

    id: str
    error: str


@dataclass(frozen=True)
class Pass:
    """All utterances recognised in one mode, and the time that it took."""

    mode: Mode
    setting: str
    """Of live recognition, in words; empty for whole."""
    scored: tuple[Scored, ...]
    failures: tuple[Failure, ...]
    wall_s: float
    """On the clock, reading of audio included."""
    cpu_s: float
    """Of all cores together."""

    @property
    def errors(self) -> ErrorCounts:
        """Edits over all utterances."""
        return total(self.scored)

    @property
    def raw_errors(self) -> ErrorCounts:
        """Edits over all utterances between the texts as written."""
        return sum((scored.raw_errors for scored in self.scored), ErrorCounts())

    @property
    def audio_s(self) -> float:
        """Seconds of speech recognised."""
        return sum(scored.duration_s for scored in self.scored)

    @property
    def rtf(self) -> float:
        """Seconds on the clock per second of speech."""
        return self.wall_s / self.audio_s if self.audio_s else 0.0

    @property
    def rtf_per_core(self) -> float:
        """Seconds of one core per second of speech."""
        return self.cpu_s / self.audio_s if self.audio_s else 0.0


@dataclass(frozen=True)
class Evaluation:
    """A model on some data: whole, and perhaps also live."""

    model: str
    data: str
    erhua: bool
    passes: tuple[Pass, ...]

    def to_json(self) -> str:
        """One JSON object; `from_json` reads it back. Counts are in it for other readers: S, D, I, characters."""
        described = {"format": FORMAT, "model": self.model, "data": self.data, "erhua": self.erhua}
        passes = [_described(one) for one in self.passes]
        return json.dumps(described | {"passes": passes}, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """The inverse of `to_json`. Raises DataError for anything else."""
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise DataError(f"these results have format {values['format']}, not {FORMAT}; evaluate again")
            passes = tuple(_pass(one) for one in values["passes"])
            return cls(values["model"], values["data"], values["erhua"], passes)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise DataError("this is not what `paraformer evaluate --json` prints") from error


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file. Raises DataError, naming the file, if it is missing or holds something else."""
    try:
        return Evaluation.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, DataError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: {reason}") from error


def score(utterance: Utterance, duration_s: float, hypothesis: str, normalizer: Normalizer) -> Scored:
    """Set a recognised text beside its reference. Raises MissingExtra as Normalizer does."""
    compared = nearest(normalizer.readings(utterance.text), normalizer.readings(hypothesis))
    return Scored(utterance.id, utterance.speaker, duration_s, utterance.text, hypothesis, compared)


def total(scored: Iterable[Scored]) -> ErrorCounts:
    """Edits over some utterances."""
    return sum((one.errors for one in scored), ErrorCounts())


def _described(one: Pass) -> dict[str, Any]:
    utterances = [asdict(scored) | {"errors": asdict(scored.errors)} for scored in one.scored]
    counted = {"errors": asdict(one.errors), "raw_errors": asdict(one.raw_errors), "audio_s": one.audio_s}
    return asdict(one) | {"scored": utterances} | counted


def _pass(values: dict[str, Any]) -> Pass:
    return Pass(
        mode=values["mode"],
        setting=values["setting"],
        scored=tuple(_scored(one) for one in values["scored"]),
        failures=tuple(Failure(**failure) for failure in values["failures"]),
        wall_s=values["wall_s"],
        cpu_s=values["cpu_s"],
    )


def _scored(values: dict[str, Any]) -> Scored:
    reference, hypothesis = values["compared"]
    texts = {name: values[name] for name in ("id", "speaker", "duration_s", "reference", "hypothesis", "first_token_s")}
    return Scored(**texts, compared=(reference, hypothesis), commit_s=tuple(values["commit_s"]))


def common(before: Pass, after: Pass) -> tuple[list[Scored], list[Scored]]:
    """The utterances that both recognised, in one order.

    Raises DataError if there are none, or if an utterance has another reference in the one than in the other.
    """
    found = {one.id: one for one in after.scored}
    pairs = [(one, found[one.id]) for one in before.scored if one.id in found]
    if not pairs:
        raise DataError("the two results have no utterance in common; evaluate both on the same data")
    for first, second in pairs:
        if PLAIN(first.reference) != PLAIN(second.reference):
            raise DataError(f"utterance {first.id} has two references, {first.reference!r} and {second.reference!r}")
    return [first for first, _ in pairs], [second for _, second in pairs]
