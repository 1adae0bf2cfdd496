"""Settings of a model, as frozen dataclasses. They travel with the weights, as JSON.

Foreign spellings (FunASR's YAML) are translated in `paraformer.checkpoint.funasr_config`; an unknown key is an error
here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paraformer.config.chunks import LONGEST_VIEW, ChunkConfig, TrainingChunk
from paraformer.config.decoders import (
    PAUSE_WINDOWS,
    ContextualConfig,
    DecoderConfig,
    HotwordConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SeacoConfig,
    TextConfig,
    TimingConfig,
    TransformerDecoderConfig,
)
from paraformer.config.encoders import (
    SAMPLE_RATE,
    ConformerEncoderConfig,
    EncoderConfig,
    FrontConfig,
    FrontendConfig,
    SanmEncoderConfig,
    TransformerEncoderConfig,
    WindowsConfig,
)
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.settings import Count, Factor, Share, Size, by_name, check_choice, check_ranges, from_mapping

__all__ = [
    "BLANK_ID",
    "EOS_ID",
    "LATER",
    "LONGEST_VIEW",
    "PAUSE_WINDOWS",
    "SAMPLE_RATE",
    "SHORTLIST",
    "SILENT_IDS",
    "SOS_ID",
    "ChunkConfig",
    "ConformerEncoderConfig",
    "ContextualConfig",
    "DecoderConfig",
    "EncoderConfig",
    "FrontConfig",
    "FrontendConfig",
    "HotwordConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PredictorConfig",
    "SanmDecoderConfig",
    "SanmEncoderConfig",
    "SeacoConfig",
    "TextConfig",
    "TimingConfig",
    "TrainingChunk",
    "TransformerDecoderConfig",
    "TransformerEncoderConfig",
    "WindowsConfig",
]

BLANK_ID, SOS_ID, EOS_ID = 0, 1, 2
SHORTLIST = 50
"""Hotwords that SeACo-Paraformer's second decoder chooses from: those that the first one's rows attend to most."""
SILENT_IDS = (BLANK_ID, SOS_ID, EOS_ID)
"""Items that stand for no text (spec 7.1)."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the training objective and the glancing sampler."""

    ctc_weight: Share = 0.0
    """The loss is ctc_weight * CTC + (1 - ctc_weight) * cross_entropy_weight * cross-entropy + quantity_weight * MAE
    + mwer_weight * MWER + middle_ctc_weight * CTC in the middle."""
    ctc_units: Count = 0
    """Size of the CTC vocabulary where it is not the model's own (e.g. syllables); 0: the model's own."""
    label_smoothing: Share = 0.1
    length_normalized: bool = True
    """Cross-entropy and MAE per token instead of per utterance."""
    middle_ctc_weight: Factor = 0.0
    """Of a second CTC loss, with the same layer, on the rows of the block in the middle of the encoder."""
    cross_entropy_weight: Factor = 1.0
    quantity_weight: Factor = 1.0
    mwer_weight: Factor = 0.0
    """Of the expected number of wrong tokens, for fine-tuning; the paper then lowers cross_entropy_weight."""
    mwer_samples: Size = 4
    units_weight: Factor = 1.0
    """Of the cross-entropy of the decoder's units, where it has a text part."""
    sampling_ratio: Share = 0.75
    """Share of the first pass's errors replaced by target embeddings; 0: one pass."""
    predict_eos: bool = True
    """Append </s> to each target, so the predictor fires once more ("predictor_bias: 1")."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that determines the parameters of a model and what they compute."""

    vocab_size: Count
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    encoder: EncoderConfig = field(default_factory=SanmEncoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    decoder: DecoderConfig = field(default_factory=SanmDecoderConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training_chunks: tuple[TrainingChunk, ...] = ()
    """Chunk settings that a FunASR streaming model was trained with. It has never seen more than a chunk at once, so it
    recognises files as streams."""
    live: ChunkConfig | None = None
    """Chunk setting that live sessions use unless told otherwise; None: not made for live recognition."""
    hotwords: HotwordConfig | None = None
    """How the model itself listens for hotwords; None: it does not."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.frontend.sample_rate != SAMPLE_RATE:
            raise UnsupportedModel(
                f"frontend.sample_rate is {self.frontend.sample_rate}, but this version hears {SAMPLE_RATE} Hz only"
            )
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            if part.kind == "sanm" and part.shift > part.kernel // 2:
                raise ConfigError(f"{name}.shift is {part.shift}, which is beyond the kernel of {part.kernel}")
        encoder, dim = self.encoder, self.encoder.output_dim
        if encoder.dim % encoder.heads or dim % self.decoder.heads:
            raise ConfigError(f"dim {dim} must be a multiple of the heads of encoder and decoder")
        if isinstance(encoder, SanmEncoderConfig):
            self._check_rows(encoder)
        if self.hotwords is not None:
            self._check_hotwords(self.hotwords)
        if self.objective.middle_ctc_weight > 0 and not (self.objective.ctc_weight > 0 and self.encoder.kind == "sanm"):
            raise ConfigError("middle_ctc_weight needs a ctc_weight above 0 and a SAN-M encoder")

    def _check_hotwords(self, hotwords: HotwordConfig) -> None:
        if self.decoder.kind != "sanm" or not self.decoder.attention_layers:
            raise ConfigError(f"hotwords of the {hotwords.kind} kind need a SAN-M decoder with attention")
        if hotwords.kind != "seaco":
            return
        if hotwords.no_bias_id >= self.vocab_size:
            raise ConfigError(
                f"hotwords.no_bias_id is {hotwords.no_bias_id}, which a vocabulary of {self.vocab_size} does not have"
            )
        if self.encoder.output_dim % hotwords.heads or hotwords.shift > hotwords.kernel // 2:
            raise ConfigError(f"hotwords.heads must divide {self.encoder.output_dim}, and shift be within the kernel")

    def _check_rows(self, encoder: SanmEncoderConfig) -> None:
        if encoder.windows and encoder.windows.dim % encoder.windows.heads:
            raise ConfigError(
                f"windows of {encoder.windows.dim} must be a multiple of their {encoder.windows.heads} heads"
            )
        if encoder.front and self.frontend.lfr_n % encoder.front.stride:
            raise ConfigError(
                f"a front that makes a row of {encoder.front.stride} frames needs windows of a multiple of that, "
                f"not of {self.frontend.lfr_n}"
            )
        if self.rows_per_window > 1 and not encoder.windows:
            raise ConfigError(f"{self.rows_per_window} rows to a window need the encoder setting 'windows'")
        if (encoder.front or encoder.windows) and self.training_chunks:
            raise ConfigError("training_chunks are for encoders without front and windows")
        if encoder.windows and self.objective.middle_ctc_weight > 0:
            raise ConfigError("middle_ctc_weight is for encoders whose windows are their rows")

    @property
    def rows_per_window(self) -> int:
        """Encoder rows inside the encoder to one that comes out of it."""
        front = self.encoder.front if isinstance(self.encoder, SanmEncoderConfig) else None
        return self.frontend.lfr_n // front.stride if front else 1

    @property
    def ctc_vocab_size(self) -> int:
        """Outputs of the CTC layer, 0 where there is none."""
        return (self.objective.ctc_units or self.vocab_size) if self.objective.ctc_weight > 0 else 0

    @property
    def row_s(self) -> float:
        """Seconds from one encoder row to the next; convolutional subsampling makes it four input rows."""
        subsampling = 1 if self.encoder.kind == "sanm" else 4
        return self.frontend.lfr_n * self.frontend.shift_ms / 1000 * subsampling

    @property
    def units(self) -> int:
        """Units, such as syllables, that the decoder hears before it writes characters; 0: it does not."""
        text = self.decoder.text if isinstance(self.decoder, SanmDecoderConfig) else None
        return 0 if text is None or self.hotwords is not None else text.units

    @property
    def streaming(self) -> bool:
        """Whether the parameters can run live: SAN-M throughout, with a decoder that knows what it may see ahead."""
        decoder = self.decoder
        return (
            self.hotwords is None
            and self.encoder.kind == "sanm"
            and decoder.kind == "sanm"
            and decoder.attention_layers == decoder.layers
            and (decoder.look_ahead or (decoder.shift == (decoder.kernel - 1) // 2 and decoder.text is None))
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Read `to_dict`'s output, all of it: what is not there is not guessed, for it may change what is computed.

        Raises ConfigError for unknown keys, missing keys, values of another type and unknown kinds.
        """
        nested = dict(by_name(values, "model"))
        parts: dict[str, type] = dict(_PARTS)
        for key, kinds in (("encoder", _ENCODERS), ("decoder", _DECODERS)):
            if key in nested:
                kind = by_name(nested[key], key).get("kind")
                check_choice(kind, kinds, f"{key}.kind")
                parts[key] = kinds[str(kind)]
        if nested.get("hotwords") is not None:
            kind = by_name(nested["hotwords"], "hotwords").get("kind")
            check_choice(kind, _HOTWORDS, "hotwords.kind")
            parts["hotwords"] = _HOTWORDS[str(kind)]
        if isinstance(predictor := nested.get("predictor"), Mapping) and predictor.get("timing") is not None:
            timing = from_mapping(TimingConfig, predictor["timing"], "predictor.timing", optional=LATER)
            nested["predictor"] = {**predictor, "timing": timing}
        if parts.get("encoder") is SanmEncoderConfig:
            nested["encoder"] = _with_parts(nested["encoder"])
        if parts.get("decoder") is SanmDecoderConfig and nested["decoder"].get("text") is not None:
            text = from_mapping(TextConfig, nested["decoder"]["text"], "decoder.text", optional=LATER)
            nested["decoder"] = {**nested["decoder"], "text": text}
        for key in parts.keys() & nested.keys():
            if key != "live" or nested[key] is not None:
                nested[key] = from_mapping(parts[key], nested[key], key, optional=LATER)
        if isinstance(chunks := nested.get("training_chunks"), list | tuple):
            nested["training_chunks"] = tuple(
                from_mapping(TrainingChunk, chunk, "training_chunks", optional=()) for chunk in chunks
            )
        return from_mapping(cls, nested, "model", optional=LATER)


_PARTS = {
    "frontend": FrontendConfig,
    "predictor": PredictorConfig,
    "objective": ObjectiveConfig,
    "live": ChunkConfig,
}
_ENCODERS = {"sanm": SanmEncoderConfig, "conformer": ConformerEncoderConfig, "transformer": TransformerEncoderConfig}
_DECODERS = {"sanm": SanmDecoderConfig, "transformer": TransformerDecoderConfig}
_HOTWORDS: Mapping[str, type] = {"seaco": SeacoConfig, "contextual": ContextualConfig}

LATER = frozenset(
    {
        *(f"encoder.{name}" for name in ("activation", "norm_epsilon", "front", "windows")),
        *("decoder.text", "decoder.look_ahead", "objective.units_weight", "predictor.timing", "predictor.pause_weight"),
        "model.hotwords",
    }
)
"""Settings that models of earlier versions lack: there the default is what they mean."""


def _with_parts(encoder: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a SAN-M encoder with those of its parts read."""
    values = dict(encoder)
    if values.get("front") is not None:
        front = by_name(values["front"], "encoder.front")
        front = {key: tuple(value) if isinstance(value, list) else value for key, value in front.items()}
        values["front"] = from_mapping(FrontConfig, front, "encoder.front", optional=LATER)
    if values.get("windows") is not None:
        values["windows"] = from_mapping(WindowsConfig, values["windows"], "encoder.windows", optional=LATER)
    return values
