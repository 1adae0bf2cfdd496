"""Probability of speech every 32 ms: Silero VAD, many windows at a time, in numpy alone.

The weights beside this file are those of the package silero-vad 6.2.3 (MIT, SILERO_LICENSE), unchanged: its 16 kHz
network, read from `silero_vad_16k_sequence.onnx`. The package itself requires torch, and the builds of the network
without torch lack wheels for common machines or take twice the time; so the network is computed here, and a test holds
it to the numbers of the original.

Axes: n windows, t the 4 frames of a window, c channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
from jaxtyping import Float32
from safetensors.numpy import load_file

from paraformer.products import SERIAL

Array = np.ndarray

WINDOW = 512
"""Samples of a window, 32 ms."""
CONTEXT = 64
"""Samples before a window that the network sees too."""
_FRAME, _SHIFT, _BINS, _HIDDEN = 256, 128, 129, 128
_STRIDES = (1, 2, 2, 1)
_TOGETHER, _ROWS = 4, 64
"""Windows whose gates make one product; rows of a matrix in one product with a vector, which has a lower limit."""


@dataclass(frozen=True)
class VoiceState:
    """What the detector remembers from one window to the next."""

    hidden: Float32[Array, "128"]
    cell: Float32[Array, "128"]
    context: Float32[Array, "64"]


class VoiceDetector:
    """Silero's recurrent detector of speech in 16 kHz audio. Read-only: streams and threads may share one."""

    def __init__(self) -> None:
        with as_file(files("paraformer.segment") / "silero.safetensors") as path:
            weights = load_file(path)
        self._stft = np.ascontiguousarray(weights["stft"].T)
        self._convs = [_taps(weights[f"conv{i}.weight"]) for i in range(1, 5)]
        self._biases = [weights[f"conv{i}.bias"] for i in range(1, 5)]
        # sigmoid(z) = tanh(z / 2) / 2 + 1 / 2: with the three sigmoid gates halved, one tanh serves all four gates.
        halves = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), _HIDDEN)
        self._input = np.ascontiguousarray((weights["lstm.input"] * halves[:, None]).T)
        self._recurrent = (weights["lstm.hidden"] * halves[:, None]).reshape(-1, _ROWS, _HIDDEN)
        self._bias = weights["lstm.bias"] * halves
        self._output, self._output_bias = weights["output.weight"], weights["output.bias"]

    def init_state(self) -> VoiceState:
        """The state before the first window: silence."""
        zeros = np.zeros(_HIDDEN, np.float32)
        return VoiceState(zeros, zeros, np.zeros(CONTEXT, np.float32))

    def step(self, windows: Float32[Array, "n 512"], state: VoiceState) -> tuple[Float32[Array, " n"], VoiceState]:
        """Probability of speech in each of these consecutive windows, and the state after them."""
        contexts = np.concatenate([state.context[None], windows[:-1, -CONTEXT:]])
        gates = self._gates(self._features(np.concatenate([contexts, windows], axis=1)))
        outputs, cell = self._recur(gates, state)
        logits = np.einsum("nc,c->n", np.maximum(outputs, 0), self._output) + self._output_bias
        after = VoiceState(outputs[-1].copy(), cell, windows[-1, -CONTEXT:].copy())
        return (np.tanh(logits / 2) / 2 + 0.5).astype(np.float32), after

    def _features(self, spans: Float32[Array, "n 576"]) -> Float32[Array, "n 128"]:
        """Magnitude spectra of 4 overlapping frames, the last reflected at the end, through four convolutions."""
        reflected = np.concatenate([spans, spans[:, -2 : -2 - CONTEXT : -1]], axis=1)
        frames = np.lib.stride_tricks.sliding_window_view(reflected, _FRAME, axis=1)[:, ::_SHIFT]
        spectrum = _matmul(frames, self._stft)
        x = np.sqrt(spectrum[..., :_BINS] ** 2 + spectrum[..., _BINS:] ** 2)
        for taps, bias, stride in zip(self._convs, self._biases, _STRIDES, strict=True):
            x = np.maximum(_convolve(x, taps, stride) + bias, 0)
        features: Array = x[:, 0]
        return features

    def _gates(self, features: Float32[Array, "n 128"]) -> Float32[Array, "n 512"]:
        """What the features of each window add to its gates."""
        padded = np.pad(features, ((0, -len(features) % _TOGETHER), (0, 0)))
        product = _matmul(padded.reshape(-1, _TOGETHER, _HIDDEN), self._input)
        gates: Array = product.reshape(len(padded), -1)[: len(features)] + self._bias
        return gates

    def _recur(self, gates: Float32[Array, "n 512"], state: VoiceState) -> tuple[Float32[Array, "n 128"], Array]:
        """LSTM over the windows: its outputs, and its last cell."""
        hidden, cell = state.hidden, state.cell
        outputs = np.empty((len(gates), _HIDDEN), np.float32)
        for n, gate in enumerate(gates):
            z = np.tanh((self._recurrent @ hidden).ravel() + gate)
            enter, leave, keep = (z[: 3 * _HIDDEN] / 2 + np.float32(0.5)).reshape(3, _HIDDEN)
            cell = keep * cell + enter * z[3 * _HIDDEN :]
            hidden = outputs[n] = leave * np.tanh(cell)
        return outputs, cell


def _taps(weight: Float32[Array, "out c 3"]) -> Float32[Array, "taps out"]:
    """A convolution's weights as one matrix: rows are tap by tap, input channel by input channel."""
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, len(weight)))


def _convolve(x: Float32[Array, "n t c"], taps: Float32[Array, "taps out"], stride: int) -> Float32[Array, "n s out"]:
    """Convolution over time with three taps and one zero at each end."""
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    steps = range(0, x.shape[1], stride)
    return _matmul(np.stack([padded[:, s : s + 3].reshape(len(x), -1) for s in steps], axis=1), taps)


def _matmul(x: Float32[Array, "n t c"], weight: Float32[Array, "c out"]) -> Float32[Array, "n t out"]:
    """Products of a size that BLAS makes in this thread; one after another they take no longer than a large one."""
    # As `products.product` does, but divided along columns alone, which of so few rows at a time takes less.
    columns = max(1, SERIAL // (x.shape[1] * x.shape[2]))
    return np.concatenate([x @ weight[:, at : at + columns] for at in range(0, weight.shape[1], columns)], axis=-1)
