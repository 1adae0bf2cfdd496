"""Our own graphs, as `paraformer.contract` lists them: their weights stay in the bundle's safetensors file.

A graph file holds no weights: each refers to its bytes in `model.safetensors`, so that one file serves fine-tuning and
every graph, and the engine maps it into memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, numpy_helper
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
        encoder, mask = self.model.encoder, length_mask(lengths, feats.shape[1])
        past = Past(past_keys, past_values, past_lengths)
        seen = torch.cat([past.mask(), mask], 1)[:, None, :]
        hidden, keys, values = encoder.run(encoder.embed(feats, start), seen, mask, past)
        hidden = hidden * mask[..., None]
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
    offsets = _tensor_offsets(directory / contract.WEIGHTS)
    model = model.eval()
    modules = {"encoder.onnx": _Encoder, "look_back.onnx": _LookBack, "decoder.onnx": _Decoder}
    written = []
    for graph in contract.graphs(model.config):
        path = directory / graph.file
        _refer(trace(modules[graph.file](model), graph, path, fold=False), path, offsets)
        written.append(path)
    return written


def _tensor_offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> (first byte in the file, number of bytes) of each tensor in a safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
    entries = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: (8 + size + begin, end - begin) for name, (begin, end) in entries.items()}


def _refer(traced: onnx.ModelProto, path: Path, offsets: dict[str, tuple[int, int]]) -> None:
    """Write the graph with its weights replaced by references into the safetensors file beside it."""
    for tensor in traced.graph.initializer:
        name = tensor.name.removeprefix("model.")
        if name not in offsets:
            raise CheckpointError(f"{path.parent / contract.WEIGHTS} holds no {name}; save the model there first")
        begin, size = offsets[name]
        if size != numpy_helper.to_array(tensor).nbytes:
            raise CheckpointError(f"{path.parent / contract.WEIGHTS} holds a {name} of another size than the model")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", contract.WEIGHTS), ("offset", str(begin)), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
    onnx.save(traced, path)
