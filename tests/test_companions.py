"""What stands beside a recogniser: every kind opens, is written in either form, and runs in torch and without."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from companion_dirs import WRITERS, companion_dir
from punctuation_goldens import tokens
from test_segment_fsmn import GOLDEN, VAD, detector, samples
from test_speakers import arrays

from paraformer import checkpoint, companions, load_aligner, load_punctuation
from paraformer.backends.companions import kind_in, on_torch, opened_companion
from paraformer.checkpoint import funasr_companions, torch_file
from paraformer.cli import main
from paraformer.errors import CheckpointError, ConfigError, ModelError
from paraformer.kinds import DETECTOR
from paraformer.segment.fsmn import FsmnVad
from paraformer.speakers import VoiceEncoder
from paraformer.weights import Stored

KINDS = tuple(WRITERS)


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    name = next(path for path in sorted(directory.iterdir()) if path.suffix in (".pt", ".bin"))
    return {key: torch.from_numpy(array) for key, array in torch_file.read(name).items()}


@pytest.mark.parametrize("name", KINDS)
def test_there_and_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the last bit, whole numbers too; and it is told what a directory is."""
    kind, source = WRITERS[name][0], companion_dir(tmp_path / "theirs", name)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "ours"), str(tmp_path / "back")]
    first, last = weights_of(source), weights_of(tmp_path / "back")
    assert first.keys() == last.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor if tensor.dtype == torch.int64 else tensor.float(), last[key]), key
    one, other, again = (opened_companion(tmp_path / form, kind) for form in ("theirs", "ours", "back"))
    assert {path: kind_in(tmp_path / path) for path in ("theirs", "ours", "back")} == {
        "theirs": kind,
        "ours": kind,
        "back": kind,
    }
    assert one.extras == other.extras == again.extras
    assert plain(one.settings) == plain(other.settings) == plain(again.settings)
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(ModelError, match="not empty"):
        checkpoint.convert(source, tmp_path / "ours")
    assert main(["convert", "--graphs", str(source), str(tmp_path / "graphs")]) != 0
    assert "needs none: leave out --graphs" in capsys.readouterr().err


def plain(settings: Any) -> Any:
    """As JSON has it."""
    return json.loads(json.dumps(settings))


@pytest.mark.parametrize("name", KINDS)
def test_info(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = companion_dir(tmp_path / "theirs", name)
    assert main(["info", str(source)]) == 0
    told = capsys.readouterr().out
    assert WRITERS[name][0].what in told
    assert "parameters" in told


@pytest.mark.parametrize("form", ["theirs", "ours"])
@pytest.mark.parametrize("name", KINDS)
def test_every_tensor_is_accounted_for(name: str, form: str, tmp_path: Path) -> None:
    kind, source = WRITERS[name][0], companion_dir(tmp_path / "theirs", name)
    checkpoint.convert(source, tmp_path / "ours")
    whole = {key: np.array(value) for key, value in opened_companion(source, kind).weights.items()}
    victim = next(key for key, array in whole.items() if array.ndim > 1 and "embed" not in key)
    changes = {
        "1 missing: .*": {key: array for key, array in whole.items() if key != victim},
        "1 unexpected: surprise": {**whole, "surprise": np.zeros(3, np.float32)},
        "1 of the wrong shape: .* is ": {**whole, victim: whole[victim][..., None]},
    }
    opened = opened_companion(source, kind)
    for message, weights in changes.items():
        broken = companions.Companion(kind, opened.settings, weights, opened.extras)
        if form == "ours":
            companions.save_directory(broken, tmp_path / "broken")
        else:
            funasr_companions.save(broken, tmp_path / "broken")
        with pytest.raises(CheckpointError, match=message):
            use(name, tmp_path / "broken")
    spoilt = companions.Companion(kind, opened.settings, {**whole, victim: whole[victim] * np.nan}, opened.extras)
    with pytest.raises(ModelError, match=r"not finite|NaN"):
        companions.save_directory(spoilt, tmp_path / "nan")
    funasr_companions.save(spoilt, tmp_path / "nan")
    with pytest.raises(ModelError, match="NaN"):
        use(name, tmp_path / "nan")


def use(name: str, directory: Path, device: str | None = None) -> Any:
    """What a model of this kind makes of something."""
    if name in ("punctuation", "realtime"):
        model = load_punctuation(directory, device=device)
        return model.scores(["一", "丁", "hello", "?"] * 7), model.scores(["一", "丁", "好"], 2)
    if name == "detector":
        return FsmnVad.open(directory, device).spans(samples())
    if name == "voices":
        encoder, wave = VoiceEncoder.open(directory, device), samples()
        return [encoder(wave[start:end]) for start, end in ((14400, 38400), (14400, 78400), (0, 401))]
    aligner = load_aligner(directory, device=device)
    found = aligner.align(samples()[14400:78400], "一丁七万")
    return [(token.text, round(token.start_s, 3), round(token.end_s, 3)) for token in found.tokens]


@pytest.mark.parametrize("name", KINDS)
def test_in_torch_and_without(name: str, tmp_path: Path) -> None:
    source = companion_dir(tmp_path / "theirs", name)
    checkpoint.convert(source, tmp_path / "ours")
    found = [use(name, tmp_path / form, device) for form in ("theirs", "ours") for device in (None, "cpu")]
    for other in found[1:]:
        if name in ("detector", "aligner"):
            assert other == found[0]
        else:
            for one, two in zip(found[0], other, strict=True):
                np.testing.assert_allclose(one, two, atol=1e-4)
    with pytest.raises(ConfigError, match="no device"):
        use(name, source, "nowhere")


# -- batches and padding ----------------------------------------------------------------------------------------------


def test_voices_of_a_batch(tmp_path: Path) -> None:
    """The reference pads a shorter one with zeros, which changes its vector."""
    expected, source = arrays("campplus"), companion_dir(tmp_path / "voices", "voices")
    feats = [expected["fbank"][:n].astype(np.float32) for n in (148, 90, 148, 31)]
    for device in (None, "cpu"):
        encoder = VoiceEncoder.open(source, device)
        together = encoder.embed(feats)
        for rows, vector in zip(feats, together, strict=True):
            np.testing.assert_allclose(vector, encoder.embed([rows])[0], atol=1e-5)
        np.testing.assert_allclose(together[0], expected["embedding"], atol=1e-4)


def test_a_detector_of_several_streams(tmp_path: Path) -> None:
    with np.load(VAD / "vad_net.npz") as file:
        feats, scores = file["feats"].astype(np.float32), file["scores"]
    network = detector().network
    twin = on_torch(DETECTOR, network.config, network.weights, "cpu")
    np.testing.assert_allclose(twin.step(feats, twin.init_state())[0], scores, atol=1e-5)
    batch = np.zeros((2, 120, feats.shape[1]), np.float32)
    batch[0], batch[1, :50] = feats, feats[:50]
    with torch.no_grad():
        both, _ = twin.model(torch.from_numpy(batch), twin.model.init_state(2))
    np.testing.assert_allclose(both[1, :50], scores[:50], atol=1e-5)
    state, parts = twin.init_state(), []
    for start, end in ((0, 1), (1, 1), (1, 40), (40, 120)):
        part, state = twin.step(feats[start:end], state)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts), scores, atol=1e-5)


