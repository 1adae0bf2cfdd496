"""FunASR parameter names -> ours, for the golden tests of the model."""

from __future__ import annotations

import re

from torch import Tensor

RULES = (
    (r"^encoder\.embed\.conv\.0\.", "encoder.subsampling.conv1."),
    (r"^encoder\.embed\.conv\.2\.", "encoder.subsampling.conv2."),
    (r"^encoder\.embed\.out\.0\.", "encoder.subsampling.out."),
    (r"^decoder\.embed\.0\.", "decoder.embed."),
    (r"^decoder\.decoders3\.0\.", "decoder.final."),
    (r"^(encoder|decoder)\.after_norm\.", r"\1.norm."),
    (r"^decoder\.output_layer\.", "decoder.output."),
    (r"^predictor\.cif_conv1d\.", "predictor.conv."),
    (r"^predictor\.cif_output\.", "predictor.output."),
    (r"^ctc\.ctc_lo\.", "ctc."),
    (r"^(encoder|decoder)\.(?:en|de)coders\.", r"\1.blocks."),
    (r"^(decoder\..*)self_attn\.fsmn_block\.", r"\1memory."),
    (r"\.self_attn\.", ".attention."),
    (r"\.src_attn\.", ".cross."),
    (r"\.linear_q_k_v\.", ".qkv."),
    (r"\.linear_k_v\.", ".kv."),
    (r"\.linear_(q|k|v|out)\.", r".\1."),
    (r"\.linear_pos\.", ".position."),
    (r"\.pos_bias_(u|v)$", r".bias_\1"),
    (r"\.fsmn_block\.", ".memory."),
    (r"\.feed_forward_macaron\.", ".macaron."),
    (r"\.w_1\.", ".up."),
    (r"\.w_2\.", ".down."),
    (r"\.conv_module\.", ".conv."),
    (r"\.pointwise_conv(1|2)\.", r".pointwise\1."),
    (r"\.depthwise_conv\.", ".depthwise."),
    (r"\.norm_mha\.", ".norm_attention."),
    (r"\.norm_ff_macaron\.", ".norm_macaron."),
    (r"\.norm_ff\.", ".norm_feed_forward."),
    (r"\.norm_final\.", ".norm."),
)


def ours(name: str, attention_layers: int) -> str:
    """Our name of a FunASR parameter; attention_layers: decoder layers that have cross-attention."""
    first = re.match(r"^encoder\.encoders0\.0\.(.*)", name)
    if first:
        name = f"encoder.blocks.0.{first[1]}"
    later = re.match(r"^decoder\.decoders2\.(\d+)\.(.*)", name)
    if later:
        name = f"decoder.blocks.{int(later[1]) + attention_layers}.{later[2]}"
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


def translate(tensors: dict[str, Tensor], *, sanm: bool, attention_layers: int) -> dict[str, Tensor]:
    """A FunASR state dict under our names. sanm: the encoder's first block has a list of its own."""
    out = {}
    for name, tensor in tensors.items():
        shifted = re.match(r"^encoder\.encoders\.(\d+)\.(.*)", name) if sanm else None
        if shifted:
            name = f"encoder.blocks.{int(shifted[1]) + 1}.{shifted[2]}"
        out[ours(name, attention_layers)] = tensor
    return out
