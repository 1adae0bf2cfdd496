"""Quiet speech is heard and silence is not, in whole audio and live alike."""

from __future__ import annotations

import itertools
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
import soundfile
from hypothesis import assume, example, given
from hypothesis import strategies as st

import paraformer
from paraformer.evaluate.cer import count_errors
from paraformer.recognizer import Recognizer
from paraformer.silence import PEAK, Hearing

RATE = 16_000
BIT = 1 / 32768


@cache
def recognizer() -> Recognizer:
    return paraformer.load()


def live(samples: np.ndarray) -> str:
    session = recognizer().stream()
    return "".join([session.accept(samples[at : at + 9600]) for at in range(0, len(samples), 9600)]) + session.finish()


def sample(name: str) -> np.ndarray:
    return soundfile.read(str(files("paraformer") / "samples" / f"{name}.flac"), dtype="float32")[0]


def at_level(samples: np.ndarray, db: float, *, quantised: bool) -> np.ndarray:
    scaled = samples * 10 ** (db / 20) / np.sqrt(np.mean(np.square(samples)))
    return (np.round(scaled / BIT) * BIT if quantised else scaled).astype(np.float32)


TEXTS = {
    "weather": "今天天气很好我们一起去公园散步吧",
    "subway": "请问最近的地铁站怎么走",
    "meeting": "会议改到明天下午三点请大家准时参加",
}
LEVELS = [-20, -40, -60, -66, -73, -80]


@pytest.mark.parametrize("quantised", [False, True], ids=["float", "16-bit"])
@pytest.mark.parametrize("db", LEVELS)
def test_quiet_speech_is_heard_whole_and_live(db: float, quantised: bool) -> None:
    """Nearly every word at every level; at -80 dB 16 bits leave three units of loudness, and some are misheard."""
    expected = TEXTS["meeting"]
    samples = at_level(sample("meeting"), db, quantised=quantised)
    for heard in (recognizer().transcribe(samples).text, live(samples)):
        alike = sum(block.size for block in SequenceMatcher(None, heard, expected).get_matching_blocks())
        assert alike >= len(expected) - (6 if quantised and db < -70 else 2), heard
        assert abs(len(heard) - len(expected)) <= 1


