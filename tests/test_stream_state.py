"""Saved sessions: what is no such thing, damaged or of another version is refused, before any of it is believed."""

from __future__ import annotations

import hashlib

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from paraformer import ChunkConfig, SessionError
from paraformer.session import Session
from paraformer.stream_state import FORMAT


def begun() -> Session:
    session = Session(tiny.engine(), ChunkConfig())
    session.accept(tiny.signal(12_000))
    return session


@pytest.mark.parametrize("saved", [b"", b"nonsense", b"\x08\0\0\0\0\0\0\0{}      "])
def test_restoring_something_else_is_refused(saved: bytes) -> None:
    with pytest.raises(SessionError, match="not a saved session"):
        Session.restore(tiny.engine(), saved)


@given(st.integers(0, 10**9), st.integers(0, 7))
def test_a_damaged_session_is_refused(place: int, bit: int) -> None:
    session = begun()
    saved = bytearray(session.save())
    saved[place % len(saved)] ^= 1 << bit
    with pytest.raises(SessionError, match="damaged"):
        Session.restore(tiny.engine(), bytes(saved))
    with pytest.raises(SessionError, match="damaged"):
        Session.restore(tiny.engine(), session.save()[: place % len(saved)])


def test_a_session_comes_back_from_whatever_holds_its_bytes() -> None:
    session = begun()
    for kind in (bytes, bytearray, memoryview):
        assert Session.restore(tiny.engine(), kind(session.save())).save() == session.save()
    for other in (None, "saved", 5, [1, 2]):
        with pytest.raises(SessionError, match=f"is bytes, as Session.save returns, not {type(other).__name__}"):
            Session.restore(tiny.engine(), other)  # type: ignore[arg-type]


def test_a_session_of_another_version_is_refused() -> None:
    """Whole and sealed, but of another format, or of none, as before there were formats."""
    saved = begun().save()[32:]
    ours = rb"\"format\": %d" % FORMAT
    for other in (rb"\"format\": 9", rb"\"format\": 2", rb"\"former\": %d" % FORMAT):
        content = saved.replace(ours, other)
        assert content != saved
        with pytest.raises(SessionError, match="by another version"):
            Session.restore(tiny.engine(), hashlib.sha256(content).digest() + content)
