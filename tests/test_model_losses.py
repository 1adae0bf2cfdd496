from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from model_goldens import close, golden

from paraformer.model.losses import draw_negatives, mwer, smoothed_cross_entropy


def test_golden() -> None:
    arrays = golden("mwer")
    logits = arrays["logit"].requires_grad_()
    loss = mwer(logits, arrays["target"], arrays["target_lens"], arrays["mask_top1"].bool())
    loss.sum().backward()
    close(loss, arrays["loss"], 1e-6)
    assert logits.grad is not None
    close(logits.grad, arrays["grad"], 1e-6)


@given(seed=st.integers(0, 2**31), padding=st.integers(0, 3))
def test_padding_changes_nothing(seed: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, targets = torch.randn(3, 5, 7, generator=generator), torch.randint(7, (3, 5), generator=generator)
    lengths, negatives = torch.tensor([5, 2, 0]), draw_negatives(4, targets, generator)
    padded = torch.nn.functional.pad
    more = mwer(
        padded(logits, (0, 0, 0, padding), value=9.0),
        padded(targets, (0, padding), value=-1),
        lengths,
        padded(negatives, (0, padding), value=True),
    )
    close(more, mwer(logits, targets, lengths, negatives), 1e-6)


def test_a_descent_step_makes_the_better_sample_more_likely() -> None:
    logits = torch.tensor([[[1.0, 0.9, -3.0]]], requires_grad=True)
    negatives = torch.tensor([[[False]], [[True]]])
    mwer(logits, torch.tensor([[1]]), torch.tensor([1]), negatives).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 1] < 0 < logits.grad[0, 0, 0]


def test_the_gradient_is_that_of_finite_differences() -> None:
    """In float64, where the second best item stays the second best within the step."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    targets, lengths = torch.randint(5, (2, 4), generator=generator), torch.tensor([4, 3])
    negatives = draw_negatives(4, targets, generator)
    assert torch.autograd.gradcheck(lambda x: mwer(x, targets, lengths, negatives), [logits], eps=1e-6, atol=1e-7)


def test_fine_tuning_lowers_the_expected_error_that_cross_entropy_leaves() -> None:
    """Ambiguous sounds: three in ten are the other word. Cross-entropy ends at those odds and so expects 42 % errors.

    MWER then prefers the likelier word, as far as 30 %, which is the least there is.
    """
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(400, 6, generator=generator) < 0.3).long()
    lengths = torch.full((400,), 6)
    scores = torch.nn.Parameter(torch.zeros(6, 3))
    optimiser = torch.optim.Adam([scores], lr=0.1)

    def descend(steps: int, mwer_weight: float) -> float:
        for _ in range(steps):
            logits = scores.expand(400, 6, 3)
            loss = smoothed_cross_entropy(logits, targets, 0.0, per_token=True)
            negatives = draw_negatives(4, targets, generator)
            if mwer_weight:
                loss = 0.01 * loss + mwer_weight * mwer(logits, targets, lengths, negatives).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        right = scores.detach().softmax(-1).expand(400, 6, 3).gather(-1, targets[..., None])
        return 1 - right.mean().item()

    converged = descend(200, 0.0)
    assert abs(converged - descend(50, 0.0)) < 1e-3
    assert abs(converged - 0.42) < 0.02
    assert descend(150, 1.0) < 0.34


def test_negatives_are_half_of_the_positions() -> None:
    share = draw_negatives(4, torch.zeros(50, 50), torch.Generator().manual_seed(1)).float().mean().item()
    assert abs(share - 0.5) < 0.02
