"""Laws of live sessions: packets, neighbours, save and restore change nothing; nothing is lost at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar
from unittest.mock import Mock

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from paraformer.audio import LiveResampler
from paraformer.config import ChunkConfig
from paraformer.errors import AudioError, SessionError
from paraformer.frontend import Cmvn, Frontend
from paraformer.language import LanguageModel
from paraformer.session import Session, advance
from paraformer.speech_model import SpeechModel
from paraformer.text import Vocabulary
from paraformer.types import Segment, Transcript

T = TypeVar("T")

EDGES = [0, 1, 399, 400, 959, 960, 9599, 9600, 9601, 19_200, 19_900]
LENGTHS = st.one_of(st.integers(0, 40_000), st.sampled_from(EDGES))
CHUNK = st.sampled_from(tiny.CHUNKS)


def open_session(chunk: ChunkConfig, backend: str = "onnx", kind: tiny.Kind = "published") -> Session:
    return Session(tiny.engine(backend, kind), chunk)


def assert_same(session: Session, expected: Session) -> None:
    """What must not change: items and times to 0.05 ms, not the last bits of the confidences."""
    assert [token.text for token in session.tokens] == [token.text for token in expected.tokens]
    times, wanted = ([(t.start_s, t.end_s) for t in one.tokens] for one in (session, expected))
    np.testing.assert_allclose(times, wanted, rtol=0, atol=5e-5)


def in_one_go(samples: np.ndarray, chunk: ChunkConfig, backend: str = "onnx", kind: tiny.Kind = "published") -> Session:
    session = open_session(chunk, backend, kind)
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
    original = Session._stepped
    session._stepped = lambda state, decoded, model, *, final: (  # type: ignore[method-assign]
        committed.append(decoded.weights),
        original(session, state, decoded, model, final=final),
    )[1]
    session.accept(tiny.signal(length))
    session.finish()
    assert sum(map(len, committed)) == chunk.right + len(engine.frontend.whole(tiny.signal(length)))


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("chunk", tiny.CHUNKS)
def test_engines_agree(chunk: ChunkConfig, kind: tiny.Kind) -> None:
    samples = tiny.signal(60_000)
    expected = in_one_go(samples, chunk, "torch", kind)
    for name in tiny.EXACT:
        assert_same(in_one_go(samples, chunk, name, kind), expected)


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
        with pytest.raises(AudioError, match="packet"):
            session.accept(packet)
    session.accept(tiny.signal(5000))
    session.finish()
    assert_same(session, in_one_go(tiny.signal(5000), ChunkConfig()))


def test_advance_takes_sessions_however_they_come() -> None:
    sessions = [open_session(ChunkConfig()) for _ in range(2)]
    for session in sessions:
        session.feed(tiny.signal(30_000))
        session.end()
    assert advance(session for session in sessions) == [session.text for session in sessions]
    assert sessions[0].text
    with pytest.raises(SessionError, match=r"takes sessions.*not NoneType"):
        advance([None])  # type: ignore[list-item]
    for one in (None, 3, sessions[0]):
        with pytest.raises(SessionError, match=f"several sessions in a list, not one {type(one).__name__}"):
            advance(one)  # type: ignore[arg-type]


class Failing:
    """A backend whose steps fail where they are told to."""

    def __init__(self, error: BaseException) -> None:
        self._backend, self.error, self.steps, self.fails_at = tiny.backend("onnx"), error, 0, -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def step(self, *arguments: Any) -> Any:
        self.steps += 1
        if self.steps - 1 == self.fails_at:
            raise self.error
        return self._backend.step(*arguments)


def with_lm(backend: Any = None, weight: float = 2.0, seed: int = 0) -> SpeechModel:
    spoken = [list(np.random.default_rng([seed, n]).integers(3, len(tiny.TOKENS) - 1, 30)) for n in range(20)]
    lm = LanguageModel.count(spoken, len(tiny.TOKENS), least_bigram=1, least_trigram=1)
    plain = tiny.engine()
    return replace(plain, backend=backend or plain.backend, lm=lm, lm_weight=weight)


@given(
    st.lists(st.integers(1, 40_000), min_size=1, max_size=3),
    CHUNK,
    st.integers(0, 12),
    st.sampled_from([MemoryError(), RuntimeError("engine"), KeyboardInterrupt()]),
    st.booleans(),
)
def test_a_call_that_fails_changes_nothing_and_can_be_made_again(
    lengths: list[int], chunk: ChunkConfig, fails_at: int, error: BaseException, lm: bool
) -> None:
    """Of neighbours, too: every call is made until it succeeds, and all is as if none had failed."""
    backend = Failing(error)
    model = with_lm(backend) if lm else replace(tiny.engine(), backend=backend)  # type: ignore[arg-type]
    signals = [tiny.signal(length, seed) for seed, length in enumerate(lengths)]

    def run(attempt: Callable[[Callable[[], T]], T]) -> list[Session]:
        sessions = [Session(model, chunk) for _ in signals]
        texts = [""] * len(signals)
        for start in range(0, max(lengths), 15_000):
            for session, samples in zip(sessions, signals, strict=True):
                session.feed(samples[start : start + 15_000])
            texts = list(map("".join, zip(texts, attempt(lambda: advance(sessions)), strict=True)))
        for number, session in enumerate(sessions):
            texts[number] += attempt(session.finish)
        assert texts == [session.text for session in sessions]
        return sessions

    def again(call: Callable[[], T]) -> T:
        try:
            return call()
        except type(error):
            return call()

    expected = run(lambda call: call())
    backend.steps, backend.fails_at = 0, fails_at
    for session, one in zip(run(again), expected, strict=True):
        assert (session.tokens, session.text, session.duration_s) == (one.tokens, one.text, one.duration_s)


def test_a_packet_is_not_taken_in_by_a_call_that_fails() -> None:
    backend = Failing(MemoryError())
    session = Session(replace(tiny.engine(), backend=backend), ChunkConfig())  # type: ignore[arg-type]
    backend.fails_at, before = 1, session.save()
    with pytest.raises(MemoryError):
        session.accept(tiny.signal(30_000))
    assert session.save() == before
    session.accept(tiny.signal(30_000))
    session.finish()
    assert_same(session, in_one_go(tiny.signal(30_000), ChunkConfig()))


@pytest.mark.parametrize("place", ["frontend.step", "backend.step"])
def test_an_end_that_fails_can_be_made_again(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(ChunkConfig())
    text = session.accept(tiny.signal(12_000))
    owner, name = place.split(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(session._model, owner), name, Mock(side_effect=MemoryError))
        with pytest.raises(MemoryError):
            session.finish()
    text += session.finish()
    assert session.done
    assert text == session.text == in_one_go(tiny.signal(12_000), ChunkConfig()).text


def test_a_session_given_twice_is_stepped_once() -> None:
    session = open_session(ChunkConfig())
    session.feed(tiny.signal(30_000))
    session.end()
    assert advance([session, session]) == [session.text] * 2
    assert_same(session, in_one_go(tiny.signal(30_000), ChunkConfig()))


def restored_by(other: SpeechModel, of: SpeechModel) -> str:
    """Why a session is refused."""
    session = Session(of, ChunkConfig())
    session.accept(tiny.signal(30_000))
    with pytest.raises(SessionError, match="belongs to another model") as refused:
        Session.restore(other, session.save())
    return str(refused.value)


def test_a_session_goes_on_with_its_own_language_model_only() -> None:
    """Without it the tokens that wait would be lost, with another decided otherwise."""
    plain, ours = tiny.engine(), with_lm()
    assert "had a language model, and here is none" in restored_by(plain, ours)
    assert "had no language model, and here is one" in restored_by(ours, plain)
    assert "language model differs" in restored_by(with_lm(seed=1), ours)
    assert "weight of the language model was 2.0 and is 0.5" in restored_by(with_lm(weight=0.5), ours)


def test_a_session_goes_on_with_its_own_model_only() -> None:
    plain = tiny.engine()
    cmvn = plain.frontend.cmvn
    shifted = Frontend(plain.frontend.config, Cmvn(cmvn.shift + 1, cmvn.scale))
    renamed = Vocabulary((*tiny.TOKENS[:-2], "c", "<unk>"))
    assert "CMVN differs" in restored_by(replace(plain, frontend=shifted), plain)
    assert "vocabulary differs" in restored_by(replace(plain, vocabulary=renamed), plain)
    assert "weights differ" in restored_by(replace(plain, weights="a"), replace(plain, weights="b"))


def test_a_session_goes_on_in_another_precision_and_where_weights_are_unknown() -> None:
    plain = tiny.engine()
    session = Session(replace(plain, weights="a"), ChunkConfig())
    session.accept(tiny.signal(30_000))
    for other in tiny.ENGINES:
        assert Session.restore(tiny.engine(other), session.save()).text == session.text


@given(LENGTHS, CHUNK, st.lists(st.integers(0, 12_000), max_size=8))
def test_what_is_taken_is_the_whole_and_is_forgotten(length: int, chunk: ChunkConfig, cuts: list[int]) -> None:
    samples = tiny.signal(length)
    whole, session, taken = in_one_go(samples, chunk), open_session(chunk), []
    for packet in np.split(samples, sorted(min(cut, length) for cut in cuts)):
        session.accept(packet)
        taken.append(session.take())
        assert (session.text, session.tokens) == ("", ())
        session = Session.restore(tiny.engine(), session.save())
    session.finish()
    taken.append(session.take())
    assert "".join(one.text for one in taken) == whole.text
    assert [token for one in taken for token in one.tokens] == list(whole.tokens)
    assert taken[-1].duration_s == whole.duration_s


def test_the_transcript_lasts_from_the_first_token_to_the_last() -> None:
    session = open_session(ChunkConfig())
    assert session.transcript() == Transcript("", 0.0, ())
    session.accept(tiny.signal(40_000))
    session.finish()
    tokens = session.tokens
    assert len(tokens) > 2
    segment = Segment(session.text, tokens[0].start_s, tokens[-1].end_s, tokens)
    assert session.transcript() == Transcript(session.text, 2.5, (segment,))


def test_sessions_of_other_settings_and_models_may_be_stepped_together() -> None:
    kinds = [(chunk, name) for chunk in tiny.CHUNKS[:3] for name in tiny.EXACT[:2]]
    sessions = [open_session(chunk, name) for chunk, name in kinds for _ in range(2)]
    for number, session in enumerate(sessions):
        session.feed(tiny.signal(30_000, number))
    advance(sessions)
    for session in sessions:
        session.end()
    texts = advance(sessions)
    for number, (session, text) in enumerate(zip(sessions, texts, strict=True)):
        chunk, name = kinds[number // 2]
        assert_same(session, in_one_go(tiny.signal(30_000, number), chunk, name))
        assert session.text.endswith(text)


# -- other rates ------------------------------------------------------------------------------------------------------

RATE = st.sampled_from([8000, 11025, 22050, 24000, 44100, 48000])


def at_rate(length: int, rate: int) -> np.ndarray:
    """Some sound, length samples at 16 kHz long."""
    return np.interp(np.arange(length * rate // 16000) * 16000 / rate, np.arange(length), tiny.signal(length)).astype(
        np.float32
    )


@given(st.integers(16, 30_000), CHUNK, RATE, st.lists(st.integers(0, 60_000), max_size=8))
def test_any_rate_any_packets_saved_anywhere(length: int, chunk: ChunkConfig, rate: int, cuts: list[int]) -> None:
    samples = at_rate(length, rate)
    whole = Session(tiny.engine(), chunk, rate=rate)
    whole.accept(samples)
    whole.finish()
    session = Session(tiny.engine(), chunk, rate=rate)
    for packet in np.split(samples, sorted(min(cut, len(samples)) for cut in cuts)):
        session.accept(packet)
        assert session.duration_s <= len(samples) / rate
        session = Session.restore(tiny.engine(), session.save())
    session.finish()
    assert session.tokens == whole.tokens
    assert session.text == whole.text
    assert session.rate == rate
    assert session.duration_s == whole.duration_s == len(samples) / rate
    assert whole.done


@given(st.integers(960, 30_000), CHUNK, RATE)
def test_a_rate_is_heard_as_the_resampled_file_is(length: int, chunk: ChunkConfig, rate: int) -> None:
    session, expected = Session(tiny.engine(), chunk, rate=rate), Session(tiny.engine(), chunk)
    samples = at_rate(length, rate)
    resampler = LiveResampler(rate)
    first, state = resampler.step(samples, resampler.init_state(), final=False)
    session.accept(samples)
    expected.accept(first)
    expected.accept(resampler.step(samples[:0], state, final=True)[0])
    session.finish()
    expected.finish()
    assert session.tokens == expected.tokens


@pytest.mark.parametrize("packet", [[0.1, 0.2], (0.1,), [], torch.zeros(5), np.zeros((9, 1)), np.zeros(9, np.int16)])
def test_packets_of_other_kinds(packet: Any) -> None:
    session = open_session(ChunkConfig())
    session.accept(packet)
    assert session.duration_s == len(packet) / 16000


def test_int16_packets_are_scaled() -> None:
    pcm = np.round(tiny.signal(30_000) * 20000).astype(np.int16)
    session = open_session(ChunkConfig())
    session.accept(pcm)
    session.finish()
    assert session.tokens == in_one_go(pcm.astype(np.float32) / 32768, ChunkConfig()).tokens


def test_int16_packets_in_wider_numbers_are_doubted_once(caplog: pytest.LogCaptureFixture) -> None:
    """Their full scale is that of 32 bits, by which they are silence, as a stream may well begin."""
    session = open_session(ChunkConfig())
    for _ in range(3):
        session.accept(np.full(1000, 12_000, np.int32))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "never exceeds 12000 holds 16-bit samples" in caplog.text


@pytest.mark.parametrize(
    "packet",
    [None, bytes(100_000), bytearray(8), "a.wav", [[0.1], [0.2, 0.3]], np.full(9, 12000.0), np.zeros(5, np.int64)],
    ids=lambda packet: type(packet).__name__,
)
def test_packets_that_are_no_samples(packet: Any) -> None:
    session = open_session(ChunkConfig())
    with pytest.raises(AudioError) as caught:
        session.accept(packet)
    assert len(str(caught.value)) < 300
    assert session.duration_s == 0


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_buffer_may_be_used_again(rate: int, dtype: type) -> None:
    """As sound cards fill the same memory again and again."""
    samples = (tiny.signal(30_000) * (1 if dtype is np.float32 else 20_000)).astype(dtype)
    session, expected = (Session(tiny.engine(), ChunkConfig(), rate=rate) for _ in range(2))
    buffer = np.empty(700, dtype)
    for start in range(0, 29_400, 700):
        buffer[:] = samples[start : start + 700]
        session.accept(buffer)
        buffer[:] = 1
    expected.accept(samples[:29_400])
    session.finish()
    expected.finish()
    assert session.tokens == expected.tokens


def test_letters_that_wait_for_others_come_with_the_end() -> None:
    """They may begin an abbreviation, so a stream that ends with some has text until its very last step."""
    letters = (*tiny.TOKENS[:3], *"abcdefghijklmnopqrstuvwx", "<unk>")
    session = Session(replace(tiny.engine(), vocabulary=Vocabulary(letters, None)), ChunkConfig())
    session.accept(tiny.signal(40_000))
    told = session.text
    said = session.finish()
    assert session.text == told + said == Vocabulary.join([token.text for token in session.tokens])
    assert len(said) > len(session.tokens) // 2


def test_what_may_begin_a_hotword_waits_for_the_rest_of_it() -> None:
    """Of a model without a language model, too, which else waits for nothing."""
    spotter = Mock(side_effect=lambda candidates, *_, **__: candidates)
    spotter.begun.side_effect = lambda waiting: min(2, len(waiting))
    session = Session(replace(tiny.engine(), spotter=spotter), ChunkConfig())
    whole = in_one_go(tiny.signal(60_000), ChunkConfig())
    for start in range(0, 60_000, 9_600):
        session.accept(tiny.signal(60_000)[start : start + 9_600])
        waiting = len(session._state.waiting)
        assert waiting == min(2, len(session.tokens) + waiting)
    session.finish()
    assert_same(session, whole)
    assert spotter.call_count == session._state.steps
