"""Every setting of FunASR's that we know, as tables: which are ours, which must have one value, which say nothing.

What stands in no table is an error where it would change what is computed, and a question where it looks like a setting
that is missing; see `funasr_config`. Which keys there are was read from FunASR's classes and published configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from paraformer.config import (
    SAMPLE_RATE,
    ConformerEncoderConfig,
    ContextualConfig,
    FrontendConfig,
    ObjectiveConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
    SeacoConfig,
    TimingConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)


class Only(NamedTuple):
    """A setting that our code does not vary: what FunASR takes where it is missing, and the values that we compute.

    The first of them is written. why: what another value would ask for.
    """

    default: Any
    accepted: tuple[Any, ...]
    why: str


Fixed = Mapping[str, Only]
Reasons = Mapping[str, str]
"""Key -> why it has no influence on what is computed."""


@dataclass(frozen=True)
class Part:
    """How the settings of one FunASR class become one of our dataclasses.

    fields: FunASR's key -> our field and FunASR's default. Where two keys meet in one field, the later counts.
    needed: those of them that must be there: every published configuration has them, and without one FunASR's default
    would change what is computed in silence. fixed: settings that our code does not vary. elsewhere: keys that count,
    but are read by code of their own. ignored: keys without influence. tolerant: FunASR drops other keys here, and so
    do we. constants: fields of ours that the class decides.
    """

    kind: type
    fields: Mapping[str, tuple[str, Any]]
    needed: frozenset[str] = frozenset()
    fixed: Fixed = dataclasses.field(default_factory=dict)
    elsewhere: Reasons = dataclasses.field(default_factory=dict)
    ignored: Reasons = dataclasses.field(default_factory=dict)
    tolerant: bool = False
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def reasons(why: str, *keys: str) -> Reasons:
    """One reason for several keys."""
    return dict.fromkeys(keys, why)


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
_NEEDED = frozenset({"attention_heads", "linear_units", "num_blocks"})
CHUNKS = ("chunk_size", "stride", "pad_left", "encoder_att_look_back_factor", "decoder_att_look_back_factor")
_UNUSED: Reasons = {
    "padding_idx": "of the input layer `embed`, which input_layer rules out",
    "positionwise_conv_kernel_size": "of convolutional feed-forwards, which positionwise_layer_type rules out",
    "pos_enc_class": "SAN-M encoders never look at it, the others follow pos_enc_layer_type",
    **reasons("training drops whole layers", "stochastic_depth_rate"),
    **reasons("of low-rank layers, which lora_list rules out", "lora_rank", "lora_alpha", "lora_dropout"),
    **reasons("of conversions from TensorFlow", "tf2torch_tensor_name_prefix_torch", "tf2torch_tensor_name_prefix_tf"),
}
_NO_POSITIONS = reasons("SAN-M drops nothing of its positions", "positional_dropout_rate")
_PRE_NORM = {
    "normalize_before": Only(True, (True,), "layer norms after each part"),
    "concat_after": Only(False, (False,), "a layer over attention and its input"),
}
_ENCODER_FIXED = {
    **_PRE_NORM,
    "positionwise_layer_type": Only("linear", ("linear",), "convolutional feed-forwards"),
    "interctc_layer_idx": Only([], ([],), "CTC between the layers"),
    "interctc_use_conditioning": Only(False, (False,), "CTC between the layers"),
}
_DECODER_FIXED = {
    **_PRE_NORM,
    "input_layer": Only("embed", ("embed",), "targets that are not embedded"),
    "use_output_layer": Only(True, (True,), "a decoder without scores"),
}
_NO_LORA = {"lora_list": Only(None, (None,), "low-rank layers beside the weights")}


def _sanm_encoder(input_layer: str, fixed: Fixed, elsewhere: Reasons) -> Part:
    """Either SAN-M encoder: the same parameters, and the same positions under two names."""
    return Part(
        SanmEncoderConfig,
        {**_ENCODER, "kernel_size": ("kernel", 11), "sanm_shfit": ("shift", 0)},
        _NEEDED | {"output_size", "kernel_size", "sanm_shfit"},
        {
            **_ENCODER_FIXED,
            "input_layer": Only("conv2d", (input_layer, "pe", "pe_online"), "another way into the encoder"),
            "selfattention_layer_type": Only("sanm", ("sanm",), "attention without memory"),
            **fixed,
        },
        elsewhere,
        {**_UNUSED, **_NO_POSITIONS},
    )


ENCODERS = {
    "SANMEncoder": _sanm_encoder("pe", _NO_LORA, {}),
    "SANMEncoderChunkOpt": _sanm_encoder("pe_online", {}, reasons("the lists of `training_chunks`", *CHUNKS)),
    "ConformerEncoder": Part(
        ConformerEncoderConfig,
        {**_ENCODER, **_POSITIONAL, "cnn_module_kernel": ("conv_kernel", 31)},
        _NEEDED | {"output_size", "cnn_module_kernel"},
        {
            **_ENCODER_FIXED,
            "input_layer": Only("conv2d", ("conv2d",), "another way into the encoder"),
            "macaron_style": Only(False, (True,), "one feed-forward a layer"),
            "use_cnn_module": Only(True, (True,), "layers without convolution"),
            "activation_type": Only("swish", ("swish",), "another activation"),
            "rel_pos_type": Only("legacy", ("legacy",), "other relative positions"),
            "pos_enc_layer_type": Only("rel_pos", ("rel_pos", "legacy_rel_pos"), "other positions"),
            "selfattention_layer_type": Only(
                "rel_selfattn", ("rel_selfattn", "legacy_rel_selfattn"), "other relative positions"
            ),
            "zero_triu": Only(False, (False,), "attention to the past alone"),
        },
        ignored=_UNUSED,
    ),
    "TransformerEncoder": Part(
        TransformerEncoderConfig,
        {**_ENCODER, **_POSITIONAL},
        _NEEDED | {"output_size"},
        {**_ENCODER_FIXED, "input_layer": Only("conv2d", ("conv2d",), "another way into the encoder")},
        ignored=_UNUSED,
    ),
}

_SANM_DECODER = Part(
    SanmDecoderConfig,
    {
        **_DECODER,
        "att_layer_num": ("attention_layers", 6),
        "kernel_size": ("kernel", 21),
        "sanm_shfit": ("shift", 0),
    },
    _NEEDED | {"att_layer_num", "kernel_size", "sanm_shfit"},
    {**_DECODER_FIXED, "wo_input_layer": Only(False, (False,), "targets without embedding"), **_NO_LORA},
    ignored={**_UNUSED, **_NO_POSITIONS, "chunk_multiply_factor": "FunASR never looks at it"},
)
DECODERS = {
    "ParaformerSANMDecoder": _SANM_DECODER,
    "ContextualParaformerDecoder": _SANM_DECODER,
    "ParaformerSANDecoder": Part(
        TransformerDecoderConfig,
        {**_DECODER, **_POSITIONAL},
        _NEEDED,
        _DECODER_FIXED,
        ignored={**_UNUSED, "embeds_id": "which layer's rows FunASR can return besides"},
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
        frozenset({"l_order", "r_order", "tail_threshold"}),
        {"threshold": Only(1.0, (1.0,), "another weight of one token"), **fixed},
        {"idim": "compared with the encoder's output_size"},
        _UNUSED,
        constants={"version": version},
    )


TIMING = Part(
    TimingConfig,
    {
        "upsample_times": ("rate", 5),
        "upsample_type": ("recurrent", "cnn"),
        "use_cif1_cnn": ("from_conv", True),
        "smooth_factor2": ("smooth_factor", 1.0),
        "noise_threshold2": ("noise_threshold", 0.0),
    },
    frozenset({"upsample_times", "upsample_type", "use_cif1_cnn", "smooth_factor2", "noise_threshold2"}),
)
"""Of CifPredictorV3, which has them among its others; upsample_type is "cnn" or "cnn_blstm"."""
_FINE = dataclasses.replace(
    _predictor(2, 0.0, {}),
    elsewhere={"idim": "compared with the encoder's output_size", **reasons("read by `TIMING`", *TIMING.fields)},
)
PREDICTORS = {
    "CifPredictor": _predictor(1, 0.45, {}),
    # Where the tail goes differs only in the padded rows of a batch (spec 3.1), which we keep out of the sums.
    "CifPredictorV2": _predictor(2, 0.0, {"tail_mask": Only(True, (True, False), "nothing else")}),
    "CifPredictorV3": _FINE,
}

FRONTEND = Part(
    FrontendConfig,
    {
        "n_mels": ("mel_bins", 80),
        "window": ("window", "hamming"),
        "frame_length": ("frame_ms", 25.0),
        "frame_shift": ("shift_ms", 10.0),
        "lfr_m": ("lfr_m", 1),
        "lfr_n": ("lfr_n", 1),
    },
    frozenset({"n_mels", "window", "frame_length", "frame_shift", "lfr_m", "lfr_n"}),
    {
        "fs": Only(SAMPLE_RATE, (SAMPLE_RATE,), "speech at another rate"),
        "snip_edges": Only(True, (True,), "frames that reach beyond the ends"),
        "upsacle_samples": Only(True, (True,), "samples in another range"),
    },
    {"cmvn_file": "found by `funasr_directory.locate`"},
    {
        "dither": "noise that makes FunASR's results differ from run to run; never computed (docs/quirks.md)",
        **reasons("FunASR never looks at it", "filter_length_min", "filter_length_max"),
    },
)
FRONTENDS = {"WavFrontend": FRONTEND, "WavFrontendOnline": FRONTEND}

_RECOGNITION = {
    "decoding_ctc_weight": Only(0.0, (0.0, None), "a search with CTC"),
    "lm_weight": Only(0.0, (0.0, None), "a search with FunASR's language model"),
}
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
    fixed={
        "share_embedding": Only(False, (False,), "targets embedded by the output layer"),
        "blank_id": Only(0, (0,), "special tokens elsewhere"),
        "sos": Only(1, (1,), "special tokens elsewhere"),
        "eos": Only(2, (2,), "special tokens elsewhere"),
    },
    ignored={
        "ignore_id": "padding of training targets",
        "use_1st_decoder_loss": "FunASR's Paraformer never looks at it",
        **reasons("what training reports", "report_cer", "report_wer", "sym_space", "sym_blank"),
        "extract_feats_in_collect_stats": "of the training's preparation",
    },
    tolerant=True,
)
_BIAS_ENCODER = {
    "bias_encoder_type": Only("lstm", ("lstm",), "hotwords as means of their characters"),
}
_BIAS_ELSEWHERE: Reasons = {"inner_dim": "compared with the encoder's output_size"}
_BIAS_TRAINING = reasons("training drops rows between the layers of the LSTM", "bias_encoder_dropout_rate")
SEACO = Part(
    SeacoConfig,
    {
        "bias_encoder_bid": ("bidirectional", False),
        "NO_BIAS": ("no_bias_id", 8377),
        "seaco_lsm_weight": ("label_smoothing", 0.0),
        "seaco_length_normalized_loss": ("length_normalized", True),
        "train_decoder": ("trains_decoder", True),
        "seaco_weight": ("objective_weight", 0.01),
    },
    fixed=_BIAS_ENCODER,
    elsewhere=_BIAS_ELSEWHERE,
    ignored={**_BIAS_TRAINING, "seaco_length_normal": "FunASR looks at seaco_length_normalized_loss alone"},
    tolerant=True,
)
"""What a SeacoParaformer has in model_conf besides."""
SEACO_DECODER = Part(
    SeacoConfig,
    _SANM_DECODER.fields,
    _NEEDED | {"kernel_size", "sanm_shfit"},
    {
        **_SANM_DECODER.fixed,
        "use_output_layer": Only(True, (False,), "a second output over hotwords"),
        "wo_input_layer": Only(False, (True,), "another embedding"),
    },
    ignored=_SANM_DECODER.ignored,
)
CONTEXTUAL = Part(
    ContextualConfig,
    {"use_decoder_embedding": ("own_embedding", False)},
    fixed=_BIAS_ENCODER,
    elsewhere=_BIAS_ELSEWHERE,
    ignored={
        **_BIAS_TRAINING,
        **reasons("training, where FunASR has it switched off", "crit_attn_weight", "crit_attn_smooth"),
        "target_buffer_length": "of FunASR's data loader",
    },
    tolerant=True,
)
"""What a ContextualParaformer has in model_conf besides."""
TOKENIZER = Part(
    dict,
    {},
    elsewhere=reasons("found by `funasr_directory.locate`", "token_list", "seg_dict_file", "seg_dict"),
    ignored={
        **reasons("how training texts are cut", "split_with_space", "space_symbol", "remove_non_linguistic_symbols"),
        **reasons("how training texts are cut", "unk_symbol", "non_linguistic_symbols", "delimiter", "symbol_value"),
        "bpemodel": "of tokenizers that `tokenizer` rules out",
    },
    tolerant=True,
)
WHOLE_MODEL = Part(
    dict,
    {},
    fixed={
        "normalize": Only(None, (None, "None"), "another normalisation"),
        "tokenizer": Only("CharTokenizer", ("CharTokenizer",), "another kind of vocabulary"),
        **_RECOGNITION,
    },
    elsewhere={
        "model": "what kind of model it is",
        **reasons("classes, from these tables", "encoder", "decoder", "predictor", "frontend"),
        **reasons("their settings, from these tables", "encoder_conf", "decoder_conf", "predictor_conf"),
        **reasons("their settings, from these tables", "frontend_conf", "model_conf", "tokenizer_conf"),
        **reasons("the second decoder of SEACO_DECODER", "seaco_decoder", "seaco_decoder_conf"),
        **reasons("compared with the other settings", "vocab_size", "input_size"),
    },
    ignored={
        **reasons("training", "train_conf", "optim", "optim_conf", "scheduler", "scheduler_conf", "specaug"),
        **reasons("training", "specaug_conf", "dataset", "dataset_conf", "ctc_conf", "normalize_conf", "init_param"),
        **reasons("of FunASR's other readers; `tokenizer_conf` counts", "token_list"),
    },
    tolerant=True,
)
"""The top level of config.yaml."""
METADATA = Part(
    dict,
    {},
    elsewhere={
        "file_path_metas": "read by `funasr_directory.locate`",
        "paraformer": "what our own `funasr.save` wrote",
    },
    ignored=reasons("for hubs", "framework", "task", "model", "pipeline"),
    tolerant=True,
)
"""configuration.json."""


PATHS = Part(
    dict,
    {},
    elsewhere={
        **reasons("found by `funasr_directory.locate`", "init_param", "config"),
        **reasons("sections with files of their own", "tokenizer_conf", "frontend_conf"),
    },
    tolerant=True,
)
"""`file_path_metas` of configuration.json."""


class Named(NamedTuple):
    """A file of a directory: the settings that may name it, in file_path_metas and config.yaml, and its usual names."""

    keys: tuple[tuple[str, ...], ...]
    usual: tuple[str, ...]


SETTINGS = Named((("config",),), ("config.yaml",))
WEIGHTS = Named((("init_param",),), ("model.pt", "model.pb"))
TOKENS = Named((("tokenizer_conf", "token_list"),), ("tokens.json", "tokens.txt"))
CMVN = Named((("frontend_conf", "cmvn_file"),), ("am.mvn",))
WORDS = Named((("tokenizer_conf", "seg_dict_file"), ("tokenizer_conf", "seg_dict")), ("seg_dict",))
DICTIONARY = Named((("jieba_usr_dict",),), ("jieba_usr_dict",))
