"""Our own graphs, as `paraformer.contract` lists them: their weights stay in the bundle's safetensors file.

A graph file holds no weights: each refers to its bytes in `model.safetensors`, so that one file serves fine-tuning and
every graph, and the engine maps it into memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from paraformer import contract
from paraformer.errors import CheckpointError
from paraformer.export.tracing import trace
from paraformer.model.encoder import Past
from paraformer.model.layers import length_mask
from paraformer.model.paraformer import Paraformer


class _Encoder(nn.Module):
    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, feats: Tensor, lengths: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        hidden, _ = self.model.encoder(feats, lengths, start)
        return hidden, self.model.predictor(hidden, length_mask(lengths, feats.shape[1]))


class _LookBack(nn.Module):
    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        feats: Tensor,
        lengths: Tensor,
        start: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
        past_lengths: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mask, past = length_mask(lengths, feats.shape[1]), Past(past_keys, past_values, past_lengths)
        hidden, keys, values = self.model.encoder.look_back(feats, mask, start, past)
        return hidden, self.model.predictor(hidden, mask), keys, values


class _Decoder(nn.Module):
    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, memory: Tensor, memory_mask: Tensor, embeds: Tensor, counts: Tensor, fsmn: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        decoder, mask = self.model.decoder, memory_mask[:, None, :]
        if fsmn is None:
            scores: Tensor = decoder(memory, mask, embeds, length_mask(counts, embeds.shape[1]))
            return scores
        logits, following = decoder.step_tokens(memory, mask, embeds, counts, fsmn)
        return logits, following


def export(model: Paraformer, directory: str | Path) -> list[Path]:
    """Write the graphs of a model beside its `model.safetensors`, which must already be there. Returns their paths.

    Raises CheckpointError if that file does not hold the model's weights.
    """
    directory = Path(directory)
    if model.config.encoder.kind != "sanm":
        raise CheckpointError(f"{model.config.encoder.kind} encoders run on the torch backend only so far")
    stored = _stored_tensors(directory / contract.WEIGHTS)
    model = model.eval()
    modules = {"encoder.onnx": _Encoder, "look_back.onnx": _LookBack, "decoder.onnx": _Decoder}
    written = []
    for graph in contract.graphs(model.config):
        path = directory / graph.file
        _refer(trace(modules[graph.file](model), graph, path, fold=False), path, stored)
        written.append(path)
    return written


@dataclass(frozen=True)
class _Stored:
    """A tensor in a safetensors file: its type, the first byte in the file, the number of bytes."""

    kind: str
    begin: int
    size: int


def _stored_tensors(path: Path) -> dict[str, _Stored]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
    return {
        name: _Stored(entry["dtype"], 8 + size + entry["data_offsets"][0], int(np.diff(entry["data_offsets"])[0]))
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _refer(traced: onnx.ModelProto, path: Path, stored: dict[str, _Stored]) -> None:
    """Write the graph with its weights replaced by references into the safetensors file beside it.

    Weights in float16 are followed by a Cast, which the engine computes once, when it opens the graph.
    """
    casts = []
    for tensor in traced.graph.initializer:
        name = tensor.name.removeprefix("model.")
        if name not in stored:
            raise CheckpointError(f"{path.parent / contract.WEIGHTS} holds no {name}; save the model there first")
        found = stored[name]
        if found.size * (2 if found.kind == "F16" else 1) != numpy_helper.to_array(tensor).nbytes:
            raise CheckpointError(f"{path.parent / contract.WEIGHTS} holds a {name} of another size than the model")
        if found.kind == "F16":
            half = f"{tensor.name}.half"
            casts.append(helper.make_node("Cast", [half], [tensor.name], to=TensorProto.FLOAT))
            tensor.name, tensor.data_type = half, TensorProto.FLOAT16
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", contract.WEIGHTS), ("offset", str(found.begin)), ("length", str(found.size))):
            tensor.external_data.add(key=key, value=value)
    nodes = [*casts, *traced.graph.node]
    del traced.graph.node[:]
    traced.graph.node.extend(nodes)
    onnx.save(traced, path)
