"""Settings of a model, as frozen dataclasses. They travel with the weights, as JSON.

Foreign spellings (FunASR's YAML) are translated in `paraformer.checkpoint.funasr`; an unknown key is an error here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.settings import (
    Between,
    Count,
    Factor,
    Layers,
    Share,
    Size,
    as_whole,
    by_name,
    check_choice,
    check_ranges,
    from_mapping,
)

BLANK_ID, SOS_ID, EOS_ID = 0, 1, 2
SAMPLE_RATE = 16000
"""Hz, of all speech that models hear."""
Milliseconds = Annotated[float, Between(1.0, 1000.0)]
Blocks = Annotated[int, Between(0, 1000)]
Weight = Annotated[float, Between(0.0, 10.0)]
"""Of integrate-and-fire, where 1 is a token: a row is 60 ms, and nobody says more than a few tokens in it."""
Reach = Annotated[int, Between(-1, 1 << 24)]
"""-1: without end."""
SHORTLIST = 50
"""Hotwords that SeACo-Paraformer's second decoder chooses from: those that the first one's rows attend to most."""
SILENT_IDS = (BLANK_ID, SOS_ID, EOS_ID)
"""Items that stand for no text (spec 7.1)."""


@dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """Samples to model input: Kaldi fbank, low frame rate, CMVN."""

    sample_rate: Size = SAMPLE_RATE
    """Hz."""
    mel_bins: Size = 80
    frame_ms: Milliseconds = 25.0
    shift_ms: Milliseconds = 10.0
    window: Literal["hamming", "hanning", "povey", "rectangular", "blackman"] = "hamming"
    lfr_m: Size = 7
    """Frames stacked into one window."""
    lfr_n: Size = 6
    """Frames from one window to the next."""

    @property
    def input_dim(self) -> int:
        """Width of one model input row."""
        return self.mel_bins * self.lfr_m

    @property
    def window_samples(self) -> int:
        """Samples from one model input row to the next: 960 (60 ms) at the published settings."""
        return round(self.sample_rate * self.shift_ms / 1000) * self.lfr_n


@dataclass(frozen=True, kw_only=True)
class FrontConfig:
    """Convolutions over the frames of the windows, each with GELU after it, as Whisper begins; for SAN-M encoders.

    They see the first `lfr_n` frames of every window, which together are all frames. Each pads with zeros: (kernel - 1)
    // 2 frames before the first, and after the last what its stride leaves over.
    """

    kernels: tuple[Size, ...] = (3, 3)
    strides: tuple[Size, ...] = (1, 2)
    period: Count = 0
    """Rows after which positions begin again, so that no stream comes to one that training never saw; 0: never."""

    def __post_init__(self) -> None:
        if not self.kernels or len(self.kernels) != len(self.strides):
            raise ConfigError(f"a front needs as many strides as kernels, at least one; not {self}")
        if any(not 1 <= stride <= kernel for kernel, stride in zip(self.kernels, self.strides, strict=True)):
            raise ConfigError(f"each stride of a front must be between 1 and its kernel; not {self}")

    @property
    def stride(self) -> int:
        """Frames to a row."""
        return math.prod(self.strides)


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """How a SAN-M encoder makes windows of its rows: all of a window side by side, a norm, a linear layer to `dim`.

    Then SAN-M blocks over windows. They see no further than one live step.
    """

    dim: Size = 384
    heads: Size = 6
    ffn_dim: Size = 1536
    layers: Blocks = 0
    kernel: Size = 11


@dataclass(frozen=True, kw_only=True)
class SanmEncoderConfig:
    """Memory-equipped self-attention (SAN-M), whole or in chunks: the parameters are the same.

    With a front, GELU and no memory, the blocks are Whisper's.
    """

    kind: Literal["sanm"] = "sanm"
    dim: Size = 512
    heads: Size = 4
    ffn_dim: Size = 2048
    layers: Layers = 50
    kernel: Count = 11
    """Width of the FSMN memory, rows; 0: there is none."""
    shift: Count = 0
    """Moves the FSMN memory towards the past by this many rows."""
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    activation: Literal["relu", "gelu"] = "relu"
    """Of the feed-forward layers."""
    norm_epsilon: Share = 1e-12
    front: FrontConfig | None = None
    """What makes rows of windows; None: a row is a window, and the first block takes it as it is."""
    windows: WindowsConfig | None = None
    """What makes windows of rows; None: a window is a row."""

    @property
    def output_dim(self) -> int:
        """Width of what comes out, a row for every window."""
        return self.windows.dim if self.windows else self.dim

    @property
    def plain(self) -> bool:
        """Whether this is the encoder of the published models, which every runtime knows."""
        published = SanmEncoderConfig()
        fixed = ("activation", "norm_epsilon", "front", "windows")
        return self.kernel > 0 and all(getattr(self, name) == getattr(published, name) for name in fixed)


@dataclass(frozen=True, kw_only=True)
class ConformerEncoderConfig:
    """Macaron Conformer on 4x convolutional subsampling, with the "legacy" relative positions of the AISHELL recipe."""

    kind: Literal["conformer"] = "conformer"
    dim: Size = 256
    heads: Size = 4
    ffn_dim: Size = 2048
    layers: Layers = 12
    conv_kernel: Size = 15
    dropout: Share = 0.1
    attention_dropout: Share = 0.0
    positional_dropout: Share = 0.1

    @property
    def output_dim(self) -> int:
        """Width of what comes out."""
        return self.dim


@dataclass(frozen=True, kw_only=True)
class TransformerEncoderConfig:
    """Self-attention encoder on 4x convolutional subsampling with absolute positions."""

    kind: Literal["transformer"] = "transformer"
    dim: Size = 256
    heads: Size = 4
    ffn_dim: Size = 2048
    layers: Layers = 12
    dropout: Share = 0.1
    attention_dropout: Share = 0.0
    positional_dropout: Share = 0.1

    @property
    def output_dim(self) -> int:
        """Width of what comes out."""
        return self.dim


EncoderConfig = SanmEncoderConfig | ConformerEncoderConfig | TransformerEncoderConfig


@dataclass(frozen=True, kw_only=True)
class TimingConfig:
    """A second integrate-and-fire, on a finer grid, that tells when tokens were spoken and not which: BiCif-Paraformer.

    A transposed convolution makes `rate` rows of one.
    """

    rate: Size = 3
    recurrent: bool = True
    """An LSTM in both directions stands between the finer rows and their weights."""
    from_conv: bool = False
    """It begins with the rows that the first integrate-and-fire's convolution made, not with the encoder's."""
    smooth_factor: Weight = 0.25
    noise_threshold: Weight = 0.01


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """Continuous integrate-and-fire.

    version 1: depthwise convolution with residual (AISHELL and small models); 2: full convolution (large models).
    """

    version: Literal[1, 2] = 2
    left: Count = 1
    right: Count = 1
    """Reach of the convolution, rows before and after."""
    tail_threshold: Weight = 0.45
    threshold: Literal["fixed", "dynamic"] = "fixed"
    """Weight that makes a token: 1, with the tail added at the end; or, for whole utterances, the paper's: the rounded
    sum of the weights is the count, and the sum divided by it the threshold. Live steps always use the fixed one."""
    smooth_factor: Weight = 1.0
    noise_threshold: Weight = 0.0
    dropout: Share = 0.1
    timing: TimingConfig | None = None


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """What stands between sounds and characters in a SAN-M decoder: a second output, and blocks after it.

    The attention blocks end in scores of units, such as syllables, one for every token. All that follows sees nothing
    but their probabilities, so it can learn from text that nobody has read aloud.
    """

    units: Count = 0
    """Number of units, 0 being none of them; filled in from the training texts."""
    layers: Blocks = 2
    """Blocks of memory over tokens, without attention."""
    ffn_dim: Size = 1024


@dataclass(frozen=True, kw_only=True)
class SanmDecoderConfig:
    """Parallel decoder of FSMN memory over tokens and cross-attention (large models)."""

    kind: Literal["sanm"] = "sanm"
    heads: Size = 4
    ffn_dim: Size = 2048
    layers: Layers = 16
    attention_layers: Blocks = 16
    """The first so many layers have cross-attention, the others only FSMN."""
    kernel: Size = 11
    shift: Count = 0
    """(kernel - 1) / 2 makes the memory causal over tokens, which live recognition needs."""
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    text: TextConfig | None = None
    look_ahead: bool = False
    """The memory sees later tokens, in live steps those of the same step: another way to be fit for them."""

    @property
    def memories(self) -> int:
        """Blocks that keep rows from step to step."""
        return self.layers + (self.text.layers if self.text else 0)

    @property
    def plain(self) -> bool:
        """Whether this is the decoder of the published models."""
        return self.text is None and not self.look_ahead


@dataclass(frozen=True, kw_only=True)
class TransformerDecoderConfig:
    """Parallel bidirectional Transformer decoder (AISHELL recipe)."""

    kind: Literal["transformer"] = "transformer"
    heads: Size = 4
    ffn_dim: Size = 2048
    layers: Layers = 6
    dropout: Share = 0.1
    attention_dropout: Share = 0.0
    positional_dropout: Share = 0.1


DecoderConfig = SanmDecoderConfig | TransformerDecoderConfig


@dataclass(frozen=True, kw_only=True)
class SeacoConfig:
    """Hotwords beside the decoder: SeACo-Paraformer.

    A second decoder, over hotwords, says of each token which character of them it is, or that it is of none, and only
    there the first decoder's choice counts.
    """

    kind: Literal["seaco"] = "seaco"
    recurrent_layers: Layers = 2
    """Of the LSTM that makes a row of a hotword."""
    bidirectional: bool = False
    heads: Size = 4
    ffn_dim: Size = 1024
    layers: Layers = 6
    attention_layers: Layers = 6
    kernel: Size = 21
    shift: Count = 0
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    no_bias_id: Count = 8377
    """The item that stands for "none of the hotwords"; no hotword can make it appear."""
    label_smoothing: Share = 0.1
    length_normalized: bool = True
    trains_decoder: bool = False
    """Whether training counts the model's own objective, with `objective_weight` beside the hotwords' as 1."""
    objective_weight: Factor = 0.01


@dataclass(frozen=True, kw_only=True)
class ContextualConfig:
    """Hotwords inside the decoder (Contextual Paraformer, CLAS): its last layer with attention attends to them too."""

    kind: Literal["contextual"] = "contextual"
    recurrent_layers: Layers = 1
    own_embedding: bool = True
    """Hotwords have an embedding of their own, else the decoder's."""


