"""Encoders that begin as Whisper's: several rows to a window, whole, live, and in every engine that can."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_goldens import close
from test_model_laws import check_same_step, chunks, live, noise, pad, tokens_of, undecided
from torch import Tensor
from torch.nn import functional as F

from paraformer.backends.base import Backend
from paraformer.backends.torch import TorchBackend
from paraformer.bundle import Bundle
from paraformer.certificate.foreign import ForeignBackend, row_scale
from paraformer.certificate.record import Form
from paraformer.checkpoint import funasr_writer
from paraformer.config import (
    EOS_ID,
    ChunkConfig,
    FrontConfig,
    ModelConfig,
    ObjectiveConfig,
    SanmEncoderConfig,
    TrainingChunk,
)
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.export.directories import write
from paraformer.export.foreign import LiveEncoderGraph
from paraformer.frontend import Cmvn
from paraformer.model.layers import length_mask, sinusoid
from paraformer.model.objective import Batch, unit_targets
from paraformer.model.paraformer import Paraformer

FRONT = FrontConfig(kernels=(4, 3), strides=(1, 2))


def config(front: FrontConfig = FRONT, kernel: int = 0) -> ModelConfig:
    """A streaming model with three rows of width 16 to a window of width 12, and a decoder with a text part."""
    whisper = tiny.config("whisper")
    assert isinstance(whisper.encoder, SanmEncoderConfig)
    return dataclasses.replace(whisper, encoder=dataclasses.replace(whisper.encoder, front=front, kernel=kernel))


@cache
def model(kernel: int = 0, period: int = 0) -> Paraformer:
    torch.manual_seed(1)
    made = Paraformer(config(dataclasses.replace(FRONT, period=period), kernel=kernel)).eval()
    with torch.no_grad():
        made.predictor.output.weight.mul_(4.0)
        made.decoder.output.weight.mul_(6.0)
    return made


# -- what is computed -------------------------------------------------------------------------------------------------


def whisper_rows(encoder: torch.nn.Module, frames: Tensor, heads: int) -> Tensor:
    """Whisper's encoder written down once more: frames (T, 80) -> rows (T / 2, D)."""
    state = encoder.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = F.gelu(F.conv1d(frames.T[None], state["front.convs.0.weight"], state["front.convs.0.bias"], padding=1))
    x = F.gelu(F.conv1d(x, state["front.convs.1.weight"], state["front.convs.1.bias"], stride=2, padding=1))[0].T
    half = x.shape[1] // 2
    angles = torch.arange(len(x))[:, None] * torch.exp(-math.log(10000) / (half - 1) * torch.arange(half))
    x = x + torch.cat([angles.sin(), angles.cos()], 1)
    for index in range(len(encoder.blocks)):
        at = f"blocks.{index}"
        parts = linear(norm(x, f"{at}.norm1"), f"{at}.attention.qkv").chunk(3, -1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in parts)
        context = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        x = x + linear(context, f"{at}.attention.out")
        x = x + linear(F.gelu(linear(norm(x, f"{at}.norm2"), f"{at}.feed_forward.up")), f"{at}.feed_forward.down")
    return norm(x, "norm")


@given(windows=st.integers(1, 20), seed=st.integers(0, 9))
@torch.no_grad()
def test_rows_are_whisper_s(windows: int, seed: int) -> None:
    """With its kernels, a convolutional front, GELU and no memory make Whisper's encoder of the windows' frames."""
    torch.manual_seed(seed)
    encoder = Paraformer(config(FrontConfig())).eval().encoder
    feats = noise(windows, seed=seed)
    rows, _, _ = encoder.run(encoder.embed(feats[None]))
    close(rows[0], whisper_rows(encoder, feats[:, :480].reshape(-1, 80), heads=2), 1e-5)


@torch.no_grad()
def test_positions_begin_again_after_a_period() -> None:
    encoder = model(period=6).encoder
    start = torch.tensor([1, 3])
    near = encoder.embed(noise(2, seed=1)[None].repeat(2, 1, 1), start)
    close(near[0], near[1], 1e-6)
    far = model().encoder.embed(noise(2, seed=1)[None].repeat(2, 1, 1), start)
    assert (far[0] - far[1]).abs().max() > 0.1


