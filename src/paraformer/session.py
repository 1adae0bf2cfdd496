"""One live stream: samples of any packet size in, stable text out, every last sample flushed at the end.

A session owns what is ragged: the remainder of samples, rows that wait for a full chunk, tokens, the clock. A full
chunk of many sessions is stepped in one batch by `advance`; a session may join or leave at any step, and its result
does not depend on its neighbours, nor on how its samples were cut into packets.

What changes is one value, replaced when a call has succeeded: a call that fails, for want of memory or in an engine,
has changed nothing in any session and can be made again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from jaxtyping import Float32, Shaped

from paraformer import audio
from paraformer.audio import SAMPLE_RATE, LiveResampler
from paraformer.backends.base import Decoded, LiveState
from paraformer.candidates import Candidates
from paraformer.config import SILENT_IDS, ChunkConfig
from paraformer.errors import SessionError, Unpicklable
from paraformer.hotwords import Hotwords, listed
from paraformer.second_pass import Ended, SecondPass, Sentences, revision
from paraformer.speech_model import Chosen, SpeechModel, audible
from paraformer.stream_state import StreamState, packed, revision_from, unpacked
from paraformer.text import TextAssembler
from paraformer.timestamps import CifClock, Span
from paraformer.types import Revision, Segment, Token, Transcript
from paraformer.writing import sentences, token_from

if TYPE_CHECKING:
    from typing_extensions import Buffer

_log = logging.getLogger(__name__)

HELD = 2
"""Tokens that a language model of three sees beside one, on either side."""

Packet = Shaped[np.ndarray, "..."] | Sequence[float]
"""Samples of one channel as they come, any number of them: an array, a tensor or a list."""

Again = Callable[[SpeechModel, Float32[np.ndarray, " samples"], float], list[Segment]]
"""Recognises a piece that begins at so many seconds of its stream in view of all of it: one segment, or none."""


@dataclass(frozen=True)
class _Said:
    """What one step decided."""

    text: str
    tokens: list[Token]


class Session:
    """One stream of one recogniser. Made by `Recognizer.stream`."""

    def __init__(
        self,
        model: SpeechModel,
        chunk: ChunkConfig,
        *,
        rate: int = SAMPLE_RATE,
        drop_short_tail: bool = False,
        second_pass: SecondPass | None = None,
        again: Again | None = None,
    ) -> None:
        """rate: of the samples that will come, Hz.

        drop_short_tail: discard a last piece of under 60 ms as FunASR does (spec 7.4), for parity with it only.
        second_pass: recognise sentences again, by `again`.
        """
        config = model.backend.config
        self.chunk = chunk
        self._resampler = LiveResampler(rate)
        self._model = model
        self._drop_short_tail = drop_short_tail
        self._second_pass, self._again = second_pass, again
        self._tokens: list[Token] = []
        self._text: list[str] = []
        self._revisions: list[Revision] = []
        self._state = StreamState(
            incoming=self._resampler.init_state(),
            frontend=model.frontend.init_state(),
            rows=np.zeros((0, config.frontend.input_dim), np.float32),
            model=model.backend.init_state(chunk),
            assembler=TextAssembler(),
            clock=CifClock(first_window=-chunk.right, window_s=config.row_s),
            waiting=Candidates.none(),
            sentences=None if second_pass is None else Sentences(second_pass.open()),
        )

    def __reduce__(self) -> NoReturn:
        """Neither pickled nor copied: a copy would share with this one what both change."""
        raise Unpicklable(
            "a session cannot be pickled or copied: keep or send what its save() returns, and go on with "
            "Recognizer.restore of the same model"
        )

    @property
    def text(self) -> str:
        """All text decided so far."""
        return "".join(self._text)

    @property
    def tokens(self) -> tuple[Token, ...]:
        """All tokens decided so far."""
        return tuple(self._tokens)

    @property
    def hotwords(self) -> tuple[str, ...]:
        """Words that the session listens for from now on; see `listen_for`."""
        return self._model.hotwords or ()

    def listen_for(self, hotwords: Hotwords) -> None:
        """Listen for these words instead, from the next step on: a list, or the Path of a file with one a line.

        Raises UnsupportedModel if the model has no way to, ConfigError for what is no such list.
        """
        self._model = self._model.listening_for(listed(hotwords))

    @property
    def rate(self) -> int:
        """Of the samples that the session takes, Hz."""
        return self._resampler.rate

    @property
    def duration_s(self) -> float:
        """Seconds of audio received."""
        return self._state.incoming.received / self.rate

    @property
    def done(self) -> bool:
        """Whether the stream has ended and all of it has been recognised."""
        return self._state.done

    @property
    def ready(self) -> bool:
        """Whether a step can be taken: a full chunk has come, or the stream has ended."""
        return self._is_ready(self._state)

    @property
    def missing(self) -> int:
        """Samples, at the session's rate, that the next step waits for: for those who collect packets to feed."""
        due = (self._state.steps + 1) * self._stride - self._state.samples
        return 0 if self.ready else self._resampler.missing(due, self._state.incoming)

    def feed(self, samples: Packet) -> None:
        """Take in samples of one channel, at the session's rate, without recognising yet.

        Floats in [-1, 1] or int16, in an array, a tensor or a list. Raises SessionError once ended, and AudioError for
        what are no such samples; the session is then as before.
        """
        self._state = self._fed(samples)

    def end(self) -> None:
        """No more samples will come: the next steps flush everything. Raises SessionError if called twice."""
        self._state = self._ended()

    def accept(self, samples: Packet) -> str:
        """Take in samples, as `feed` does, and recognise what is ready.

        Returns the newly decided text, which will not change. Where this raises, the samples have not been taken in.
        """
        return _advance({self: self._fed(samples)})[self]

    def finish(self) -> str:
        """End the stream and recognise all that is left. Returns the newly decided text."""
        return _advance({self: self._ended()})[self]

    def take_revisions(self) -> list[Revision]:
        """The sentences that were recognised again since the last call; none without a second pass."""
        taken, self._revisions = self._revisions, []
        return taken

    def take_ended(self) -> list[Ended]:
        """Sentences that have ended, for those who recognise them again themselves, and at their own time."""
        sentences = self._state.sentences
        if sentences is None:
            return []
        self._state = replace(self._state, sentences=replace(sentences, ended=(), due=()))
        return [*(one for one, _ in sentences.due), *sentences.ended]

    @property
    def speaking_since_s(self) -> float | None:
        """Where the sentence begins that is being said; None while nobody speaks, or without a second pass."""
        sentences = self._state.sentences
        return None if sentences is None else sentences.listening.speaking_since_s

    def transcript(self) -> Transcript:
        """The result so far, as one segment."""
        tokens, text = self.tokens, self.text
        segments = (Segment(text, tokens[0].start_s, tokens[-1].end_s, tokens),) if tokens else ()
        return Transcript(text, self.duration_s, segments, sentences(tokens))

    def take(self) -> Transcript:
        """What `transcript` gives, which the session then forgets, so that memory and saved sessions stay small.

        For streams without end, which otherwise keep every token that was decided: some 60 MB a day of speech without
        a pause. `text`, `tokens` and `transcript` begin anew; times and duration still count from the start. All texts
        that were taken, one after another, are the text of the stream.
        """
        taken = self.transcript()
        self._tokens, self._text = [], []
        return taken

    def save(self) -> bytes:
        """The whole session; `Recognizer.restore` goes on from there, on any backend and in any precision."""
        values, arrays = self._state.to_dict()
        values |= {
            "model": self._model.fingerprint,
            "hotwords": self.hotwords,
            "chunk": asdict(self.chunk),
            "rate": self.rate,
            "drop_short_tail": self._drop_short_tail,
            "text": self.text,
            "tokens": [asdict(token) for token in self._tokens],
        }
        if self._second_pass is not None:
            values |= {"second_pass": asdict(self._second_pass)}
            values |= {"revisions": [asdict(one) for one in self._revisions]}
        return packed(values, arrays)

    @classmethod
    def restore(cls, model: SpeechModel, saved: Buffer, again: Again | None = None) -> Session:
        """The inverse of `save`. Raises SessionError for bytes that are not a session of this model and version.

        It listens for the hotwords that it was listening for, whatever those of the model are.
        """
        values, arrays = unpacked(saved)
        model.check(values["model"])
        hotwords = tuple(values["hotwords"])
        if hotwords != (model.hotwords or ()):
            model = model.listening_for(hotwords)
        second_pass = SecondPass(**values["second_pass"]) if "second_pass" in values else None
        session = cls(
            model,
            ChunkConfig(**values["chunk"]),
            rate=values["rate"],
            drop_short_tail=values["drop_short_tail"],
            second_pass=second_pass,
            again=again,
        )
        session._text = [values["text"]]
        session._tokens = [token_from(token) for token in values["tokens"]]
        session._revisions = [revision_from(one) for one in values.get("revisions", ())]
        session._state = StreamState.from_dict(values, arrays, second_pass)
        return session

    @property
    def _deferred(self) -> bool:
        return self._second_pass is not None and self._second_pass.deferred

    # -- from state to state ------------------------------------------------------------------------------------------

    @property
    def _stride(self) -> int:
        """Samples per chunk. A step is due when so many have come, whatever rows they gave (as in spec 7.4)."""
        return self.chunk.chunk * self._model.backend.config.frontend.window_samples

    def _is_ready(self, state: StreamState) -> bool:
        return not state.done and (state.ended or state.samples >= (state.steps + 1) * self._stride)

    def _fed(self, samples: Packet) -> StreamState:
        """The state after further samples."""
        if self._state.ended:
            raise SessionError("this session has ended; open a new one for more audio")
        packet = audio.packet(samples)
        # Of a whole recording an error, but a stream may begin with near silence; told once.
        if self._state.incoming.received == 0 and (narrow := audio.half_width(samples)) is not None:
            _log.warning("%s", narrow)
        return self._heard(self._state, packet, final=False)

    def _ended(self) -> StreamState:
        """The state after the last sample."""
        if self._state.ended:
            raise SessionError("this session has already ended")
        nothing = np.zeros(0, np.float32)
        state = self._heard(self._state, nothing, final=True)
        # Without a single sample there is nothing to step through.
        state = replace(state, ended=True, done=state.samples == 0)
        if self._drop_short_tail and state.samples % self._stride < self._model.backend.config.frontend.window_samples:
            complete = state.samples // self._stride - state.steps
            sentences = self._spoken(state, nothing, final=True)
            return replace(state, rows=state.rows[: complete * self.chunk.chunk], sentences=sentences)
        return replace(state, **self._extracted(state, nothing, final=True))

    def _heard(self, state: StreamState, samples: np.ndarray, *, final: bool) -> StreamState:
        """The state after samples of the session's rate; final: the last ones, of the resampler alone."""
        samples, incoming = self._resampler.step(samples, state.incoming, final=final)
        extracted = self._extracted(state, samples, final=False)
        return replace(state, incoming=incoming, samples=state.samples + len(samples), **extracted)

    def _extracted(self, state: StreamState, samples: np.ndarray, *, final: bool) -> dict[str, Any]:
        """What of the state further samples change, once they are at 16 kHz."""
        rows, frontend = self._model.frontend.step(samples, state.frontend, final=final)
        hearing = state.hearing.step(samples, final=final)
        rows, sentences = np.concatenate([state.rows, rows]), self._spoken(state, samples, final=final)
        return {"rows": rows, "frontend": frontend, "hearing": hearing, "sentences": sentences}

    def _spoken(self, state: StreamState, samples: np.ndarray, *, final: bool) -> Sentences | None:
        return None if state.sentences is None else state.sentences.heard(samples, final=final)

    def _next(self, state: StreamState) -> tuple[np.ndarray, bool]:
        """The rows of the next step, and whether it is the last."""
        final = state.samples < (state.steps + 1) * self._stride
        return state.rows[: len(state.rows) if final else self.chunk.chunk], final

    def _stepped(
        self, state: StreamState, decoded: Decoded, model: LiveState, *, final: bool
    ) -> tuple[StreamState, _Said]:
        """The state after a step that came to `decoded`, and what it decided."""
        rows, _ = self._next(state)
        assembler, clock = state.assembler.copy(), state.clock.copy()
        spans: Sequence[Span] = clock.push(decoded.weights, len(decoded.ids))
        received_s = (state.samples if final else (state.steps + 1) * self._stride) / SAMPLE_RATE
        decoded, spans = audible(decoded, spans, state.hearing, received_s)
        chosen, times, undecided = self._decided(state, decoded, spans, final=final)
        heard = self._model.tokens("live", chosen, times)
        held_s = [start for start, _ in undecided.get("waiting_spans", ())]  # no silence: they were said
        next_s = min([received_s, *held_s])
        tokens, writing = self._model.writer.step(heard, state.writing, now_s=next_s, final=final)
        text = "".join([assembler.push(token.text, token.mark) for token in tokens])
        text += assembler.finish() if final else ""
        spoken = state.sentences
        if spoken is not None:
            held = (*held_s, *writing.starts, clock.began_s)
            spoken = spoken.decided(tokens, held, now_s=received_s, final=final)
        following = replace(
            state,
            rows=state.rows[len(rows) :],
            model=model,
            assembler=assembler,
            clock=clock,
            hearing=state.hearing.since(clock.began_s, now_s=received_s),
            steps=state.steps + 1,
            done=final,
            writing=writing,
            sentences=spoken,
            **undecided,
        )
        return following, _Said(text, tokens)

    def _decided(
        self, state: StreamState, decoded: Decoded, spans: Sequence[Span], *, final: bool
    ) -> tuple[Chosen, Sequence[Span], dict[str, Any]]:
        """The tokens, and their times, on which nothing that is still to come has an influence; and what of the state
        they change.

        A language model waits for two more tokens, which are all that it sees of them, or for a step without any;
        what may be the beginning of a hotword waits for the rest of it.
        """
        lm, spotter = self._model.lm, self._model.spotter
        if lm is None and spotter is None and not len(state.waiting):
            return self._model.first(decoded), spans, {}
        waiting = state.waiting.followed_by(self._model.candidates(decoded))
        times = (*state.waiting_spans, *spans)
        waiting, places = self._model.best(waiting, state.history, live=True)
        held = max(HELD if lm else 0, spotter.begun(waiting) if spotter else 0)
        ready = len(waiting) if final or not len(decoded.ids) else max(0, len(waiting) - held)
        chosen = Chosen.of(waiting[:ready], places[:ready])
        heard = (*state.history, *(index for index in chosen.ids.tolist() if index not in SILENT_IDS))
        undecided = {"waiting": waiting[ready:], "waiting_spans": times[ready:], "history": heard[-HELD:]}
        return chosen, times[:ready], undecided

    def _revised(self, state: StreamState) -> tuple[StreamState, list[Revision]]:
        """The state after sentences that are due were recognised again, and what came of them."""
        if state.sentences is None or not state.sentences.due or self._again is None or self._deferred:
            return state, []
        found = []
        for ended, replaces in state.sentences.due:
            one = revision(ended, replaces, self._again(self._model, ended.samples, ended.start_s))
            if one.segment.text or replaces[0] < replaces[1]:
                found.append(one)
        return replace(state, sentences=replace(state.sentences, due=())), found

    def _commit(self, state: StreamState, said: Sequence[_Said], revisions: Sequence[Revision]) -> None:
        self._tokens += [token for one in said for token in one.tokens]
        self._text += [one.text for one in said if one.text]
        self._revisions += revisions
        self._state = state


