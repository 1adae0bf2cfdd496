from __future__ import annotations

import torch
from model_goldens import close
from torch import nn

from paraformer.config import TransformerDecoderConfig, TransformerEncoderConfig
from paraformer.model.layers import length_mask
from paraformer.model.transformer import Attention, TransformerBlock, interleaved_sinusoid, subsampled
from paraformer.model.transformer_decoder import TransformerDecoderBlock


def fill_attention(theirs: nn.MultiheadAttention, ours: Attention) -> None:
    """Give torch's attention our weights."""
    parts = (ours.q, ours.k, ours.v)
    theirs.in_proj_weight.data = torch.cat([part.weight for part in parts])
    theirs.in_proj_bias.data = torch.cat([part.bias for part in parts])
    theirs.out_proj.load_state_dict(ours.out.state_dict())


@torch.no_grad()
def test_encoder_block_equals_torch_s() -> None:
    config = TransformerEncoderConfig(dim=16, heads=4, ffn_dim=24)
    ours = TransformerBlock(config).eval()
    theirs = nn.TransformerEncoderLayer(16, 4, 24, 0.0, layer_norm_eps=1e-12, batch_first=True, norm_first=True).eval()
    fill_attention(theirs.self_attn, ours.attention)
    theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())
    x, mask = torch.randn(2, 9, 16), length_mask(torch.tensor([9, 6]), 9)
    expected = theirs(x, src_key_padding_mask=~mask)
    close(ours(x, mask[:, None])[mask], expected[mask], 1e-5)


@torch.no_grad()
def test_decoder_block_equals_torch_s_without_a_causal_mask() -> None:
    ours = TransformerDecoderBlock(TransformerDecoderConfig(heads=4, ffn_dim=24), 16).eval()
    theirs = nn.TransformerDecoderLayer(16, 4, 24, 0.0, layer_norm_eps=1e-12, batch_first=True, norm_first=True).eval()
    fill_attention(theirs.self_attn, ours.attention)
    fill_attention(theirs.multihead_attn, ours.cross)
    theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())
    x, tokens = torch.randn(2, 5, 16), length_mask(torch.tensor([5, 2]), 5)
    memory, rows = torch.randn(2, 9, 16), length_mask(torch.tensor([9, 6]), 9)
    expected = theirs(x, memory, tgt_key_padding_mask=~tokens, memory_key_padding_mask=~rows)
    close(ours(x, memory, rows[:, None], tokens[:, None])[tokens], expected[tokens], 1e-5)


def test_sinusoid_takes_turns() -> None:
    table = interleaved_sinusoid(torch.tensor([0, 3]), 4)
    assert table[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    close(table[1, 0::2], torch.tensor([3.0, 0.03]).sin(), 1e-6)
    close(table[1, 1::2], torch.tensor([3.0, 0.03]).cos(), 1e-6)


def test_sizes_after_subsampling() -> None:
    assert [max(subsampled(frames), 0) for frames in (0, 1, 6, 7, 10, 11, 80, 240)] == [0, 0, 0, 1, 1, 2, 19, 59]
