"""Laws of live sessions on every engine of this machine: with no context on either side, at every edge, days ahead."""

from __future__ import annotations

import ctypes
import itertools
import re
import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import paraformer
from paraformer import audio
from paraformer.backends import native
from paraformer.config import ChunkConfig
from paraformer.recognizer import Recognizer
from paraformer.session import Session, advance
from paraformer.silence import FRAME
from paraformer.timestamps import CifClock

SIZES = [(0, 10, 0), (0, 10, 5), (5, 10, 0), (5, 10, 5), (8, 8, 4), (0, 1, 0), (1, 1, 1), (0, 3, 7), (12, 2, 0)]
LOOK_BACKS = [(0, 0), (4, 1), (1, 0), (0, 2), (-1, 1)]
DAY_S = 24 * 3600
WINDOW = 960
"""Samples of one."""


def settings_of(size: tuple[int, int, int], look_backs: tuple[int, int]) -> ChunkConfig:
    left, chunk, right = size
    encoder, decoder = look_backs
    return ChunkConfig(left=left, chunk=chunk, right=right, encoder_look_back=encoder, decoder_look_back=decoder)


CHUNKS = st.builds(settings_of, st.sampled_from(SIZES), st.sampled_from(LOOK_BACKS))


@dataclass(frozen=True)
class Stream:
    """A model, a setting, samples that end within 400 of an edge of a chunk, and where packets end."""

    kind: tiny.Kind
    chunk: ChunkConfig
    samples: np.ndarray
    cuts: list[int]
    day: bool


@st.composite
def streams(draw: st.DrawFn, chunks: st.SearchStrategy[ChunkConfig] = CHUNKS) -> Stream:
    chunk = draw(chunks)
    edge = draw(st.integers(0, 40_000 // (chunk.chunk * WINDOW))) * chunk.chunk * WINDOW
    length = max(0, edge + draw(st.integers(-400, 400)))
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=6)))
    kind = draw(st.sampled_from(tiny.KINDS))
    return Stream(kind, chunk, tiny.signal(length, draw(st.integers(0, 99))), cuts, draw(st.booleans()))


def opened(stream: Stream, engine: str) -> Session:
    session = Session(tiny.engine(engine, stream.kind), stream.chunk)
    if stream.day:
        move_ahead(session, DAY_S)
    return session


def move_ahead(session: Session, seconds: int) -> None:
    """As if the stream had run for so long already."""
    state, chunk = session._state, session.chunk.chunk
    steps = seconds * 16_000 // session._stride
    clock, hearing = state.clock.to_dict(), state.hearing
    frames = steps * session._stride // FRAME
    session._state = replace(
        state,
        model={**state.model, "position": np.asarray(state.model["position"] + steps * chunk)},
        clock=CifClock.from_dict(clock | {"window": clock["window"] + steps * chunk}),
        hearing=replace(
            hearing,
            frames=hearing.frames + frames,
            runs=tuple((first + frames, end + frames) for first, end in hearing.runs),
        ),
        samples=state.samples + steps * session._stride,
        steps=state.steps + steps,
        incoming=replace(state.incoming, received=state.incoming.received + steps * session._stride),
    )


def heard(session: Session) -> tuple[str, list[str], np.ndarray]:
    times = np.array([(token.start_s, token.end_s) for token in session.tokens]).reshape(-1, 2)
    return session.text, [token.text for token in session.tokens], times


def assert_alike(one: Session, other: Session, shift_s: float = 0.0) -> None:
    """Texts, tokens, and times to 0.05 ms."""
    (text, tokens, times), (expected_text, expected_tokens, expected_times) = heard(one), heard(other)
    assert (text, tokens) == (expected_text, expected_tokens)
    np.testing.assert_allclose(times, expected_times + shift_s, rtol=0, atol=5e-5)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@given(CHUNKS, st.lists(st.integers(0, 9_000), max_size=4))
def test_a_step_comes_with_what_was_missing(rate: int, chunk: ChunkConfig, packets: list[int]) -> None:
    session = Session(tiny.engine(), chunk, rate=rate)
    for samples in packets:
        session.feed(np.zeros(samples, np.float32))
    missing = session.missing
    assert isinstance(missing, int) and (missing == 0) == session.ready
    if missing:
        session.feed(np.zeros(missing - 1, np.float32))
        assert not session.ready and session.missing == 1
        session.feed(np.zeros(1, np.float32))
        assert session.ready and session.missing == 0


@pytest.mark.parametrize("engine", tiny.ENGINES)
@given(streams(), st.integers(0, 6))
def test_packets_saving_and_neighbours_change_nothing(engine: str, stream: Stream, saved_at: int) -> None:
    whole, session, neighbour = (opened(stream, engine) for _ in range(3))
    whole.accept(stream.samples)
    whole.finish()
    for number, packet in enumerate(np.split(stream.samples, stream.cuts)):
        if number == saved_at:
            session = Session.restore(tiny.engine(engine, stream.kind), session.save())
        session.feed(packet)
        neighbour.feed(tiny.signal(len(packet) + 700, number))
        advance([neighbour, session])
    session.end()
    advance([neighbour, session])
    assert_alike(session, whole)


