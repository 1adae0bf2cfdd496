"""Our own graphs, as `paraformer.contract` lists them: their weights stay in the bundle's safetensors file.

A graph file holds no weights: each refers to its bytes in `model.safetensors`, so that one file serves fine-tuning and
every graph, and the engine maps it into memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from torch import Tensor, nn

from paraformer import contract
from paraformer.config import ModelConfig
from paraformer.errors import CheckpointError
from paraformer.export.tracing import trace
from paraformer.model.encoder import Past
from paraformer.model.layers import length_mask
from paraformer.model.paraformer import Paraformer
from paraformer.weights import SCALE, Place, places


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
    ) -> tuple[Tensor, ...]:
        # One mask for all tokens of an utterance.
        decoder, mask = self.model.decoder, memory_mask[:, None, :]
        if fsmn is None:
            token_mask = length_mask(counts, embeds.shape[1])
            if not self.model.config.units:
                return (decoder(memory, mask, embeds, token_mask),)
            scores: tuple[Tensor, ...] = decoder.scores(memory, mask, embeds, token_mask)
            return scores
        logits, units, following = decoder.step_tokens(memory, mask, embeds, counts, fsmn)
        return (logits, following) if units is None else (logits, following, units)


class _ContextualDecoder(nn.Module):
    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, memory: Tensor, memory_mask: Tensor, embeds: Tensor, counts: Tensor, hotwords: Tensor) -> Tensor:
        decoder, mask = self.model.decoder, length_mask(counts, embeds.shape[1])
        scores: Tensor = decoder.output(decoder.rows(memory, memory_mask[:, None, :], embeds, mask, hotwords[None]))
        return scores


class _DecoderWithRows(nn.Module):
    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, memory: Tensor, memory_mask: Tensor, embeds: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        decoder, mask = self.model.decoder, length_mask(counts, embeds.shape[1])
        rows = decoder.rows(memory, memory_mask[:, None, :], embeds, mask)
        return decoder.output(rows), rows


class _Timing(nn.Module):
    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        return self.model.predictor.fine(hidden, lengths)


class _Hotwords(nn.Module):
    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self.model.hotword_rows(ids, lengths)


class _HotwordAttention(nn.Module):
    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor, counts: Tensor, hotwords: Tensor) -> Tensor:
        # One list of hotwords for all utterances.
        attention: Tensor = self.model.hotwords.attention(rows, hotwords[None], length_mask(counts, rows.shape[1]))
        return attention


class _SecondDecoder(nn.Module):
    def __init__(self, model: Paraformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeds: Tensor, rows: Tensor, counts: Tensor, hotwords: Tensor) -> Tensor:
        mask = length_mask(counts, rows.shape[1])
        scores: Tensor = self.model.hotwords.scores(embeds, rows, hotwords, mask)
        return scores


def _modules(config: ModelConfig) -> Mapping[str, Callable[[Paraformer], nn.Module]]:
    """What is traced for each graph."""
    decoders = {"seaco": _DecoderWithRows, "contextual": _ContextualDecoder}
    return {
        contract.ENCODER: _Encoder,
        "look_back.onnx": _LookBack,
        "decoder.onnx": decoders[config.hotwords.kind] if config.hotwords else _Decoder,
        "timing.onnx": _Timing,
        "hotwords.onnx": _Hotwords,
        "hotword_attention.onnx": _HotwordAttention,
        "hotword_decoder.onnx": _SecondDecoder,
    }


def export(model: Paraformer, directory: str | Path) -> list[Path]:
    """Write the graphs of a model beside its `model.safetensors`, which must already be there. Returns their paths.

    Raises CheckpointError if that file does not hold the model's weights.
    """
    directory = Path(directory)
    if model.config.encoder.kind != "sanm":
        raise CheckpointError(f"{model.config.encoder.kind} encoders run on the torch backend only so far")
    stored = places(directory / contract.WEIGHTS)
    told = {contract.SETTINGS: json.dumps(contract.settings(model.config))}
    model = model.eval()
    modules = _modules(model.config)
    written = []
    for graph in contract.graphs(model.config):
        path = directory / graph.file
        traced = trace(modules[graph.file](model), graph, path, fold=False)
        helper.set_model_props(traced, told)
        _refer(traced, path, stored)
        written.append(path)
    return written


def _refer(traced: onnx.ModelProto, path: Path, stored: Mapping[str, Place]) -> None:
    """Write the graph with its weights replaced by references into the safetensors file beside it.

    What is not in float32 there is brought to it by nodes that the engine computes once, when it opens the graph.
    """
    weights, nodes = [], []
    for tensor in traced.graph.initializer:
        name, sizes = tensor.name.removeprefix("model."), tuple(tensor.dims)
        if name not in stored:
            raise CheckpointError(f"{path.parent / contract.WEIGHTS} holds no {name}; save the model there first")
        place = stored[name]
        if place.shape != sizes or place.kind not in _KINDS:
            raise CheckpointError(f"{path.parent / contract.WEIGHTS} holds a {name} of another size than the model")
        if place.kind == "F32":
            weights.append(_reference(tensor.name, place))
            continue
        kept = f"{tensor.name}.kept"
        weights.append(_reference(kept, place))
        if place.kind == "F16":
            nodes.append(helper.make_node("Cast", [kept], [tensor.name], to=TensorProto.FLOAT))
            continue
        scale = tensor.name + SCALE
        weights.append(_reference(scale, replace(stored[name + SCALE], shape=place.shape[:1])))
        nodes.append(helper.make_node("DequantizeLinear", [kept, scale], [tensor.name], axis=0))
    nodes += traced.graph.node
    # In front of all others: nodes of a graph stand in an order in which they can be computed.
    del traced.graph.node[:], traced.graph.initializer[:]
    traced.graph.node.extend(nodes)
    traced.graph.initializer.extend(weights)
    onnx.save(traced, path)


_KINDS = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "I8": TensorProto.INT8}


def _reference(name: str, place: Place) -> TensorProto:
    """A tensor whose numbers lie in the safetensors file."""
    tensor = TensorProto(name=name, dims=place.shape, data_type=_KINDS[place.kind])
    tensor.data_location = TensorProto.EXTERNAL
    places = (("location", contract.WEIGHTS), ("offset", str(place.begin)), ("length", str(place.size)))
    for key, value in places:
        tensor.external_data.add(key=key, value=value)
    return tensor
