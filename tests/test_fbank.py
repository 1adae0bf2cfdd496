"""Log-mel frames against kaldi-native-fbank and the reference's, by compiled code and by numpy."""

from __future__ import annotations

from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer import fbank as fbank_module
from paraformer import native
from paraformer.config import FrontendConfig
from paraformer.fbank import fbank, short_fbank

OFFLINE = np.load(Path(__file__).parent / "golden" / "frontend_offline.npz")
WAVE = OFFLINE["wav_int16"].astype(np.float32) / np.float32(32768)
CONFIGS = [
    FrontendConfig(window=window, sample_rate=rate, mel_bins=bins)  # type: ignore[arg-type]
    for window in ("hamming", "hanning", "povey", "rectangular", "blackman")
    for rate, bins in ((16000, 80), (8000, 40), (16000, 23))
]


@pytest.fixture(params=[*native.families(), "none"], autouse=True)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes: each family of processors, and numpy."""
    monkeypatch.setenv("PARAFORMER_ISA", request.param)


# -- laws -------------------------------------------------------------------------------------------------------------


@given(first=st.integers(0, 60), count=st.integers(1, 60))
def test_a_frame_does_not_see_the_others(first: int, count: int) -> None:
    config = FrontendConfig()
    alone = fbank(WAVE[160 * first : 160 * (first + count - 1) + 400], config)
    np.testing.assert_array_equal(alone, fbank(WAVE, config)[first : first + count])


def test_block_size_is_invisible(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fbank(WAVE, FrontendConfig())
    for frames in (1, 3, 1000):
        monkeypatch.setattr(fbank_module, "FRAMES_AT_ONCE", frames)
        np.testing.assert_array_equal(fbank(WAVE, FrontendConfig()), whole)


@pytest.mark.parametrize("width", [1, 2, 3, 100, 255, 256, 257, 399])
def test_both_engines_agree_on_short_frames(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = WAVE[30000 : 30000 + width]
    frame = short_fbank(samples, FrontendConfig())
    monkeypatch.setenv("PARAFORMER_ISA", "none")
    np.testing.assert_allclose(frame, short_fbank(samples, FrontendConfig()), atol=1e-4)


def test_no_samples_no_frame() -> None:
    assert short_fbank(WAVE[:0], FrontendConfig()).shape == (0, 80)
    assert fbank(WAVE[:399], FrontendConfig()).shape == (0, 80)


# -- parity -----------------------------------------------------------------------------------------------------------


def kaldi(samples: np.ndarray, config: FrontendConfig) -> np.ndarray:
    """Frames by kaldi-native-fbank."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = config.window
    options.mel_opts.num_bins = config.mel_bins
    options.energy_floor = 0.0
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(config.sample_rate, (samples * 32768).tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(index) for index in range(computer.num_frames_ready)])


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda config: f"{config.window}-{config.sample_rate}-{config.mel_bins}"
)
def test_against_kaldi(config: FrontendConfig) -> None:
    noise = np.random.default_rng(0).standard_normal(20000).astype(np.float32) * np.float32(0.05)
    for samples in (noise, np.zeros(4000, np.float32)):
        np.testing.assert_allclose(fbank(samples, config), kaldi(samples, config), atol=3e-4)


def test_the_golden_wave_against_kaldi() -> None:
    np.testing.assert_allclose(fbank(WAVE, FrontendConfig()), kaldi(WAVE, FrontendConfig()), atol=3e-4)


# -- goldens ----------------------------------------------------------------------------------------------------------


def test_golden() -> None:
    np.testing.assert_allclose(fbank(WAVE, FrontendConfig()), OFFLINE["fbank"], atol=3e-4)


def test_short_golden() -> None:
    short = short_fbank(WAVE[30000:30300], FrontendConfig())
    np.testing.assert_allclose(short, OFFLINE["short300_fbank"], atol=3e-4)