HotwordConfig = SeacoConfig | ContextualConfig


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
class TrainingChunk:
    """One chunk setting of FunASR's chunk-masked training, in windows (spec 2.4)."""

    size: Size
    stride: Size
    pad_left: Count = 0
    encoder_look_back: Reach = 4
    decoder_look_back: Reach = 1


LONGEST_VIEW = 60_000
"""Windows: an hour. Memory for a look-back is taken when a session begins."""


@dataclass(frozen=True, kw_only=True)
class ChunkConfig:
    """How a live session cuts its input, in 60 ms windows: FunASR's `chunk_size=[left, chunk, right]`.

    A step commits `chunk` windows, with `left` earlier and `right` later ones in view; latency is chunk + right.
    Look-backs count chunks of encoder keys and decoder memory kept from earlier steps; -1: unlimited (encoder only).
    """

    left: Count = 5
    chunk: Size = 10
    right: Count = 5
    encoder_look_back: Reach = 0
    decoder_look_back: Reach = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, as_whole(value, f"{name} of a chunk setting"))
        if self.left < 0 or self.chunk < 1 or self.right < 0:
            raise ConfigError(
                f"chunk setting [{self.left}, {self.chunk}, {self.right}] is impossible: "
                "left and right must be at least 0 and chunk at least 1"
            )
        if self.encoder_look_back < -1 or self.decoder_look_back < 0:
            raise ConfigError(
                f"look-back {self.encoder_look_back}/{self.decoder_look_back} is impossible: "
                "the encoder's must be -1 (unlimited) or more, the decoder's 0 or more"
            )
        look_back = self.chunk * max(self.encoder_look_back, self.decoder_look_back)
        longest = max(self.left, self.chunk, self.right, look_back)
        if longest > LONGEST_VIEW:
            raise ConfigError(
                f"chunk setting [{self.left}, {self.chunk}, {self.right}] with look-back {self.encoder_look_back}/"
                f"{self.decoder_look_back} keeps {longest} windows of 60 ms in view; it may be {LONGEST_VIEW}, an hour"
            )

    @property
    def context(self) -> int:
        """Rows carried from one step to the next."""
        return self.left + self.right

    @property
    def rows(self) -> int:
        """Rows of a full step."""
        return self.left + self.chunk + self.right

    @property
    def past_rows(self) -> int:
        """Rows of encoder keys that a stream keeps room for from the start; unlimited look-back grows as it goes.

        The first step's rows are kept whole, even where the look-back is shorter (spec 2.5).
        """
        return max(self.encoder_look_back * self.chunk, self.left + self.chunk) if self.encoder_look_back > 0 else 0


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
        *("decoder.text", "decoder.look_ahead", "objective.units_weight", "predictor.timing", "model.hotwords"),
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
