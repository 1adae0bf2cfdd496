"""State as a value: a frozen dataclass of tensors, axis 0 = stream.

`y, state = step(x, state)`: nothing that lives from one step to the next is kept on a module. What a subclass declares
is all there is: the flat names here are the keys of saved sessions and the inputs and outputs of exported graphs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """Base of every state; fields are tensors with the same size of axis 0."""

    def tensors(self) -> dict[str, Tensor]:
        """Flat name -> tensor, in declaration order."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of `tensors`."""
        return cls(**{field.name: tensors[field.name] for field in dataclasses.fields(cls)})

    @classmethod
    def stack(cls, states: Sequence[Self]) -> Self:
        """Streams of several states, one after another, as one state."""
        rows = [state.tensors() for state in states]
        return cls.from_tensors({name: torch.cat([row[name] for row in rows]) for name in rows[0]})

    def take(self, rows: Sequence[int]) -> Self:
        """The named streams, in that order, as a copy that keeps nothing else alive."""
        # Indexing by a list copies, so that a stream that is kept does not keep its whole batch in memory.
        return self.from_tensors({name: tensor[list(rows)] for name, tensor in self.tensors().items()})

    def where(self, keep: Tensor, other: Self) -> Self:
        """Streams of self where keep (batch,) is true, of other elsewhere."""
        mine, theirs = self.tensors(), other.tensors()
        return self.from_tensors(
            {name: torch.where(keep.view(-1, *[1] * (mine[name].dim() - 1)), mine[name], theirs[name]) for name in mine}
        )
