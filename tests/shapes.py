"""Run-time checks of the array shapes and types that annotations state; pyproject.toml has them on for all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args

from beartype import beartype
from jaxtyping import AbstractArray
from jaxtyping import jaxtyped as every_jaxtyped

F = TypeVar("F", bound=Callable[..., Any])

REFUSE_THEMSELVES = ("Session.feed", "Session.accept", "Cmvn.__init__")
"""What raises an error of its own for arrays that do not fit, which tests want to see."""


def jaxtyped(target: Any = None, *, typechecker: Any) -> Any:
    """What jaxtyping's import hook decorates functions and classes with: its own decorator, of those with arrays alone.

    It binds the arguments of every call once more, which most functions would pay for without having anything checked.
    """
    if target is None:
        return partial(jaxtyped, typechecker=typechecker)
    function = target.__init__ if isinstance(target, type) else target
    if function.__qualname__.endswith(REFUSE_THEMSELVES) or not _arrays(function):
        return target
    return every_jaxtyped(target, typechecker=typechecker)


def checked(function: F) -> F:
    """The function, its array annotations checked at each call; the others, which mypy checks, are left out."""
    function.__annotations__ = _arrays(function)
    return beartype(function)


def _arrays(function: Callable[..., Any]) -> dict[str, object]:
    """The annotations that speak of arrays, as objects."""
    hints = {name: _evaluated(hint, function) for name, hint in getattr(function, "__annotations__", {}).items()}
    return {name: hint for name, hint in hints.items() if _speaks_of_arrays(hint)}


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
