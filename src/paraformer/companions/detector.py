"""Settings of FSMN-VAD's network (variants 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.settings import Count, Layers, Size, by_name, check_ranges, from_mapping


@dataclass(frozen=True, kw_only=True)
class FsmnConfig:
    """Sizes of the network."""

    input_dim: Size = 400
    input_affine: Size = 140
    layers: Layers = 4
    dim: Size = 250
    memory_dim: Size = 128
    left: Size = 20
    """Frames that the memory sees, the present one included, `stride` apart."""
    right: Count = 0
    stride: Size = 1
    output_affine: Size = 140
    outputs: Size = 248
    silence_ids: tuple[Count, ...] = (0,)
    """Outputs that stand for silence; their sum counts."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.right:
            raise UnsupportedModel("this detector's memory looks ahead, which this version does not run")
        if not self.silence_ids or max(self.silence_ids) >= self.outputs:
            raise ConfigError(f"silence_ids {self.silence_ids} are not all among {self.outputs} outputs")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor, by FunASR's name."""
        c = self
        shapes: dict[str, tuple[int, ...]] = {}
        for name, out, width in (
            ("in_linear1", c.input_affine, c.input_dim),
            ("in_linear2", c.dim, c.input_affine),
            ("out_linear1", c.output_affine, c.dim),
            ("out_linear2", c.outputs, c.output_affine),
        ):
            shapes |= {f"encoder.{name}.linear.weight": (out, width), f"encoder.{name}.linear.bias": (out,)}
        for index in range(c.layers):
            layer = f"encoder.fsmn.{index}"
            shapes[f"{layer}.linear.linear.weight"] = (c.memory_dim, c.dim)
            shapes[f"{layer}.fsmn_block.conv_left.weight"] = (c.memory_dim, 1, c.left, 1)
            shapes[f"{layer}.affine.linear.weight"] = (c.dim, c.memory_dim)
            shapes[f"{layer}.affine.linear.bias"] = (c.dim,)
        return shapes


def detector_config(settings: Mapping[str, Any]) -> FsmnConfig:
    """From plain values. Raises ConfigError for settings that cannot be, ModelError for what is not run here."""
    values = dict(by_name(settings, "network"))
    if isinstance(values.get("silence_ids"), list):
        values["silence_ids"] = tuple(values["silence_ids"])
    return from_mapping(FsmnConfig, values, "network", optional=())
