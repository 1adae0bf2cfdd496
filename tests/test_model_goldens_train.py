"""One training step against the reference's numbers: both decoder passes, the sampler's choice, losses, gradients."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from model_goldens import (
    CHUNKS,
    batch_feats,
    close,
    golden,
    golden_model,
    leaky_encode,
    our_names,
)
from torch import Tensor

from paraformer.model import cif
from paraformer.model import paraformer as paraformer_module
from paraformer.model.chunk_masks import ChunkLayout, scama_mask
from paraformer.model.encoded import Chunking, Encoded
from paraformer.model.objective import Batch, Losses, losses_of
from paraformer.model.paraformer import Paraformer

ROUNDING = 1e-4
"""How far a sum of weights that are scaled to a whole number may stay below it; float32 is off by some 1e-6."""

KINK = 3e-6
"""A unit this near to zero is rounded to either side of it. In the fixtures the only such one, at -2e-6, is below."""


class Pass(NamedTuple):
    """What went into the decoder and what came out."""

    encoded: Encoded
    embeds: Tensor
    logits: Tensor


class Step(NamedTuple):
    """A training step: its decoder passes, the masks they used, the losses, the gradients by parameter name."""

    passes: list[Pass]
    masks: list[Tensor]
    losses: Losses
    gradients: dict[str, Tensor]


def train_step(name: str, model_name: str, draws: tuple[int, ...], chunk: Chunking, patch: pytest.MonkeyPatch) -> Step:
    """The step of a fixture, with the reference's padding, rounding and random numbers.

    draws: sizes of the uniform numbers that the reference takes from the generator before the sampler does.
    """
    arrays, model = golden(name), golden_model(model_name)
    feats = golden("aishell_conformer_infer")["feats"] if model_name == "aishell_conformer" else batch_feats()[0]
    batch = Batch(feats, arrays["lens"], arrays["text"], arrays["text_lens"])
    masks = follow_the_reference(patch, lost=(arrays["pass1_in"] == 0).all(-1))
    passes = record_passes(model, patch)
    generator = torch.Generator().manual_seed(5)
    for size in draws:
        torch.empty(size).uniform_(generator=generator)
    model.zero_grad()
    losses = losses_of(model, leaky_encode(model, feats, arrays["lens"], chunk), batch, chunk, generator)
    losses.total.backward()
    gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return Step(passes, masks, losses, gradients)


def follow_the_reference(patch: pytest.MonkeyPatch, lost: Tensor) -> list[Tensor]:
    """Round as the reference did where the last bit decides; returns the masks to come.

    lost (B, L): the tokens that it lost so, whose vector is zero in the fixture, and the padding. Every kind of
    processor would lose others, so which ones they are is read and not computed again.
    """
    masks: list[Tensor] = []
    fired: list[Tensor] = []
    integrate = cif.integrate

    def integrate_others(hidden: Tensor, weights: Tensor, tokens: int) -> Tensor:
        return integrate(hidden, weights, tokens) * ~lost[..., None]

    def firing_frames(weights: Tensor, tokens: int) -> Tensor:
        """A lost token goes to the last column (spec 4.5); every other one fires, whatever rounding leaves of it."""
        wholes = torch.arange(1, tokens + 1).double().repeat(weights.shape[0], 1)
        frames = torch.searchsorted(weights.double().cumsum(-1), wholes - ROUNDING)
        fired.append(torch.where(lost, weights.shape[1] - 1, frames))
        return fired[-1]

    def reference_mask(_: Tensor, token_mask: Tensor, layout: ChunkLayout) -> Tensor:
        masks.append(scama_mask(fired[-1], token_mask, layout))
        return masks[-1]

    patch.setattr(torch.Tensor, "relu", lambda x: x * (x > KINK))
    patch.setattr(cif, "integrate", integrate_others)
    patch.setattr(cif, "firing_frames", firing_frames)
    patch.setattr(paraformer_module, "scama_mask", reference_mask)
    return masks


def record_passes(model: Paraformer, patch: pytest.MonkeyPatch) -> list[Pass]:
    """A list that fills with the decoder passes."""
    passes: list[Pass] = []
    scores = model.scores

    def recorded(
        encoded: Encoded, weights: Tensor, embeds: Tensor, token_mask: Tensor, chunk: Chunking
    ) -> tuple[Tensor, Tensor | None]:
        logits, units = scores(encoded, weights, embeds, token_mask, chunk)
        passes.append(Pass(encoded, embeds, logits))
        return logits, units

    patch.setattr(model, "scores", recorded)
    return passes


def check_step(name: str, model_name: str, step: Step) -> None:
    """Everything the fixture holds, within the tolerances of the fixtures' README."""
    expected = golden(name)
    first, second = step.passes
    ends = first.encoded.lengths.tolist()
    assert ends == expected["decoder_memory_lens"].tolist()
    for row, end in enumerate(ends):
        close(first.encoded.hidden[row, :end], expected["decoder_memory"][row, :end], 1e-5)
    close(first.embeds, expected["pass1_in"], 1e-5)
    close(second.embeds, expected["pass2_in"], 1e-5)
    for row, count in enumerate((expected["text_lens"] + (model_name != "aishell_conformer")).tolist()):
        close(first.logits[row, :count], expected["pass1_logits"][row, :count], 1e-4)
        close(second.logits[row, :count], expected["pass2_logits"][row, :count], 1e-4)
    parts = {"loss": "total", "loss_att": "cross_entropy", "loss_pre": "quantity", "loss_ctc": "ctc", "acc": "accuracy"}
    for key, part in parts.items():
        if key in expected:
            actual = getattr(step.losses, part).detach().float()
            torch.testing.assert_close(actual, expected[key].squeeze(), rtol=1e-4, atol=1e-6)
    check_gradients(step.gradients, our_names(with_prefix(expected, "grad:"), golden_model(model_name)))
    for key, norm in our_names(with_prefix(expected, "gradnorm:"), golden_model(model_name)).items():
        torch.testing.assert_close(step.gradients[key].norm(), norm, rtol=1e-4, atol=0.0)


def with_prefix(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The arrays whose name starts with prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def check_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Each gradient within 1e-4 of its largest element."""
    assert expected
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=0.0, atol=1e-4 * float(value.abs().max()), msg=key)


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "offline_A"
    check_step(f"{name}_train", name, train_step(f"{name}_train", name, (1, 2, 3, 1), None, monkeypatch))


def test_aishell_conformer(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "aishell_conformer"
    check_step(f"{name}_train", name, train_step(f"{name}_train", name, (2,), None, monkeypatch))


@pytest.mark.parametrize("name", ["online_train_ind0", "online_train_ind1_forced"])
def test_online_chunk_masked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = CHUNKS[0] if name == "online_train_ind0" else CHUNKS[1]
    step = train_step(name, "online", (1, 2, 3, 1), chunk, monkeypatch)
    check_step(name, "online", step)
    expected = golden(name)["scama_mask"]
    assert len(step.masks) == 2
    assert all(mask.float().equal(expected) for mask in step.masks)
