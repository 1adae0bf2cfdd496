"""The parallel bidirectional Transformer decoder of the AISHELL recipe (spec 4.4).

All tokens see each other: there is no causal mask. Shapes: B batch, K encoder rows, L tokens, D model width, V items.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paraformer.config import TransformerDecoderConfig
from paraformer.model.layers import FeedForward, layer_norm
from paraformer.model.transformer import Attention, interleaved_sinusoid


class TransformerDecoderBlock(nn.Module):
    """Pre-norm self-attention over tokens, cross-attention, feed-forward."""

    def __init__(self, config: TransformerDecoderConfig, dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim, config.heads, config.attention_dropout)
        self.cross = Attention(dim, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(dim, config.ffn_dim, config.dropout)
        self.norm1 = layer_norm(dim)
        self.norm2 = layer_norm(dim)
        self.norm3 = layer_norm(dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None, token_mask: Tensor | None) -> Tensor:
        """x (B, L, D), memory (B, K, D), memory_mask (B, 1 or L, K), token_mask (B, 1, L) -> (B, L, D)."""
        normed = self.norm1(x)
        x = x + self.dropout(self.attention(normed, normed, token_mask))
        x = x + self.dropout(self.cross(self.norm2(x), memory, memory_mask))
        y: Tensor = x + self.dropout(self.feed_forward(self.norm3(x)))
        return y


class TransformerDecoder(nn.Module):
    """Acoustic vectors to token scores, all in parallel."""

    def __init__(self, config: TransformerDecoderConfig, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(vocab_size, dim)
        self.blocks = nn.ModuleList(TransformerDecoderBlock(config, dim) for _ in range(config.layers))
        self.norm = layer_norm(dim)
        self.output = nn.Linear(dim, vocab_size)
        self.positional_dropout = nn.Dropout(config.positional_dropout)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Target embeddings for the sampler: ids (B, L) -> (B, L, D). Unlike the SAN-M decoder's, with positions."""
        embeds = self.embed(ids)
        dim = embeds.shape[-1]
        positions = torch.arange(ids.shape[1], device=ids.device)
        y: Tensor = self.positional_dropout(embeds * dim**0.5 + interleaved_sinusoid(positions, dim))
        return y

    def forward(self, memory: Tensor, memory_mask: Tensor | None, embeds: Tensor, token_mask: Tensor | None) -> Tensor:
        """memory (B, K, D), memory_mask (B, 1 or L, K), embeds (B, L, D), token_mask (B, L) or (B, L, L).

        Returns logits (B, L, V).
        """
        # One mask for all tokens of an utterance, or one for each, which a decoder that must not look ahead needs.
        mask = token_mask[:, None] if token_mask is not None and token_mask.ndim == 2 else token_mask
        x = embeds
        for block in self.blocks:
            x = block(x, memory, memory_mask, mask)
        logits: Tensor = self.output(self.norm(x))
        return logits
