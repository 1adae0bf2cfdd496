"""Work of few shapes, so that a GPU can be given all of it in one launch (CUDA graphs); and bfloat16 for its products.

A model of 50 layers is some thousand kernels, each of which takes longer to launch than a short batch takes to
compute. A captured graph launches all of them at once, for one shape of its inputs. So batches are filled up to shapes
from a short list: further utterances or streams are copies of the last, further rows are padding, and neither changes a
result. Elsewhere than on CUDA the same code runs with the same shapes, and calls what it would capture.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from paraformer.model.cif import Predictor

T = TypeVar("T")
Tensors = tuple[Tensor, ...]
Function = Callable[..., Tensors]
MOST_GRAPHS = 64
"""Of one function: more shapes than that and those that were not used for longest are captured anew."""


def bucket(count: int) -> int:
    """The size to which so many are filled up: 1, 2, 3, 4, 6, 8, 12, 16 and so on, at most half as many again.

    >>> [bucket(count) for count in (1, 3, 5, 7, 9, 13, 100)]
    [1, 3, 6, 8, 12, 16, 128]
    """
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power


def filled(rows: Sequence[T]) -> list[T]:
    """A batch of utterances or streams, with copies of the last up to the next bucket."""
    return [*rows, *[rows[-1]] * (bucket(len(rows)) - len(rows))]


class Captured:
    """A function of tensors that on CUDA is captured once for each shape of its arguments, and then replayed.

    The function must not look at values, since nothing waits for them while it is captured. setting: what else it is
    to be given, first; another one is another function.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._pool: Any = None
        self._lock = Lock()

    def __call__(self, setting: Hashable, *inputs: Tensor) -> Tensors:
        """What the function gives, in memory of its own."""
        if inputs[0].device.type != "cuda":
            return self._function(setting, *inputs)
        key = (setting, *((tensor.shape, tensor.dtype) for tensor in inputs))
        with self._lock:  # a graph has one place for its inputs
            if key not in self._graphs:
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                self._graphs[key] = _Graph(self._function, setting, inputs, self._pool)
            self._graphs.move_to_end(key)
            while len(self._graphs) > MOST_GRAPHS:
                self._graphs.popitem(last=False)
            return self._graphs[key].replay(inputs)


class _Graph:
    """One function for one shape; on CUDA only. pool: memory shared with others that never run at the same time."""

    def __init__(self, function: Function, setting: Hashable, inputs: Tensors, pool: Any) -> None:
        # A graph reads where its inputs lay when it was captured, and so others are copied there.
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # first calls choose algorithms and workspaces, which must not be captured
            for _ in range(2):
                function(setting, *self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # "thread_local": what other threads do meanwhile, as to allocate, would else spoil the capture.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = function(setting, *self._inputs)

    def replay(self, inputs: Tensors) -> Tensors:
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        # The next run writes to the same memory.
        return tuple(tensor.clone() for tensor in self._outputs)


def to_bfloat16(model: nn.Module) -> None:
    """Keep the weights of products in bfloat16, for use under autocast, which then finds them as it wants them.

    Sums of layers, norms and softmax stay in float32, and the predictor altogether: a weight that is off by a
    thousandth is a token more or less in a long utterance.
    """
    for module in model.children():
        if isinstance(module, nn.Linear | nn.Conv1d):
            module.to(torch.bfloat16)
        elif not isinstance(module, Predictor):
            to_bfloat16(module)
