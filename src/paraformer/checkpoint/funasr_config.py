"""FunASR's config.yaml to our ModelConfig, from the tables of `funasr_parts`; `funasr_writer` goes the other way.

A setting that changes what is computed is honoured, or must have the value that our code computes, or is unknown: an
error. In sections where FunASR's classes accept and drop what they do not know (`model_conf` and the top level: data,
optimiser, schedule, logging), so do we, unless it looks like a setting that is missing there: then it is misspelt.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from paraformer import kinds
from paraformer.checkpoint.funasr_parts import (
    CHUNKS,
    CONTEXTUAL,
    DECODERS,
    ENCODERS,
    FRONTEND,
    FRONTENDS,
    OBJECTIVE,
    PREDICTORS,
    SEACO,
    SEACO_DECODER,
    TIMING,
    TOKENIZER,
    WHOLE_MODEL,
    Fixed,
    Part,
)
from paraformer.config import (
    ChunkConfig,
    ContextualConfig,
    DecoderConfig,
    FrontendConfig,
    HotwordConfig,
    ModelConfig,
    ObjectiveConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SeacoConfig,
    TimingConfig,
    TrainingChunk,
)
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.kinds import DETECTOR, PUNCTUATION, RECOGNISER, VOICES, mixed_up
from paraformer.settings import nearest

LIVE = ChunkConfig(left=5, chunk=10, right=5, encoder_look_back=4, decoder_look_back=1)
"""What live sessions of FunASR's streaming models use unless told otherwise; FunASR keeps it out of the model."""

OTHER_KINDS = {
    "EParaformer": "E-Paraformer",
    "Paraformer_v2_community": "Paraformer-v2",
}
"""FunASR's relatives of the Paraformer that this version does not run."""


ALIGNER = "MonotonicAligner"
NO_RECOGNISERS = {
    "CTTransformer": PUNCTUATION,
    "CTTransformerStreaming": PUNCTUATION,
    "FsmnVADStreaming": DETECTOR,
    ALIGNER: kinds.ALIGNER,
    "CAMPPlus": VOICES,
}
"""FunASR's models that stand beside a recogniser."""


class Kind(NamedTuple):
    """The classes that a kind of model may be made of."""

    decoders: tuple[str, ...]
    predictors: tuple[str, ...]


_PLAIN = Kind(("ParaformerSANMDecoder", "ParaformerSANDecoder"), ("CifPredictor", "CifPredictorV2"))
KINDS: Mapping[str, Kind] = {
    "Paraformer": _PLAIN,
    "ParaformerStreaming": _PLAIN,
    "BiCifParaformer": Kind(_PLAIN.decoders, ("CifPredictorV3",)),
    "SeacoParaformer": Kind(("ParaformerSANMDecoder",), ("CifPredictorV3",)),
    "ContextualParaformer": Kind(("ContextualParaformerDecoder",), _PLAIN.predictors),
}


def read(settings: Mapping[str, Any], vocab_size: int) -> ModelConfig:
    """The model that config.yaml describes. vocab_size: from the token list; FunASR keeps it there alone.

    Raises UnsupportedModel for other kinds of model and for variants that would compute something else than our code,
    ConfigError for unknown settings and values that make no sense.
    """
    check(settings)
    encoder = _read_class(ENCODERS, settings, "encoder")
    config = ModelConfig(
        vocab_size=vocab_size,
        frontend=_read_frontend(settings),
        encoder=encoder,
        predictor=_read_predictor(settings, encoder.dim),
        decoder=_read_decoder(settings),
        objective=_read_objective(settings),
        training_chunks=_read_chunks(settings),
        hotwords=_read_hotwords(settings, encoder.dim),
    )
    _compare_sizes(settings, config)
    if settings["model"] != "ParaformerStreaming":
        return config
    if not config.streaming:
        raise UnsupportedModel(_not_streaming(config.decoder))
    return dataclasses.replace(config, live=LIVE)


