"""The three kinds of SAN-M decoder layer against its formulas, written out on the reference's weights (spec 4.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from model_goldens import GOLDEN, close, golden_model
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from paraformer.config import SanmDecoderConfig
from paraformer.model.decoder import SanmDecoder
from paraformer.model.layers import length_mask


class Written:
    """The decoder of offline_B: two layers with cross-attention, two without, one bare feed-forward. One utterance."""

    def __init__(self) -> None:
        tensors = load_file(GOLDEN / "offline_B.safetensors")
        self.tensors = {k.removeprefix("decoder."): v for k, v in tensors.items() if k.startswith("decoder.")}

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-12).sqrt() * weight + bias

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def feed_forward(self, layer: str, x: Tensor) -> Tensor:
        hidden = self.linear(f"{layer}.feed_forward.w_1", self.norm(f"{layer}.norm1", x)).clamp(min=0)
        return self.norm(f"{layer}.feed_forward.norm", hidden) @ self.tensors[f"{layer}.feed_forward.w_2.weight"].T

    def memory(self, layer: str, x: Tensor) -> Tensor:
        weight, padded = self.tensors[f"{layer}.self_attn.fsmn_block.weight"][:, 0], F.pad(x, (0, 0, 5, 5))
        return x + sum(padded[k : k + len(x)] * weight[:, k] for k in range(11))

    def cross(self, layer: str, x: Tensor, rows: Tensor) -> Tensor:
        query = self.linear(f"{layer}.src_attn.linear_q", self.norm(f"{layer}.norm3", x))
        key, value = self.linear(f"{layer}.src_attn.linear_k_v", rows).chunk(2, -1)
        heads = [
            (query[:, part] @ key[:, part].T / 8**0.5).softmax(-1) @ value[:, part]
            for part in (slice(8 * head, 8 * head + 8) for head in range(4))
        ]
        return self.linear(f"{layer}.src_attn.linear_out", torch.cat(heads, -1))

    def __call__(self, rows: Tensor, x: Tensor) -> Tensor:
        """rows (K, D), x (L, D) -> (L, V)."""
        for layer in ("decoders.0", "decoders.1", "decoders2.0", "decoders2.1"):
            x = x + self.memory(layer, self.norm(f"{layer}.norm2", self.feed_forward(layer, x)))
            if layer.startswith("decoders."):
                x = x + self.cross(layer, x, rows)
        return self.linear("output_layer", self.norm("after_norm", self.feed_forward("decoders3.0", x)))


def decoded(tokens: list[int], rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Memory (B, K, D), embeds (B, L, D) and offline_B's scores (B, L, V) of a batch of those sizes."""
    generator = torch.Generator().manual_seed(3)
    memory = torch.randn(len(rows), max(rows), 32, generator=generator)
    embeds = torch.randn(len(tokens), max(tokens), 32, generator=generator)
    masks = length_mask(torch.tensor(rows), max(rows))[:, None], length_mask(torch.tensor(tokens), max(tokens))
    return memory, embeds, golden_model("offline_B").decoder(memory, masks[0], embeds, masks[1])


@torch.no_grad()
def test_all_kinds_of_layer() -> None:
    written: Callable[[Tensor, Tensor], Tensor] = Written()
    tokens, rows = [7, 3], [20, 13]
    memory, embeds, logits = decoded(tokens, rows)
    for row, (count, size) in enumerate(zip(tokens, rows, strict=True)):
        close(logits[row, :count], written(memory[row, :size], embeds[row, :count]), 1e-4)


def test_only_layers_with_cross_attention_are_shifted() -> None:
    config = SanmDecoderConfig(heads=2, ffn_dim=8, layers=3, attention_layers=2, shift=5)
    reach = [block.memory.left for block in SanmDecoder(config, 9, 8).blocks]
    assert reach == [10, 10, 5]
