"""CAM++ in torch, the plain form of `paraformer.speakers.campplus` (Wang et al., 2023; variants 6.2).

Modules have FunASR's names, which directories of ours keep for this model. Axes: B utterances of one length,
C channels, F mel bins, T frames.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.companions.voices import BLOCKS, EPSILON, SEGMENT, CamppConfig

_HEAD = 32


class Voices(nn.Module):
    """Frames to the vector of a voice. There is no mask: a batch holds utterances of one length."""

    def __init__(self, config: CamppConfig) -> None:
        super().__init__()
        self.head = _Head()
        width, inner = config.channels, config.growth * config.bottleneck
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        # The head halves the frequencies three times, each time rounding up, and lays its channels side by side.
        parts["tdnn"] = _Layer(nn.Conv1d(_HEAD * -(-config.mel_bins // 8), width, 5, 2, 2, bias=False), width)
        for number, (layers, dilation) in enumerate(BLOCKS, 1):
            block = OrderedDict[str, nn.Module]()
            for index in range(1, layers + 1):
                block[f"tdnnd{index}"] = _Dense(width, inner, config.growth, dilation)
                width += config.growth
            parts[f"block{number}"] = nn.Sequential(block)
            parts[f"transit{number}"] = _Transit(width)
            width //= 2
        parts["out_nonlinear"] = _norm(width)
        parts["dense"] = _Layer(nn.Conv1d(2 * width, config.embedding, 1, bias=False), config.embedding, affine=False)
        self.xvector = nn.ModuleDict(parts)

    def forward(self, feats: Tensor) -> Tensor:
        """feats (B, T, F) -> (B, embedding)."""
        parts = self.xvector
        x = parts["tdnn"](self.head(feats.transpose(1, 2)[:, None])).relu()
        for number in range(1, len(BLOCKS) + 1):
            for layer in parts[f"block{number}"].children():
                # Dense: a layer sees what all layers before it have added.
                x = torch.cat([x, layer(x)], 1)
            x = parts[f"transit{number}"](x)
        x = parts["out_nonlinear"](x).relu()
        # By n - 1, which a single frame does not have.
        spread = x.std(-1) if x.shape[2] > 1 else torch.zeros_like(x[..., 0])
        vector: Tensor = parts["dense"](torch.cat([x.mean(-1), spread], 1)[..., None])
        return vector[..., 0]


class _Norm(nn.Module):
    """A batch norm by its running statistics, without the counter of training."""

    def __init__(self, width: int, *, affine: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON)  # type: ignore[arg-type]


def _norm(width: int, *, affine: bool = True) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=_Norm(width, affine=affine)))


class _Layer(nn.Module):
    """A convolution and its norm."""

    def __init__(self, linear: nn.Conv1d, width: int, *, affine: bool = True) -> None:
        super().__init__()
        self.linear, self.nonlinear = linear, _norm(width, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.nonlinear(self.linear(x))
        return y


class _Transit(nn.Module):
    """Half as many channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.nonlinear, self.linear = _norm(width), nn.Conv1d(width, width // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.nonlinear(x).relu())
        return y


class _Dense(nn.Module):
    """One layer of a block: what it adds to the channels."""

    def __init__(self, width: int, inner: int, growth: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1, self.linear1 = _norm(width), nn.Conv1d(width, inner, 1, bias=False)
        self.nonlinear2, self.cam_layer = _norm(inner), _Cam(inner, growth, dilation)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x).relu())).relu())
        return y


class _Cam(nn.Module):
    """A convolution, each frame weighed by what goes on around it."""

    def __init__(self, inner: int, growth: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(inner, growth, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1, self.linear2 = nn.Conv1d(inner, inner // 2, 1), nn.Conv1d(inner // 2, growth, 1)

    def forward(self, x: Tensor) -> Tensor:
        # The whole utterance and the stretch around a frame say together which channels are worth hearing in it.
        around = x.mean(-1, keepdim=True) + _segment_means(x)
        gate: Tensor = self.linear2(self.linear1(around).relu()).sigmoid()
        local: Tensor = self.linear_local(x)
        return local * gate


def _segment_means(x: Tensor) -> Tensor:
    """Of each frame the mean of its stretch; the last one may be shorter, and is the mean of its own frames."""
    means = F.avg_pool1d(x, SEGMENT, SEGMENT, ceil_mode=True)
    return means.repeat_interleave(SEGMENT, -1)[..., : x.shape[-1]]


class _Head(nn.Module):
    """Convolutions over frequency and time: (B, 1, F, T) -> (B, C * F / 8, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, _HEAD, 3, padding=1, bias=False), _Norm(_HEAD)
        self.layer1, self.layer2 = (nn.Sequential(_Residual(2), _Residual(1)) for _ in range(2))
        # Strides of (2, 1): frequencies become fewer, frames do not.
        self.conv2, self.bn2 = nn.Conv2d(_HEAD, _HEAD, 3, (2, 1), 1, bias=False), _Norm(_HEAD)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.bn1(self.conv1(x)).relu()))
        x = self.bn2(self.conv2(x)).relu()
        return x.flatten(1, 2)


class _Residual(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(_HEAD, _HEAD, 3, (stride, 1), 1, bias=False), _Norm(_HEAD)
        self.conv2, self.bn2 = nn.Conv2d(_HEAD, _HEAD, 3, padding=1, bias=False), _Norm(_HEAD)
        kept = nn.Sequential(nn.Conv2d(_HEAD, _HEAD, 1, (stride, 1), bias=False), _Norm(_HEAD))
        self.shortcut = kept if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        y = y + self.shortcut(x)
        rectified: Tensor = y.relu()
        return rectified