def _not_streaming(decoder: DecoderConfig) -> str:
    """Why a model that has only ever seen chunks cannot run live: it could not run at all."""
    causal = (decoder.kernel - 1) // 2 if isinstance(decoder, SanmDecoderConfig) else 0
    if isinstance(decoder, SanmDecoderConfig) and decoder.shift != causal:
        return (
            f"decoder_conf.sanm_shfit is {decoder.shift}, but a ParaformerStreaming decides tokens before it has heard "
            f"the next, which takes {causal} with a kernel of {decoder.kernel}"
        )
    return (
        "a ParaformerStreaming runs live only with SAN-M encoder and decoder, and with attention in every layer of the "
        "decoder: att_layer_num as large as num_blocks"
    )


def read_aligner(settings: Mapping[str, Any], vocab_size: int) -> ModelConfig:
    """The aligner that config.yaml describes, which is a model without a decoder. Errors as those of `read`."""
    check_keys(WHOLE_MODEL, settings, "")
    check_fixed(WHOLE_MODEL.fixed, settings, "")
    encoder = _read_class({"SANMEncoder": ENCODERS["SANMEncoder"]}, settings, "encoder")
    predictor = _read_predictor({**settings, "model": "BiCifParaformer"}, encoder.dim)
    decoder = SanmDecoderConfig(heads=encoder.heads)
    config = ModelConfig(
        vocab_size=vocab_size,
        frontend=_read_frontend(settings),
        encoder=encoder,
        predictor=predictor,
        decoder=decoder,
    )
    _compare_sizes({**settings, "vocab_size": None}, config)
    return config


