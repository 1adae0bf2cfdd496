"""What there is to know of FunASR's directories of one kind of companion; `funasr_companions` does the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paraformer.checkpoint.funasr_parts import WEIGHTS, Named
from paraformer.kinds import Kind

Settings = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Form:
    """One kind. models: FunASR's classes; extras: which of `companions.EXTRAS` have files.

    read: config.yaml and the extras to our settings; write: the inverse. shapes: of tensors, by our names, from our
    settings; theirs: from our name of a tensor to FunASR's. by_word: our name of the tensor with a row for each word.
    beside: leaves of tensors that may be there and are computed with by nobody.
    """

    kind: Kind
    models: Sequence[str]
    task: str
    read: Callable[[Settings, Settings], dict[str, Any]]
    write: Callable[[Settings, Settings], dict[str, Any]]
    shapes: Callable[[Settings], Shapes]
    theirs: Callable[[Settings], Mapping[str, str]]
    extras: Sequence[str] = ()
    needed: Sequence[str] = ()
    """Those of the extras without which there is no model."""
    weights: Named = WEIGHTS
    by_word: str | None = None
    beside: str | None = None
