from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
from hypothesis import given
from hypothesis import strategies as st

from paraformer.errors import ConfigError
from paraformer.segment import SegmentConfig, VoiceDetector, VoiceSegmenter, VoiceState, cut
from paraformer.segment.silero import WINDOW

RATE = 16000
GOLDEN = Path(__file__).parent / "golden" / "silero_meeting.npz"


class LoudnessDetector(VoiceDetector):
    """Takes what is loud for speech: a detector whose right answer is known for made-up signals."""

    def step(self, windows: np.ndarray, state: VoiceState) -> tuple[np.ndarray, VoiceState]:
        return (np.abs(windows).max(axis=1) > 0.05).astype(np.float32), state


def sample(name: str) -> np.ndarray:
    return soundfile.read(str(files("paraformer") / "samples" / f"{name}.flac"), dtype="float32")[0]


def signal(runs: list[tuple[bool, int]]) -> np.ndarray:
    """Runs of loud and silent windows, with a number hidden in each sample to recognise it by."""
    loud = np.concatenate([np.full(count * WINDOW, is_loud) for is_loud, count in runs] + [np.zeros(0, bool)])
    place = np.random.default_rng(len(loud)).uniform(0.9, 1.0, len(loud))
    return (np.where(loud, 0.5, 0.001) * place).astype(np.float32)


def split(samples: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    start = 0
    while start < len(samples):
        for size in sizes:
            yield samples[start : start + size]
            start += size


runs = st.lists(st.tuples(st.booleans(), st.integers(1, 200)), max_size=12)
configs = st.builds(
    SegmentConfig,
    max_s=st.sampled_from([1.0, 2.5, 8.0]),
    min_s=st.sampled_from([0.0, 0.5, 1.0]),
    min_silence_s=st.sampled_from([0.4, 0.6]),
    join_s=st.sampled_from([0.6, 1.0]),
    pad_s=st.sampled_from([0.0, 0.1, 0.2]),
    min_speech_s=st.sampled_from([0.0, 0.1]),
)


def segments(config: SegmentConfig, blocks: Iterator[np.ndarray] | list[np.ndarray]) -> list[tuple[float, np.ndarray]]:
    return list(VoiceSegmenter(config, LoudnessDetector())(blocks))


@given(runs, configs, st.lists(st.integers(0, 40000), min_size=1, max_size=4).filter(any))
def test_block_sizes_change_nothing(runs: list[tuple[bool, int]], config: SegmentConfig, sizes: list[int]) -> None:
    samples = signal(runs)
    whole, cut = segments(config, [samples]), segments(config, split(samples, sizes))
    assert [start for start, _ in whole] == [start for start, _ in cut]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(whole, cut, strict=True))


@given(
    runs,
    configs,
    st.lists(st.integers(0, 9000), min_size=1, max_size=9).filter(lambda sizes: sum(sizes) > 3000),
    st.sampled_from([8, 64]),
)
def test_a_stream_is_cut_as_it_comes_whatever_its_packets(
    runs: list[tuple[bool, int]], config: SegmentConfig, sizes: list[int], together: int
) -> None:
    def cuts(listening: cut.Listening) -> list[tuple[float, np.ndarray]]:
        found = [one for block in split(signal(runs), sizes) for one in listening.push(block)]
        return [*found, *listening.finish()]

    segmenter = VoiceSegmenter(config, LoudnessDetector())
    pushed, whole = cuts(segmenter.open(together)), segments(config, [signal(runs)])
    assert [start for start, _ in pushed] == [start for start, _ in whole]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(pushed, whole, strict=True))


def test_a_stream_tells_since_when_somebody_speaks() -> None:
    listening = VoiceSegmenter(detector=LoudnessDetector()).open(together=1)
    heard = []
    for window in split(signal([(False, 20), (True, 5), (False, 40)]), [WINDOW]):
        listening.push(window)
        heard.append(listening.speaking_since_s)
    assert heard[:20] == [None] * 20
    assert heard[20] == pytest.approx(14 * WINDOW / RATE)  # its pad of 0.2 s
    assert heard[-1] is None


@given(runs, configs, st.integers(0, WINDOW - 1))
def test_segments_are_the_audio_in_order_and_never_too_long(
    runs: list[tuple[bool, int]], config: SegmentConfig, extra: int
) -> None:
    samples = np.concatenate([signal(runs), np.full(extra, 0.5, np.float32)])
    end = 0
    for start_s, piece in segments(config, [samples]):
        start = round(start_s * RATE)
        assert start >= end
        end = start + len(piece)
        assert np.array_equal(piece, samples[start:end])
        assert 0 < len(piece) <= config.max_s * RATE


@given(runs, configs)
def test_no_speech_is_lost(runs: list[tuple[bool, int]], config: SegmentConfig) -> None:
    samples = signal([(is_loud, count + 3) for is_loud, count in runs])
    covered = np.zeros(len(samples), bool)
    for start_s, piece in segments(config, [samples]):
        covered[round(start_s * RATE) :][: len(piece)] = True
    assert covered[np.abs(samples) > 0.05].all()


