"""The one table of parameter names: ours and FunASR's, both ways, for every kind of model.

Only modules are listed; the leaves below them ("weight", "bias", the statistics of a batch norm) have the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from paraformer.config import ContextualConfig, ModelConfig, SanmDecoderConfig, SeacoConfig

FEED_FORWARD = {"feed_forward.up": "feed_forward.w_1", "feed_forward.down": "feed_forward.w_2"}
NORMED_FEED_FORWARD = {**FEED_FORWARD, "feed_forward.norm": "feed_forward.norm"}
PLAIN_ATTENTION = {f"attention.{part}": f"self_attn.linear_{part}" for part in ("q", "k", "v", "out")}
NORMS = {name: name for name in ("norm1", "norm2", "norm3")}

WHOLE = {
    "encoder.subsampling.conv1": "encoder.embed.conv.0",
    "encoder.subsampling.conv2": "encoder.embed.conv.2",
    "encoder.subsampling.out": "encoder.embed.out.0",
    "encoder.norm": "encoder.after_norm",
    "predictor.conv": "predictor.cif_conv1d",
    "predictor.output": "predictor.cif_output",
    "decoder.embed": "decoder.embed.0",
    "decoder.norm": "decoder.after_norm",
    "decoder.output": "decoder.output_layer",
    "ctc": "ctc.ctc_lo",
    "predictor.timing.up": "predictor.upsample_cnn",
    "predictor.timing.lstm": "predictor.blstm",
    "predictor.timing.output": "predictor.cif_output2",
    "hotwords.embed": "bias_embed",
    "hotwords.lstm": "bias_encoder",
    "hotwords.project": "lstm_proj",
    "hotwords.norm": "seaco_decoder.after_norm",
    "hotwords.output": "hotword_output_layer",
    "decoder.hotwords.cross.q": "decoder.bias_decoder.src_attn.linear_q",
    "decoder.hotwords.cross.kv": "decoder.bias_decoder.src_attn.linear_k_v",
    "decoder.hotwords.cross.out": "decoder.bias_decoder.src_attn.linear_out",
    "decoder.hotwords.norm": "decoder.bias_decoder.norm3",
    "decoder.hotwords.output": "decoder.bias_output",
}
"""Modules outside the blocks."""

ENCODER_BLOCKS: Mapping[str, Mapping[str, str]] = {
    "sanm": {
        "attention.qkv": "self_attn.linear_q_k_v",
        "attention.out": "self_attn.linear_out",
        "attention.memory": "self_attn.fsmn_block",
        **FEED_FORWARD,
        **NORMS,
    },
    "conformer": {
        **PLAIN_ATTENTION,
        "attention.position": "self_attn.linear_pos",
        "attention.bias_u": "self_attn.pos_bias_u",
        "attention.bias_v": "self_attn.pos_bias_v",
        "conv.pointwise1": "conv_module.pointwise_conv1",
        "conv.depthwise": "conv_module.depthwise_conv",
        "conv.norm": "conv_module.norm",
        "conv.pointwise2": "conv_module.pointwise_conv2",
        "macaron.up": "feed_forward_macaron.w_1",
        "macaron.down": "feed_forward_macaron.w_2",
        **FEED_FORWARD,
        "norm_macaron": "norm_ff_macaron",
        "norm_attention": "norm_mha",
        "norm_conv": "norm_conv",
        "norm_feed_forward": "norm_ff",
        "norm": "norm_final",
    },
    "transformer": {**PLAIN_ATTENTION, **FEED_FORWARD, **NORMS},
}
"""Inside an encoder block, by encoder kind. Leaves of the Conformer's attention biases are the names themselves."""

DECODER_BLOCKS: Mapping[str, Mapping[str, str]] = {
    "sanm": {
        "memory": "self_attn.fsmn_block",
        "cross.q": "src_attn.linear_q",
        "cross.kv": "src_attn.linear_k_v",
        "cross.out": "src_attn.linear_out",
        **NORMED_FEED_FORWARD,
        **NORMS,
    },
    "transformer": {
        **PLAIN_ATTENTION,
        **{f"cross.{part}": f"src_attn.linear_{part}" for part in ("q", "k", "v", "out")},
        **FEED_FORWARD,
        **NORMS,
    },
}
"""Inside a decoder block, by decoder kind."""

FINAL_BLOCK = {**NORMED_FEED_FORWARD, "norm1": "norm1"}
"""The feed-forward that ends the SAN-M decoder, "decoders3"."""


def funasr_names(config: ModelConfig, names: Iterable[str]) -> dict[str, str]:
    """Our parameter name -> FunASR's, for each of a model's names; one to one.

    >>> funasr_names(ModelConfig(vocab_size=8404), ["encoder.blocks.1.feed_forward.up.weight"])
    {'encoder.blocks.1.feed_forward.up.weight': 'encoder.encoders.0.feed_forward.w_1.weight'}
    """
    modules = dict(_modules(config))
    translated = {name: modules.get(name) or _translate(name, modules) for name in names}
    assert len(set(translated.values())) == len(translated), "two parameters with one name"
    return translated


def _translate(name: str, modules: Mapping[str, str]) -> str:
    module, leaf = name.rsplit(".", 1)
    return f"{modules[module]}.{leaf}"


def _modules(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Our module name and FunASR's, for every module that a model of these settings may have."""
    yield from WHOLE.items()
    for index in range(config.encoder.layers):
        yield from _block(f"encoder.blocks.{index}", _encoder_block(config, index), ENCODER_BLOCKS[config.encoder.kind])
    for index in range(config.decoder.layers):
        yield from _block(f"decoder.blocks.{index}", _decoder_block(config, index), DECODER_BLOCKS[config.decoder.kind])
    yield from _block("decoder.final", "decoder.decoders3.0", FINAL_BLOCK)
    if isinstance(config.hotwords, SeacoConfig):
        for index in range(config.hotwords.layers):
            theirs = _sanm_block("seaco_decoder", config.hotwords.attention_layers, index)
            yield from _block(f"hotwords.blocks.{index}", theirs, DECODER_BLOCKS["sanm"])
        yield from _block("hotwords.final", "seaco_decoder.decoders3.0", FINAL_BLOCK)


def _block(ours: str, theirs: str, parts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((f"{ours}.{part}", f"{theirs}.{their_part}") for part, their_part in parts.items())


def _encoder_block(config: ModelConfig, index: int) -> str:
    """SAN-M keeps its first block, which widens the input, in a list of its own."""
    if config.encoder.kind != "sanm":
        return f"encoder.encoders.{index}"
    return "encoder.encoders0.0" if index == 0 else f"encoder.encoders.{index - 1}"


def _decoder_block(config: ModelConfig, index: int) -> str:
    """Contextual Paraformer calls the last block with cross-attention by another name."""
    decoder = config.decoder
    if not isinstance(decoder, SanmDecoderConfig):
        return f"decoder.decoders.{index}"
    if isinstance(config.hotwords, ContextualConfig) and index == decoder.attention_layers - 1:
        return "decoder.last_decoder"
    return _sanm_block("decoder", decoder.attention_layers, index)


def _sanm_block(name: str, attention_layers: int, index: int) -> str:
    """SAN-M keeps the blocks without cross-attention in a list of their own."""
    without = index - attention_layers
    return f"{name}.decoders2.{without}" if without >= 0 else f"{name}.decoders.{index}"