def advance(sessions: Iterable[Session]) -> list[str]:
    """Step all sessions that are ready, together, until none is. Returns the new text of each, in their order.

    Where this raises, no session has changed, and it can be called again. Raises SessionError for what is no session.
    """
    try:
        sessions = list(sessions)
    except TypeError as error:
        raise SessionError(f"advance takes several sessions in a list, not one {type(sessions).__name__}") from error
    for session in sessions:
        if not isinstance(session, Session):
            raise SessionError(f"advance takes sessions, as Recognizer.stream makes them, not {type(session).__name__}")
    texts = _advance({session: session._state for session in sessions})
    return [texts[session] for session in sessions]


def _advance(states: dict[Session, StreamState]) -> dict[Session, str]:
    """Step sessions from these states until none is ready; only then do they change."""
    said: dict[Session, list[_Said]] = {session: [] for session in states}
    while ready := [session for session, state in states.items() if session._is_ready(state)]:
        first = ready[0]
        # Those of another chunk or model are another rectangle, and come next.
        batch = [one for one in ready if one.chunk == first.chunk and one._model.backend is first._model.backend]
        taken = [session._next(states[session]) for session in batch]
        frames, final = [rows for rows, _ in taken], [last for _, last in taken]
        models = [states[session].model for session in batch]
        decoded, models = first._model.backend.step(frames, final, models, first.chunk)
        for session, outcome, model, last in zip(batch, decoded, models, final, strict=True):
            states[session], new = session._stepped(states[session], outcome, model, final=last)
            said[session].append(new)
    revised = {session: session._revised(state) for session, state in states.items()}
    for session, (state, revisions) in revised.items():
        session._commit(state, said[session], revisions)
    return {session: "".join([one.text for one in new]) for session, new in said.items()}