# -- published sizes --------------------------------------------------------------------------------------------------


PUBLISHED: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "detector": ("vad/state_dict.tsv", "detector", 24, {}),
    "voices": (
        "speakers/sd_campplus.tsv",
        "voices",
        937,
        {"embedding_size": 192, "growth_rate": 32, "bn_size": 4, "init_channels": 128},
    ),
    "aligner": ("state_dict_aligner.tsv", "aligner", 408, {"output_size": 320, "linear_units": 1280, "num_blocks": 30}),
    "realtime": ("punctuation/sd_ct_punc_realtime.tsv", "realtime", 44, {"num_blocks": 3}),
    "punctuation": ("punctuation/sd_ct_punc_c.tsv", "punctuation", 57, {"num_blocks": 4}),
    "large": ("punctuation/sd_ct_punc_large.tsv", "punctuation", 161, {"attention_heads": 12, "num_blocks": 12}),
}
"""Table of names and shapes, the tiny model of the kind, number of tensors, sizes that the table leaves open."""


def published_dir(path: Path, name: str) -> tuple[Path, dict[str, torch.Tensor]]:
    """A directory of FunASR's with random weights of published size."""
    table, tiny, count, sizes = PUBLISHED[name]
    source = companion_dir(path, tiny)
    with (GOLDEN / table).open(encoding="utf-8") as file:
        shapes = {row["key"]: json.loads(row["shape"]) for row in csv.DictReader(file, delimiter="\t")}
    assert len(shapes) == count
    weights = {key: random_tensor(key, shape) for key, shape in shapes.items()}
    settings = yaml.safe_load((source / "config.yaml").read_text())
    for section in ("model_conf", "encoder_conf"):
        conf = settings.get(section, {})
        conf |= {key: value for key, value in sizes.items() if key in conf}
    if tiny in ("punctuation", "realtime"):
        words, width = shapes["embed.weight"]
        settings["model_conf"] |= {"embed_unit": width, "att_unit": width}
        settings["encoder_conf"] |= {
            "input_size": width,
            "output_size": width,
            "attention_heads": sizes.get("attention_heads", 8),
        }
        settings["encoder_conf"]["linear_units"] = shapes["encoder.encoders0.0.feed_forward.w_1.weight"][0]
        listed = [*tokens(), *(f"word{number}" for number in range(words - len(tokens())))]
        (source / "tokens.json").write_text(json.dumps(listed, ensure_ascii=False), encoding="utf-8")
    if name == "aligner":
        settings["predictor_conf"]["idim"] = 320
    if name == "detector":
        del settings["encoder_conf"]  # the published sizes are what is taken where nothing is said
        settings["encoder_conf"] = {"input_dim": 400}
    (source / "config.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    torch.save(weights, next(path for path in source.iterdir() if path.suffix in (".pt", ".bin")))
    return source, weights


def random_tensor(name: str, shape: list[int]) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith("running_var"):
        return torch.ones(shape)
    return 0.1 * torch.randn(shape) if len(shape) > 1 else torch.rand(shape)


@pytest.mark.parametrize(
    "name",
    ["detector", "voices", "aligner", *(pytest.param(name, marks=pytest.mark.slow) for name in list(PUBLISHED)[3:])],
)
def test_published_sizes(name: str, tmp_path: Path) -> None:
    """Loads, runs, and comes back from our form as it was."""
    source, weights = published_dir(tmp_path / "theirs", name)
    tiny = PUBLISHED[name][1]
    checkpoint.convert(source, tmp_path / "ours")
    assert use(tiny, tmp_path / "ours") is not None
    if tiny not in ("punctuation", "realtime"):
        checkpoint.convert(tmp_path / "ours", tmp_path / "back")
        again = weights_of(tmp_path / "back")
        assert again.keys() == weights.keys()
        assert all(torch.equal(tensor, again[key]) for key, tensor in weights.items())
    else:  # a gigabyte need not be written a third time
        kept = Stored(tmp_path / "ours" / "model.safetensors", mapped=True)
        assert len(kept) == len(weights)
        assert sum(kept[key].size for key in kept) == sum(tensor.numel() for tensor in weights.values())
        assert np.array_equal(kept["embed.weight"], weights["embed.weight"].numpy())
