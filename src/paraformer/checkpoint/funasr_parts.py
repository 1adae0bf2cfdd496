"""FunASR's classes as tables: which setting of theirs is which of ours, and which values compute what we compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paraformer.config import (
    ConformerEncoderConfig,
    FrontendConfig,
    ObjectiveConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)

Fixed = Mapping[str, tuple[Any, tuple[Any, ...]]]
"""FunASR's key -> its default and the values with which our code computes the same; the first of them is written."""


@dataclass(frozen=True)
class Part:
    """How the settings of one FunASR class become one of our dataclasses.

    fields: FunASR's key -> our field and FunASR's default. Where two keys meet in one field, the later counts.
    fixed: settings that our code does not vary. ignored: keys without influence on what is computed.
    tolerant: FunASR drops unknown keys here, and so do we. constants: fields of ours that the class itself decides.
    """

    kind: type
    fields: Mapping[str, tuple[str, Any]]
    fixed: Fixed = dataclasses.field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    tolerant: bool = False
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_SIZES: Mapping[str, tuple[str, Any]] = {
    "attention_heads": ("heads", 4),
    "linear_units": ("ffn_dim", 2048),
    "num_blocks": ("layers", 6),
    "dropout_rate": ("dropout", 0.1),
}
_ENCODER = {**_SIZES, "output_size": ("dim", 256), "attention_dropout_rate": ("attention_dropout", 0.0)}
_DECODER = {
    **_SIZES,
    "self_attention_dropout_rate": ("attention_dropout", 0.0),
    "src_attention_dropout_rate": ("attention_dropout", 0.0),
}
_POSITIONAL: Mapping[str, tuple[str, Any]] = {"positional_dropout_rate": ("positional_dropout", 0.1)}
CHUNKS = ("chunk_size", "stride", "pad_left", "encoder_att_look_back_factor", "decoder_att_look_back_factor")
_UNUSED = frozenset(
    {
        "padding_idx",
        "positionwise_conv_kernel_size",
        "pos_enc_class",
        "stochastic_depth_rate",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "tf2torch_tensor_name_prefix_torch",
        "tf2torch_tensor_name_prefix_tf",
    }
)
"""Settings of layers that the fixed ones rule out, of conversions, or of training alone."""
_PRE_NORM = {"normalize_before": (True, (True,)), "concat_after": (False, (False,))}
_ENCODER_FIXED = {
    **_PRE_NORM,
    "positionwise_layer_type": ("linear", ("linear",)),
    "interctc_layer_idx": ([], ([],)),
    "interctc_use_conditioning": (False, (False,)),
}
_DECODER_FIXED = {**_PRE_NORM, "input_layer": ("embed", ("embed",)), "use_output_layer": (True, (True,))}


def _sanm_encoder(input_layer: str, fixed: Fixed, ignored: frozenset[str]) -> Part:
    """Either SAN-M encoder: the same parameters, and the same positions under two names."""
    return Part(
        SanmEncoderConfig,
        {**_ENCODER, "kernel_size": ("kernel", 11), "sanm_shfit": ("shift", 0)},
        {
            **_ENCODER_FIXED,
            "input_layer": ("conv2d", (input_layer, "pe", "pe_online")),
            "selfattention_layer_type": ("sanm", ("sanm",)),
            **fixed,
        },
        _UNUSED | {"positional_dropout_rate"} | ignored,
    )


ENCODERS = {
    "SANMEncoder": _sanm_encoder("pe", {"lora_list": (None, (None,))}, frozenset()),
    "SANMEncoderChunkOpt": _sanm_encoder("pe_online", {}, frozenset(CHUNKS)),
    "ConformerEncoder": Part(
        ConformerEncoderConfig,
        {**_ENCODER, **_POSITIONAL, "cnn_module_kernel": ("conv_kernel", 31)},
        {
            **_ENCODER_FIXED,
            "input_layer": ("conv2d", ("conv2d",)),
            "macaron_style": (False, (True,)),
            "use_cnn_module": (True, (True,)),
            "activation_type": ("swish", ("swish",)),
            "rel_pos_type": ("legacy", ("legacy",)),
            "pos_enc_layer_type": ("rel_pos", ("rel_pos", "legacy_rel_pos")),
            "selfattention_layer_type": ("rel_selfattn", ("rel_selfattn", "legacy_rel_selfattn")),
            "zero_triu": (False, (False,)),
        },
        _UNUSED,
    ),
    "TransformerEncoder": Part(
        TransformerEncoderConfig,
        {**_ENCODER, **_POSITIONAL},
        {**_ENCODER_FIXED, "input_layer": ("conv2d", ("conv2d",))},
        _UNUSED,
    ),
}

DECODERS = {
    "ParaformerSANMDecoder": Part(
        SanmDecoderConfig,
        {
            **_DECODER,
            "att_layer_num": ("attention_layers", 6),
            "kernel_size": ("kernel", 21),
            "sanm_shfit": ("shift", 0),
        },
        {**_DECODER_FIXED, "wo_input_layer": (False, (False,)), "lora_list": (None, (None,))},
        _UNUSED | {"positional_dropout_rate", "chunk_multiply_factor"},
    ),
    "ParaformerSANDecoder": Part(
        TransformerDecoderConfig, {**_DECODER, **_POSITIONAL}, _DECODER_FIXED, _UNUSED | {"embeds_id"}
    ),
}


def _predictor(version: int, tail_threshold: float, fixed: Fixed) -> Part:
    return Part(
        PredictorConfig,
        {
            "l_order": ("left", 1),
            "r_order": ("right", 1),
            "tail_threshold": ("tail_threshold", tail_threshold),
            "smooth_factor": ("smooth_factor", 1.0),
            "noise_threshold": ("noise_threshold", 0.0),
            "dropout": ("dropout", 0.1),
        },
        {"threshold": (1.0, (1.0,)), **fixed},
        _UNUSED | {"idim"},
        constants={"version": version},
    )


PREDICTORS = {
    "CifPredictor": _predictor(1, 0.45, {}),
    # Where the tail goes differs only in the padded rows of a batch (spec 3.1), which we keep out of the sums.
    "CifPredictorV2": _predictor(2, 0.0, {"tail_mask": (True, (True, False))}),
}

FRONTEND = Part(
    FrontendConfig,
    {
        "fs": ("sample_rate", 16000),
        "window": ("window", "hamming"),
        "n_mels": ("mel_bins", 80),
        "frame_length": ("frame_ms", 25.0),
        "frame_shift": ("shift_ms", 10.0),
        "lfr_m": ("lfr_m", 1),
        "lfr_n": ("lfr_n", 1),
    },
    {"snip_edges": (True, (True,)), "upsacle_samples": (True, (True,))},
    tolerant=True,
)
FRONTENDS = {"WavFrontend": FRONTEND, "WavFrontendOnline": FRONTEND}

OBJECTIVE = Part(
    ObjectiveConfig,
    {
        "ctc_weight": ("ctc_weight", 0.5),
        "lsm_weight": ("label_smoothing", 0.0),
        "length_normalized_loss": ("length_normalized", False),
        "predictor_weight": ("quantity_weight", 0.0),
        "predictor_bias": ("predict_eos", 0),
        "sampling_ratio": ("sampling_ratio", 0.2),
    },
    {"share_embedding": (False, (False,)), "blank_id": (0, (0,)), "sos": (1, (1,)), "eos": (2, (2,))},
    tolerant=True,
)
WHOLE_MODEL: Fixed = {
    "normalize": (None, (None, "None")),
    "tokenizer": ("CharTokenizer", ("CharTokenizer",)),
}
"""Keys of the top level."""
