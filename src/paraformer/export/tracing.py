"""From a torch module to a graph file whose inputs and outputs are as a table says."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from paraformer import contract


def trace(module: nn.Module, graph: contract.Graph, path: Path, *, fold: bool) -> onnx.ModelProto:
    """Write the graph of a module that takes and gives what `graph` lists; returns it, weights included.

    fold: compute what is constant now, which lays the weights out for speed; without it they keep names and layout of
    the checkpoint. The older of torch's two exporters, because it does either as asked. What it warns of is for us, not
    for users; the tests compare its graphs.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(_example(port) for port in graph.inputs),
            str(path),
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            dynamic_axes={port.name: port.dynamic_axes for port in (*graph.inputs, *graph.outputs)},
            opset_version=contract.OPSET,
            do_constant_folding=fold,
            dynamo=False,
        )
    traced: onnx.ModelProto = onnx.load(path)
    for port, value in zip(graph.outputs, traced.graph.output, strict=True):
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
        value.CopyFrom(onnx.helper.make_tensor_value_info(port.name, kind, port.axes))
    return traced


def _example(port: contract.Port) -> Tensor:
    # None is 1, which a trace takes for a size that is always 1.
    sizes = {"B": 2, "T": 7, "P": 5, "K": 7, "L": 3, "N": 4, "M": 3}
    shape = [sizes[axis] if isinstance(axis, str) else axis for axis in port.axes]
    match port.dtype:
        case "bool":
            return torch.ones(shape, dtype=torch.bool)
        case "int32" | "int64":
            return torch.full(shape, 3, dtype=torch.int32 if port.dtype == "int32" else torch.int64)
        case "float32":
            return torch.randn(shape)
