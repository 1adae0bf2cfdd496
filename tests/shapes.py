"""Run-time checks of the array shapes and types that annotations state; pyproject.toml has them on for all tests."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args

from beartype import beartype
from jaxtyping import AbstractArray

F = TypeVar("F", bound=Callable[..., Any])

REFUSE_THEMSELVES = ("Session.feed", "Session.accept", "Cmvn.__init__")
"""What raises an error of its own for arrays that do not fit, which tests want to see."""


def checked(function: F) -> F:
    """The function, its array annotations checked at each call; the others, which mypy checks, are left out."""
    if function.__qualname__.endswith(REFUSE_THEMSELVES):
        return function
    hints = {name: _evaluated(hint, function) for name, hint in getattr(function, "__annotations__", {}).items()}
    function.__annotations__ = {name: hint for name, hint in hints.items() if _speaks_of_arrays(hint)}
    return beartype(function)


def _evaluated(hint: object, function: Callable[..., Any]) -> object:
    """A hint as an object; None for what only a type checker understands."""
    try:
        return eval(hint, function.__globals__) if isinstance(hint, str) else hint
    except (NameError, TypeError):
        return None


def _speaks_of_arrays(hint: object) -> bool:
    """Whether a hint is an array, a container of arrays, or an array or nothing."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    parts = [_speaks_of_arrays(part) for part in get_args(hint) if part is not NoneType]
    return bool(parts) and (all(parts) if isinstance(hint, UnionType) else any(parts))
