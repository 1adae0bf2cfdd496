"""One thread owns the recogniser: live streams that have a full chunk step together, whole pieces fill what is left.

A round (`tick`) takes what has come, steps a few together of those live streams whose chunk has been complete for
longest, and recognises one whole piece if no stream waits, or if pieces have waited for long. What it found goes out in
one call. A stream or piece that fails gets its error; the others do not notice.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic

from paraformer.errors import ParaformerError, UnsupportedModel, attempt
from paraformer.recognizer import Recognizer
from paraformer.second_pass import Ended, SecondPass
from paraformer.serve.protocol import Done, Failed, Kept, News, Packet, Saved, Sentence, Speaking, StreamOptions
from paraformer.serve.stream import Stream
from paraformer.types import Segment

log = logging.getLogger("paraformer.serve")

TOGETHER = 8
"""Live streams in one batch: more gain little on a CPU, and the first of them would wait for the last."""
PATIENCE_S = 1.0
"""A whole piece waits no longer than this for live streams."""
Deliver = Callable[[Sequence[tuple[Stream, News]]], None]
"""Takes what one round found; called in the scheduler's thread."""


QUOTES: ContextVar[bool] = ContextVar("quotes", default=False)
"""Whether what is warned of may quote a client's words, which no log is to hold."""


@contextmanager
def quoting() -> Iterator[None]:
    """While the recogniser is told a client's words."""
    before = QUOTES.set(True)
    try:
        yield
    finally:
        QUOTES.reset(before)


@dataclass(frozen=True)
class Step:
    """What one batch of live streams took. late_s: how long after its chunk was complete the last one was answered."""

    streams: int
    seconds: float
    late_s: float


@dataclass(frozen=True)
class _Piece:
    """A stretch of speech that is recognised as a whole, for a file (`answer`) or as a sentence of a stream."""

    samples: Packet
    start_s: float
    tool: Recognizer
    answer: Future[list[Segment]] | None = None
    stream: Stream | None = None


