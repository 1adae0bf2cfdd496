"""Rows to tokens: settings of the predictor, of every kind of decoder, and of what listens for hotwords."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from paraformer.config.encoders import Blocks
from paraformer.settings import Between, Count, Factor, Layers, Share, Size

Weight = Annotated[float, Between(0.0, 10.0)]
"""Of integrate-and-fire, where 1 is a token: a row is 60 ms, and nobody says more than a few tokens in it."""


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


PAUSE_WINDOWS = 5
"""300 ms: shorter silences stand within words."""


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
    pause_weight: Weight = 0.0
    """Of a live step of at least PAUSE_WINDOWS, below which it is a pause: that ends what has been said as the end of
    the audio does, so that a last token need not wait for the next sentence. 0: no pause does, as in FunASR."""
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