# -- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, ChunkConfig(left=2, chunk=3, right=2, encoder_look_back=2)])
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=3), extra=st.integers(0, 5), seed=st.integers(0, 9))
@settings(max_examples=15)
@torch.no_grad()
def test_a_row_is_the_same_alone(chunk: ChunkConfig | None, lengths: list[int], extra: int, seed: int) -> None:
    rows = [noise(length, seed=seed + index) for index, length in enumerate(lengths)]
    together = model(3).recognize(*pad(rows, extra), chunk)
    for index, row in enumerate(rows):
        alone = model(3).recognize(*pad([row]), chunk)
        if not undecided(alone):
            count = int(alone.counts)
            assert int(together.counts[index]) == count
            close(together.embeds[index, :count], alone.embeds[0], 1e-4)
            close(together.log_probs[index, :count], alone.log_probs[0], 1e-3)


@given(chunk=chunks, lengths=st.lists(st.integers(1, 20), min_size=1, max_size=2), seed=st.integers(0, 9))
@settings(max_examples=25)
@torch.no_grad()
def test_windows_equal_live_steps(chunk: ChunkConfig, lengths: list[int], seed: int) -> None:
    rows = [noise(length, seed=seed + index) for index, length in enumerate(lengths)]
    whole = model(period=9).recognize(*pad(rows), chunk)
    if undecided(whole):
        return
    for index, row in enumerate(rows):
        expected = tokens_of(live(model(period=9), row, chunk)[0])
        assert int(whole.counts[index]) == len(expected)
        close(whole.log_probs[index, : len(expected)], expected, 1e-3)


@given(chunk=chunks, lengths=st.lists(st.integers(0, 9), min_size=2, max_size=3), seed=st.integers(0, 9))
@settings(max_examples=15)
@torch.no_grad()
def test_streams_that_step_together(chunk: ChunkConfig, lengths: list[int], seed: int) -> None:
    """The first step of several streams of unequal lengths is what each computes alone."""
    rows = [noise(length, seed=seed + index) for index, length in enumerate(lengths)]
    alone = [live(model(), row, chunk)[0] for row in rows]
    feats = [row[: chunk.chunk] for row in rows]
    final = torch.tensor([len(outputs) == 1 for outputs in alone])
    output, _ = model().step(*pad(feats), final, model().init_state(len(rows), chunk), chunk)
    for place, outputs in enumerate(alone):
        check_same_step(output, place, outputs[0], len(feats[place]) + chunk.context)


def test_gradients_reach_every_parameter() -> None:
    made = Paraformer(dataclasses.replace(config(), objective=ObjectiveConfig(ctc_weight=0.3, ctc_units=7))).train()
    feats, lengths = pad([noise(30, seed=1), noise(17, seed=2)])
    targets, units = torch.tensor([[5, 9, 7, 3], [8, 4, -1, -1]]), torch.tensor([[1, 2, 3, 4], [5, 6, -1, -1]])
    batch = Batch(feats, lengths, targets, torch.tensor([4, 2]), units, torch.tensor([4, 2]))
    chunk = ChunkConfig(left=2, chunk=3, right=2, encoder_look_back=2)
    for form in (None, chunk):
        made.zero_grad()
        made(batch, form, torch.Generator().manual_seed(1)).total.backward()
        silent = [name for name, value in made.named_parameters() if value.grad is None or not value.grad.any()]
        assert set(silent) <= {"decoder.embed.weight"}


@torch.no_grad()
def test_units_count_where_every_token_has_one() -> None:
    """The second utterance has three units for two tokens, so its units say nothing."""
    targets, units = torch.tensor([[5, 9, 7, 3], [8, 4, -1, -1]]), torch.tensor([[1, 2, 3, 4], [5, 6, 1, -1]])
    batch = Batch(*pad([noise(30, seed=1)] * 2), targets, torch.tensor([4, 2]), units, torch.tensor([4, 3]))
    assert unit_targets(batch, 5).tolist() == [[1, 2, 3, 4, -1], [-1] * 5]
    assert unit_targets(dataclasses.replace(batch, ctc_targets=None), 2).tolist() == [[-1, -1]] * 2
    made, totals = model(), []
    for weight in (0.0, 1.0):
        made.config = dataclasses.replace(config(), objective=ObjectiveConfig(units_weight=weight))
        totals.append(made(batch, generator=torch.Generator().manual_seed(1)).total)
    made.config = config()
    assert totals[1] > totals[0] + 1


