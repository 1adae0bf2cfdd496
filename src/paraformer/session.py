"""One live stream: samples of any packet size in, stable text out, every last sample flushed at the end.

A session owns what is ragged: the remainder of samples, rows that wait for a full chunk, tokens, the clock. A full
chunk of many sessions is stepped in one batch by `advance`; a session may join or leave at any step, and its result
does not depend on its neighbours, nor on how its samples were cut into packets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from paraformer.backends.base import Backend, Decoded
from paraformer.config import SILENT_IDS, ChunkConfig
from paraformer.errors import SessionError
from paraformer.frontend import Frontend, FrontendState
from paraformer.language import Candidates, LanguageModel
from paraformer.text import TextAssembler, Vocabulary
from paraformer.timestamps import CifClock
from paraformer.types import Segment, Token, Transcript

HELD = 2
"""Tokens that a language model of three sees beside one, on either side."""


@dataclass(frozen=True)
class Engine:
    """What all sessions of one recogniser share; read-only."""

    backend: Backend
    frontend: Frontend
    vocabulary: Vocabulary
    lm: LanguageModel | None = None
    lm_weight: float = 0.0

    def choose(self, decoded: Decoded) -> Decoded:
        """What the language model, where there is one, makes of a whole utterance."""
        if self.lm is None:
            return decoded
        candidates = Candidates.of(decoded.scores)
        ids, confidences = candidates.chosen(self.lm.best(candidates, weight=self.lm_weight))
        return replace(decoded, ids=ids, confidences=confidences)

    @property
    def fingerprint(self) -> str:
        """Identifies configuration and vocabulary, so that a saved session is not restored into another model."""
        described = [self.backend.config.to_dict(), [self.vocabulary.token(i) for i in range(len(self.vocabulary))]]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


Span = tuple[float, float]


def tokens_of(ids: np.ndarray, confidences: np.ndarray, spans: Sequence[Span], vocabulary: Vocabulary) -> list[Token]:
    """Decoded items with their times, without <blank>, <s> and </s> (spec 7.1)."""
    return [
        Token(vocabulary.token(index), start, end, confidence)
        for index, confidence, (start, end) in zip(ids.tolist(), confidences.tolist(), spans, strict=True)
        if index not in SILENT_IDS
    ]


class Session:
    """One stream of one recogniser. Made by `Recognizer.stream`."""

    def __init__(self, engine: Engine, chunk: ChunkConfig, *, drop_short_tail: bool = False) -> None:
        """drop_short_tail: discard a last piece of under 60 ms as FunASR does (spec 7.4), for parity with it only."""
        config = engine.backend.config
        self.chunk = chunk
        self._engine = engine
        self._drop_short_tail = drop_short_tail
        self._frontend = engine.frontend.init_state()
        self._rows = np.zeros((0, config.frontend.input_dim), np.float32)
        self._state = engine.backend.init_state(chunk)
        self._assembler = TextAssembler()
        self._clock = CifClock(first_window=-chunk.right, window_s=config.row_s)
        self._tokens: list[Token] = []
        self._waiting, self._waiting_spans = Candidates.none(), list[Span]()
        self._history: tuple[int, ...] = ()
        self._text: list[str] = []
        self._samples = 0
        self._steps = 0
        self._ended = False
        self._done = False

    @property
    def text(self) -> str:
        """All text decided so far."""
        return "".join(self._text)

    @property
    def tokens(self) -> tuple[Token, ...]:
        """All tokens decided so far."""
        return tuple(self._tokens)

    @property
    def duration_s(self) -> float:
        """Seconds of audio received."""
        return self._samples / self._engine.backend.config.frontend.sample_rate

    @property
    def done(self) -> bool:
        """Whether the stream has ended and all of it has been recognised."""
        return self._done

    @property
    def ready(self) -> bool:
        """Whether a step can be taken: a full chunk has come, or the stream has ended."""
        return not self._done and (self._ended or self._samples >= (self._steps + 1) * self._stride)

    def feed(self, samples: Float32[np.ndarray, " samples"]) -> None:
        """Take in samples (mono, 16 kHz, -1 to 1) without recognising yet. Raises SessionError once ended."""
        if self._ended:
            raise SessionError("this session has ended; open a new one for more audio")
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise SessionError("a packet must be one row of finite samples: float32, mono, 16 kHz, -1 to 1")
        self._samples += len(samples)
        self._extract(samples, final=False)

    def end(self) -> None:
        """No more samples will come: the next steps flush everything. Raises SessionError if called twice."""
        if self._ended:
            raise SessionError("this session has already ended")
        self._ended = True
        if self._drop_short_tail and self._samples % self._stride < self._engine.backend.config.frontend.window_samples:
            self._rows = self._rows[: self._samples // self._stride * self.chunk.chunk - self._consumed_rows]
        else:
            self._extract(np.zeros(0, np.float32), final=True)
        if self._samples == 0:
            self._done = True

    def accept(self, samples: Float32[np.ndarray, " samples"]) -> str:
        """Take in samples and recognise what is ready. Returns the newly decided text, which will not change."""
        self.feed(samples)
        return advance([self])[0]

    def finish(self) -> str:
        """End the stream and recognise all that is left. Returns the newly decided text."""
        self.end()
        return advance([self])[0]

    def transcript(self) -> Transcript:
        """The result so far, as one segment."""
        tokens, text = self.tokens, self.text
        segments = (Segment(text, tokens[0].start_s, tokens[-1].end_s, tokens),) if tokens else ()
        return Transcript(text, self.duration_s, segments)

    def save(self) -> bytes:
        """The whole session as safetensors bytes; `Recognizer.restore` goes on from there, on any backend."""
        arrays = {f"state.{name}": array for name, array in self._state.items()}
        arrays |= {f"frontend.{name}": array for name, array in self._frontend.to_arrays().items()}
        arrays["rows"] = self._rows
        arrays |= {"waiting.ids": self._waiting.ids, "waiting.log_probs": self._waiting.log_probs}
        progress = {
            "model": self._engine.fingerprint,
            "chunk": asdict(self.chunk),
            "drop_short_tail": self._drop_short_tail,
            "samples": self._samples,
            "steps": self._steps,
            "ended": self._ended,
            "done": self._done,
            "text": self.text,
            "tokens": [asdict(token) for token in self._tokens],
            "history": self._history,
            "waiting_spans": self._waiting_spans,
            "assembler": self._assembler.to_dict(),
            "clock": self._clock.to_dict(),
        }
        contiguous = {name: array.copy(order="C") for name, array in arrays.items()}
        return bytes(save_arrays(contiguous, {"session": json.dumps(progress)}))

    @classmethod
    def restore(cls, engine: Engine, saved: bytes) -> Session:
        """The inverse of `save`. Raises SessionError for bytes that are not a session of this model."""
        progress, arrays = _parse(saved)
        if progress["model"] != engine.fingerprint:
            raise SessionError("the saved session belongs to another model; restore it with the model that made it")
        session = cls(engine, ChunkConfig(**progress["chunk"]), drop_short_tail=progress["drop_short_tail"])
        session._state = _prefixed(arrays, "state.")
        session._frontend = FrontendState.from_arrays(_prefixed(arrays, "frontend."))
        session._rows = arrays["rows"]
        session._samples, session._steps = progress["samples"], progress["steps"]
        session._ended, session._done = progress["ended"], progress["done"]
        session._text = [progress["text"]]
        session._tokens = [Token(**token) for token in progress["tokens"]]
        session._history = tuple(progress["history"])
        session._waiting = Candidates(arrays["waiting.ids"], arrays["waiting.log_probs"])
        session._waiting_spans = [(start, end) for start, end in progress["waiting_spans"]]
        session._assembler = TextAssembler.from_dict(progress["assembler"])
        session._clock = CifClock.from_dict(progress["clock"])
        return session

    # -- stepping -----------------------------------------------------------------------------------------------------

    @property
    def _stride(self) -> int:
        """Samples per chunk. A step is due when so many have come, whatever rows they gave (as in spec 7.4)."""
        return self.chunk.chunk * self._engine.backend.config.frontend.window_samples

    @property
    def _consumed_rows(self) -> int:
        return self._steps * self.chunk.chunk

    def _extract(self, samples: np.ndarray, *, final: bool) -> None:
        rows, self._frontend = self._engine.frontend.step(samples, self._frontend, final=final)
        self._rows = np.concatenate([self._rows, rows])

    def _next(self) -> tuple[np.ndarray, bool]:
        """The rows of the next step, and whether it is the last."""
        final = self._samples < (self._steps + 1) * self._stride
        count = len(self._rows) if final else self.chunk.chunk
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows, final

    def _take_in(self, decoded: Decoded, state: Any, *, final: bool) -> str:
        """Record a step's outcome. Returns the new text."""
        self._state, self._steps = state, self._steps + 1
        spans = self._clock.push(decoded.weights, len(decoded.ids))
        tokens = tokens_of(*self._decided(decoded, spans, final=final), self._engine.vocabulary)
        self._tokens += tokens
        text = "".join(self._assembler.push(token.text) for token in tokens)
        if final:
            self._done = True
            text += self._assembler.finish()
        self._text.append(text)
        return text

    def _decided(
        self, decoded: Decoded, spans: Sequence[Span], *, final: bool
    ) -> tuple[np.ndarray, np.ndarray, list[Span]]:
        """Ids, confidences and times of the tokens on which nothing that is still to come has an influence.

        A language model waits for two more tokens, which are all that it sees of them, or for a step without any.
        """
        if self._engine.lm is None:
            return decoded.ids, decoded.confidences, list(spans)
        waiting = self._waiting.followed_by(Candidates.of(decoded.scores))
        times = [*self._waiting_spans, *spans]
        places = self._engine.lm.best(waiting, self._history, weight=self._engine.lm_weight)
        ready = len(waiting) if final or not len(decoded.ids) else max(0, len(waiting) - HELD)
        ids, confidences = waiting[:ready].chosen(places[:ready])
        self._waiting, self._waiting_spans = waiting[ready:], times[ready:]
        self._history = (*self._history, *(index for index in ids.tolist() if index not in SILENT_IDS))[-HELD:]
        return ids, confidences, times[:ready]


def advance(sessions: Sequence[Session]) -> list[str]:
    """Step all sessions that are ready, together, until none is. Returns the new text of each, in their order."""
    new = [""] * len(sessions)
    while True:
        ready = [index for index, session in enumerate(sessions) if session.ready]
        if not ready:
            return new
        first = sessions[ready[0]]
        batch = [i for i in ready if sessions[i].chunk == first.chunk and sessions[i]._engine is first._engine]
        taken = [sessions[i]._next() for i in batch]
        frames, final = [rows for rows, _ in taken], [last for _, last in taken]
        states = [sessions[i]._state for i in batch]
        decoded, states = first._engine.backend.step(frames, final, states, first.chunk)
        for i, outcome, state, last in zip(batch, decoded, states, final, strict=True):
            new[i] += sessions[i]._take_in(outcome, state, final=last)


def _prefixed(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _parse(saved: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Progress and arrays of a saved session."""
    try:
        arrays = load_arrays(saved)
        size = int.from_bytes(saved[:8], "little")
        progress: dict[str, Any] = json.loads(json.loads(saved[8 : 8 + size])["__metadata__"]["session"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise SessionError("these bytes are not a saved session; pass what Session.save returned") from error
    return progress, arrays
