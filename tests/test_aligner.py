from __future__ import annotations

import json
import wave as wave_file
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from funasr_dirs import GOLDEN, golden_settings, golden_tensors, write_funasr
from model_goldens import batch_feats, close

import paraformer
from paraformer.backends.torch import TorchAligner
from paraformer.checkpoint.keys import funasr_names
from paraformer.cli import main
from paraformer.companions.aligner import AlignerNetwork, config_of, settings_of, shapes
from paraformer.config import ModelConfig, PredictorConfig, SanmEncoderConfig, TimingConfig
from paraformer.errors import AudioError, DataError
from paraformer.model.aligner import Aligner
from paraformer.model.layers import length_mask

CASES = json.loads((GOLDEN / "bicif_e2e.json").read_text())


def aligner_dir(path: Path, **changes: Any) -> Path:
    """A directory of an aligner: encoder and predictor of the golden model."""
    kept = ("model_conf", "encoder", "encoder_conf", "predictor", "predictor_conf", "frontend", "frontend_conf")
    settings = {key: value for key, value in golden_settings("bicif").items() if key in kept}
    weights = {
        name: tensor.float()
        for name, tensor in golden_tensors("seaco").items()
        if name.startswith(("encoder.", "predictor."))
    }
    write_funasr(path, "bicif", weights=weights)
    (path / "config.yaml").write_text(json.dumps({"model": "MonotonicAligner", **settings, **changes}))
    (path / "seg_dict").unlink()
    named = json.loads((path / "configuration.json").read_text())
    del named["file_path_metas"]["tokenizer_conf"]["seg_dict_file"]
    (path / "configuration.json").write_text(json.dumps(named))
    return path


@pytest.fixture(scope="module")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> paraformer.Aligner:
    return paraformer.load_aligner(aligner_dir(tmp_path_factory.mktemp("aligner")))


@pytest.fixture(scope="module")
def on_torch(tmp_path_factory: pytest.TempPathFactory) -> paraformer.Aligner:
    return paraformer.load_aligner(aligner_dir(tmp_path_factory.mktemp("aligner")), device="cpu")


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    with np.load(GOLDEN / "frontend_offline.npz") as arrays:
        return arrays["wav_int16"].astype(np.float32) / 32768


@pytest.mark.parametrize("case", CASES["aligner"])
@pytest.mark.parametrize("name", ["aligner", "on_torch"])
def test_times_are_the_reference_ones(
    name: str, case: dict[str, Any], wave: np.ndarray, request: pytest.FixtureRequest
) -> None:
    aligner = request.getfixturevalue(name)
    found = aligner.align(wave, case["text_in"])
    assert " ".join(token.text for token in found.tokens) == case["result"][0]["text"]
    times = [[round(token.start_s * 1000), round(token.end_s * 1000)] for token in found.tokens]
    assert times == case["result"][0]["timestamp"]
    assert found.text == case["text_in"]


@pytest.mark.parametrize("name", ["aligner", "on_torch"])
def test_neighbours_change_nothing(name: str, wave: np.ndarray, request: pytest.FixtureRequest) -> None:
    aligner = request.getfixturevalue(name)
    audios, texts = [wave, wave[20000:50001]], ["一丁丂七丄丅丆万丈三", "一丁丂"]
    alone = [aligner.align(audio, text) for audio, text in zip(audios, texts, strict=True)]
    assert aligner.align_all(audios, texts) == alone


def test_unknown_characters_have_times_too(aligner: paraformer.Aligner, wave: np.ndarray) -> None:
    assert [token.text for token in aligner.align(wave, "一 龘丁").tokens] == ["一", "龘", "丁"]


