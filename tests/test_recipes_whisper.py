"""The stages of the model on Whisper's encoder, on a crumb of text and of data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from test_checkpoint_whisper import written
from training import CONFIG, TEXTS, prepared

from paraformer.checkpoint import native, whisper
from paraformer.config import ChunkConfig, SanmDecoderConfig
from paraformer.errors import CheckpointError
from paraformer.model.paraformer import Paraformer
from paraformer.train.loop import train
from recipes import live, quiet, reading, stages, texts, whisper_zh


def test_syllables_are_taken_for_those_that_sound_like_them() -> None:
    units = ["shi4", "shi2", "si4", "zhi4", "ma1", "lin2", "ling2"]
    ids, sums = reading.alike([*units, "zhong1", "zong1"])
    assert {units[index - 1] for index in ids[1][:2]} == {"shi2", "si4"}
    assert units[ids[6][0] - 1] == "ling2"
    np.testing.assert_allclose(sums[:, -1], 1)


def test_what_is_heard_is_a_probability() -> None:
    """The right syllable has most of it in most places."""
    units = ["shi4", "shi2", "si4", "zhi4", "ma1", "lin2", "ling2", "zhong1", "zong1"]
    hearing = reading.Hearing(reading.alike(units), np.random.default_rng(0))
    syllables = np.random.default_rng(1).integers(1, 10, (40, 12))
    heard = hearing(syllables)
    np.testing.assert_allclose(heard.sum(-1), 1, atol=1e-5)
    assert not heard[..., 0].any()
    assert 0.75 < (heard.argmax(-1) == syllables).mean() < 0.95


def test_batches_hold_clauses_of_like_length(tmp_path: Path) -> None:
    lines = ["一二三四五六七八九十", "一二，三", "四五六"] * 12
    (tmp_path / "text").write_text("\n".join(lines), encoding="utf-8")
    tokens, units, found = reading.read([tmp_path / "text"])
    assert len(tokens) == 14
    assert units[0] == "ba1"
    for seed in range(5):
        characters, syllables, lengths = reading.batch(found, 60, np.random.default_rng(seed))
        assert characters.shape == syllables.shape == (len(lengths), lengths.max())
        assert characters.size <= 60
        for row, sound, length in zip(characters, syllables, lengths, strict=True):
            text = "".join(tokens[index] for index in row[:length])
            assert text in "".join(lines).replace("，", "")
            assert text[0] in "一三四"
            assert text[-1] in "十二三六"
            assert [units[index - 1] for index in sound[:length]] == reading.syllables_of(text)


def test_all_stages_on_a_crumb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text part from text, head on a frozen encoder, everything, and part of the way back."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "whisper"
    source.mkdir()
    (tmp_path / "text").write_text("\n".join(TEXTS * 30), encoding="utf-8")
    encoder = whisper.settings(written("openai", source))
    reading.main([str(source), "runs/reading", "text", "--steps", "60", "--size", "200"])
    begun = native.load("runs/reading")[1]
    assert isinstance(begun.config.decoder, SanmDecoderConfig)
    with torch.no_grad():
        units = native.load("runs/reading")[0].units
        said = [units.index(sound) + 1 for sound in ("yi1", "er4", "san1")]
        probabilities = torch.zeros(1, 3, len(units) + 1).scatter(2, torch.tensor(said)[None, :, None], 1.0)
        ids = begun.decoder.characters(probabilities, torch.ones(1, 3, dtype=torch.bool)).argmax(-1)[0].tolist()
    assert [native.load("runs/reading")[0].tokens[index] for index in ids] == ["一", "二", "三"]

    data = prepared(tmp_path / "speech")
    small = dataclasses.replace(CONFIG, model=whisper_zh.sized(encoder), steps=2, measure_steps=2, live=None)
    head = dataclasses.replace(small, init="runs/reading", frozen=whisper_zh.HEARD)
    outcome = train(head, data, Path("runs/head"))
    found = outcome.model.state_dict()
    moved = {name for name, tensor in begun.state_dict().items() if not torch.equal(tensor, found[name])}
    assert moved
    assert not any(name.startswith(whisper_zh.HEARD) for name in moved)


def test_part_of_the_way(tmp_path: Path) -> None:
    """Only the encoder goes back, and only as far as asked; models of two kinds have nothing between them."""
    source = tmp_path / "whisper"
    source.mkdir()
    (tmp_path / "text").write_text("一二三\n" * 9, encoding="utf-8")
    written("openai", source)
    arguments = [str(source), str(tmp_path / "a"), str(tmp_path / "text"), "--steps", "1"]
    reading.main(arguments)
    bundle, model = native.load(tmp_path / "a")
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1
    native.save(bundle, model, tmp_path / "b")
    whisper_zh.main(["back", *(str(tmp_path / name) for name in "abc"), "--share", "0.25"])
    first, between = (native.load(tmp_path / name)[1].state_dict() for name in ("a", "c"))
    for name, tensor in between.items():
        share = 0.25 if name.startswith(whisper_zh.HEARD) else 1.0
        torch.testing.assert_close(tensor, first[name] + share)
    whisper_zh.main(["mean", *(str(tmp_path / name) for name in "abd"), "--share", "0.25"])
    for name, tensor in native.load(tmp_path / "d")[1].state_dict().items():
        torch.testing.assert_close(tensor, first[name] + 0.25)
    other = tmp_path / "other"
    (tmp_path / "text").write_text("一二三四\n" * 9, encoding="utf-8")
    reading.main([str(source), str(other), str(tmp_path / "text"), "--steps", "1"])
    with pytest.raises(CheckpointError, match="nothing lies between"):
        whisper_zh.between(tmp_path / "a", other, tmp_path / "e", 0.5)


def test_the_predictor_grows_quiet_and_nothing_else_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "whisper"
    source.mkdir()
    (tmp_path / "text").write_text("一二三\n" * 9, encoding="utf-8")
    written("openai", source)
    reading.main([str(source), str(tmp_path / "a"), str(tmp_path / "text"), "--steps", "1"])
    data = prepared(tmp_path / "speech")
    monkeypatch.setattr(quiet, "TRAIN_SETS", ("tones",))
    monkeypatch.setattr(quiet, "NOISES", "dev")
    monkeypatch.setattr(quiet, "COLOURED", 6)
    monkeypatch.setattr(quiet, "SPEECH", 8)
    quiet.main([str(tmp_path / "a"), str(tmp_path / "b"), "--data", str(data), "--steps", "3"])
    before, after = (native.load(tmp_path / name)[1].state_dict() for name in "ab")
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved == {name for name in before if name.startswith("predictor.")}


def test_a_model_learns_to_hear_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a crumb; what is held stays."""
    source = tmp_path / "whisper"
    source.mkdir()
    (tmp_path / "text").write_text("\n".join(TEXTS * 30), encoding="utf-8")
    written("openai", source)
    reading.main([str(source), str(tmp_path / "a"), str(tmp_path / "text"), "--steps", "1"])
    data = prepared(tmp_path / "speech")
    monkeypatch.setattr(live, "TRAIN_SETS", ("tones",))
    monkeypatch.setattr(live, "NOISES", "dev")
    arguments = ["--data", str(data), "--steps", "3", "--seconds", "10", "--rate", "1e-3"]
    live.main([str(tmp_path / "a"), str(tmp_path / "b"), *arguments])
    before, after = (native.load(tmp_path / name)[1].state_dict() for name in "ab")
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {"predictor.conv.weight", "encoder.norm.weight"} <= moved
    assert not any(name.startswith(live.HELD) for name in moved)


