"""Run-time checks of the array shapes and types that annotations state; pyproject.toml has them on for all tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from inspect import isgeneratorfunction
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args

from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped

T = TypeVar("T", bound=Callable[..., Any])

REFUSE_THEMSELVES = ("Session.feed", "Session.accept", "Cmvn.__init__")
"""What raises an error of its own for arrays that do not fit, which tests want to see."""

CALL = jaxtyped("context")
"""Within it, an axis has one length wherever it is named."""


def checked(target: T) -> T:
    """The function or dataclass, its array annotations checked at each call.

    The others are left to mypy, and functions that have no others as they are: most of all calls.
    """
    if isinstance(target, type):
        if is_dataclass(target):
            target.__init__ = checked(target.__init__)  # type: ignore[misc]
        return target
    if not _arrays(target) or target.__qualname__.endswith(REFUSE_THEMSELVES):
        return target
    if isgeneratorfunction(target):  # which beartype would look at when its first value is wanted, within another call
        return jaxtyped(target, typechecker=_of_arrays)
    once = _of_arrays(target)

    @wraps(target)
    def called(*args: Any, **kwargs: Any) -> Any:
        with CALL:
            return once(*args, **kwargs)

    return called  # type: ignore[return-value]


def directly(*, typechecker: Callable[[T], T]) -> Callable[[T], T]:
    """In place of jaxtyping's own decorator: the check alone, and of the arguments once."""
    return typechecker


def _of_arrays(function: T) -> T:
    """The function as beartype checks it, with no annotations but those of arrays."""
    stated, function.__annotations__ = function.__annotations__, _arrays(function)
    once = beartype(function)
    function.__annotations__ = stated
    return once


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
