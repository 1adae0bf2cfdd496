"""Our ModelConfig to FunASR's config.yaml, from the tables that `funasr_config` reads it by."""

from __future__ import annotations

import dataclasses
from typing import Any

from paraformer.checkpoint.funasr_config import KINDS, LIVE, UPSAMPLING
from paraformer.checkpoint.funasr_parts import (
    CHUNKS,
    CONTEXTUAL,
    DECODERS,
    ENCODERS,
    FRONTEND,
    OBJECTIVE,
    PREDICTORS,
    SEACO,
    SEACO_DECODER,
    TIMING,
    Part,
)
from paraformer.config import (
    ContextualConfig,
    FrontendConfig,
    HotwordConfig,
    ModelConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
    SeacoConfig,
    TimingConfig,
    TrainingChunk,
)
from paraformer.errors import UnsupportedModel


def write(config: ModelConfig) -> dict[str, Any]:
    """The config.yaml of a model. A CTC layer with units of its own has no place in FunASR: its weight becomes 0.

    Of a SAN-M encoder that is not as published it tells what other runtimes read; see `check_parts`.
    """
    streaming = config.live is not None or bool(config.training_chunks)
    encoder = {"sanm": "SANMEncoderChunkOpt" if streaming else "SANMEncoder"}.get(
        config.encoder.kind, f"{config.encoder.kind.capitalize()}Encoder"
    )
    kind = _kind(config)
    decoder = KINDS[kind].decoders[0 if config.decoder.kind == "sanm" else -1]
    predictor = KINDS[kind].predictors[0 if config.predictor.version == 1 else -1]
    objective = config.objective if has_shared_ctc(config) else dataclasses.replace(config.objective, ctc_weight=0.0)
    chunks = _write_chunks(config) if encoder == "SANMEncoderChunkOpt" else {}
    return {
        "model": kind,
        "model_conf": {
            **_write(OBJECTIVE, objective),
            "predictor_bias": int(objective.predict_eos),
            **_write_hotwords(config),
        },
        "encoder": encoder,
        "encoder_conf": {**_write(ENCODERS[encoder], config.encoder), **chunks},
        "decoder": decoder,
        "decoder_conf": _write(DECODERS[decoder], config.decoder),
        "predictor": predictor,
        "predictor_conf": {
            "idim": config.encoder.output_dim,
            **_write(PREDICTORS[predictor], config.predictor),
            **_write_timing(config.predictor.timing),
        },
        **_write_hotword_decoder(config.hotwords),
        "frontend": "WavFrontendOnline" if streaming else "WavFrontend",
        "frontend_conf": _write_frontend(config.frontend),
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"split_with_space": True},
        "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True, "ignore_nan_grad": True},
        "normalize": None,
    }


def check_parts(config: ModelConfig) -> None:
    """Raise UnsupportedModel for an encoder or decoder that FunASR does not have."""
    if isinstance(config.decoder, SanmDecoderConfig) and not config.decoder.plain:
        raise UnsupportedModel(
            "FunASR has no decoder with a text part or a memory that looks ahead, as this model has; keep it in our "
            "own format, or export it to funasr-onnx or sherpa-onnx"
        )
    if isinstance(config.encoder, SanmEncoderConfig) and not config.encoder.plain:
        raise UnsupportedModel(
            "FunASR has no encoder with a front, windows of several rows, GELU, another norm epsilon or no memory, as "
            "this model has; keep it in our own format, or export it to funasr-onnx or sherpa-onnx"
        )
    if config.predictor.threshold != "fixed" or config.predictor.pause_weight:
        raise UnsupportedModel(
            "FunASR has no predictor with a dynamic threshold or whose tokens a pause ends, as this model has; set "
            "threshold: fixed and pause_weight: 0 in its settings first, which changes its tokens"
        )
    if config.predictor.timing is not None and isinstance(config.hotwords, ContextualConfig):
        raise UnsupportedModel("FunASR has no Contextual Paraformer with a second predictor for times")
    if config.predictor.timing is None and isinstance(config.hotwords, SeacoConfig):
        raise UnsupportedModel("FunASR has no SeACo-Paraformer without a second predictor for times")
    if config.hotwords is not None and config.hotwords.recurrent_layers != type(config.hotwords)().recurrent_layers:
        raise UnsupportedModel("FunASR's encoder of hotwords has another number of layers than this model's")
    if (config.hotwords or config.predictor.timing) and (config.live or config.training_chunks):
        raise UnsupportedModel("FunASR has no live models with hotwords or a second predictor for times")


def _kind(config: ModelConfig) -> str:
    """FunASR's class of a model."""
    if config.hotwords is not None:
        return "SeacoParaformer" if isinstance(config.hotwords, SeacoConfig) else "ContextualParaformer"
    if config.predictor.timing is not None:
        return "BiCifParaformer"
    return "ParaformerStreaming" if config.live is not None or config.training_chunks else "Paraformer"


def has_shared_ctc(config: ModelConfig) -> bool:
    """Whether a CTC layer, where there is one, scores the model's own vocabulary: the only kind FunASR knows."""
    return config.objective.ctc_units in (0, config.vocab_size)


def _write(part: Part, values: Any) -> dict[str, Any]:
    """FunASR's settings of one class from our dataclass, with every fixed value spelled out."""
    conf = {key: getattr(values, field) for key, (field, _) in part.fields.items()}
    return {**conf, **{key: only.accepted[0] for key, only in part.fixed.items()}}


def _write_hotwords(config: ModelConfig) -> dict[str, Any]:
    """What the kinds with hotwords have in model_conf besides."""
    dim = config.encoder.output_dim
    match config.hotwords:
        case SeacoConfig():
            return {"inner_dim": dim, **_write(SEACO, config.hotwords)}
        case ContextualConfig():
            own = config.hotwords.own_embedding
            return {"inner_dim": dim, **_write(CONTEXTUAL, config.hotwords), "use_decoder_embedding": not own}
        case None:
            return {}


def _write_hotword_decoder(hotwords: HotwordConfig | None) -> dict[str, Any]:
    if not isinstance(hotwords, SeacoConfig):
        return {}
    return {"seaco_decoder": "ParaformerSANMDecoder", "seaco_decoder_conf": _write(SEACO_DECODER, hotwords)}


def _write_timing(timing: TimingConfig | None) -> dict[str, Any]:
    if timing is None:
        return {}
    names = {recurrent: name for name, recurrent in UPSAMPLING.items()}
    return {**_write(TIMING, timing), "upsample_type": names[timing.recurrent]}


def _write_frontend(frontend: FrontendConfig) -> dict[str, Any]:
    """Whole milliseconds as integers, as FunASR's runtimes in other languages read them."""
    conf = _write(FRONTEND, frontend)
    whole = {key: int(conf[key]) for key in ("frame_length", "frame_shift") if conf[key] == int(conf[key])}
    return {**conf, **whole, "dither": 0.0}


def _write_chunks(config: ModelConfig) -> dict[str, list[int]]:
    """FunASR's lists need at least one entry; without training chunks it is the live setting's."""
    live = config.live or LIVE
    chunks = config.training_chunks or (
        TrainingChunk(
            size=live.chunk + live.right,
            stride=live.chunk,
            encoder_look_back=max(live.encoder_look_back, 0),
            decoder_look_back=live.decoder_look_back,
        ),
    )
    rows = [
        [chunk.size, chunk.stride, chunk.pad_left, chunk.encoder_look_back, chunk.decoder_look_back] for chunk in chunks
    ]
    return {key: list(column) for key, column in zip(CHUNKS, zip(*rows, strict=True), strict=True)}
