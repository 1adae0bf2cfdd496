"""CAM++: a voice as a vector, in numpy (Wang et al., 2023; variants 6).

Axes: c channels, f mel bins, t frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from paraformer.backends.companions import on_torch, opened_companion
from paraformer.companions.voices import BLOCKS, COUNTER, EPSILON, SEGMENT, CamppConfig
from paraformer.config import FrontendConfig
from paraformer.errors import ModelError
from paraformer.fbank import PCM_SCALE, fbank, short_fbank
from paraformer.kinds import VOICES
from paraformer.products import product
from paraformer.settings import from_mapping
from paraformer.weights import checked

FEATURES = FrontendConfig(window="povey")
Weights = Mapping[str, np.ndarray]


class VoiceEncoder:
    """Speech to a vector that tells who speaks. Read-only: threads may share one."""

    def __init__(self, config: CamppConfig, weights: Weights, device: str | None = None) -> None:
        """weights: by FunASR's names; counters of training beside them are left out. device: see `open`.

        Raises CheckpointError unless they are exactly those of the settings.
        """
        kept = {name: weights[name] for name in weights if not name.endswith(COUNTER)}
        self.config = config
        self._network: CamppNetwork = (
            CamppNetwork(config, kept) if device is None else on_torch(VOICES, config, kept, device)
        )

    @classmethod
    def open(cls, directory: str | Path, device: str | None = None) -> VoiceEncoder:
        """A directory of FunASR's or of ours. device: compute on it by torch; None: without torch.

        Raises what is wrong with it, in one sentence.
        """
        opened = opened_companion(Path(directory), VOICES)
        config = opened.parsed(lambda settings: from_mapping(CamppConfig, settings, "voices", optional=()))
        with opened.naming(ModelError):
            return cls(config, opened.weights, device)

    def __call__(self, samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " embedding"]:
        """The vector of speech at 16 kHz in [-1, 1]."""
        return self.embed([features(samples)])[0]

    def embed(self, feats: Sequence[Float32[np.ndarray, "_ f"]]) -> list[Float32[np.ndarray, " embedding"]]:
        """The vector of the `features` of each stretch of speech, whatever else is asked for with it."""
        return self._network.embed(feats)


class CamppNetwork:
    """The network in NumPy, one stretch at a time; `paraformer.model.voices` is its plain form."""

    def __init__(self, config: CamppConfig, weights: Weights) -> None:
        """Raises CheckpointError unless the weights are exactly those of the settings."""
        self._weights = checked("the speaker model", weights, config.shapes())
        means = [name for name in weights if name.endswith("running_mean")]
        self._norms = {name.removesuffix(".running_mean"): self._norm(name) for name in means}

    def embed(self, feats: Sequence[Float32[np.ndarray, "_ f"]]) -> list[Float32[np.ndarray, " embedding"]]:
        """See VoiceEncoder.embed."""
        return [self._embed(rows) for rows in feats]

    def _embed(self, feats: Float32[np.ndarray, "t f"]) -> Float32[np.ndarray, " embedding"]:
        x = self._head(feats)
        x = self._normed("xvector.tdnn.nonlinear.batchnorm", _conv1d(x, self._weights["xvector.tdnn.linear.weight"], 2))
        for number, (layers, dilation) in enumerate(BLOCKS, 1):
            for index in range(1, layers + 1):
                # Densely connected: every layer sees what all before it in the block have made.
                x = np.concatenate([x, self._layer(f"xvector.block{number}.tdnnd{index}", x, dilation)])
            x = self._normed(f"xvector.transit{number}.nonlinear.batchnorm", x)
            x = product(self._weights[f"xvector.transit{number}.linear.weight"][:, :, 0], x)
        x = self._normed("xvector.out_nonlinear.batchnorm", x)
        # Unbiased, as torch's; of one frame it would be NaN.
        spread = x.std(-1, ddof=1) if x.shape[1] > 1 else np.zeros(len(x), np.float32)
        statistics = np.concatenate([x.mean(-1), spread])
        scale, shift = self._norms["xvector.dense.nonlinear.batchnorm"]
        vector = product(self._weights["xvector.dense.linear.weight"][:, :, 0], statistics[:, None])[:, 0]
        voice: Float32[np.ndarray, " embedding"] = vector * scale[:, 0] + shift[:, 0]
        return voice

    def _head(self, feats: np.ndarray) -> np.ndarray:
        """(t, f) -> (c * f / 8, t): convolutions over frequency and time."""
        x = feats.T[None]
        x = self._normed("head.bn1", _conv2d(x, self._weights["head.conv1.weight"], 1))
        for layer in ("head.layer1", "head.layer2"):
            for index, stride in ((0, 2), (1, 1)):
                x = self._residual(f"{layer}.{index}", x, stride)
        x = self._normed("head.bn2", _conv2d(x, self._weights["head.conv2.weight"], 2))
        # Channel by channel its bands, in the order that the weights behind it know.
        return x.reshape(-1, x.shape[2])

    def _residual(self, name: str, x: np.ndarray, stride: int) -> np.ndarray:
        y = self._normed(f"{name}.bn1", _conv2d(x, self._weights[f"{name}.conv1.weight"], stride))
        y = self._normed(f"{name}.bn2", _conv2d(y, self._weights[f"{name}.conv2.weight"], 1), rectified=False)
        if f"{name}.shortcut.0.weight" in self._weights:
            # The stride is over frequency alone; every frame stays.
            kept = np.einsum("oc,cft->oft", self._weights[f"{name}.shortcut.0.weight"][:, :, 0, 0], x[:, ::stride])
            x = self._normed(f"{name}.shortcut.1", kept, rectified=False)
        rectified: np.ndarray = np.maximum(y + x, 0)
        return rectified

    def _layer(self, name: str, x: np.ndarray, dilation: int) -> np.ndarray:
        """One layer of a block: what it adds to the channels (variants 6.2)."""
        w = self._weights
        x = product(w[f"{name}.linear1.weight"][:, :, 0], self._normed(f"{name}.nonlinear1.batchnorm", x))
        x = self._normed(f"{name}.nonlinear2.batchnorm", x)
        y = _conv1d(x, w[f"{name}.cam_layer.linear_local.weight"], 1, dilation)
        # What goes on in the whole stretch and near the frame decides how much of each channel passes.
        around = x.mean(-1, keepdims=True) + _segment_means(x)
        hidden = (
            product(w[f"{name}.cam_layer.linear1.weight"][:, :, 0], around)
            + w[f"{name}.cam_layer.linear1.bias"][:, None]
        )
        gate = product(w[f"{name}.cam_layer.linear2.weight"][:, :, 0], np.maximum(hidden, 0))
        gate = gate + w[f"{name}.cam_layer.linear2.bias"][:, None]
        gated: np.ndarray = y * (np.tanh(gate / 2) / 2 + 0.5)
        return gated

    def _normed(self, name: str, x: np.ndarray, *, rectified: bool = True) -> np.ndarray:
        scale, shift = self._norms[name]
        if x.ndim == 3:
            scale, shift = scale[..., None], shift[..., None]
        y: np.ndarray = x * scale + shift
        return np.maximum(y, 0) if rectified else y

    def _norm(self, mean_name: str) -> tuple[np.ndarray, np.ndarray]:
        """A batch norm as a factor and a summand for each channel, (c, 1)."""
        name = mean_name.removesuffix(".running_mean")
        mean, variance = self._weights[mean_name], self._weights[f"{name}.running_var"]
        scale = self._weights.get(f"{name}.weight", np.ones_like(mean)) / np.sqrt(variance + np.float32(EPSILON))
        shift = self._weights.get(f"{name}.bias", np.zeros_like(mean)) - mean * scale
        return scale[:, None], shift[:, None]


def features(samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, "t f"]:
    """Log-mel frames of samples in [-1, 1] as they are, not as 16-bit integers, without their mean over time."""
    scaled = (samples / PCM_SCALE).astype(np.float32)
    frames = fbank(scaled, FEATURES)
    frames = frames if len(frames) else short_fbank(scaled, FEATURES)
    centred: np.ndarray = frames - frames.mean(0)
    return centred


def _conv2d(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """(c, f, t) -> (o, f / stride, t): three by three, one zero at each end, `stride` over frequency."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    rows, columns = -(-x.shape[1] // stride), x.shape[2]
    y = np.zeros((len(weight), rows * columns), np.float32)
    for i in range(3):
        for j in range(3):
            part = padded[:, i : i + (rows - 1) * stride + 1 : stride, j : j + columns]
            # A product for each tap, so that no window is ever laid out nine times over.
            y += product(weight[:, :, i, j], part.reshape(len(x), -1))
    return y.reshape(len(weight), rows, columns)


def _conv1d(x: np.ndarray, weight: np.ndarray, stride: int, dilation: int = 1) -> np.ndarray:
    """(c, t) -> (o, t / stride), with as many zeros at each end as keep a frame at its place."""
    taps = weight.shape[2]
    reach = taps // 2 * dilation
    padded = np.pad(x, ((0, 0), (reach, reach)))
    columns = (x.shape[1] - 1) // stride + 1
    y = np.zeros((len(weight), columns), np.float32)
    for tap in range(taps):
        start = tap * dilation
        part = padded[:, start : start + (columns - 1) * stride + 1 : stride]
        y += product(weight[:, :, tap], part)
    return y


def _segment_means(x: np.ndarray) -> np.ndarray:
    """Of each frame the mean of its stretch of 100; the last one may be shorter."""
    starts = np.arange(0, x.shape[1], SEGMENT)
    lengths = np.diff([*starts, x.shape[1]])
    means = np.add.reduceat(x, starts, axis=1) / lengths
    repeated: np.ndarray = np.repeat(means, lengths, axis=1).astype(np.float32)
    return repeated
