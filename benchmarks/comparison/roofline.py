"""How much of the machine's rate of matrix products recognition reaches: their number, and that rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from paraformer.config import ChunkConfig, ModelConfig, SanmDecoderConfig, SanmEncoderConfig

ROWS, INNER, COLUMNS = 512, 512, 2048
"""A feed-forward product of the large shape on 30 s of audio."""
REPEATS = 40


def operations(config: ModelConfig, rows: int, tokens: float) -> float:
    """Multiplications and additions in the matrix products of one pass over so many rows and tokens (SAN-M models)."""
    encoder, decoder = config.encoder, config.decoder
    assert isinstance(encoder, SanmEncoderConfig)
    assert isinstance(decoder, SanmDecoderConfig)
    dim, inner = encoder.dim, encoder.ffn_dim
    widths = config.frontend.input_dim + (encoder.layers - 1) * dim  # of what goes into the blocks
    encoded = rows * (3 * widths * dim + encoder.layers * (dim * dim + 2 * dim * inner + 2 * rows * dim))
    reach = config.predictor.left + 1 + config.predictor.right
    predicted = rows * reach * dim * dim if config.predictor.version == 2 else 0
    crossed = decoder.attention_layers * (2 * dim * dim * (rows + tokens) + 2 * rows * tokens * dim)
    fed = (decoder.layers + 1) * tokens * 2 * dim * decoder.ffn_dim
    return 2 * (encoded + predicted + crossed + fed + tokens * dim * config.vocab_size)


def per_second(config: ModelConfig, seconds: float, tokens_per_s: float) -> float:
    """Operations per second of speech of a whole recording of this length."""
    return operations(config, round(seconds / config.row_s), seconds * tokens_per_s) / seconds


def per_second_live(config: ModelConfig, chunk: ChunkConfig, tokens_per_s: float) -> float:
    """Operations per second of speech in live steps without look-back, whose rows are seen more than once."""
    step_s = chunk.chunk * config.row_s
    return operations(config, chunk.rows, step_s * tokens_per_s) / step_s


def rates(threads: int) -> dict[str, Any]:
    """Measured billions of operations per second, the best of several libraries: `fp32_gops` and `int8_gops`."""
    import torch

    torch.set_num_threads(threads)
    left = np.random.default_rng(0).standard_normal((ROWS, INNER)).astype(np.float32)
    right = np.random.default_rng(1).standard_normal((INNER, COLUMNS)).astype(np.float32)
    a, b = torch.from_numpy(left), torch.from_numpy(right)
    floats = [lambda: left @ right, lambda: a @ b, _onnx_product(right, threads, left)]
    whole = (40 * left + 128).clip(0, 255).astype(np.uint8), (40 * right).clip(-127, 127).astype(np.int8)
    integers = [_onnx_product(whole[1], threads, whole[0])]
    count = 2 * ROWS * INNER * COLUMNS / 1e9
    return {"fp32_gops": count / min(map(_best, floats)), "int8_gops": count / min(map(_best, integers))}


def _onnx_product(weights: np.ndarray, threads: int, given: np.ndarray) -> Callable[[], object]:
    """A call of ONNX Runtime that multiplies by weights, in float32 or in 8 bits."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    floats = given.dtype == np.float32
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT) if floats else (TensorProto.UINT8, TensorProto.INT32)
    graph = helper.make_graph(
        [helper.make_node("MatMul" if floats else "MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kinds[0], given.shape)],
        [helper.make_tensor_value_info("y", kinds[1], (given.shape[0], weights.shape[1]))],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": given})


def _best(call: Callable[[], object]) -> float:
    """Seconds of the fastest of many calls: the rate that could be had."""
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)
