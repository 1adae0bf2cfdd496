"""Models that listen for hotwords: what they are told of in training, and that they learn from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_goldens import batch_feats, golden
from test_checkpoint_variants import variant_dir
from test_model_hotwords import variant
from test_train_finetune import plan, tones, weights
from training import TEXTS, events, stopping_after

from paraformer.checkpoint import convert, funasr, funasr_directory, open_any
from paraformer.config import SeacoConfig
from paraformer.errors import ConfigError, TrainingError
from paraformer.model.objective import Batch
from paraformer.model.paraformer import Paraformer
from paraformer.train.config import DrawnConfig
from paraformer.train.drawn import drawn, drawn_words, stretches
from paraformer.train.finetune import finetune

__all__ = ["tones"]  # a fixture


@given(
    st.lists(st.lists(st.integers(3, 40), max_size=30), max_size=6),
    st.builds(DrawnConfig, without=st.sampled_from([0.0, 0.25, 1.0]), longest=st.integers(2, 9)),
    st.integers(0, 9),
)
def test_what_is_drawn_was_said(texts: list[list[int]], config: DrawnConfig, seed: int) -> None:
    found = stretches(texts, config, seed)
    assert found == stretches(texts, config, seed)
    assert len(set(found)) == len(found)
    for word in found:
        assert 2 <= len(word) <= config.longest
        assert any(tuple(text[i : i + len(word)]) == word for text in texts for i in range(len(text)))
    if config.without == 1:
        assert found == []
    if config.without == 0:
        assert len(found) > 0 or all(len(text) < 2 for text in texts)


def test_words_of_texts() -> None:
    assert drawn_words(["hello world"], DrawnConfig(without=0), 0) == ["hello world"]
    assert all(any(word in text for text in TEXTS) for word in drawn_words(TEXTS, DrawnConfig(), 1))
    batch = Batch(*batch_feats(), golden("seaco_train")["text"], torch.tensor([8, 5]))
    named = [drawn(batch, DrawnConfig(without=0), 0, number).hotwords for number in (1, 1, 2)]
    assert named[0] == named[1] != named[2]
    with pytest.raises(ConfigError, match="longest"):
        DrawnConfig(longest=1)


def test_hearing_hotwords_is_learnt() -> None:
    """What was said of a word is heard after some steps, and recognition without any is as it was."""
    original = variant("seaco")
    model = Paraformer(original.config)
    model.load_state_dict(original.state_dict())
    model.eval()
    words = [[9, 14, 20], [12, 40]]
    batch = Batch(*batch_feats(), golden("seaco_train")["text"], torch.tensor([8, 5]), hotwords=words)
    optimiser = torch.optim.AdamW(model.hotwords.parameters(), lr=3e-3)
    before = model(batch).total.item()
    for _ in range(25):
        optimiser.zero_grad()
        model(batch).total.backward()
        optimiser.step()
    after = model(batch)

    assert float(after.accuracy) == 1.0
    assert after.total.item() < 0.5 * before
    for one in (original, model):
        one.zero_grad()
    assert original.read(replace(batch, hotwords=None)) == model.read(replace(batch, hotwords=None))


def test_a_seaco_learns_to_hear_hotwords_alone(tones: Path, tmp_path: Path) -> None:
    model = variant_dir(tmp_path / "theirs", "seaco")
    result = finetune(plan(tones, tmp_path / "out", model=model))
    assert result.bundle is not None
    before, after = weights(model), weights(result.bundle)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in changed} == {"hotwords"}
    assert len(changed) > 100
    bundle, _ = open_any(result.bundle)
    assert (bundle.tokens, bundle.config.hotwords) == (
        funasr_directory.read(model).tokens,
        variant("seaco").config.hotwords,
    )
    assert list(bundle.card["errors"]) == ["dev, whole, with hotwords drawn from it"]
    again = funasr.load(convert(result.bundle, tmp_path / "back"))[1].state_dict()
    assert all(torch.equal(again[name], after[name]) for name in after)
    with stopping_after(2):
        assert finetune(plan(tones, tmp_path / "stopped", model=model)).bundle is None
    resumed = finetune(plan(tones, tmp_path / "stopped", model=model))
    assert resumed.bundle is not None
    assert all(torch.equal(tensor, after[name]) for name, tensor in weights(resumed.bundle).items())
    with pytest.raises(ConfigError, match="leave out the low-rank changes"):
        finetune(plan(tones, tmp_path / "low", model=model, lora_rank=2))


@pytest.mark.parametrize("name", ["seaco", "contextual"])
def test_all_of_a_model_learns_where_it_should(name: str, tones: Path, tmp_path: Path) -> None:
    """A Contextual Paraformer, and a SeACo whose settings say that it trains the decoder."""
    model = variant_dir(tmp_path / "theirs", name)
    if name == "seaco":
        bundle, network = funasr.load(model)
        assert isinstance(bundle.config.hotwords, SeacoConfig)
        hotwords = replace(bundle.config.hotwords, trains_decoder=True)
        network.config = replace(bundle.config, hotwords=hotwords)
        funasr.save(replace(bundle, config=network.config), network, model)
    result = finetune(plan(tones, tmp_path / "out", model=model, steps=2))
    assert result.bundle is not None
    before, after = weights(model), weights(result.bundle)
    same = [name for name in before if before[name].shape == after[name].shape]
    parts = {name.split(".")[0] for name in same if not torch.equal(before[name], after[name])}
    assert parts == {"encoder", "predictor", "decoder", "hotwords"}
    assert all(event["total"] > 0 for event in events(tmp_path / "out") if "total" in event)


def test_the_gate_asks_what_texts_and_sounds_have_to_do_with_each_other(tones: Path, tmp_path: Path) -> None:
    """Of the recogniser, whatever the run will train: random weights learn nothing in six steps."""
    for name in ("seaco", "contextual"):
        with pytest.raises(TrainingError, match="were not learnt in 6 steps"):
            finetune(plan(tones, tmp_path / name, model=variant_dir(tmp_path / f"m-{name}", name), gate=True))