@pytest.mark.parametrize("quantised", [False, True], ids=["float", "16-bit"])
@pytest.mark.parametrize("db", LEVELS)
def test_quiet_speech_is_found_in_long_audio(db: float, quantised: bool) -> None:
    """Eight sentences with pauses between them, over half a minute: each is a segment, at its place."""
    pause = np.zeros(2 * RATE, np.float32)
    samples = np.concatenate([part for _ in range(8) for part in (sample("subway"), pause)])
    found = recognizer().transcribe(at_level(samples, db, quantised=quantised)).segments
    period = (len(sample("subway")) + len(pause)) / RATE
    assert [round(segment.start_s // period) for segment in found] == list(range(8))


@pytest.mark.parametrize(
    ("db", "pause_s"),
    [
        (-20, 0.5),
        (-40, 0.5),
        (-50, 0.5),
        (-20, 2.0),
        (-40, 2.0),
        (-50, 2.0),
    ],
)
def test_a_soft_speaker_is_heard_beside_a_loud_one_in_long_audio(db: float, pause_s: float) -> None:
    """In turns, each sentence once so and once so: next to nothing of what either says is lost."""
    pause, parts, expected = np.zeros(round(pause_s * RATE), np.float32), [], ""
    for number, name in enumerate(["weather", "subway", "meeting"] * 4):
        parts += [sample(name) * np.float32(10 ** (db / 20) if number % 2 else 1), pause]
        expected += TEXTS[name]
    counts = count_errors(expected, recognizer().transcribe(np.concatenate(parts)).text)
    assert counts.deletions <= (6 if db == -50 else 2)
    assert counts.insertions <= 1


@pytest.mark.parametrize("db", [-45, -60, -75])
def test_noise_between_loud_sentences_is_no_speech(db: float) -> None:
    """Raised for the detector once the speech is over, it is still none."""
    rng, parts = np.random.default_rng(1), []
    for name in ("weather", "subway", "meeting") * 2:
        parts += [sample(name), np.zeros(4 * RATE, np.float32)]
    samples = np.concatenate(parts)
    noisy = samples + rng.normal(0, 10 ** (db / 20), len(samples)).astype(np.float32)
    found = recognizer().transcribe(noisy).segments
    period = np.cumsum([0, *map(len, parts)]) / RATE
    spoken = list(zip(period[::2], period[1::2], strict=False))
    assert all(any(start < one.start_s and one.end_s < end + 0.3 for start, end in spoken) for one in found)


def noise(kind: str, seed: int, seconds: float) -> np.ndarray:
    """What a muted or empty input is in practice."""
    rng, count = np.random.default_rng(seed), round(seconds * RATE)
    match kind:
        case "zeros":
            samples = np.zeros(count)
        case "one bit":
            samples = rng.integers(-1, 2, count) * BIT
        case "dither":
            samples = np.round(rng.uniform(-0.5, 0.5, count) + rng.uniform(-0.5, 0.5, count)) * BIT
        case "offset":
            samples = 0.02 + rng.integers(0, 2, count) * BIT
    return samples.astype(np.float32)


@pytest.mark.parametrize("kind", ["zeros", "one bit", "dither", "offset"])
def test_silence_gives_nothing_whole_and_live(kind: str) -> None:
    for seed in range(4):
        samples = noise(kind, seed, 8.0)
        assert recognizer().transcribe(samples).text == live(samples) == ""
    nothing = recognizer().transcribe(noise(kind, 0, 45.0))
    assert (nothing.text, nothing.confidence) == ("", 0)


def test_a_muted_while_within_a_stream_gives_nothing_more() -> None:
    """Every token begins within reach of the speech."""
    speech = sample("weather")
    for seed in range(4):
        session = recognizer().stream()
        session.accept(np.concatenate([speech, noise("one bit", seed, 20.0)]))
        session.finish()
        assert max(token.start_s for token in session.tokens) < len(speech) / RATE + 0.5


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 9000)), max_size=8), st.lists(st.integers(0, 40_000), max_size=5)
)
def test_packets_change_nothing(stretches: list[tuple[bool, int]], cuts: list[int]) -> None:
    parts = [np.full(count, loud) * (-1.0) ** np.arange(count) for loud, count in stretches]
    samples = np.concatenate([np.zeros(0), *parts]).astype(np.float32) * 3 * PEAK
    hearing = Hearing()
    for packet in np.split(samples, sorted(min(cut, len(samples)) for cut in cuts)):
        hearing = hearing.step(packet)
    cut, whole = hearing.step(np.zeros(0, np.float32), final=True), Hearing().step(samples, final=True)
    assert (cut.runs, cut.frames) == (whole.runs, whole.frames)
    restored = Hearing.from_dict(hearing.to_dict()).step(np.zeros(0, np.float32), final=True)
    assert restored.runs == whole.runs


@example(7, 1, 0.0, 0.0)
@example(7, 1, 0.95, 0.0)
@given(st.integers(0, 40), st.integers(1, 20), st.floats(0, 5), st.floats(0, 2))
def test_a_token_is_heard_where_something_could_be_within_half_a_second(
    first: int, count: int, start_s: float, length_s: float
) -> None:
    samples = np.zeros(5 * RATE, np.float32)
    samples[first * 960 : (first + count) * 960] = (-1.0) ** np.arange(count * 960)
    hearing = Hearing().step(samples, final=True)
    edges = ((first + count) * 0.06 - (start_s - 0.5), start_s + length_s + 0.5 - first * 0.06)
    assume(min(map(abs, edges)) > 1e-6)
    near = start_s - 0.5 < (first + count) * 0.06 and first * 0.06 < min(5.0, start_s + length_s + 0.5)
    assert hearing.anything(start_s, start_s + length_s, until_s=5.0) == near
    assert hearing.since(start_s, now_s=0.0).anything(start_s, start_s + length_s, until_s=5.0) == near
    assert not hearing.anything(0.0, 5.0, until_s=first * 0.06)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 3))
