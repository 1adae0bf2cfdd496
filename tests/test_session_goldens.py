"""Live sessions against the reference, from samples to the text of each call."""

from __future__ import annotations

import numpy as np
import pytest
from model_goldens import GOLDEN, golden_model

from paraformer.backends.torch import TorchBackend
from paraformer.config import ChunkConfig
from paraformer.frontend import Cmvn, Frontend
from paraformer.session import Session
from paraformer.speech_model import SpeechModel
from paraformer.text import Vocabulary, parse_tokens

RUNS = [
    "5_10_5_nolb",
    "5_10_5_lb41",
    "5_10_5_exact",
    "5_10_5_tail5000",
    "5_10_5_tail700",
    "5_10_5_tail700_fixed",
    "0_10_5_lb41",
    "8_8_4_nolb",
]


@pytest.mark.parametrize("run", RUNS)
def test_each_call_gives_the_references_text(run: str) -> None:
    with np.load(GOLDEN / f"stream_{run}.npz") as arrays:
        left, chunk, right = arrays["chunk_size"].tolist()
        encoder, decoder = arrays["look_back"].tolist()
        deliveries, texts = arrays["deliver"].tolist(), arrays["texts"].tolist()
    setting = ChunkConfig(left=left, chunk=chunk, right=right, encoder_look_back=encoder, decoder_look_back=decoder)
    session = Session(golden_engine(), setting, drop_short_tail="tail700" in run)
    with np.load(GOLDEN / "frontend_offline.npz") as arrays:
        samples = arrays["wav_int16"].astype(np.float32) / 32768
    packets = np.split(samples[: sum(deliveries)], np.cumsum(deliveries)[:-1])
    got = [session.accept(packet) for packet in packets]
    got[-1] += session.finish()
    assert got == texts


def golden_engine() -> SpeechModel:
    model = golden_model("online")
    cmvn = Cmvn.parse((GOLDEN / "am.mvn").read_text())
    tokens = parse_tokens((GOLDEN / "tokens.json").read_text(encoding="utf-8"))
    return SpeechModel(TorchBackend(model), Frontend(model.config.frontend, cmvn), Vocabulary(tokens))