class Scheduler:
    """Shares one recogniser among any number of live streams and files. `tick` is one round; `start` makes a thread."""

    def __init__(
        self,
        recognizer: Recognizer,
        deliver: Deliver,
        *,
        together: int = TOGETHER,
        keep_s: float = 10.0,
        observe: Callable[[Step], None] = lambda _: None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """together: live streams in one batch; keep_s: seconds of audio after which a stream that is to be kept is
        saved again; observe: is told of each batch; now: the clock.
        """
        self.recognizer = recognizer
        self.now = now
        self.beat = now()
        self.failure: BaseException | None = None
        self._deliver, self._together, self._keep_s, self._observe = deliver, together, keep_s, observe
        self._condition = threading.Condition()
        self._streams: dict[Stream, None] = {}
        self._questions: deque[Callable[[], None]] = deque()
        self._sentences: deque[_Piece] = deque()
        self._files: deque[_Piece] = deque()
        self._last_piece = now()
        self._stopping = self._told = False
        self._thread: threading.Thread | None = None

    # -- from any thread -----------------------------------------------------------------------------------------

    def open(self, options: StreamOptions) -> Stream:
        """Begin a stream. Raises UnsupportedModel, ConfigError or AudioError for what this recogniser cannot do."""
        tool = self.listening_for(options.hotwords)
        again = SecondPass(options.pause_s, deferred=True) if options.sentences else False
        session = tool.stream(options.chunk, rate=options.rate, second_pass=again)
        return self._joined(Stream(self, options, session, tool))

    def restore(self, saved: Saved) -> Stream:
        """Go on with a stream. Raises SessionError if it is of another model."""
        tool = self.listening_for(saved.options.hotwords)
        with quoting():
            session = tool.restore(saved.session)
            if tool is not self.recognizer:  # a client that comes back may name others
                session.listen_for(saved.options.hotwords)
        return self._joined(Stream(self, saved.options, session, tool, saved))

    def listening_for(self, hotwords: tuple[str, ...]) -> Recognizer:
        """The recogniser with these hotwords, or as it is where its model has no way to listen for any."""
        if not hotwords:
            return self.recognizer
        try:
            with quoting():
                return self.recognizer.with_hotwords(hotwords)
        except UnsupportedModel as error:
            if not self._told:
                self._told = True
                log.warning("hotwords have no effect: %s", error)
            return self.recognizer

    def recognize(self, samples: Packet, start_s: float, tool: Recognizer | None = None) -> Future[list[Segment]]:
        """The text of a piece of up to 30 s at 16 kHz, when live streams leave time; tool: who recognises it."""
        answer: Future[list[Segment]] = Future()
        piece = _Piece(samples, start_s, tool or self.recognizer, answer)
        self.change(lambda: self._files.append(piece))
        return answer

    def change(self, doing: Callable[[], bool | None]) -> None:
        """Change what is to be done, and wake the thread, unless it is told that there is nothing new for it."""
        with self._condition:
            if doing() is not False:
                self._condition.notify()

    def ask(self, question: Callable[[], None]) -> None:
        """Have something done in the scheduler's thread, between two rounds."""
        self.change(lambda: self._questions.append(question))

    def forget(self, stream: Stream) -> None:
        """Leave a stream out from now on."""
        self._streams.pop(stream, None)

    def hand_over(self, stream: Stream) -> None:
        """Save a stream, between two rounds, and leave it out from now on."""
        if stream not in self._streams:
            return
        saved: Saved | None = None
        with attempt("saving a stream") as saving:
            saved = stream.saved()
        if saving.error is not None:
            log.warning("%s", saving.error)
        self.forget(stream)
        self._deliver([(stream, Kept(saved))])

    @property
    def live(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    @property
    def waiting(self) -> int:
        """How many whole pieces wait."""
        return len(self._files) + len(self._sentences)

    def start(self) -> None:
        """Work in a thread of its own, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="paraformer-scheduler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the round that it is in."""
        self._stopping = True
        self.change(lambda: None)
        if self._thread is not None:
            self._thread.join()

    def _joined(self, stream: Stream) -> Stream:
        with self._condition:
            self._streams[stream] = None
        return stream

    # -- rounds -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                if not self.tick():
                    with self._condition:
                        if not self._due():
                            self._condition.wait(timeout=1.0)
        except BaseException as error:
            self.failure = error
            raise

    def _due(self) -> bool:
        """Whether anything has come since the last look."""
        work = self._questions or self._files or self._sentences or self._stopping
        return bool(work) or any(one.due for one in self._streams)

    def tick(self) -> bool:
        """One round; returns whether there was anything to do."""
        self.beat = self.now()
        found: list[tuple[Stream, News]] = []
        asked = self._answer_questions()
        stepped, more = self._step(found)
        piece = self._next_piece(live=more)
        if piece is not None:
            self._last_piece = self.now()
            self._recognize(piece, found)
        found += self._finished()
        told = [(stream, news) for stream, news in found if not stream.gone]
        if told:
            self._deliver(told)
        return bool(asked or stepped or piece or found)

    def _answer_questions(self) -> int:
        with self._condition:
            questions = [self._questions.popleft() for _ in range(len(self._questions))]
        for question in questions:
            question()
        return len(questions)

    def _step(self, found: list[tuple[Stream, News]]) -> tuple[int, bool]:
        """Step those streams that have waited for longest; how many did anything, and whether more wait."""
        with self._condition:
            streams = list(self._streams)
        due = [stream for stream in streams if stream.due]
        for stream in due:
            self._prepare(stream, found)
        ready = sorted((one for one in streams if one.ready and one in self._streams), key=lambda one: one.since)
        batch = ready[: self._together]
        if batch:
            began, oldest = self.now(), batch[0].since
            found += self._advanced(batch)
            self._observe(Step(len(batch), self.now() - began, self.now() - oldest))
        return len(due) + len(batch), len(ready) > len(batch)

    def _prepare(self, stream: Stream, found: list[tuple[Stream, News]]) -> None:
        """Take in what has come of a stream, and what that shows of its pauses."""
        ended, since_s = list[Ended](), None
        with attempt("the stream") as taking:
            ended, since_s = stream.prepare(self._condition)
        for one in ended if stream in self._streams else ():
            stream.pending += 1
            self._sentences.append(_Piece(one.samples, one.start_s, stream.tool, stream=stream))
        if since_s is not None:
            found.append((stream, Speaking(since_s)))
        if taking.error is not None:
            found += self._lost(stream, taking.error)

    def _advanced(self, batch: Sequence[Stream]) -> list[tuple[Stream, News]]:
        """What a step of these streams finds; where it fails, of each alone, to find which fails."""
        texts: list[str] = []
        with attempt("the stream") as stepping:
            texts = self.recognizer.advance([stream.session for stream in batch])
        if stepping.error is None:
            stepped = zip(batch, texts, strict=True)
            return [(s, one) for s, text in stepped for one in (*s.stepped(text), *s.kept(self._keep_s))]
        if len(batch) > 1:
            return [news for stream in batch for news in self._advanced([stream])]
        return self._lost(batch[0], stepping.error)

    def _next_piece(self, *, live: bool) -> _Piece | None:
        """The next whole piece, if its turn has come; live: whether streams wait for a step."""
        if live and self.now() - self._last_piece < PATIENCE_S:
            return None
        with self._condition:
            for queue in (self._sentences, self._files):
                while queue:
                    piece = queue.popleft()
                    wanted = piece.stream in self._streams if piece.stream else not _cancelled(piece)
                    if wanted:
                        return piece
        return None

    def _recognize(self, piece: _Piece, found: list[tuple[Stream, News]]) -> None:
        segments: list[Segment] = []
        with attempt(f"the piece at {piece.start_s:.1f} s") as work:
            segments = piece.tool.segments(piece.samples, piece.start_s)
        if piece.answer is not None:
            _resolve(piece.answer, segments, work.error)
        elif piece.stream is not None and work.error is not None:
            found += self._lost(piece.stream, work.error)
        elif piece.stream is not None:
            piece.stream.pending -= 1
            found += [(piece.stream, Sentence(segment)) for segment in segments]

    def _finished(self) -> list[tuple[Stream, News]]:
        """Streams of which all is recognised."""
        done = [stream for stream in list(self._streams) if stream.session.done and not stream.pending]
        for stream in done:
            self.forget(stream)
        return [(stream, Done(stream.session.transcript())) for stream in done]

    def _lost(self, stream: Stream, error: ParaformerError) -> list[tuple[Stream, News]]:
        known = stream in self._streams
        self.forget(stream)
        if not known:
            return []
        return [(stream, Failed(error))]


def _cancelled(piece: _Piece) -> bool:
    return piece.answer is not None and not piece.answer.set_running_or_notify_cancel()


def _resolve(answer: Future[list[Segment]], segments: list[Segment], error: ParaformerError | None) -> None:
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(segments)
