"""The scheduler, round by round and in its thread: text is the recogniser's own, whatever the order of things."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from paraformer.bundle import Bundle
from paraformer.errors import AudioError, InputFailed, SessionError
from paraformer.recognizer import Recognizer
from paraformer.recordings import join_segments
from paraformer.segment import VoiceSegmenter
from paraformer.serve.protocol import Done, Failed, Kept, Live, News, Sentence, Speaking, StreamOptions
from paraformer.serve.scheduler import Scheduler, Step
from paraformer.serve.stream import Stream


def recognizer() -> Recognizer:
    engine = tiny.engine("onnx")
    bundle = Bundle(
        directory=None, config=tiny.config(), tokens=tiny.TOKENS, cmvn=engine.frontend.cmvn, words={}, card={}
    )
    return Recognizer(bundle, tiny.backend("onnx"), VoiceSegmenter())


TOOL = recognizer()


@dataclass
class Heard:
    """What was told of each stream."""

    news: dict[Stream, list[News]] = field(default_factory=dict)
    calls: int = 0

    def __call__(self, found: Sequence[tuple[Stream, News]]) -> None:
        self.calls += 1
        for stream, news in found:
            self.news.setdefault(stream, []).append(news)

    def text(self, stream: Stream) -> str:
        return "".join(one.text for one in self.of(stream, Live))

    def of(self, stream: Stream, kind: type) -> list[Any]:
        return [one for one in self.news.get(stream, []) if isinstance(one, kind)]


def scheduler(**options: Any) -> tuple[Scheduler, Heard]:
    heard = Heard()
    clock = itertools.count()
    return Scheduler(TOOL, heard, now=lambda: float(next(clock)), **options), heard


def settle(work: Scheduler, rounds: int = 500) -> None:
    for _ in range(rounds):
        if not work.tick():
            return
    raise AssertionError("the scheduler never comes to rest")


def alone(samples: np.ndarray, rate: int = 16_000) -> str:
    session = TOOL.stream(rate=rate)
    return session.accept(samples) + session.finish()


SIGNALS = [tiny.signal(n, seed) for seed, n in enumerate([0, 1, 5_000, 9_600, 31_000, 48_001])]
TEXTS = [alone(signal) for signal in SIGNALS]
RATES = [alone(signal, 8000) for signal in SIGNALS]


@settings(max_examples=10)
@given(st.data())
def test_text_is_the_recognisers_whatever_the_interleaving(data: st.DataObject) -> None:
    work, heard = scheduler(together=data.draw(st.integers(1, 4)))
    chosen = data.draw(
        st.lists(st.tuples(st.integers(0, len(SIGNALS) - 1), st.sampled_from([8000, 16_000])), max_size=4)
    )
    streams = [work.open(StreamOptions(rate=rate)) for _, rate in chosen]
    places = [0] * len(streams)
    while any(place <= len(SIGNALS[which]) for place, (which, _) in zip(places, chosen, strict=True)):
        open_ones = [n for n, (which, _) in enumerate(chosen) if places[n] <= len(SIGNALS[which])]
        n = data.draw(st.sampled_from(open_ones))
        size = data.draw(st.sampled_from([1, 960, 9_600, 40_000]))
        signal = SIGNALS[chosen[n][0]]
        streams[n].feed(signal[places[n] : places[n] + size])
        places[n] += size
        if places[n] > len(signal):
            streams[n].end()
        if data.draw(st.booleans()):
            work.tick()
    settle(work)
    assert [heard.text(one) for one in streams] == [(TEXTS if rate == 16_000 else RATES)[n] for n, rate in chosen]
    for stream, (which, rate) in zip(streams, chosen, strict=True):
        assert [one.transcript.duration_s for one in heard.of(stream, Done)] == [len(SIGNALS[which]) / rate]
    assert work.live == 0


def test_those_that_wait_for_longest_step_first_and_few_together() -> None:
    steps: list[Step] = []
    work, _ = scheduler(together=2, observe=steps.append)
    streams = [work.open(StreamOptions()) for _ in range(5)]
    for stream in reversed(streams):
        stream.feed(SIGNALS[3])
    order = []
    for _ in range(3):
        before = {stream: stream.session._state.steps for stream in streams}
        work.tick()
        order.append([n for n, stream in enumerate(streams) if stream.session._state.steps > before[stream]])
    assert order == [[3, 4], [1, 2], [0]]
    assert [step.streams for step in steps] == [2, 2, 1]
    assert all(step.late_s > step.seconds > 0 for step in steps)


def test_who_sends_much_at_once_takes_no_turns_of_the_others() -> None:
    work, _ = scheduler(together=1)
    greedy, modest = work.open(StreamOptions()), work.open(StreamOptions())
    greedy.feed(np.tile(SIGNALS[5], 10))
    modest.feed(SIGNALS[3])
    for _ in range(3):
        work.tick()
    assert modest.session._state.steps == 1
    assert 0 < greedy.session._state.steps < 3
    assert greedy.backlog_s > 25


def test_pieces_of_files_fill_what_live_streams_leave_and_never_starve() -> None:
    samples = tiny.signal(70 * 16_000)
    work, heard = scheduler(together=1)
    stream = work.open(StreamOptions())
    stream.feed(np.tile(SIGNALS[5], 4))
    pieces = list(TOOL.pieces([samples]))
    answers = [work.recognize(piece, start) for start, piece in pieces]
    stream.end()
    settle(work)
    found = [segment for answer in answers for segment in answer.result(0)]
    assert [one.text for one in found] == [one.text for one in TOOL.transcribe(samples).segments]
    assert heard.text(stream) == alone(np.tile(SIGNALS[5], 4))


def test_live_comes_first() -> None:
    work = Scheduler(TOOL, Heard(), together=1, now=lambda: 0.0)
    streams = [work.open(StreamOptions()) for _ in range(3)]
    answer = work.recognize(SIGNALS[4], 0.0)
    for stream in streams:
        stream.feed(SIGNALS[3])
    work.tick()
    work.tick()
    assert not answer.done()  # somebody waits
    work.tick()
    assert answer.done()


def test_a_piece_nobody_waits_for_is_left_out() -> None:
    work, _ = scheduler()
    answer = work.recognize(SIGNALS[4], 0.0)
    assert answer.cancel()
    settle(work)
    assert work.waiting == 0


class Breaking(Recognizer):
    """Fails on the sessions it is told."""

    broken: set[int]

    def advance(self, sessions: Any) -> list[str]:
        if any(id(one) in self.broken for one in sessions):
            raise IndexError("frame 7")
        return super().advance(sessions)

    def segments(self, samples: np.ndarray, start_s: float = 0.0) -> Any:
        if start_s == 13.0:
            raise InputFailed("no")
        return super().segments(samples, start_s)


def breaking() -> Breaking:
    tool = recognizer()
    tool.__class__ = Breaking
    tool.broken = set()  # type: ignore[attr-defined]
    return tool  # type: ignore[return-value]


def test_a_stream_that_fails_harms_no_other() -> None:
    heard, tool = Heard(), breaking()
    work = Scheduler(tool, heard)
    streams = [work.open(StreamOptions()) for _ in range(4)]
    tool.broken = {id(streams[1].session)}
    for stream in streams:
        stream.feed(SIGNALS[4])
        stream.end()
    settle(work)
    assert [heard.text(one) for one in streams] == [TEXTS[4], "", TEXTS[4], TEXTS[4]]
    (failure,) = heard.news[streams[1]]
    assert isinstance(failure, Failed)
    assert isinstance(failure.error, InputFailed)
    assert work.live == 0
    fails, works = work.recognize(SIGNALS[4], 13.0), work.recognize(SIGNALS[4], 0.0)
    settle(work)
    with pytest.raises(InputFailed):
        fails.result(0)
    assert works.result(0) == TOOL.segments(SIGNALS[4])


def test_what_is_no_audio_is_refused_before_it_comes_in() -> None:
    work, heard = scheduler()
    stream = work.open(StreamOptions())
    with pytest.raises(AudioError):
        stream.feed(np.array([np.nan, 1e9], np.float32))
    stream.feed(SIGNALS[4])
    stream.end()
    stream.end()
    stream.feed(SIGNALS[4])  # too late: nothing happens
    settle(work)
    assert heard.text(stream) == TEXTS[4]


def test_a_stream_that_is_cancelled_is_never_heard_of_again() -> None:
    work, heard = scheduler()
    gone, other = work.open(StreamOptions(sentences=True)), work.open(StreamOptions())
    for stream in (gone, other):
        stream.feed(SIGNALS[5])
        stream.end()
    gone.cancel()
    settle(work)
    assert gone not in heard.news
    assert heard.text(other) == TEXTS[5]
    assert work.live == work.waiting == 0


@settings(max_examples=10)
@given(st.integers(0, len(SIGNALS[5])), st.integers(0, 8))
def test_a_stream_that_is_handed_over_goes_on_elsewhere(place: int, rounds: int) -> None:
    first, heard = scheduler()
    stream = first.open(StreamOptions())
    stream.feed(SIGNALS[5][:place])
    for _ in range(rounds):
        first.tick()
    stream.hand_over()
    settle(first)
    (kept,) = heard.of(stream, Kept)
    assert first.live == 0
    assert kept.saved.samples <= place
    second, later = scheduler()
    again = second.restore(kept.saved)
    again.feed(SIGNALS[5][kept.saved.samples :])
    again.end()
    settle(second)
    assert heard.text(stream) + later.text(again) == TEXTS[5]
    with pytest.raises(SessionError):
        second.restore(replace(kept.saved, session=kept.saved.session[:-1]))


def test_a_stream_that_is_to_be_kept_is_saved_as_it_goes_and_any_of_it_can_go_on() -> None:
    work, heard = scheduler(keep_s=0.5)
    stream = work.open(StreamOptions(kept=True))
    samples = np.tile(SIGNALS[5], 2)
    for start in range(0, len(samples), 3_000):
        stream.feed(samples[start : start + 3_000])
        work.tick()
    stream.end()
    settle(work)
    news = heard.news[stream]
    places = [n for n, one in enumerate(news) if isinstance(one, Kept)]
    assert len(places) >= 5
    for place in places:
        saved = news[place].saved  # type: ignore[union-attr]
        second, later = scheduler()
        again = second.restore(saved)
        again.feed(samples[saved.samples :])
        again.end()
        settle(second)
        before = "".join(one.text for one in news[:place] if isinstance(one, Live))
        assert before + later.text(again) == heard.text(stream) == alone(samples)


def test_streams_with_sentences_go_on_from_any_place_with_the_same_sentences() -> None:
    work, heard = scheduler(keep_s=0.1)
    stream = work.open(StreamOptions(sentences=True, kept=True))
    samples = talk()
    for start in range(0, len(samples), 960):
        stream.feed(samples[start : start + 960])
        work.tick()
    stream.end()
    settle(work)
    news = heard.news[stream]
    places = [n for n, one in enumerate(news) if isinstance(one, Kept)]
    seconds = [news[n].saved.samples / 16_000 for n in places]  # type: ignore[union-attr]
    assert any(2.0 < place < 3.0 for place in seconds)  # in the middle of a sentence
    for place in places[::3]:
        second, later = scheduler()
        saved = news[place].saved  # type: ignore[union-attr]
        again = second.restore(saved)
        again.feed(samples[saved.samples :])
        again.end()
        settle(second)
        told = [one for one in news[:place] if isinstance(one, Sentence)] + later.of(again, Sentence)
        assert told == heard.of(stream, Sentence)


def talk() -> np.ndarray:
    """Two stretches that the voice detector takes for speech, and a pause."""
    from importlib.resources import files

    import soundfile

    sample, _ = soundfile.read(str(files("paraformer") / "samples" / "subway.flac"), dtype="float32")
    pause = np.zeros(16_000, np.float32)
    return np.concatenate([pause, sample, pause, sample[:20_000], pause, pause])


@pytest.mark.parametrize("size", [960, 200_000])
def test_sentences_come_at_their_pauses_and_are_what_the_whole_pass_hears(size: int) -> None:
    work, heard = scheduler()
    stream = work.open(StreamOptions(sentences=True))
    samples = talk()
    for start in range(0, len(samples), size):
        stream.feed(samples[start : start + size])
        work.tick()
    early = len(heard.of(stream, Sentence))
    stream.end()
    settle(work)
    sentences = [one.segment for one in heard.of(stream, Sentence)]
    assert heard.text(stream) == alone(samples)
    assert [round(one.start_s) for one in heard.of(stream, Speaking)] == [1, 5]
    assert heard.news[stream][-1] == Done(stream.session.transcript())
    assert len(sentences) == 2
    assert early == (2 if size == 960 else 0)
    assert join_segments(one.text for one in sentences)


def test_sentences_are_the_same_whatever_the_packets() -> None:
    def sentences(size: int) -> list[News]:
        work, heard = scheduler()
        stream = work.open(StreamOptions(sentences=True, rate=8000))
        samples = talk()
        for start in range(0, len(samples), size):
            stream.feed(samples[start : start + size])
            work.tick()
        stream.end()
        settle(work)
        return heard.of(stream, Sentence)

    assert sentences(3_000) == sentences(50_001) != []


def test_in_a_thread_of_its_own() -> None:
    done = Event()
    texts: list[str] = []

    def deliver(found: Sequence[tuple[Stream, News]]) -> None:
        texts.extend(news.text for _, news in found if isinstance(news, Live))
        if any(isinstance(news, Done) for _, news in found):
            done.set()

    work = Scheduler(TOOL, deliver)
    work.start()
    stream = work.open(StreamOptions())
    for start in range(0, len(SIGNALS[5]), 960):
        stream.feed(SIGNALS[5][start : start + 960])
    stream.end()
    assert done.wait(20)
    assert "".join(texts) == TEXTS[5]
    assert work.recognize(SIGNALS[4], 0.0).result(20) == TOOL.segments(SIGNALS[4])
    work.stop()
    assert work.failure is None
