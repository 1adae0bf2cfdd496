"""Settings of CAM++ (variants 6.2)."""

from __future__ import annotations

from dataclasses import dataclass

from paraformer.settings import Size, check_ranges

BLOCKS = ((12, 1), (24, 2), (16, 2))
"""Layers of each block, and how far apart the frames are that they see."""
SEGMENT = 100
"""Frames whose mean tells a layer what goes on around a frame."""
EPSILON = 1e-5
"""Of the batch norms."""
COUNTER = "num_batches_tracked"
"""What a batch norm counts in training, and nothing is computed with."""
_HEAD = 32


@dataclass(frozen=True, kw_only=True)
class CamppConfig:
    """Sizes of the network; the published ones are the defaults."""

    mel_bins: Size = 80
    embedding: Size = 192
    growth: Size = 32
    bottleneck: Size = 4
    channels: Size = 128

    def __post_init__(self) -> None:
        check_ranges(self)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that is computed with, by FunASR's name."""
        shapes = _head_shapes()
        rows = _HEAD * (-(-self.mel_bins // 8))
        shapes |= {"xvector.tdnn.linear.weight": (self.channels, rows, 5)}
        shapes |= _norm_shapes("xvector.tdnn.nonlinear.batchnorm", self.channels)
        width, inner = self.channels, self.growth * self.bottleneck
        for number, (layers, _) in enumerate(BLOCKS, 1):
            for index in range(1, layers + 1):
                shapes |= self._layer_shapes(f"xvector.block{number}.tdnnd{index}", width, inner)
                width += self.growth
            shapes |= _norm_shapes(f"xvector.transit{number}.nonlinear.batchnorm", width)
            shapes[f"xvector.transit{number}.linear.weight"] = (width // 2, width, 1)
            width //= 2
        shapes |= _norm_shapes("xvector.out_nonlinear.batchnorm", width)
        shapes["xvector.dense.linear.weight"] = (self.embedding, 2 * width, 1)
        return shapes | _norm_shapes("xvector.dense.nonlinear.batchnorm", self.embedding, affine=False)

    def _layer_shapes(self, name: str, width: int, inner: int) -> dict[str, tuple[int, ...]]:
        half = inner // 2
        return {
            **_norm_shapes(f"{name}.nonlinear1.batchnorm", width),
            f"{name}.linear1.weight": (inner, width, 1),
            **_norm_shapes(f"{name}.nonlinear2.batchnorm", inner),
            f"{name}.cam_layer.linear_local.weight": (self.growth, inner, 3),
            f"{name}.cam_layer.linear1.weight": (half, inner, 1),
            f"{name}.cam_layer.linear1.bias": (half,),
            f"{name}.cam_layer.linear2.weight": (self.growth, half, 1),
            f"{name}.cam_layer.linear2.bias": (self.growth,),
        }


def _norm_shapes(name: str, width: int, *, affine: bool = True) -> dict[str, tuple[int, ...]]:
    leaves = ("weight", "bias") if affine else ()
    return {f"{name}.{leaf}": (width,) for leaf in (*leaves, "running_mean", "running_var")}


def _head_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"head.conv1.weight": (_HEAD, 1, 3, 3)}
    shapes["head.conv2.weight"] = (_HEAD, _HEAD, 3, 3)
    shapes |= _norm_shapes("head.bn1", _HEAD) | _norm_shapes("head.bn2", _HEAD)
    for layer in ("head.layer1", "head.layer2"):
        for index in (0, 1):
            for conv in (1, 2):
                shapes[f"{layer}.{index}.conv{conv}.weight"] = (_HEAD, _HEAD, 3, 3)
                shapes |= _norm_shapes(f"{layer}.{index}.bn{conv}", _HEAD)
        shapes[f"{layer}.0.shortcut.0.weight"] = (_HEAD, _HEAD, 1, 1)
        shapes |= _norm_shapes(f"{layer}.0.shortcut.1", _HEAD)
    return shapes