@torch.no_grad()
def test_objective(on_torch: paraformer.Aligner) -> None:
    """The reference's LSTM hears what the encoder left in padded rows; the longest utterance has none."""
    model, (feats, lengths), counts = on_torch._backend.model, batch_feats(), torch.tensor([9.0, 6.0])
    present = length_mask(lengths, feats.shape[1])
    hidden, _, _ = model.encoder.run(model.encoder.embed(feats), present[:, None], present)
    timing = model.predictor.timing
    assert timing is not None and timing.lstm is not None
    heard, _ = timing.lstm(timing.up(hidden.transpose(1, 2)).transpose(1, 2))
    weights = (timing.output(heard).squeeze(-1).sigmoid() * 0.25 - 0.01).relu()
    sums = (weights * length_mask(lengths * 3, weights.shape[1])).sum(-1)
    close((sums - counts).abs().mean(), torch.tensor(CASES["aligner_train_loss"]), 1e-5)
    close(model.loss(feats[:1], lengths[:1], counts[:1]), (sums - counts)[0].abs(), 1e-5)
    alone = [model.loss(feats[i : i + 1, :n], lengths[i : i + 1], counts[i : i + 1]) for i, n in enumerate((59, 31))]
    close(model.loss(feats, lengths, counts), torch.stack(alone).mean(), 1e-5)


def test_what_cannot_be_aligned(aligner: paraformer.Aligner, wave: np.ndarray) -> None:
    with pytest.raises(DataError, match="nothing to align"):
        aligner.align(wave, "  ")
    with pytest.raises(DataError, match="cannot hold a text of 99 tokens"):
        aligner.align(wave[:8000], "一" * 99)
    with pytest.raises(AudioError):
        aligner.align("nowhere.wav", "一")
    with pytest.raises(DataError, match=r"300\.1 s of audio are more than the 300 s .* cut it at a pause"):
        aligner.align(np.zeros(round(300.1 * 16000), np.float32), "一")


def test_the_command(tmp_path: Path, wave: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    directory, path = aligner_dir(tmp_path / "aligner"), tmp_path / "a.wav"
    with wave_file.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((wave * 32768).astype(np.int16).tobytes())
    (tmp_path / "text.txt").write_text("一丁丂\n", encoding="utf-8")
    for text, device in (("一丁丂", []), (str(tmp_path / "text.txt"), ["--device", "cpu"])):
        assert main(["align", str(path), text, "--model", str(directory), *device]) == 0
        lines = [line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()]
        assert lines == [["0.850", "1.090", "一"], ["1.730", "1.970", "丁"], ["2.610", "2.850", "丂"]]
    assert main(["align", str(path), "一" * 300, "--model", str(directory)]) == 1  # longer than any name of a file
    assert "cannot hold a text of 300 tokens" in capsys.readouterr().err


def test_the_published_shape() -> None:
    """408 tensors and 39,585,442 numbers."""
    config = ModelConfig(
        vocab_size=8404,
        encoder=SanmEncoderConfig(dim=320, ffn_dim=1280, layers=30),
        predictor=PredictorConfig(timing=TimingConfig()),
    )
    with torch.device("meta"):
        model = Aligner(config)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == shapes(config)
    names = funasr_names(config, shapes(config))
    assert len(names) == 408
    assert sum(parameter.numel() for parameter in model.parameters()) == 39_585_442
    assert names["predictor.timing.lstm.weight_ih_l0_reverse"] == "predictor.blstm.weight_ih_l0_reverse"


@pytest.mark.parametrize(
    "timing",
    [TimingConfig(), TimingConfig(rate=5, recurrent=False, from_conv=True), TimingConfig(rate=2, from_conv=True)],
    ids=str,
)
@pytest.mark.parametrize("version", [1, 2])
def test_without_torch_as_with_it(version: Any, timing: TimingConfig) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=9,
        encoder=SanmEncoderConfig(dim=32, ffn_dim=48, layers=3, shift=2),
        predictor=PredictorConfig(timing=timing, version=version, left=2),
    )
    weights = {name: tensor.numpy() for name, tensor in Aligner(config).state_dict().items()}
    assert {name: array.shape for name, array in weights.items()} == shapes(config)
    feats = [np.random.default_rng(n).normal(size=(n, 560)).astype(np.float32) for n in (1, 23, 40)]
    plain, twin = AlignerNetwork(config, weights), TorchAligner(config, weights)
    for ours, theirs in zip(plain.weights(feats, [1, 4, 7]), twin.weights(feats, [1, 4, 7]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert config_of(settings_of(config)).encoder == config.encoder
