from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from funasr_dirs import write_funasr
from safetensors.torch import load_file, save_file

from paraformer import checkpoint
from paraformer.checkpoint import funasr, native
from paraformer.errors import CheckpointError, ConfigError, ModelError, ModelNotFound

NAMES = ("offline_A", "offline_B", "online", "aishell_conformer")


def assert_same(one, other) -> None:
    """Two (bundle, model) pairs, bit for bit."""
    (bundle, model), (other_bundle, other_model) = one, other
    assert bundle.config == other_bundle.config == model.config == other_model.config
    assert (bundle.tokens, bundle.words, bundle.card) == (other_bundle.tokens, other_bundle.words, other_bundle.card)
    assert (bundle.cmvn is None) == (other_bundle.cmvn is None)
    if bundle.cmvn is not None:
        assert bundle.cmvn.shift.tobytes() == other_bundle.cmvn.shift.tobytes()
        assert bundle.cmvn.scale.tobytes() == other_bundle.cmvn.scale.tobytes()
    tensors, others = model.state_dict(), other_model.state_dict()
    assert list(tensors) == list(others)
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype
        assert torch.equal(tensor, others[name]), name


@pytest.fixture
def online(tmp_path):
    """A native bundle of the golden streaming model."""
    return checkpoint.convert(write_funasr(tmp_path / "funasr"), tmp_path / "native")


@pytest.mark.parametrize("name", NAMES)
def test_converting_there_and_back_changes_nothing(tmp_path, name):
    source = write_funasr(tmp_path / "source", name)
    there = checkpoint.convert(source, tmp_path / "native")
    back = checkpoint.convert(there, tmp_path / "funasr")
    again = checkpoint.convert(back, tmp_path / "again")
    assert_same(checkpoint.open_any(source), checkpoint.open_any(there))
    assert_same(checkpoint.open_any(there), checkpoint.open_any(back))
    assert (there / "config.json").read_bytes() == (again / "config.json").read_bytes()
    assert (there / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


def test_convert_refuses_a_target_with_something_in_it(tmp_path, online):
    target = tmp_path / "target"
    target.mkdir()
    (target / "keep.txt").write_text("mine")
    with pytest.raises(ModelError, match="target is not empty"):
        checkpoint.convert(online, target)
    assert [path.name for path in target.iterdir()] == ["keep.txt"]


def test_a_directory_of_neither_form_is_named(tmp_path):
    with pytest.raises(ModelNotFound, match=r"neither config\.json nor config\.yaml"):
        checkpoint.open_any(tmp_path)
    with pytest.raises(ModelNotFound, match="no model directory"):
        checkpoint.open_any(tmp_path / "nowhere")


def test_a_loaded_model_recognises_and_trains(online):
    _, model = native.load(online)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    with torch.no_grad():
        next(model.parameters()).add_(1.0)  # loaded weights may change without a trace in the file
    assert not torch.equal(next(model.parameters()), next(native.load(online)[1].parameters()))


def test_every_tensor_that_does_not_fit_is_named(online):
    path = online / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.norm.bias"]
    tensors["decoder.extra"] = torch.zeros(1)
    tensors["predictor.output.weight"] = torch.zeros(2, 32)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        native.load(online)
    for words in (
        "1 missing: encoder.norm.bias",
        "1 unexpected: decoder.extra",
        "predictor.output.weight is 2x32, not 1x32",
    ):
        assert words in str(caught.value)


def test_many_missing_tensors_are_counted(online):
    save_file({"unknown": torch.zeros(1)}, online / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"111 missing: (\S+, ){5}\.\.\.; 1 unexpected: unknown"):
        native.load(online)


def test_a_file_that_is_not_safetensors_is_refused(online):
    (online / "model.safetensors").write_bytes(b"\x80\x04garbage")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        native.load(online)


@pytest.mark.parametrize("form", [native, funasr])
def test_a_bundle_of_another_model_is_not_saved(tmp_path, online, form):
    bundle, model = native.load(online)
    with pytest.raises(ConfigError, match="not those of the model"):
        form.save(replace(bundle, config=replace(bundle.config, live=None)), model, tmp_path / "target")


def test_other_precisions_are_read_as_float32(online):
    path = online / "model.safetensors"
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}, path)
    assert {parameter.dtype for parameter in native.load(online)[1].parameters()} == {torch.float32}
