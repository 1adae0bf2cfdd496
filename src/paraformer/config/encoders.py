"""Samples to rows: settings of the frontend and of every kind of encoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from paraformer.errors import ConfigError
from paraformer.settings import Between, Count, Layers, Share, Size

SAMPLE_RATE = 16000
"""Hz, of all speech that models hear."""
Milliseconds = Annotated[float, Between(1.0, 1000.0)]
Blocks = Annotated[int, Between(0, 1000)]


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
    norm_epsilon: Annotated[float, Between(1e-12, 1.0)] = 1e-12
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
