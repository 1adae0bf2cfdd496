"""What makes text of speech: an acoustic model and all that has a say beside it, for whole utterances and live steps.

The acoustic model gives items with their probabilities and times; a language model and hotwords choose among them, what
lies in silence is left out, and a curve makes confidences of probabilities.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float32, Int64

from paraformer.backends.base import Backend, Decoded, ListeningBackend
from paraformer.candidates import Candidates
from paraformer.confidence import UNCALIBRATED, Calibration, Mode
from paraformer.config import SILENT_IDS
from paraformer.errors import SessionError, UnsupportedModel
from paraformer.frontend import Frontend
from paraformer.language import LanguageModel
from paraformer.silence import Hearing
from paraformer.spotting import OFFERED, OWN, Spotter
from paraformer.text import Vocabulary
from paraformer.timestamps import Span, fine_times, token_times
from paraformer.types import Alternative, Token
from paraformer.writing import Writer

_log = logging.getLogger(__name__)

_SHOWN = 5
"""Words that a warning lists, before it only counts."""


class Chosen(NamedTuple):
    """What some tokens are, and how probable by the decoder; candidates: what each was chosen from, where it counts."""

    ids: Int64[np.ndarray, " tokens"]
    confidences: Float32[np.ndarray, " tokens"]
    candidates: Candidates | None

    @classmethod
    def of(cls, candidates: Candidates, places: Int64[np.ndarray, " tokens"]) -> Chosen:
        """One candidate of each token."""
        return cls(*candidates.chosen(places), candidates)


@dataclass(frozen=True)
class SpeechModel:
    """All that makes text of speech, shared by the sessions of one recogniser; read-only.

    weights: checksum of the acoustic model's, where it is known. calibration: of confidences.
    alternatives: how many each token has. hotwords: that it listens for; None: nobody named any;
    hints: what the model itself has made of them; spotter: what listens for them beside one that cannot.
    writer: what is done to tokens for people who read them.
    """

    backend: Backend
    frontend: Frontend
    vocabulary: Vocabulary
    lm: LanguageModel | None = None
    lm_weight: float = 0.0
    weights: str | None = None
    calibration: Calibration = UNCALIBRATED
    alternatives: int = 0
    hotwords: tuple[str, ...] | None = None
    writer: Writer = field(default_factory=Writer)
    hints: Float32[np.ndarray, "words dim"] | None = None
    spotter: Spotter | None = None

    def listening_for(self, hotwords: tuple[str, ...]) -> SpeechModel:
        """The same with these hotwords, by the model's own way to listen for them, or by their sound.

        Raises UnsupportedModel if it has neither: its vocabulary has no Chinese characters.
        """
        if self.backend.config.hotwords is not None:
            return replace(self, hotwords=hotwords, hints=self._encoded(hotwords))
        odds = OWN if self.lm is None or self.lm.lexicon is None else OFFERED
        spotter = Spotter(hotwords, self.vocabulary.tokens, odds) if hotwords else None
        if spotter is not None and not spotter.knows_characters:
            raise UnsupportedModel(
                "hotwords are found by the sound of Chinese characters, which this model has none of"
            )
        if spotter is not None and spotter.left_out:
            _log.warning(
                "left out %d of %d hotwords, whose sound is not known or comes everywhere: %s; name words of two "
                "or more Chinese characters, and nothing else",
                len(spotter.left_out),
                len(hotwords),
                _some(spotter.left_out),
                extra={"note": True},
            )
        return replace(self, hotwords=hotwords, spotter=spotter)

    def _encoded(self, hotwords: tuple[str, ...]) -> Float32[np.ndarray, "words dim"]:
        """What the model itself makes of hotwords; those that it has no characters for are left out, and told."""
        ids = {word: tuple(self.vocabulary.hotword(word)) for word in hotwords}
        if unknown := [word for word, known in ids.items() if not known]:
            _log.warning(
                "left out %d of %d hotwords, of which the model knows no character: %s",
                len(unknown),
                len(hotwords),
                _some(unknown),
                extra={"note": True},
            )
        backend = cast("ListeningBackend", self.backend)
        return backend.encode_hotwords(list(dict.fromkeys(filter(None, ids.values()))))

    def whole(self, feats: Sequence[Float32[np.ndarray, "_ dim"]]) -> list[tuple[Decoded, Sequence[Span]]]:
        """What each of several whole utterances came to, and when each token was spoken."""
        if self.hints is None:
            outcomes = self.backend.whole(feats)
        else:
            outcomes = cast("ListeningBackend", self.backend).whole(feats, self.hints)
        return [(outcome, self._times(outcome)) for outcome in outcomes]

    def _times(self, outcome: Decoded) -> Sequence[Span]:
        config = self.backend.config
        if outcome.fine is None or config.predictor.timing is None:
            return token_times(outcome.weights, len(outcome.ids), window_s=config.row_s)
        silent = [index in SILENT_IDS for index in outcome.ids.tolist()]
        return fine_times(outcome.fine, silent, rate=config.predictor.timing.rate)

    def is_speech(self, decoded: Decoded) -> bool:
        """Whether a whole utterance is clear enough to be one; sneezes and barks are heard as anything."""
        return decoded.clarity >= self.calibration.speech

    def choose(self, decoded: Decoded) -> Chosen:
        """What the language model, where there is one, makes of a whole utterance."""
        if self.lm is None and self.spotter is None:
            return self.first(decoded)
        return Chosen.of(*self.best(self.candidates(decoded)))

    def candidates(self, decoded: Decoded) -> Candidates:
        """What each token may be, by the decoder and, where the language model has one, a lexicon."""
        return Candidates.of(decoded.scores) if self.lm is None else self.lm.candidates(decoded.scores, decoded.units)

    def best(
        self, candidates: Candidates, history: Sequence[int] = (), *, live: bool = False
    ) -> tuple[Candidates, Int64[np.ndarray, " tokens"]]:
        """What language model and hotwords choose of the candidates, after the ids of history.

        Where a hotword was spotted, its characters are the only candidates.
        """
        places = self._places(candidates, history)
        if self.spotter is None:
            return candidates, places
        spotted = self.spotter(candidates, places, self.lm, history, live=live)
        return spotted, places if spotted is candidates else self._places(spotted, history)

    def _places(self, candidates: Candidates, history: Sequence[int]) -> Int64[np.ndarray, " tokens"]:
        if self.lm is None:
            return np.zeros(len(candidates), np.int64)
        return self.lm.best(candidates, history, weight=self.lm_weight)

    def first(self, decoded: Decoded) -> Chosen:
        """What the decoder chose by itself."""
        candidates = Candidates.of(decoded.scores) if self.alternatives else None
        return Chosen(decoded.ids, decoded.confidences, candidates)

    def tokens(self, mode: Mode, chosen: Chosen, spans: Sequence[Span]) -> list[Token]:
        """Chosen items with their times, without <blank>, <s> and </s> (spec 7.1)."""
        confidences = self.calibration.apply(mode, chosen.confidences)
        rows = zip(chosen.ids.tolist(), confidences.tolist(), spans, self._others(mode, chosen), strict=True)
        return [
            Token(self.vocabulary.token(index), start, end, confidence, others)
            for index, confidence, (start, end), others in rows
            if index not in SILENT_IDS
        ]

    def _others(self, mode: Mode, chosen: Chosen) -> list[tuple[Alternative, ...]]:
        """The alternatives of each token, none where none are asked for."""
        if not self.alternatives or chosen.candidates is None:
            return [()] * len(chosen.ids)
        ids = chosen.candidates.ids
        sure = self.calibration.apply(mode, np.exp(chosen.candidates.log_probs))
        likely = ~np.isin(ids, SILENT_IDS) & (ids != chosen.ids[:, None])
        return [
            tuple(
                Alternative(self.vocabulary.token(int(ids[row, place])), float(sure[row, place]))
                for place in np.flatnonzero(likely[row])[: self.alternatives]
            )
            for row in range(len(ids))
        ]

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """All that decides what a session hears, by name. Backend and precision are not in it: they may change."""
        cmvn = self.frontend.cmvn
        return {
            "settings": _digest(self.backend.config.to_dict()),
            "vocabulary": _digest([self.vocabulary.token(i) for i in range(len(self.vocabulary))]),
            "CMVN": None if cmvn is None else _digest([cmvn.shift.tolist(), cmvn.scale.tolist()]),
            "weights": self.weights,
            "language model": None if self.lm is None else self.lm.fingerprint,
            "weight of the language model": None if self.lm is None else self.lm_weight,
            "calibration": None if self.calibration.live is None else _digest(self.calibration.to_dict()),
            "writing": self.writer.fingerprint,
        }

    def check(self, fingerprint: Mapping[str, Any]) -> None:
        """Raises SessionError, with what differs, unless a session of that model goes on here as if never saved."""
        for name, mine in self.fingerprint.items():
            theirs = fingerprint.get(name)
            if theirs != mine and not (name == "weights" and None in (theirs, mine)):
                raise SessionError(
                    f"the saved session belongs to another model: {_difference(name, theirs, mine)}; restore it with "
                    "the model, language model and weight that made it"
                )


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:_SHOWN]) + (", ..." if len(words) > _SHOWN else "")


def _digest(described: object) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _difference(name: str, theirs: object, mine: object) -> str:
    """In words: what was there when the session was saved, and what is here."""
    if isinstance(theirs, float) and isinstance(mine, float):
        return f"the {name} was {theirs} and is {mine}"
    if theirs is None or mine is None:
        return f"it had {'no' if theirs is None else 'a'} {name}, and here is {'none' if mine is None else 'one'}"
    return f"the {name} differ" if name.endswith("s") else f"the {name} differs"


def audible(
    decoded: Decoded, spans: Sequence[Span], hearing: Hearing, until_s: float
) -> tuple[Decoded, Sequence[Span]]:
    """The tokens, with their times, that do not lie in silence; until_s: end of the audio in which they were heard."""
    kept = np.array([hearing.anything(start, end, until_s=until_s) for start, end in spans], bool)
    if kept.all():
        return decoded, spans
    fewer = replace(
        decoded,
        ids=decoded.ids[kept],
        confidences=decoded.confidences[kept],
        scores=decoded.scores[kept],
        units=None if decoded.units is None else decoded.units[kept],
    )
    return fewer, [span for span, keep in zip(spans, kept, strict=True) if keep]
