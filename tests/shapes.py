"""Run-time checks of the array shapes and types that annotations state; pyproject.toml has them on for all tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
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
    hints = {name: _evaluated(hint, target) for name, hint in getattr(target, "__annotations__", {}).items()}
    arrays = {name: hint for name, hint in hints.items() if _speaks_of_arrays(hint)}
    if not arrays or target.__qualname__.endswith(REFUSE_THEMSELVES):
        return target
    stated, target.__annotations__ = target.__annotations__, arrays
    once = beartype(target)
    target.__annotations__ = stated

    @wraps(target)
    def called(*args: Any, **kwargs: Any) -> Any:
        with CALL:
            return once(*args, **kwargs)

    return called  # type: ignore[return-value]


def directly(*, typechecker: Callable[[T], T]) -> Callable[[T], T]:
    """In place of jaxtyping's own decorator: the check alone, and of the arguments once."""
    return typechecker


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
