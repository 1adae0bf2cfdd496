"""Laws of live sessions: packets, neighbours, save and restore change nothing; nothing is lost at the end."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from paraformer.config import ChunkConfig
from paraformer.errors import SessionError
from paraformer.session import Session, advance

EDGES = [0, 1, 399, 400, 959, 960, 9599, 9600, 9601, 19_200, 19_900]
LENGTHS = st.one_of(st.integers(0, 40_000), st.sampled_from(EDGES))
CHUNK = st.sampled_from(tiny.CHUNKS)


def open_session(chunk: ChunkConfig, backend: str = "onnx") -> Session:
    return Session(tiny.engine(backend), chunk)


def assert_same(session: Session, expected: Session) -> None:
    """What must not change: items and times to 0.05 ms, not the last bits of the confidences."""
    assert [token.text for token in session.tokens] == [token.text for token in expected.tokens]
    times, wanted = ([(t.start_s, t.end_s) for t in one.tokens] for one in (session, expected))
    np.testing.assert_allclose(times, wanted, rtol=0, atol=5e-5)


def in_one_go(samples: np.ndarray, chunk: ChunkConfig, backend: str = "onnx") -> Session:
    session = open_session(chunk, backend)
    session.accept(samples)
    session.finish()
    return session


@given(LENGTHS, CHUNK, st.lists(st.integers(0, 12_000), max_size=8), st.sampled_from(tiny.ENGINES))
def test_any_packets_give_the_same_tokens_times_and_text(
    length: int, chunk: ChunkConfig, cuts: list[int], backend: str
) -> None:
    samples = tiny.signal(length)
    whole, session, text = in_one_go(samples, chunk, backend), open_session(chunk, backend), ""
    for packet in np.split(samples, sorted(min(cut, length) for cut in cuts)):
        text += session.accept(packet)
    text += session.finish()
    assert_same(session, whole)
    assert text == session.text == whole.text


@given(
    st.lists(LENGTHS, min_size=2, max_size=4), CHUNK, st.randoms(use_true_random=False), st.sampled_from(tiny.ENGINES)
)
def test_neighbours_change_nothing(lengths: list[int], chunk: ChunkConfig, random, backend: str) -> None:
    signals = [tiny.signal(length, seed) for seed, length in enumerate(lengths)]
    alone = [in_one_go(samples, chunk, backend) for samples in signals]
    together, open_ends = [open_session(chunk, backend) for _ in signals], dict(enumerate(signals))
    while open_ends:
        for index in list(open_ends):
            size = random.choice([0, 700, 9600, 15_000])
            together[index].feed(open_ends[index][:size])
            open_ends[index] = open_ends[index][size:]
            if not len(open_ends[index]):
                together[index].end()
                del open_ends[index]
        advance(together)
    for session, expected in zip(together, alone, strict=True):
        assert_same(session, expected)
    assert [session.text for session in together] == [session.text for session in alone]


@given(LENGTHS, CHUNK, st.floats(0, 1), st.sampled_from(tiny.EXACT))
def test_save_and_restore_anywhere_on_any_backend(length: int, chunk: ChunkConfig, where: float, backend: str) -> None:
    samples, cut = tiny.signal(length), int(length * where)
    session = open_session(chunk)
    text = session.accept(samples[:cut])
    restored = Session.restore(tiny.engine(backend), session.save())
    text += restored.accept(samples[cut:]) + restored.finish()
    whole = in_one_go(samples, chunk)
    assert_same(restored, whole)
    assert text == restored.text == whole.text


@given(st.integers(1, 40_000), CHUNK)
def test_every_row_is_committed(length: int, chunk: ChunkConfig) -> None:
    """The committed weights of all steps cover the rows of the whole utterance, after the zero rows before it."""
    session, engine, committed = open_session(chunk), tiny.engine(), []
    original = Session._take_in
    session._take_in = lambda decoded, state, *, final: (  # type: ignore[method-assign]
        committed.append(decoded.weights),
        original(session, decoded, state, final=final),
    )[1]
    session.accept(tiny.signal(length))
    session.finish()
    assert sum(map(len, committed)) == chunk.right + len(engine.frontend.whole(tiny.signal(length)))


@pytest.mark.parametrize("chunk", tiny.CHUNKS)
def test_engines_agree(chunk: ChunkConfig) -> None:
    samples = tiny.signal(60_000)
    expected = in_one_go(samples, chunk, "torch")
    for name in tiny.EXACT:
        assert_same(in_one_go(samples, chunk, name), expected)


@given(CHUNK, st.integers(0, 30_000))
def test_times_are_ordered_and_inside_the_audio(chunk: ChunkConfig, length: int) -> None:
    session = in_one_go(tiny.signal(length), chunk)
    times = [time for token in session.tokens for time in (token.start_s, token.end_s)]
    assert times == sorted(times)
    assert all(0 <= time <= session.duration_s + 0.06 for time in times)


def test_no_samples_give_no_text() -> None:
    assert open_session(ChunkConfig()).finish() == ""


def test_text_is_given_out_before_the_end() -> None:
    session = open_session(ChunkConfig())
    assert session.accept(tiny.signal(48_000)) != ""


def test_use_after_the_end_is_refused() -> None:
    session = in_one_go(tiny.signal(2000), ChunkConfig())
    with pytest.raises(SessionError, match="ended"):
        session.accept(np.zeros(10, np.float32))
    with pytest.raises(SessionError, match="already ended"):
        session.finish()


def test_bad_packets_are_refused_and_change_nothing() -> None:
    session = open_session(ChunkConfig())
    for packet in (np.array([np.nan], np.float32), np.zeros((2, 3), np.float32)):
        with pytest.raises(SessionError, match="packet"):
            session.accept(packet)
    session.accept(tiny.signal(5000))
    session.finish()
    assert_same(session, in_one_go(tiny.signal(5000), ChunkConfig()))


@pytest.mark.parametrize("saved", [b"", b"nonsense", b"\x08\0\0\0\0\0\0\0{}      "])
def test_restoring_something_else_is_refused(saved: bytes) -> None:
    with pytest.raises(SessionError, match="not a saved session"):
        Session.restore(tiny.engine(), saved)
