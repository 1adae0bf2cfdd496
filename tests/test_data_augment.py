from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraformer.data.augment import (
    AugmentConfig,
    add_noise,
    augment_frames,
    augment_samples,
    babble,
    change_channel,
    change_level,
    coloured_noise,
    perturb_speed,
    resample_frames,
    reverberate,
    rhythm,
    spec_augment,
)
from paraformer.data.codecs import CODECS, Codec
from paraformer.errors import ConfigError

CONFIG = AugmentConfig()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(16000 * seconds), dtype=np.float32)


@settings(deadline=None, max_examples=30)
@given(windows=st.integers(1, 60), seed=st.integers(0, 1 << 30))
def test_spec_augment_masks_whole_bins_and_whole_windows(windows: int, seed: int) -> None:
    feats = np.random.default_rng(seed).normal(14, 3, (windows, 560)).astype(np.float32)
    before = feats.copy()
    masked = spec_augment(feats, CONFIG, np.random.default_rng(seed))
    np.testing.assert_array_equal(feats, before, "the input is left alone")
    grid = (masked != feats).reshape(windows, 7, 80)
    np.testing.assert_allclose(masked[masked != feats], feats.mean(), rtol=1e-5)
    bins, rows = grid.all(axis=(0, 1)), grid.all(axis=(1, 2))
    np.testing.assert_array_equal(grid, np.broadcast_to(bins | rows[:, None, None], grid.shape))
    if not rows.all():
        assert bins.sum() <= CONFIG.frequency_masks * (CONFIG.frequency_mask_width - 1)
    assert rows.sum() <= CONFIG.time_masks * min(CONFIG.time_mask_width - 1, windows // 10)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 30.0])
def test_add_noise_keeps_the_ratio(snr_db: float) -> None:
    signal = noise(1.0)
    added = add_noise(signal, noise(0.3, 1), snr_db, np.random.default_rng(2)) - signal
    assert 10 * np.log10(np.mean(signal**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.3)


def test_add_noise_of_silence_changes_nothing() -> None:
    signal = noise(0.1)
    np.testing.assert_array_equal(add_noise(signal, np.zeros(7, np.float32), 10.0, np.random.default_rng(0)), signal)


def test_perturb_speed_moves_pitch_and_length() -> None:
    tone = np.sin(2 * np.pi * 500 * np.arange(16000) / 16000).astype(np.float32)
    fast = perturb_speed(tone, 1.25)
    assert len(fast) == pytest.approx(16000 / 1.25, abs=1)
    assert np.abs(np.fft.rfft(fast)).argmax() * 16000 / len(fast) == pytest.approx(625, abs=2)


def test_reverberation_keeps_length_and_past() -> None:
    click = np.zeros(8000, np.float32)
    click[4000] = 1.0
    wet = reverberate(click, 0.3, np.random.default_rng(0))
    assert len(wet) == len(click)
    assert np.abs(wet[:4000]).max() < 1e-5
    assert np.abs(wet[4010:]).max() > 1e-3


def test_channel_is_one_smooth_curve_for_all_frames() -> None:
    change = change_channel(np.zeros((5, 80), np.float32), 5.0, np.random.default_rng(0))
    np.testing.assert_array_equal(change, np.broadcast_to(change[0], change.shape))
    assert np.abs(np.diff(change[0])).max() < 0.5
    curves = [change_channel(np.zeros((1, 80), np.float32), 5.0, np.random.default_rng(seed)) for seed in range(300)]
    assert 10 / np.log(10) * np.std(curves) == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize(("pace", "tract"), [(0.8, 0.9), (1.0, 1.0), (1.3, 1.1)])
def test_resampled_frames_are_read_along_both_axes(pace: float, tract: float) -> None:
    plane = (np.arange(50, dtype=np.float32)[:, None] * 2 + np.arange(80, dtype=np.float32)) / 10
    changed = resample_frames(plane, np.full(100, pace, np.float32), tract)
    rows, bins = np.arange(len(changed)) * pace, np.minimum(np.arange(80) * tract, 79)
    assert len(changed) == int(49 / pace) + 1  # the last frame too, where the steps reach it
    np.testing.assert_allclose(changed, (rows[:, None] * 2 + bins) / 10, atol=1e-4)
    np.testing.assert_array_equal(resample_frames(plane[:1], np.ones(2, np.float32), tract), plane[:1])


def test_rhythm_varies_slowly_around_one() -> None:
    factors = np.concatenate([rhythm(500, 0.15, np.random.default_rng(seed)) for seed in range(50)])
    assert len(factors) == 50 * 2000
    assert np.median(factors) == pytest.approx(1.0, abs=0.02)
    assert np.abs(np.diff(np.log(factors[:1000]))).max() < 0.03
    np.testing.assert_array_equal(rhythm(10, 0.0, np.random.default_rng(0)), np.ones(40, np.float32))


def test_level_changes_between_quiet_moments_and_sinks_no_deeper_than_what_was_there() -> None:
    frames = np.full((200, 4), 10.0, np.float32)
    frames[90:110] = 2.0  # a pause
    changed = [change_level(frames, -20.0, np.random.default_rng(seed)) - frames for seed in range(200)]
    steps = {0.0, np.float32(-20 * np.log(10) / 10)}
    for change in changed:
        assert set(np.unique(change[frames[:, 0] > 2])) <= steps
        assert not change[frames[:, 0] == 2.0].any()  # at the floor already
        assert len(np.flatnonzero(np.diff(change[:90, 0]))) <= 2
    assert sum(bool(change.any()) for change in changed) > 100
    halves = [change for change in changed if change[0, 0] != change[-1, 0]]
    assert any(not change[:90].any() and change[110:].all() for change in halves)


def test_babble_is_every_chosen_voice_at_one_level() -> None:
    voices = [np.sin(np.arange(size, dtype=np.float32) * size) * size for size in (400, 900)]
    mixed = babble(voices, 5, np.random.default_rng(1))
    assert mixed.shape == (900,)
    # Five voices, of two kinds, each of power 1: k of one and 5 - k of the other.
    powers = {k * k + (5 - k) ** 2 for k in range(6)}
    assert min(abs(float(np.mean(mixed**2)) - power) for power in powers) < 0.5


def test_coloured_noise_falls_with_frequency() -> None:
    power = np.abs(np.fft.rfft(coloured_noise(1.0, np.random.default_rng(0)))) ** 2
    assert power[1000] / power[4000] == pytest.approx(4.0, rel=0.01)


def test_augment_samples_follows_its_seed() -> None:
    first, again, other = (
        augment_samples(noise(0.5), 1.1, CONFIG, [noise(0.2, 1)], np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert np.abs(first - other).max() > 0
    assert np.abs(first).max() <= 1.0


def test_new_changes_leave_older_draws_alone() -> None:
    """A recipe without rooms and codecs trains on the same samples as before there were any."""
    rng = np.random.default_rng(7)
    augment_samples(noise(0.2), 1.0, AugmentConfig(reverb_probability=0.0, floor_probability=0.0), [], rng)
    expected = np.random.default_rng(7)
    expected.random(), expected.uniform(), expected.random()
    assert rng.random() == expected.random()


@settings(deadline=None, max_examples=15)
@given(
    seconds=st.floats(0.01, 1.0),
    seed=st.integers(0, 1 << 30),
    speed=st.floats(0.8, 1.25),
    codec=st.sampled_from(CODECS),
    level=st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
)
def test_all_changes_together_keep_the_length_and_stay_in_range(
    seconds: float, seed: int, speed: float, codec: Codec, level: float
) -> None:
    every = AugmentConfig(
        room_probability=1.0,
        codec_probability=1.0,
        codecs=(codec,),
        noise_probability=1.0,
        floor_probability=1.0,
        babble_probability=1.0,
    )
    samples, others = np.float32(level) * noise(seconds), [noise(0.3, 2), noise(0.1, 3)]
    first, again = (
        augment_samples(samples, speed, every, [noise(0.2, 1)], np.random.default_rng(seed), others) for _ in "ab"
    )
    np.testing.assert_array_equal(first, again)
    assert len(first) == len(perturb_speed(samples, speed))
    assert np.isfinite(first).all()
    assert np.abs(first).max() <= 1.0


@settings(deadline=None, max_examples=15)
@given(frames=st.integers(2, 300), seed=st.integers(0, 1 << 30), speed=st.floats(0.8, 1.25))
def test_changed_frames_are_finite_and_follow_their_seed(frames: int, seed: int, speed: float) -> None:
    mel = np.random.default_rng(1).standard_normal((frames, 80), dtype=np.float32)
    every = AugmentConfig(level_probability=0.7)
    first, again = (augment_frames(mel, speed, every, np.random.default_rng(seed)) for _ in "ab")
    np.testing.assert_array_equal(first, again)
    assert first.shape[1] == 80
    assert first.dtype == np.float32
    assert np.isfinite(first).all()


@pytest.mark.parametrize(
    ("settings", "message"), [({"codecs": ("g729",)}, "g729"), ({"codecs": (), "codec_probability": 0.5}, "names none")]
)
def test_impossible_codecs_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**settings)