def check(settings: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel, with what to use instead, unless the settings are of a kind of model that we run.

    Raises ConfigError for misspelt keys of the top level, for what they hold may then be looked for in vain.
    """
    check_keys(WHOLE_MODEL, settings, "")
    _check_kind(settings)
    check_fixed(WHOLE_MODEL.fixed, settings, "")
    check_keys(FRONTEND, conf_of(settings, "frontend_conf"), "frontend_conf")
    check_keys(TOKENIZER, conf_of(settings, "tokenizer_conf"), "tokenizer_conf")


def _check_kind(settings: Mapping[str, Any]) -> None:
    kind = settings.get("model")
    if isinstance(kind, str) and kind in NO_RECOGNISERS:
        raise mixed_up(f"a {kind}", NO_RECOGNISERS[kind], RECOGNISER)
    if isinstance(kind, str) and kind in OTHER_KINDS:
        raise UnsupportedModel(
            f"models of kind {kind} ({OTHER_KINDS[kind]}) are not supported yet; use the plain Paraformer of the same "
            "data, 'paraformer' for whole recordings or 'paraformer-zh-streaming' for live recognition"
        )
    if not isinstance(kind, str) or kind not in KINDS:
        *first, last = KINDS
        raise UnsupportedModel(f"the model is of kind {kind!r}, not {', '.join(first)} or {last}")
    if kind != "ParaformerStreaming" and settings.get("encoder") == "SANMEncoderChunkOpt":
        raise UnsupportedModel(f"a {kind} on SANMEncoderChunkOpt is not supported; ParaformerStreaming is")


# -- one class of FunASR's ------------------------------------------------------------------------------------------


def _read_class(classes: Mapping[str, Part], settings: Mapping[str, Any], section: str) -> Any:
    """The dataclass for the class that `settings[section]` names, from `settings[section + "_conf"]`."""
    name = settings.get(section)
    if not isinstance(name, str) or name not in classes:
        raise UnsupportedModel(f"{section} {name!r} is not supported; {', '.join(classes)} are")
    part = classes[name]
    return part.kind(**read_part(part, conf_of(settings, f"{section}_conf"), f"{section}_conf"))


def read_part(part: Part, conf: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Our fields from FunASR's settings. Raises ConfigError or UnsupportedModel for those that the tables forbid."""
    check_keys(part, conf, where)
    check_fixed(part.fixed, conf, where)
    missing = sorted(part.needed - set(conf))
    if missing:
        defaults = ", ".join(f"{key}: {part.fields[key][1]!r}" for key in missing)
        raise ConfigError(f"{where} lacks {', '.join(missing)}; if FunASR's defaults were meant, add {defaults}")
    ours = {
        field: _typed(conf.get(key, default), default, f"{where}.{key}")
        for key, (field, default) in part.fields.items()
    }
    return {**ours, **part.constants}


def check_keys(part: Part, conf: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for a setting that the tables do not know, or in tolerant sections for a misspelt one.

    Misspelt is what looks like a known setting that is not there. where: the section; empty: the top level.
    """
    counting = {*part.fields, *part.fixed, *part.elsewhere}
    for key in map(str, conf):
        if key in counting or key in part.ignored:
            continue
        meant = nearest(key, counting.union(() if part.tolerant else part.ignored) - set(conf))
        if meant or not part.tolerant:
            raise ConfigError(f"unknown setting{where and f' in {where}'}: {key}{meant}")


def check_fixed(fixed: Fixed, conf: Mapping[str, Any], where: str) -> None:
    """Raise UnsupportedModel for a setting with another value than the one that we compute."""
    for key, only in fixed.items():
        value = conf.get(key, only.default)
        if value not in only.accepted:
            runs = " or ".join(repr(choice) for choice in only.accepted)
            raise UnsupportedModel(
                f"{f'{where}: ' if where else ''}{key} is {value!r}, but this version runs only {runs}; "
                f"it lacks {only.why}"
            )


def _typed(value: Any, default: Any, where: str) -> Any:
    """The value in the type of the default; whole floats pass for integers, as in FunASR's Python."""
    if isinstance(default, (bool, str)):
        fits = isinstance(value, type(default))
    else:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        fits = number and (isinstance(default, float) or value == int(value))
    if not fits:
        raise ConfigError(f"{where} must be like {default!r}, not {value!r:.60}")
    return type(default)(value)


def conf_of(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The settings below a key of config.yaml, empty where there are none. Raises ConfigError for anything else."""
    conf = {} if (found := settings.get(name)) is None else found
    if not isinstance(conf, Mapping):
        raise ConfigError(f"{name} must hold settings, not {conf!r:.60}")
    return conf


# -- sections with rules of their own -------------------------------------------------------------------------------


def _read_objective(settings: Mapping[str, Any]) -> ObjectiveConfig:
    """It knows no other predictor_bias than 0 and 1."""
    ours = _read_model_conf(OBJECTIVE, settings)
    if ours["predict_eos"] not in (0, 1):
        raise ConfigError(f"model_conf.predictor_bias must be 0 or 1, not {ours['predict_eos']}")
    return ObjectiveConfig(**{**ours, "predict_eos": ours["predict_eos"] == 1})


def _read_model_conf(part: Part, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields of one part of `model_conf`, which several share; FunASR lets the top level override it."""
    top = {key: settings[key] for key in (*part.fields, *part.fixed) if key in settings}
    hotwords = _HOTWORDS.get(settings["model"])
    shared = _keys(OBJECTIVE) | (_keys(hotwords) if hotwords else set())
    sharing = dataclasses.replace(part, elsewhere={**part.elsewhere, **dict.fromkeys(shared, "another part's")})
    return read_part(sharing, {**conf_of(settings, "model_conf"), **top}, "model_conf")


def _keys(part: Part) -> set[str]:
    return {*part.fields, *part.fixed, *part.elsewhere, *part.ignored}


def _read_hotwords(settings: Mapping[str, Any], dim: int) -> HotwordConfig | None:
    part = _HOTWORDS.get(settings["model"])
    if part is None:
        return None
    width = conf_of(settings, "model_conf").get("inner_dim", 256)
    if width != dim:
        raise ConfigError(f"model_conf.inner_dim is {width!r}, but the encoder's output_size is {dim}")
    ours = _read_model_conf(part, settings)
    if part is CONTEXTUAL:
        return ContextualConfig(own_embedding=not ours["own_embedding"])
    decoder: SeacoConfig = _read_class(
        {"ParaformerSANMDecoder": SEACO_DECODER}, _causal(settings, "seaco_decoder"), "seaco_decoder"
    )
    layers = max(decoder.layers, decoder.attention_layers)
    return dataclasses.replace(decoder, **ours, layers=layers)


_HOTWORDS = {"SeacoParaformer": SEACO, "ContextualParaformer": CONTEXTUAL}


def _read_timing(settings: Mapping[str, Any]) -> TimingConfig:
    conf = conf_of(settings, "predictor_conf")
    ours = read_part(TIMING, {key: conf[key] for key in TIMING.fields if key in conf}, "predictor_conf")
    if ours["recurrent"] not in UPSAMPLING:
        *first, last = map(repr, UPSAMPLING)
        raise UnsupportedModel(
            f"predictor_conf: upsample_type is {ours['recurrent']!r}, but this version runs only {', '.join(first)} or "
            f"{last}; FunASR itself cannot run another"
        )
    return TimingConfig(**{**ours, "recurrent": UPSAMPLING[ours["recurrent"]]})


UPSAMPLING = {"cnn": False, "cnn_blstm": True}
"""FunASR's upsample_type, and whether there is an LSTM."""


def _read_frontend(settings: Mapping[str, Any]) -> FrontendConfig:
    """FunASR's defaults where there is no section at all; else the settings of a frame are all there or none is."""
    named = {"frontend": "WavFrontend", **settings}
    conf = conf_of(settings, "frontend_conf")
    if not FRONTEND.needed & set(conf):
        named["frontend_conf"] = {**{key: FRONTEND.fields[key][1] for key in FRONTEND.needed}, **conf}
    frontend: FrontendConfig = _read_class(FRONTENDS, named, "frontend")
    return frontend


def _read_decoder(settings: Mapping[str, Any]) -> DecoderConfig:
    """num_blocks below att_layer_num counts for nothing."""
    known = {name: DECODERS[name] for name in KINDS[settings["model"]].decoders}
    decoder: DecoderConfig = _read_class(known, _causal(settings, "decoder"), "decoder")
    if decoder.kind == "sanm":
        return dataclasses.replace(decoder, layers=max(decoder.layers, decoder.attention_layers))
    return decoder


def _causal(settings: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    """Settings in which a null sanm_shfit of a decoder is the one that makes its memory causal."""
    conf = dict(conf_of(settings, f"{section}_conf"))
    if conf.get("sanm_shfit", 0) is None:
        conf["sanm_shfit"] = (conf.get("kernel_size", 21) - 1) // 2
    return {**settings, f"{section}_conf": conf}


def _read_predictor(settings: Mapping[str, Any], dim: int) -> PredictorConfig:
    width = conf_of(settings, "predictor_conf").get("idim", dim)
    if width != dim:
        raise ConfigError(f"predictor_conf.idim is {width!r}, but the encoder's output_size is {dim}")
    known = {name: PREDICTORS[name] for name in KINDS[settings["model"]].predictors}
    predictor: PredictorConfig = _read_class(known, settings, "predictor")
    if settings["predictor"] == "CifPredictorV3":
        return dataclasses.replace(predictor, timing=_read_timing(settings))
    return predictor


def _compare_sizes(settings: Mapping[str, Any], config: ModelConfig) -> None:
    """Sizes that FunASR's training writes down though other settings have them already."""
    for key, size in (("vocab_size", config.vocab_size), ("input_size", config.frontend.input_dim)):
        if settings.get(key) not in (None, size):
            raise ConfigError(f"{key} is {settings[key]!r}, but by the other settings and files it is {size}")


def _read_chunks(settings: Mapping[str, Any]) -> tuple[TrainingChunk, ...]:
    """The parallel lists of chunk settings; a list shorter than the sizes counts with its first entry throughout."""
    if settings["encoder"] != "SANMEncoderChunkOpt":
        return ()
    conf = conf_of(settings, "encoder_conf")
    defaults = {"chunk_size": (16,), "stride": (10,), "pad_left": (0,)}
    lists = [_integers(conf.get(key, defaults.get(key, (1,))), key) for key in CHUNKS]
    count = len(lists[0])
    if len(lists[1]) < count:
        raise ConfigError(f"encoder_conf has {count} of chunk_size but only {len(lists[1])} of stride")
    full = [row if len(row) >= count else row[:1] * count for row in lists]
    return tuple(
        TrainingChunk(size=size, stride=stride, pad_left=left, encoder_look_back=encoder, decoder_look_back=decoder)
        for size, stride, left, encoder, decoder in zip(*(row[:count] for row in full), strict=True)
    )


def _integers(value: Any, key: str) -> tuple[int, ...]:
    row = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not row or not all(isinstance(item, int) and not isinstance(item, bool) for item in row):
        raise ConfigError(f"encoder_conf.{key} must be whole numbers, not {value!r:.60}")
    return row