@given(runs, configs)
def test_pads_surround_speech(runs: list[tuple[bool, int]], config: SegmentConfig) -> None:
    """Every segment starts and ends within a pad of speech: long silence is in none of them.

    Where one was cut because it was too long, a pause may be left that was too short to end it.
    """
    found = [(round(start_s * RATE), piece) for start_s, piece in segments(config, [signal(runs)])]
    starts = {start for start, _ in found}
    ends = {start + len(piece) for start, piece in found}
    pad, pause = config.pad_s * RATE, config.join_s * RATE
    for start, piece in found:
        voiced = np.flatnonzero(np.abs(piece) > 0.05)
        assert len(voiced)
        assert voiced[0] <= (pause if start in ends else pad)
        assert len(piece) - 1 - voiced[-1] <= (pause if start + len(piece) in starts else pad)


def test_silence_noise_and_nothing_give_nothing() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 10 * RATE).astype(np.float32)
    for blocks in ([], [np.zeros(0, np.float32)], [np.zeros(1, np.float32)], [np.zeros(5 * RATE, np.float32)], [noise]):
        assert list(VoiceSegmenter()(blocks)) == []


def test_short_neighbours_join_and_long_pauses_part() -> None:
    second = round(RATE / WINDOW)
    runs = [(True, 2.0), (False, 0.5), (True, 2.0), (False, 2.0), (True, 1.0)]
    samples = signal([(is_loud, round(length * second)) for is_loud, length in runs])
    assert [len(piece) / RATE for _, piece in segments(SegmentConfig(), [samples])] == pytest.approx(
        [4.7, 1.2], abs=0.1
    )


class ScriptedDetector(VoiceDetector):
    """Says what it was told to of each window, and then that there is no speech."""

    def __init__(self, script: list[float]) -> None:
        super().__init__()
        self._script = np.array(script, np.float32)

    def step(self, windows: np.ndarray, state: VoiceState) -> tuple[np.ndarray, VoiceState]:
        said, self._script = self._script[: len(windows)], self._script[len(windows) :]
        return np.pad(said, (0, len(windows) - len(said))), state


def scripted(script: list[float], samples: np.ndarray | None = None, **settings: float) -> list[tuple[int, int]]:
    """First window and the one after the last of each segment, without pads."""
    samples = np.full(len(script) * WINDOW, 0.5, np.float32) if samples is None else samples
    found = VoiceSegmenter(SegmentConfig(pad_s=0.0, **settings), ScriptedDetector(script))([samples])
    return [(round(start * RATE / WINDOW), round((start * RATE + len(piece)) / WINDOW)) for start, piece in found]


def test_speech_begins_at_the_threshold_and_goes_on_a_little_below_it() -> None:
    silence = [0.0] * 100
    assert scripted([*silence, *[0.5] * 10, *silence]) == [(100, 110)]
    assert scripted([*silence, *[0.49] * 10, *silence]) == []
    assert scripted([*silence, *[0.6] * 3, *[0.36] * 10, *silence]) == [(100, 113)]
    assert scripted([*silence, *[0.6] * 3, *[0.34] * 10, *silence]) == [(100, 103)]
    assert scripted([*silence, *[0.6] * 3, 0.0, *[0.45] * 10, *silence]) == [(100, 103)], "not after a pause"
    assert scripted([*[0.45] * 10, *silence]) == [], "nor at the start of the audio"


def test_the_cut_is_where_speech_is_least_likely_and_softest_in_the_second_half() -> None:
    """The likelihood counts as much as the loudness, relative to the largest; three windows together."""
    longest = int(8.0 * RATE / WINDOW)

    def cut(likelihood: dict[int, float], loudness: dict[int, float], level: float = 0.5) -> int:
        """Where, when each of these is so for three windows from there on."""
        script, levels = np.ones(longest), np.full(longest, level, np.float32)
        for values, changes in ((script, likelihood), (levels, loudness)):
            for place, value in changes.items():
                values[place : place + 3] = value
        samples = np.repeat(levels, WINDOW)
        (_, place), _ = scripted([*script.tolist(), 1.0, *[0.0] * 40], np.append(samples, samples), max_s=8.0)
        return place

    assert cut({}, {}) == longest // 2
    assert cut({200: 0.6}, {}) == 201
    assert cut({}, {200: 0.2}) == 201
    assert cut({200: 0.4}, {180: 0.25}) == 201, "0.4 + 1 is less than 1 + 0.5"
    assert cut({200: 0.6}, {180: 0.25}) == 181
    assert cut({100: 0.4, 200: 0.6}, {}) == 201, "not in the first half"
    assert cut({longest - 3: 0.4, 200: 0.6}, {}) == longest - 2
    assert cut({200: 0.6}, {}, level=0.0) == 201, "digital silence that is called speech"


