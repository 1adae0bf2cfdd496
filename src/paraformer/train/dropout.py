"""Dropout whose mask costs one random byte per element.

torch draws CPU masks with one call of a serial generator per element, a third of the time of a training step of a small
model. Here numpy's SFC64 fills 64 bits at a time and each byte decides one element, so the rate is a multiple of 1/256.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

_BITS = {2: np.int16, 4: np.int32, 8: np.int64}


class ByteDropout(nn.Module):
    """Zero elements with probability round(256 p) / 256 and scale the others, in training only."""

    def __init__(self, p: float, generator: np.random.Generator) -> None:
        super().__init__()
        self.threshold = round(256 * p)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape and type."""
        if not self.training or self.threshold == 0:
            return x
        words = self.generator.integers(0, 1 << 64, size=(x.numel() + 7) // 8, dtype=np.uint64)
        kept = words.view(np.uint8)[: x.numel()] >= self.threshold
        # A kept element's factor is written as its bit pattern: integer products are vectorised, conversions are not.
        one = torch.tensor(256 / (256 - self.threshold), dtype=x.dtype)
        bits = _BITS[x.element_size()]
        pattern = one.view(getattr(torch, np.dtype(bits).name)).numpy()
        return x * torch.from_numpy(np.multiply(kept, pattern, dtype=bits)).view(x.dtype).view(x.shape)


def use_byte_dropout(model: nn.Module) -> np.random.Generator:
    """Replace every nn.Dropout inside `model` by a ByteDropout of the same rate; returns the generator of all."""
    generator = np.random.Generator(np.random.SFC64(0))
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, ByteDropout(child.p, generator))
    return generator


def seed_all(seed: Sequence[int], generator: np.random.Generator) -> None:
    """Start the random numbers of torch and of `generator` anew, from whole numbers that say what they are for.

    Where every batch does this, what it draws depends on nothing that came before it, and no state need be saved.
    """
    words = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    torch.manual_seed(int(words[0]))
    generator.bit_generator.state = np.random.SFC64(int(words[1])).state
