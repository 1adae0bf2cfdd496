"""One step of the optimiser: batches that stand for a larger one, and steps that go wrong."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training import CONFIG, MODEL

from paraformer.errors import TrainingError
from paraformer.model.objective import Batch
from paraformer.model.paraformer import Paraformer
from paraformer.train.batches import Piece, grouped
from paraformer.train.checkpoints import Progress
from paraformer.train.config import BadStepConfig, TrainConfig
from paraformer.train.step import Stepper, Taken, bad, build_optimiser, judge

VOCABULARY = 9
QUIET = dataclasses.replace(
    MODEL,
    vocab_size=VOCABULARY,
    encoder=dataclasses.replace(MODEL.encoder, dropout=0.0, attention_dropout=0.0),
    decoder=dataclasses.replace(MODEL.decoder, dropout=0.0, attention_dropout=0.0),
    predictor=dataclasses.replace(MODEL.predictor, dropout=0.0),
    objective=dataclasses.replace(MODEL.objective, sampling_ratio=0.0),
)
"""Without random choices, so that a batch may be divided."""


def batch(lengths: list[int], targets: list[int], seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    feats = torch.randn(len(lengths), max(lengths), MODEL.frontend.input_dim, generator=generator)
    ids = torch.randint(3, VOCABULARY, (len(lengths), max(targets)), generator=generator)
    absent = torch.arange(max(targets))[None] >= torch.tensor(targets)[:, None]
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    feats, ids = feats * mask[..., None], ids.masked_fill(absent, -1)
    return Batch(feats, torch.tensor(lengths), ids, torch.tensor(targets))


def pieces_of(*batches: Batch) -> list[Piece]:
    return [Piece(b, 0, i, tuple(f"{i}-{row}" for row in range(len(b.lengths)))) for i, b in enumerate(batches)]


def stepper(config: TrainConfig = CONFIG, model=QUIET) -> Stepper:
    torch.manual_seed(0)
    network = Paraformer(model)
    optimiser = build_optimiser(network, config.optimiser)
    return Stepper(config, network, optimiser, np.random.Generator(np.random.SFC64(0)))


def rows(whole: Batch, index: slice) -> Batch:
    """Some utterances of a batch, without the padding that only the others need."""
    windows, tokens = int(whole.lengths[index].max()), int(whole.target_lengths[index].max())
    return Batch(
        whole.feats[index, :windows], whole.lengths[index], whole.targets[index, :tokens], whole.target_lengths[index]
    )


@given(cut=st.integers(1, 3), per_token=st.booleans())
def test_pieces_count_as_the_batch_they_make(cut: int, per_token: bool) -> None:
    """However a batch is divided, among pieces here or among processes, loss and gradient are those of the whole."""
    objective = dataclasses.replace(QUIET.objective, length_normalized=per_token)
    config = dataclasses.replace(CONFIG, precision="float32", live=None)
    whole = batch([9, 4, 12, 7], [2, 1, 4, 3])
    gradients, losses = [], []
    for parts in ([whole], [rows(whole, slice(0, cut)), rows(whole, slice(cut, 4))]):
        one = stepper(config, dataclasses.replace(QUIET, objective=objective))
        one.optimiser.zero_grad()
        losses.append(one._accumulate(pieces_of(*parts), 0)["total"])
        gradients.append({name: p.grad for name, p in one.model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    if not per_token:
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_step_that_is_not_finite_names_the_utterance_and_changes_nothing() -> None:
    one, progress = stepper(), Progress()
    one.step(pieces_of(batch([9, 8], [2, 3])), progress)
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    sound, broken = batch([5, 6], [1, 2]), batch([7, 8, 6], [2, 2, 1])
    broken.feats[1, 3, 5] = math.nan
    taken = one.step(pieces_of(sound, broken), progress)
    assert taken.suspects == ("1-1",)
    assert (progress.bad, progress.skipped) == (1, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in one.model.state_dict().items())
    assert one.step(pieces_of(sound), progress).suspects == ()
    assert (progress.bad, progress.skipped) == (0, 1)


def test_a_divergent_step_names_the_worst_utterance() -> None:
    progress = Progress(norm=1e-6)
    taken = stepper().step(pieces_of(batch([20, 4], [12, 1])), progress)
    assert len(taken.suspects) == 1
    assert progress.norm == 1e-6


def test_what_is_bad() -> None:
    assert bad(math.nan, None, 100.0)
    assert bad(math.inf, 1.0, 100.0)
    assert bad(101.0, 1.0, 100.0)
    assert not bad(1e9, None, 100.0)
    assert not bad(99.0, 1.0, 100.0)


def test_a_bad_step_ends_the_run_where_it_should() -> None:
    taken = Taken({}, 0.1, math.nan, ("speaker-7",))
    judge(taken, Progress(step=3, bad=2), BadStepConfig(in_a_row=3))
    with pytest.raises(TrainingError, match=r"3 bad steps in a row.*speaker-7"):
        judge(taken, Progress(step=3, bad=3), BadStepConfig(in_a_row=3))
    with pytest.raises(TrainingError, match=r"after step 3.*nan.*speaker-7"):
        judge(taken, Progress(step=3, bad=1), BadStepConfig(action="stop"))


@given(st.lists(st.integers()), st.integers(1, 5))
def test_groups_are_full(items: list[int], count: int) -> None:
    groups = list(grouped(iter(items), count))
    assert [item for group in groups for item in group] == items[: len(items) // count * count]
    assert all(len(group) == count for group in groups)