@given(streams(), st.sampled_from(tiny.EXACT), st.sampled_from(tiny.EXACT))
def test_a_stream_may_move_between_engines(stream: Stream, first: str, second: str) -> None:
    whole, session = opened(stream, first), opened(stream, first)
    middle = len(stream.samples) // 2
    whole.accept(stream.samples)
    whole.finish()
    session.accept(stream.samples[:middle])
    session = Session.restore(tiny.engine(second, stream.kind), session.save())
    session.accept(stream.samples[middle:])
    session.finish()
    assert_alike(session, whole)


@pytest.mark.parametrize("look_backs", LOOK_BACKS[:-1])
@pytest.mark.parametrize("size", SIZES[::2])
def test_what_a_stream_keeps_does_not_grow(size: tuple[int, int, int], look_backs: tuple[int, int]) -> None:
    """Saved after every 20 steps, what was decided taken, and once more a day ahead."""
    session, sizes = Session(tiny.engine(), settings_of(size, look_backs)), []
    for number in range(4):
        session.accept(tiny.signal(20 * session._stride, number))
        session.take()
        sizes.append(len(session.save()))
        move_ahead(session, number // 2 * DAY_S)
    assert max(sizes) - min(sizes) < 400, "some numbers get longer"


# -- the embedded model -----------------------------------------------------------------------------------------------

EMBEDDED = [
    *(("native", precision) for precision in ("float32", "bfloat16", "int8") if native.available(precision)),
    ("onnx", "float32"),
    ("torch", "float32"),
]


@cache
def embedded(backend: Any, precision: Any) -> Recognizer:
    return paraformer.load(backend=backend, precision=precision)


def clip(name: str) -> np.ndarray:
    return audio.read(str(files("paraformer") / "samples" / f"{name}.flac"))


@pytest.mark.parametrize("engine", EMBEDDED, ids="-".join)
@pytest.mark.parametrize("size", [(5, 10, 5), (0, 10, 0)])
def test_the_embedded_model_hears_the_same_however_it_is_given(
    engine: tuple[str, str], size: tuple[int, int, int]
) -> None:
    """A day ahead and in one go; in packets, beside a neighbour, saved on the way."""
    recognizer, samples = embedded(*engine), clip("subway")
    chunk = settings_of(size, (4, 1))
    whole, session, neighbour = (recognizer.stream(chunk) for _ in range(3))
    for stream in (whole, session, neighbour):
        move_ahead(stream, DAY_S)
    whole.accept(samples)
    whole.finish()
    for number, packet in enumerate(np.array_split(samples, [7, 9599, 9601, 24_000, 24_001, 40_000])):
        session.feed(packet)
        neighbour.feed(clip("meeting")[: len(packet) + 700])
        recognizer.advance([neighbour, session])
        if number == 3:
            session = recognizer.restore(session.save())
    session.end()
    recognizer.advance([neighbour, session])
    assert_alike(session, whole)
    assert len(whole.text) > 5


def resident() -> float:
    """MB of this process's own memory; pages of files, which come and go as the system likes, are left out.

    What malloc holds free is given back first: 5 to 25 MB of it lie between what is in use, more or less at random.
    """
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) / 1024


def step_s(session: Session, packet: np.ndarray) -> float:
    """Take a step; how long this thread has computed for it, which other programs have little influence on."""
    began = time.thread_time()
    session.accept(packet)
    session.take()
    return time.thread_time() - began


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by Linux and glibc")
@pytest.mark.parametrize("engine", EMBEDDED, ids="-".join)
def test_a_day_of_speech_costs_no_more_than_ten_minutes(engine: tuple[str, str]) -> None:
    """All samples again and again: ten minutes, then half a minute of each hour of the day.

    A step that takes three times the median is taken again from where it began: only what is slow each time counts.
    """
    recognizer = embedded(*engine)
    speech = np.concatenate([clip(name) for name in ("company", "meeting", "subway", "weather")])
    session, longest = recognizer.stream(ChunkConfig(encoder_look_back=4, decoder_look_back=1)), 0.0
    packets = (np.roll(speech, -9600 * number)[:9600] for number in itertools.count())
    taken = [step_s(session, next(packets)) for _ in range(1000)]
    after_ten_minutes, median = resident(), float(np.median(taken))
    for hour in range(24):
        move_ahead(session, (hour + 1) * 3600 - round(session.duration_s))
        for _ in range(50):
            packet, before = next(packets), session._state
            seconds = step_s(session, packet)
            for _ in range(5 * (seconds > 3 * median)):
                session._state = before
                seconds = min(seconds, step_s(session, packet))
            longest = max(longest, seconds)
    assert session.duration_s > DAY_S
    assert longest <= 3 * median
    assert resident() <= after_ten_minutes + 5
