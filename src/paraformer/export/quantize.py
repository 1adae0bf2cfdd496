"""Weights and activations of a graph in 8 bits, for runtimes that load graphs as they are."""

from __future__ import annotations

from pathlib import Path

import onnx

import paraformer.backends.onnx  # noqa: F401  first, because it tells ONNX Runtime not to report home

# isort: split
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

KEPT = "output/MatMul"
"""The end of the names of products that stay in float: the output layer and the CIF weights (spec 8.2)."""


def quantize(graph: onnx.ModelProto, path: Path) -> None:
    """Write the graph with each product by weights in integers: signed symmetric weights, one scale per column.

    Activations get their scale from each batch as it comes. Signed weights are what processors with integer dot
    products multiply fastest. Others add two products in 16 bits, which holds any two of an activation in 8 bits and a
    weight in 7 (2 x 255 x 64 < 2 ** 15) but not in 8, so weights are within +-64: every processor gets the same sums.
    """
    add_pre_process_metadata(graph)  # there is nothing to prepare, and without the note the library warns
    kept = [node.name for node in graph.graph.node if node.name.endswith(KEPT)]
    quantize_dynamic(
        graph,
        path,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
        extra_options={"WeightSymmetric": True},
    )