@torch.no_grad()
def test_characters_depend_on_units_alone() -> None:
    """What the text part makes of the units' probabilities is what the whole decoder makes."""
    decoder = model().decoder
    memory, embeds, mask = noise(7, seed=1, width=12)[None], noise(5, seed=2, width=12)[None], torch.ones(1, 5).bool()
    logits, units = decoder.scores(memory, None, embeds, mask)
    close(decoder.characters(units.softmax(-1), mask), logits, 1e-5)


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=5), seed=st.integers(0, 9))
@torch.no_grad()
def test_decoder_stepping_equals_whole_under_the_steps(counts: list[int], seed: int) -> None:
    """Tokens see later ones of their own step, and no others."""
    decoder, tokens = model().decoder, sum(counts)
    memory, embeds = noise(7, seed=seed, width=12)[None], noise(tokens, seed=seed + 1, width=12)[None]
    mask, state, logits, begin = torch.ones(1, 7, dtype=torch.bool), decoder.init_state(1, 12, 0), [], 0
    for count in counts:
        step, _, state = decoder.step(memory, mask, embeds[:, begin : begin + count], torch.tensor([count]), state)
        logits.append(step)
        begin += count
    steps = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))[None]
    whole = decoder(memory, mask[:, None], embeds, torch.ones(1, tokens, dtype=torch.bool), steps)
    close(torch.cat(logits, 1), whole, 1e-4)


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_survive_json() -> None:
    again = ModelConfig.from_dict(json.loads(json.dumps(config().to_dict())))
    assert again == config()
    assert again.rows_per_window == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front": {"kernels": [3], "strides": [4], "period": 0}}, "between 1 and its kernel"),
        ({"front": {"kernels": [3, 3], "strides": [2], "period": 0}}, "as many strides as kernels"),
        ({"front": {"kernels": [4], "strides": [4], "period": 0}}, "needs windows of a multiple"),
        ({"front": {"kernel": 3}}, "unknown setting in encoder.front"),
        ({"windows": None}, "3 rows to a window need"),
        ({"windows": {**dataclasses.asdict(tiny.WINDOWS), "dim": 16, "heads": 3}}, "multiple of their 3 heads"),
    ],
)
def test_impossible_settings(change: dict[str, object], message: str) -> None:
    values = config().to_dict()
    values["encoder"] |= change
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(values)


def test_funasr_cannot_say_it() -> None:
    with pytest.raises(UnsupportedModel, match="keep it in our own format"):
        funasr_writer.check_parts(config())


def test_what_a_front_does_not_know() -> None:
    with pytest.raises(ConfigError, match="training_chunks"):
        dataclasses.replace(config(), training_chunks=(TrainingChunk(size=12, stride=8),))
    with pytest.raises(ConfigError, match="middle_ctc_weight"):
        dataclasses.replace(config(), objective=ObjectiveConfig(ctc_weight=0.1, middle_ctc_weight=0.1))
    with pytest.raises(ConfigError, match="use live chunks"):
        model().encode(noise(5, seed=1)[None], torch.tensor([5]), TrainingChunk(size=12, stride=8))


def ids(backend: Backend, feats: np.ndarray, chunk: ChunkConfig) -> list[int]:
    """All tokens of a stream."""
    states, found = [backend.init_state(chunk)], []
    for begin in range(0, len(feats) + 1, chunk.chunk):
        step, states = backend.step(
            [feats[begin : begin + chunk.chunk]], [begin + chunk.chunk > len(feats)], states, chunk
        )
        found += step[0].ids.tolist()
    return found


@pytest.mark.parametrize("runtime", ["sherpa-onnx", "funasr-onnx"])
def test_other_runtimes_need_not_know(runtime: Literal["sherpa-onnx", "funasr-onnx"], tmp_path: Path) -> None:
    cmvn = Cmvn(np.zeros(560, np.float32), np.ones(560, np.float32))
    rows = noise(40, seed=1).numpy()
    for live_form in (False, True):
        form = Form(runtime=runtime, live=live_form)
        write(Bundle(None, config(), tiny.TOKENS, cmvn), model(), tmp_path, form)
        runs = ForeignBackend(tmp_path, form, config(), 1)
        if live_form:
            assert ids(runs, rows, form.chunk(config()))
        else:
            (got,), (expected,) = runs.whole([rows]), TorchBackend(model()).whole([rows])
            assert got.ids[got.ids > EOS_ID].tolist() == expected.ids[expected.ids > EOS_ID].tolist()


@torch.no_grad()
def test_live_graphs_of_other_runtimes_take_the_scale_back() -> None:
    """And the positions that the runtime adds, from which they tell where the step begins."""
    rows, lengths = pad([noise(20, seed=1), noise(13, seed=2)])
    scale = 12**0.5 * torch.from_numpy(row_scale(model().config))
    added = sinusoid(torch.arange(1, 21).expand(2, 20), rows.shape[2])
    enc, _, alphas = LiveEncoderGraph(model())(rows * scale + added, lengths)
    hidden, _, _ = model().encoder.look_back(rows, length_mask(lengths, 20), torch.ones(2, dtype=torch.int64), None)
    close(enc, hidden, 1e-5)
    assert not alphas[1, 13:].any()