def test_windows_of_live_steps_in_the_order_of_time() -> None:
    """The places of committed windows are those of windows 0, 1, ... of the audio."""
    model = Paraformer(tiny.config("whisper")).eval()
    chunk = live.LIVE
    feats, lengths = torch.randn(2, 33, model.encoder.input_dim), torch.tensor([33, 24])
    with torch.no_grad():
        encoded = model.encode(feats, lengths, chunk)
    places = live.in_time(encoded, lengths, chunk)
    windows = places // chunk.rows * chunk.chunk - chunk.context + places % chunk.rows
    for row, length in zip(windows, lengths.tolist(), strict=True):
        assert row[:length].tolist() == list(range(length))


def test_one_step_over_all_is_the_whole() -> None:
    """What a listener hears in a single step without context is what it hears whole."""
    listener = live.Listener(Paraformer(tiny.config("whisper")).eval())
    model = listener.model
    feats, lengths = torch.randn(2, 33, model.encoder.input_dim), torch.tensor([33, 24])
    at_once = ChunkConfig(left=0, chunk=40, right=0, encoder_look_back=0, decoder_look_back=1)
    with torch.no_grad():
        whole, counts = listener.hear(feats, lengths, None)
        step, _ = listener.hear(feats, lengths, at_once, counts)
    assert all(float(part) < 1e-6 for part in live.apart(step, whole, lengths, counts).values())


def test_a_quiet_predictor_says_the_same_of_speech() -> None:
    """A convolution's worth of predictor, noises of one kind of rows and speech of another: it learns to part them."""
    torch.manual_seed(0)
    predictor = Paraformer(tiny.config("published")).predictor.eval()
    dim = predictor.conv.weight.shape[1]
    noises, speech = torch.randn(30, 12, dim) - 1, torch.randn(30, 12, dim) + 1
    with torch.no_grad():
        said = [quiet.weights_of(predictor, [one])[0] for one in speech]
    clips = quiet.Clips(list(noises), list(speech), said)
    counted = quiet.weights_of(predictor, clips.noises).sum(-1).mean()
    quiet.learn(predictor, [clips], 60, np.random.default_rng(0), rate=1e-2)
    with torch.no_grad():
        assert quiet.weights_of(predictor, clips.noises).sum(-1).mean() < 0.2 * counted
        assert (quiet.weights_of(predictor, clips.speech) - torch.stack(said)).abs().sum(-1).mean() < 0.2 * counted


def test_what_is_packed_comes_back(tmp_path: Path) -> None:
    source = tmp_path / "whisper"
    source.mkdir()
    (tmp_path / "text").write_text("一二三\n" * 9, encoding="utf-8")
    written("openai", source)
    reading.main([str(source), str(tmp_path / "a"), str(tmp_path / "text"), "--steps", "1"])
    bundle, model = native.load(tmp_path / "a")
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * torch.randn_like(weight)
    native.save(bundle, model, tmp_path / "b")
    stages.main(["pack", str(tmp_path / "b"), str(source), str(tmp_path / "kept" / "b")])
    stages.main(["unpack", str(tmp_path / "kept" / "b"), str(source), str(tmp_path / "again")])
    again, found = native.load(tmp_path / "again")
    assert (again.tokens, again.units, again.config) == (bundle.tokens, bundle.units, bundle.config)
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=2e-3, rtol=1e-3)


def test_clauses_of_texts() -> None:
    """Numbers are read out, and lines that cannot be are left out, with those that hold letters or tables."""

    def read_out(line: str) -> str:
        if "7" in line:
            raise ValueError("no such number")
        return line.replace("3", "三")

    lines = ["有3个人，来了。", "第7页", "看CNN", "1 2 3 4 5", "这句话在测试里，别的不在"]
    assert list(texts.clauses(lines, read_out, "甲这句话在测试里乙\n来了")) == ["有三个人", "来了", "别的不在"]
