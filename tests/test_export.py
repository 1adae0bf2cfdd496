"""Exported graphs: as the contract says, without weights of their own, equal to torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
import torch
from safetensors.torch import save_file

from paraformer import contract
from paraformer.errors import CheckpointError
from paraformer.export import export

GRAPHS = contract.graphs(tiny.config())


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.file)
def test_names_types_and_axes_are_those_of_the_contract(graph: contract.Graph) -> None:
    model = onnx.load(tiny.directory() / graph.file, load_external_data=False).graph
    for ports, values in ((graph.inputs, model.input), (graph.outputs, model.output)):
        assert [port.name for port in ports] == [value.name for value in values]
        for port, value in zip(ports, values, strict=True):
            kind = value.type.tensor_type
            assert onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) == np.dtype(port.dtype)
            assert tuple(d.dim_param or d.dim_value for d in kind.shape.dim) == port.axes


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.file)
def test_weights_lie_in_the_safetensors_file_alone(graph: contract.Graph) -> None:
    model = onnx.load(tiny.directory() / graph.file, load_external_data=False).graph
    own = [tensor for tensor in model.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    assert sum(len(tensor.raw_data) for tensor in own) < 1000
    assert all(entry.value != "" for tensor in model.initializer for entry in tensor.external_data)


def test_scores_equal_torch() -> None:
    """To 1e-4 on the decoder's scores, before any softmax."""
    model, rng = tiny.model(), np.random.default_rng(0)
    memory = rng.standard_normal((2, 9, 16)).astype(np.float32)
    embeds = rng.standard_normal((2, 4, 16)).astype(np.float32)
    counts, mask = np.array([4, 2]), np.arange(9)[None] < np.array([[9], [6]])
    fsmn = rng.standard_normal((2, 2, 4, 16)).astype(np.float32)
    backend = tiny.backend("onnx")
    logits, _, following = backend._decode(memory, mask, embeds, counts, fsmn)
    with torch.no_grad():
        expected, _, expected_following = model.decoder.step_tokens(
            torch.from_numpy(memory),
            torch.from_numpy(mask)[:, None],
            torch.from_numpy(embeds),
            torch.from_numpy(counts),
            torch.from_numpy(fsmn),
        )
    for row, count in enumerate(counts):
        np.testing.assert_allclose(logits[row, :count], expected[row, :count].numpy(), atol=1e-4)
    np.testing.assert_allclose(following, expected_following.numpy(), atol=1e-5)


def test_weights_of_another_model_are_refused(tmp_path) -> None:
    tensors = dict(tiny.model().state_dict())
    tensors["predictor.conv.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / contract.WEIGHTS)
    with pytest.raises(CheckpointError, match="another size"):
        export(tiny.model(), tmp_path)
