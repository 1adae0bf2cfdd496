from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_goldens import close, closed_form_integrate, golden, loop_integrate
from torch import Tensor
from torch.nn import functional as F

from paraformer.config import PredictorConfig
from paraformer.model import cif
from paraformer.model.cif import CifState, Predictor
from paraformer.model.layers import length_mask

# -- laws -------------------------------------------------------------------------------------------------------------


@st.composite
def weighted_rows(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """hidden (B, T, 4), weights (B, T) between 0 and 1."""
    batch, frames, seed = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(batch, frames, generator=generator)
    weights = weights * (torch.rand(batch, frames, generator=generator) < draw(st.floats(0.1, 1.0)))
    return torch.randn(batch, frames, 4, generator=generator), weights


def zero_state(hidden: Tensor) -> CifState:
    return CifState(torch.zeros(hidden.shape[0]), torch.zeros(hidden.shape[0], hidden.shape[2]))


@given(rows=weighted_rows(), cut=st.integers(0, 40))
def test_stepping_equals_whole(rows: tuple[Tensor, Tensor], cut: int) -> None:
    hidden, weights = rows
    counts = cif.token_counts(weights)
    whole = cif.integrate(hidden, weights, int(counts.max()))
    first, first_counts, state = cif.step(hidden[:, :cut], weights[:, :cut], zero_state(hidden))
    second, second_counts, state = cif.step(hidden[:, cut:], weights[:, cut:], state)
    near = (weights.double().sum(-1) - weights.double().sum(-1).round()).abs() < 1e-5
    for row in range(len(weights)):
        got = torch.cat([first[row, : first_counts[row]], second[row, : second_counts[row]]])
        if not near[row] and not near_whole(weights[row, :cut]):
            close(got, whole[row, : counts[row]], 1e-4)
            close(state.weight[row], weights[row].sum() - counts[row], 1e-4)


def near_whole(weights: Tensor) -> bool:
    """Whether the sum is a whole number but for rounding, where a token may fall on either side of a cut."""
    total = float(weights.double().sum())
    return abs(total - round(total)) < 1e-5


@given(rows=weighted_rows())
def test_nothing_is_lost_or_counted_twice(rows: tuple[Tensor, Tensor]) -> None:
    hidden, weights = rows
    tokens = int(weights.sum(-1).max().ceil()) + 1
    close(cif.integrate(hidden, weights, tokens).sum(1), (weights[..., None] * hidden).sum(1), 1e-3)
    ones = cif.integrate(torch.ones_like(hidden), weights, tokens)[..., 0]
    for row, count in enumerate(cif.token_counts(weights)):
        close(ones[row, :count], torch.ones(int(count)), 1e-4)


@given(rows=weighted_rows(), padding=st.integers(1, 5))
def test_padding_and_neighbours_change_nothing(rows: tuple[Tensor, Tensor], padding: int) -> None:
    hidden, weights = rows
    padded = cif.integrate(F.pad(hidden, (0, 0, 0, padding), value=7.0), F.pad(weights, (0, padding)), 5)
    for row in range(len(weights)):
        close(padded[row], cif.integrate(hidden[row : row + 1], weights[row : row + 1], 5)[0], 1e-5)


@given(rows=weighted_rows())
def test_equals_the_recurrence_and_the_closed_form(rows: tuple[Tensor, Tensor]) -> None:
    hidden, weights = rows
    counts = cif.token_counts(weights)
    tokens = int(counts.max())
    ours = cif.integrate(hidden, weights, tokens)
    for reference in (closed_form_integrate, loop_integrate):
        theirs = reference(hidden, weights, tokens + 1)
        for row, count in enumerate(counts.tolist()):
            if not near_whole(weights[row]):
                close(ours[row, :count], theirs[row, :count], 1e-4)


@given(rows=weighted_rows())
def test_a_token_fires_where_the_sum_reaches_it(rows: tuple[Tensor, Tensor]) -> None:
    _, weights = rows
    counts = cif.token_counts(weights)
    frames, sums = cif.firing_frames(weights, max(int(counts.max()), 1)), cif.running_sum(weights)
    for row, count in enumerate(counts.tolist()):
        for token, frame in enumerate(frames[row, :count].tolist()):
            assert sums[row, frame] >= token + 1
            assert frame == 0 or sums[row, frame - 1] < token + 1


def test_the_last_token_of_a_training_target_is_never_lost() -> None:
    """Weights scaled to sum to 12: the reference's rounding drops the last token of every few utterances (spec 3.2)."""
    lengths = torch.full((200,), 12)
    weights = cif.scale_to_targets(torch.rand(200, 40, generator=torch.Generator().manual_seed(0)), lengths)
    hidden = torch.ones(200, 40, 1)
    close(cif.integrate(hidden, weights, 12), torch.ones(200, 12, 1), 1e-4)
    assert (loop_integrate(hidden, weights, 12)[:, -1] == 0).any()
    assert (closed_form_integrate(hidden, weights, 12)[:, -1] == 0).any()


@given(rows=weighted_rows())
def test_the_dynamic_threshold_leaves_nothing_over(rows: tuple[Tensor, Tensor]) -> None:
    """The count is the rounded sum, every token takes the same share of the weights, and the last one always fires."""
    hidden, weights = rows
    predictor = Predictor(PredictorConfig(threshold="dynamic"), hidden.shape[2])
    lengths = torch.full((len(weights),), weights.shape[1])
    _, scaled, counts = predictor.complete(hidden, weights, lengths)
    assert ((counts - weights.double().sum(-1)).abs() <= 0.5).all()
    filled = cif.integrate(torch.ones_like(hidden), scaled, int(counts.max()))[..., 0]
    for row, count in enumerate(counts.tolist()):
        close(filled[row, :count], torch.ones(count), 1e-3)
        close(scaled[row], weights[row] * count / weights[row].sum().clamp(min=1e-6), 1e-5)


def test_gradients_reach_weights_and_rows() -> None:
    hidden, weights = torch.randn(1, 6, 3, dtype=torch.double), torch.full((1, 6), 0.45, dtype=torch.double)
    inputs = (hidden.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(lambda h, w: cif.integrate(h, w, 2), inputs)


def test_a_pause_ends_a_token_that_the_end_would_end_too() -> None:
    predictor = Predictor(PredictorConfig(pause_weight=0.1), 4)
    state = CifState(torch.tensor([0.6, 0.5, 0.99, 0.6, 0.98]), torch.ones(5, 4))
    weights = torch.tensor([[0.0, 0.05], [0.0, 0.04], [0.0, 0.0], [0.05, 0.06], [0.05, 0.0]])
    assert predictor.paused(weights, 10, state).tolist() == [True, False, True, False, False]  # the last ends by itself
    assert not predictor.paused(weights, 4, state).any(), "silence within a word"
    assert not Predictor(PredictorConfig(), 4).paused(weights * 0, 10, state).any(), "FunASR's models wait"


@pytest.mark.parametrize("version", [1, 2])
def test_predictor_rows_are_independent_of_padding(version: int) -> None:
    predictor = Predictor(PredictorConfig(version=version), 8).eval()  # type: ignore[arg-type]
    hidden, lengths = torch.randn(2, 9, 8), torch.tensor([9, 5])
    mask = length_mask(lengths, 9)
    weights = predictor(hidden * mask[..., None], mask)
    close(weights[1, :5], predictor(hidden[1:, :5])[0], 1e-6)
    assert not weights[1, 5:].any()


# -- goldens ----------------------------------------------------------------------------------------------------------


def golden_predictor(smooth_factor: float = 1.0, noise_threshold: float = 0.0) -> Predictor:
    arrays = golden("cif_unit")
    config = PredictorConfig(smooth_factor=smooth_factor, noise_threshold=noise_threshold, dropout=0.0)
    predictor = Predictor(config, 8)
    names = {"cif_conv1d": "conv", "cif_output": "output"}
    tensors = {key.removeprefix("v2_sd:"): value for key, value in arrays.items() if key.startswith("v2_sd:")}
    predictor.load_state_dict({f"{names[key.split('.')[0]]}.{key.split('.')[1]}": v for key, v in tensors.items()})
    return predictor.eval()


@pytest.mark.parametrize("form", ["v1", "loop"])
def test_golden_integration(form: str) -> None:
    arrays = golden("cif_unit")
    hidden, weights = arrays["hidden"], arrays["alphas"]
    embeds, fires = arrays[f"{form}_embeds"], arrays[f"{form}_fires"]
    ours, counts = cif.integrate(hidden, weights, embeds.shape[1]), cif.token_counts(weights)
    frames = cif.firing_frames(weights, embeds.shape[1])
    for row, count in enumerate(counts.tolist()):
        close(ours[row, :count], embeds[row, :count], 1e-5)
        assert frames[row, :count].equal((fires[row] >= 1).nonzero().flatten())


def test_golden_inference() -> None:
    arrays, predictor = golden("cif_unit"), golden_predictor()
    mask = arrays["mask"][:, 0].bool()
    rows, weights = predictor.add_tail(arrays["hidden"], predictor(arrays["hidden"], mask), mask.sum(-1))
    counts = cif.token_counts(weights)
    expected = arrays["v2_infer_embeds"]
    embeds, frames = cif.integrate(rows, weights, expected.shape[1]), cif.firing_frames(weights, expected.shape[1])
    close(weights, arrays["v2_infer_alphas"], 1e-5)
    assert counts.tolist() == arrays["v2_infer_token_num"].tolist()
    for row, count in enumerate(counts.tolist()):
        close(embeds[row, :count], expected[row, :count], 1e-5)
        assert frames[row, :count].equal((arrays["v2_infer_peak"][row] >= 1).nonzero().flatten())


def test_golden_smoothing() -> None:
    """Weights above 1: a row may complete two tokens here, one in the reference, which then lacks some at the end."""
    arrays, predictor = golden("cif_unit"), golden_predictor(smooth_factor=1.3, noise_threshold=0.1)
    mask = arrays["mask"][:, 0].bool()
    rows, weights = predictor.add_tail(arrays["hidden"], predictor(arrays["hidden"], mask), mask.sum(-1))
    expected = arrays["v2_smooth_embeds"]
    close(weights, arrays["v2_smooth_alphas"], 1e-5)
    close(closed_form_integrate(rows, weights, expected.shape[1]), expected, 1e-5)
    counts = cif.token_counts(weights)
    assert int(counts.max()) == expected.shape[1]
    mass = cif.integrate(torch.ones_like(rows), weights, expected.shape[1])[..., 0]
    close(mass[0], torch.ones(expected.shape[1]), 1e-5)


def test_golden_training() -> None:
    arrays, predictor = golden("cif_unit"), golden_predictor()
    weights = predictor(arrays["hidden"], arrays["mask"][:, 0].bool())
    close(weights.sum(-1), arrays["v2_train_token_num"], 1e-5)
    scaled = cif.scale_to_targets(weights, torch.tensor([6, 3]))
    close(scaled, arrays["v2_train_alphas"], 1e-5)
    expected = arrays["v2_train_embeds"]
    # From the reference's own weights: in the last bit of others its last token is there or lost.
    close(closed_form_integrate(arrays["hidden"], arrays["v2_train_alphas"], 6), expected, 1e-5)
    ours = cif.integrate(arrays["hidden"], scaled, 6)
    for row, length in enumerate([6, 3]):
        given = expected[row, :length].abs().sum(-1) > 0
        close(ours[row, :length][given], expected[row, :length][given], 1e-5)
