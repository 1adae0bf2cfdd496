from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraformer import audio
from paraformer.data.codecs import CODECS, Codec, through_codec

SPEECH = audio.read("src/paraformer/samples/subway.flac")[: 2 * 16000]


@settings(deadline=None, max_examples=25)
@given(codec=st.sampled_from(CODECS), length=st.integers(1, 8000), seed=st.integers(0, 1 << 30))
def test_a_codec_keeps_length_and_follows_its_seed(codec: Codec, length: int, seed: int) -> None:
    samples = np.random.default_rng(1).standard_normal(length, dtype=np.float32)
    sent, again = (through_codec(samples, codec, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(sent, again)
    assert sent.dtype == np.float32
    assert len(sent) == length
    assert np.abs(sent).max() <= 1.0


@pytest.mark.parametrize("codec", CODECS)
def test_speech_is_still_there_and_not_moved(codec: Codec) -> None:
    sent = through_codec(SPEECH, codec, np.random.default_rng(0))
    assert np.abs(sent - SPEECH).max() > 1e-4
    spectra = np.fft.rfft(SPEECH, 1 << 16).conj() * np.fft.rfft(sent, 1 << 16)
    lag = int(np.fft.irfft(spectra).argmax())
    assert min(lag, (1 << 16) - lag) <= 8
    assert np.corrcoef(np.roll(sent, -lag), SPEECH)[0, 1] > 0.7


@pytest.mark.parametrize("codec", ["ulaw", "alaw", "gsm"])
def test_telephones_end_at_4_khz(codec: Codec) -> None:
    def above(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float(power[len(power) * 55 // 100 :].sum() / power.sum())

    noise = 0.1 * np.random.default_rng(0).standard_normal(16000, dtype=np.float32)
    assert above(through_codec(noise, codec, np.random.default_rng(0))) < 0.01 * above(noise)