@pytest.mark.parametrize("missing", range(1, 13))
def test_what_ends_before_the_longest_is_one_segment(missing: int) -> None:
    """Nothing is heard after the end of the audio, not even silence."""
    config = SegmentConfig(max_s=8.0)
    longest = int(config.max_s * RATE / WINDOW)
    assert [len(piece) for _, piece in segments(config, [signal([(True, longest - missing)])])] == [
        (longest - missing) * WINDOW
    ]


@pytest.mark.parametrize("windows", [1, 2, 3, 4])
def test_clicks_are_no_segments(windows: int) -> None:
    """Less than 0.1 s, which is three whole windows: each time, not the first time only."""
    found = segments(SegmentConfig(), [signal([(False, 100), (True, windows), (False, 100), (True, windows)])])
    assert len(found) == (2 if windows >= 3 else 0)


def test_what_is_too_long_is_cut_at_its_softest_place() -> None:
    samples = signal([(True, 800)])
    dip = 500 * WINDOW
    samples[dip : dip + 6 * WINDOW] *= 0.3
    first, second = segments(SegmentConfig(), [samples])
    assert dip < len(first[1]) < dip + 6 * WINDOW
    assert second[0] == len(first[1]) / RATE


def test_memory_stays_flat() -> None:
    """An hour in blocks of some seconds: what is held never exceeds the longest segment and a little more."""
    config = SegmentConfig(max_s=8.0)
    speech = signal([(True, 400), (False, 60), (True, 20), (False, 200)])
    fed = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal fed
        while fed < 3600 * RATE:
            yield speech
            fed += len(speech)

    lag = [fed - start_s * RATE for start_s, _ in VoiceSegmenter(config, LoudnessDetector())(blocks())]
    assert len(lag) > 100
    assert max(lag) <= (config.max_s + 64 * WINDOW / RATE) * RATE + len(speech)


@given(
    st.lists(st.integers(1, 60_000), max_size=4),
    st.sampled_from([1.0, 2.5]),
    st.lists(st.integers(100, 9000), min_size=1),
)
def test_without_voice_detection_audio_is_cut_at_its_quietest_and_all_of_it_kept(
    lengths: list[int], max_s: float, sizes: list[int]
) -> None:
    samples = np.concatenate([np.zeros(0, np.float32), *(tiny.signal(length, length) for length in lengths)])
    pieces = list(cut.split(split(samples, sizes), max_s))
    assert np.array_equal(np.concatenate([np.zeros(0, np.float32), *(piece for _, piece in pieces)]), samples)
    ends = np.cumsum([0, *(len(piece) for _, piece in pieces)])
    assert [round(start * RATE) for start, _ in pieces] == ends[:-1].tolist()
    assert all(len(piece) <= max_s * RATE for _, piece in pieces)
    assert all(len(piece) >= 0.4 * max_s * RATE for _, piece in pieces[:-1])


def test_without_voice_detection_words_are_not_cut() -> None:
    samples = tiny.signal(80 * RATE)
    samples[50 * RATE : round(50.3 * RATE)] *= 0.001
    (_, first), (start, _) = cut.split([samples])
    assert 50 < start == len(first) / RATE < 50.3


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"pad_s": 0.3},
        {"pad_s": -0.1},
        {"join_s": 0.1},
        {"min_s": 30.0},
        {"max_s": 0.5, "min_s": 0.0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SegmentConfig(**wrong)


# -- the network ------------------------------------------------------------------------------------------------------


def windows_of(samples: np.ndarray) -> np.ndarray:
    return samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW)


def test_detector_computes_what_the_original_network_computes() -> None:
    """The golden holds the output of silero-vad 6.2.3's own graph, window by window, for the same clip."""
    detector = VoiceDetector()
    speech, _ = detector.step(windows_of(sample("meeting")), detector.init_state())
    np.testing.assert_allclose(speech, np.load(GOLDEN)["speech"], atol=1e-5)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_detector_may_be_given_any_number_of_windows(sizes: list[int]) -> None:
    detector, windows = VoiceDetector(), windows_of(sample("subway"))
    whole, _ = detector.step(windows, detector.init_state())
    state, parts = detector.init_state(), []
    for size in [*sizes, len(windows)]:
        if len(part := windows[:size]):
            speech, state = detector.step(part, state)
            parts.append(speech)
        windows = windows[size:]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_sentences_of_a_recording_are_found() -> None:
    recording = np.concatenate([np.zeros(RATE, np.float32), sample("meeting"), np.zeros(3 * RATE, np.float32)])
    noisy = recording + np.random.default_rng(1).normal(0, 0.005, len(recording)).astype(np.float32)
    for samples in (recording, noisy):
        found = [(start, start + len(piece) / RATE) for start, piece in VoiceSegmenter()([samples])]
        assert len(found) == 2
        for (start, end), (expected_start, expected_end) in zip(found, [(1.3, 3.7), (4.9, 7.0)], strict=True):
            assert expected_start - 0.5 < start < expected_start + 0.1
            assert expected_end - 0.4 < end < expected_end + 0.5
