"""Files that torch wrote, read without it: the same tensors, whatever they are views of, and nothing is run."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paraformer.checkpoint import torch_file
from paraformer.errors import CheckpointError

KINDS = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Tensors and views of tensors, of every kind."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = math.prod(shape)
    tensor = torch.arange(count + 5).remainder(100).to(draw(st.sampled_from(KINDS)))
    start = draw(st.integers(0, 5))
    view = tensor[start : start + count].reshape(shape)
    if draw(st.booleans()) and len(shape) > 1:
        view = view.transpose(0, 1)
    return torch.nn.Parameter(view) if view.is_floating_point() and draw(st.booleans()) else view


@given(st.dictionaries(st.text(min_size=1, max_size=9), tensors(), max_size=4), st.integers(2, 4), st.booleans())
def test_tensors_are_those_that_torch_reads(held: dict[str, torch.Tensor], protocol: int, shared: bool) -> None:
    if shared and held:
        held["again"] = next(iter(held.values())).detach()[:1] if next(iter(held.values())).ndim else torch.zeros(1)
    with TemporaryDirectory() as directory:
        path = Path(directory) / "model.pt"
        torch.save(held, path, pickle_protocol=protocol)
        found = torch_file.read(path)
    assert list(found) == [name.removeprefix("module.") for name in held]
    for array, tensor in zip(found.values(), held.values(), strict=True):
        expected = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        np.testing.assert_array_equal(array, expected.numpy())
        assert array.dtype == expected.numpy().dtype


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("torch") / "model.pt"
    layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save({"epoch": 3, "best": 0.5, "done": True, "state_dict": layer.state_dict()}, path)
    return path.read_bytes()


@given(data=st.data())
def test_damage_is_refused_and_nothing_else(written: bytes, data: st.DataObject) -> None:
    spoilt = bytearray(written)
    for place in data.draw(st.lists(st.integers(0, len(written) - 1), min_size=1, max_size=6)):
        spoilt[place] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as directory:
        path = Path(directory) / "model.pt"
        path.write_bytes(spoilt[: data.draw(st.integers(len(written) // 2, len(written)))])
        try:
            found = torch_file.read(path)
        except CheckpointError as error:
            assert "model.pt" in str(error)  # noqa: PT017
        else:
            assert all(isinstance(array, np.ndarray) for array in found.values())


class Called:
    """Would be called when unpickled."""

    def __init__(self, *called: Any) -> None:
        self.called = called

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called


@pytest.mark.parametrize(
    "trap",
    [
        Called(print, ("run",)),
        Called(eval, ("1",)),
        Called(torch.zeros, ((2,),)),
        Called(dict, ((),), {"state": 1}),
        Called(list, (), None, iter([1])),
        {1, 2},
        complex(1, 2),
        slice(1, 2),
    ],
)
def test_what_would_be_called_is_refused(trap: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.zeros(2), "trap": trap}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="was refused and nothing in it was run"):
        torch_file.read(tmp_path / "model.pt")
    assert "run" not in capsys.readouterr().out
