"""The aligner without torch: an encoder, and the finer integrate-and-fire that tells when known tokens were spoken.

`paraformer.model.aligner` is its plain form (variants 2.2, 2.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from paraformer.config import ModelConfig, SanmDecoderConfig, SanmEncoderConfig, TimingConfig
from paraformer.errors import ConfigError
from paraformer.products import product
from paraformer.sanm import Blocks, MakesStack, Rows, linear, positions
from paraformer.sanm import shapes as stack_shapes
from paraformer.settings import by_name, check_type
from paraformer.weights import checked

PARTS = ("vocab_size", "frontend", "encoder", "predictor")
"""What an aligner has of a model's settings; those of a decoder say nothing here, for there is none."""
_GATES = 4
"""Of an LSTM, in the order of PyTorch: in, forget, new, out."""


def settings_of(config: ModelConfig) -> dict[str, Any]:
    """An aligner's settings as plain values."""
    values = config.to_dict()
    return {name: values[name] for name in PARTS}


def config_of(settings: Mapping[str, Any]) -> ModelConfig:
    """The inverse of `settings_of`. Raises ConfigError for settings that cannot be, or not of an aligner."""
    if missing := [name for name in PARTS if name not in settings]:
        raise ConfigError(f"missing setting in aligner: {', '.join(missing)}")
    heads = by_name(settings["encoder"], "encoder").get("heads", SanmEncoderConfig.heads)
    check_type(heads, int, "encoder.heads")
    rest = ModelConfig(vocab_size=1, decoder=SanmDecoderConfig(heads=heads)).to_dict()
    config = ModelConfig.from_dict({**rest, **settings})
    if not (isinstance(config.encoder, SanmEncoderConfig) and config.encoder.plain):
        raise ConfigError("an aligner needs a plain SAN-M encoder")
    if config.predictor.timing is None:
        raise ConfigError("an aligner needs predictor.timing, its second integrate-and-fire")
    return config


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, those of the first predictor among them, which the second may begin with."""
    encoder, predictor, timing = _parts(config)
    d = encoder.dim
    found = {f"encoder.{name}": shape for name, shape in stack_shapes(encoder, config.frontend.input_dim).items()}
    taps = predictor.left + predictor.right + 1
    found |= {"predictor.conv.weight": (d, 1 if predictor.version == 1 else d, taps), "predictor.conv.bias": (d,)}
    found |= {"predictor.output.weight": (1, d), "predictor.output.bias": (1,)}
    found |= {"predictor.timing.up.weight": (d, d, timing.rate), "predictor.timing.up.bias": (d,)}
    if timing.recurrent:
        for end in ("", "_reverse"):
            found |= {f"predictor.timing.lstm.weight_{part}_l0{end}": (_GATES * d, d) for part in ("ih", "hh")}
            found |= {f"predictor.timing.lstm.bias_{part}_l0{end}": (_GATES * d,) for part in ("ih", "hh")}
    width = 2 * d if timing.recurrent else d
    return found | {"predictor.timing.output.weight": (1, width), "predictor.timing.output.bias": (1,)}


def _parts(config: ModelConfig) -> tuple[SanmEncoderConfig, Any, TimingConfig]:
    assert isinstance(config.encoder, SanmEncoderConfig)
    assert config.predictor.timing is not None
    return config.encoder, config.predictor, config.predictor.timing


class AlignerNetwork:
    """Read-only: threads may share one."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, np.ndarray], stack: MakesStack = Blocks) -> None:
        """stack: what makes the encoder's blocks.

        Raises CheckpointError unless `weights` holds exactly the tensors of the settings.
        """
        self.config = config
        encoder, _, _ = _parts(config)
        arrays = checked("the aligner", weights, shapes(config))
        self._stack = stack(weights, encoder, config.frontend.input_dim, "encoder.")
        self._predictor = {name: array for name, array in arrays.items() if name.startswith("predictor.")}

    def weights(self, feats: Sequence[Float32[np.ndarray, "_ f"]], tokens: Sequence[int]) -> list[np.ndarray]:
        """Of each utterance, given its rows and its number of tokens, the weights that tell when they were spoken."""
        return [self._scaled(self._fine(self._encode(rows)), count) for rows, count in zip(feats, tokens, strict=True)]

    def _encode(self, feats: Rows) -> Rows:
        encoder, _, _ = _parts(self.config)
        return self._stack(feats * np.float32(encoder.dim**0.5) + positions(*feats.shape))

    def _fine(self, hidden: Rows) -> Float32[np.ndarray, " steps"]:
        """The weights before they are scaled (variants 2.2)."""
        _, _, timing = _parts(self.config)
        if timing.from_conv:
            hidden = np.maximum(self._filtered(hidden), 0)
        up = self._predictor["predictor.timing.up.weight"]
        wide = product(hidden, up.transpose(0, 2, 1).reshape(len(up), -1))  # of each row, `rate` rows side by side
        x = wide.reshape(len(hidden) * timing.rate, -1) + self._predictor["predictor.timing.up.bias"]
        if timing.recurrent:
            # The second direction reads from the end, and its rows are turned back.
            x = np.concatenate([self._recur(x, ""), self._recur(x[::-1], "_reverse")[::-1]], axis=1)
        logits = linear(x, self._predictor, "predictor.timing.output")[:, 0]
        shares = np.tanh(logits / 2) / 2 + np.float32(0.5)
        fine: Float32[np.ndarray, " steps"] = np.maximum(shares * timing.smooth_factor - timing.noise_threshold, 0)
        return fine.astype(np.float32)

    def _filtered(self, hidden: Rows) -> Rows:
        """The first predictor's convolution."""
        predictor, kernel = self.config.predictor, self._predictor["predictor.conv.weight"]
        padded = np.pad(hidden, ((predictor.left, predictor.right), (0, 0)))
        taps = [padded[place : place + len(hidden)] for place in range(kernel.shape[2])]
        if predictor.version == 1:
            summed = sum(rows * kernel[:, 0, place] for place, rows in enumerate(taps))
        else:
            summed = sum(product(rows, kernel[:, :, place].T) for place, rows in enumerate(taps))
        rows: np.ndarray = summed + self._predictor["predictor.conv.bias"]
        return rows

    def _recur(self, x: Rows, end: str) -> Rows:
        """One direction of the LSTM."""
        w = {part: self._predictor[f"predictor.timing.lstm.{part}_l0{end}"] for part in _LSTM}
        given = product(x, w["weight_ih"].T) + (w["bias_ih"] + w["bias_hh"])
        out = np.zeros_like(x)
        said, kept = np.zeros(x.shape[1], np.float32), np.zeros(x.shape[1], np.float32)
        for row, gates in enumerate(given):
            enter, forget, new, leave = np.split(gates + product(w["weight_hh"], said[:, None])[:, 0], _GATES)
            kept = _share(forget) * kept + _share(enter) * np.tanh(new)
            said = out[row] = _share(leave) * np.tanh(kept)
        return out

    @staticmethod
    def _scaled(fine: Float32[np.ndarray, " steps"], tokens: int) -> Float32[np.ndarray, " steps"]:
        """Such that their sum is the number of tokens and one for the end."""
        scaled: Float32[np.ndarray, " steps"] = fine * np.float32((tokens + 1) / max(float(fine.sum()), 1e-12))
        return scaled


_LSTM = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _share(x: np.ndarray) -> np.ndarray:
    """The logistic function, which cannot overflow so."""
    y: np.ndarray = np.tanh(x / 2) / 2 + np.float32(0.5)
    return y