def test_between_two_sounds_a_token_is_heard_near_either(first: int, gap: int, start_s: float) -> None:
    """However far they are apart: only where no token can lie apart from both do they count as one."""
    samples = np.zeros(90 * 960, np.float32)
    loud = (-1.0) ** np.arange(960)
    for frame in (first, first + gap):
        samples[frame * 960 : (frame + 1) * 960] = loud
    away = [frame * 0.06 + edge for frame in (first, first + gap) for edge in (-0.5, 0.56)]
    assume(min(abs(start_s - edge) for edge in away) > 1e-6)
    near = any(frame * 0.06 - 0.5 < start_s < frame * 0.06 + 0.56 for frame in (first, first + gap))
    assert Hearing().step(samples, final=True).anything(start_s, start_s, until_s=5.4) == near


SOUNDS = st.lists(st.tuples(st.booleans(), st.integers(1, 30)), min_size=1, max_size=8).map(
    lambda stretches: [sound for sound, frames in stretches for _ in range(frames)]
)
"""Of each frame, whether it sounds."""


@example([True] + [False] * 20 + [True] * 3, 2.0)
@given(SOUNDS, st.floats(0, 8))
def test_stretches_are_half_a_second_apart_and_hold_no_such_pause(sounds: list[bool], start_s: float) -> None:
    samples = np.repeat(sounds, 960) * np.float32([0.1, -0.1] * (480 * len(sounds)))
    hearing = Hearing().step(samples)
    assert all((later[0] - earlier[1]) * 0.06 >= 0.5 for earlier, later in itertools.pairwise(hearing.runs))
    for first, end in hearing.runs:
        heard = [frame for frame in range(first, end) if sounds[frame]]
        assert (heard[0], heard[-1]) == (first, end - 1)
        assert all((later - earlier - 1) * 0.06 < 0.5 for earlier, later in itertools.pairwise(heard))
    assert sum(sounds[first:end].count(True) for first, end in hearing.runs) == sounds.count(True)
    assert all(end * 0.06 > start_s - 0.5 for _, end in hearing.since(start_s, now_s=0.0).runs)


@example([True] + [False] * 15 + [True], 12, 12)
@given(SOUNDS, st.integers(0, 200), st.integers(0, 200))
def test_what_comes_later_has_no_influence(sounds: list[bool], until: int, start: int) -> None:
    """A live step may have been given more samples already than it decides about, or not."""
    samples = np.repeat(sounds, 960) * np.float32([0.1, -0.1] * (480 * len(sounds)))
    until = min(until, len(sounds))
    start = min(start, until)
    all_of_it, so_far = Hearing().step(samples), Hearing().step(samples[: until * 960])
    times = {"start_s": start * 0.06 + 0.01, "end_s": start * 0.06 + 0.01, "until_s": until * 0.06}
    assert all_of_it.anything(**times) == so_far.anything(**times)


def test_sound_without_a_pause_is_one_stretch() -> None:
    """However long: what is kept of a stream does not grow with it."""
    assert Hearing().step(np.tile(np.float32([0.1, -0.1]), 480 * 1000)).runs == ((0, 1000),)


@pytest.mark.parametrize(("units", "silent"), [(3, True), (4, False)])
def test_silence_is_eighty_decibels_below_full_scale(units: int, silent: bool) -> None:
    samples = np.tile([units * BIT, -units * BIT], 500).astype(np.float32)
    assert (not Hearing().step(samples, final=True).runs) == silent
    assert 20 * np.log10(PEAK) == pytest.approx(-80)


def test_clicks_without_end_take_no_more_memory() -> None:
    """A day in which nothing is said, and a click is heard every two seconds; then the last minute is known as ever."""
    hearing, second = Hearing(), np.zeros(32_000, np.float32)
    second[100] = 0.1
    for number in range(500):
        hearing = hearing.step(second).since(0.0, now_s=2.0 * number)
        assert len(hearing.runs) <= 32
    assert hearing.anything(0.0, 0.1, until_s=1000.0)
    assert hearing.anything(900.0, 900.1, until_s=1000.0), "it counts as one run"
    assert [hearing.anything(at, at, until_s=1000.0) for at in (980.0, 981.0, 982.0)] == [True, False, True]
