from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from model_goldens import close, golden

from paraformer.model.mwer import draw_negatives, mwer


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
    lengths, negatives = torch.tensor([5, 2, 0]), draw_negatives(4, (3, 5), generator)
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


def test_negatives_are_half_of_the_positions() -> None:
    share = draw_negatives(4, (50, 50), torch.Generator().manual_seed(1)).float().mean().item()
    assert abs(share - 0.5) < 0.02
