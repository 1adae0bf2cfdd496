"""Values by name to settings: what is unknown, missing, of another type or out of range is named."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from paraformer.errors import ConfigError

T = TypeVar("T")


def from_mapping(cls: type[T], values: Any, where: str, *, optional: Collection[str] | None = None) -> T:
    """Build a dataclass from a mapping. Raises ConfigError naming unknown and missing keys, and values of another type.

    optional: the settings, as "where.name", that may be missing; None: all that have a default.

    >>> from paraformer.config import PredictorConfig
    >>> from_mapping(PredictorConfig, {"tail_treshold": 0.45}, "predictor")
    Traceback (most recent call last):
    paraformer.errors.ConfigError: unknown setting in predictor: tail_treshold; did you mean tail_threshold?
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(map(str, set(by_name(values, where)) - set(fields)))
    if unknown:
        known = nearest(unknown[0], fields.keys() - values.keys()) or f"; known are {', '.join(fields)}"
        raise ConfigError(f"unknown setting in {where}: {', '.join(unknown)}{known}")
    missing = [
        name
        for name, field in fields.items()
        if name not in values and not (_has_default(field) if optional is None else f"{where}.{name}" in optional)
    ]
    if missing:
        raise ConfigError(f"missing setting in {where}: {', '.join(missing)}")
    hints = get_type_hints(cls)
    for name, value in values.items():
        check_type(value, hints[name], f"{where}.{name}")
    return cls(**values)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return not (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)


def by_name(values: Any, where: str) -> Mapping[str, Any]:
    """The values, if they are settings by name. Raises ConfigError for anything else."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must hold settings by name, not {values!r}")
    return values


_KINDS: Mapping[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
    tuple: ((tuple, list), "a list"),
    NoneType: ((NoneType,), "nothing"),
}


def check_type(value: object, hint: Any, where: str) -> None:
    """Raise ConfigError unless a value is of the annotated type: a number, text, choice, list, dataclass or None."""
    origin = get_origin(hint) or hint
    if origin is Literal:
        check_choice(value, get_args(hint), where)
    elif origin in (Union, UnionType):
        if not any(_fits(value, one) for one in get_args(hint)):
            raise ConfigError(f"{where} cannot be {value!r}")
    elif not _fits(value, hint):
        what = _KINDS[origin][1] if origin in _KINDS else "settings by name"
        raise ConfigError(f"{where} must be {what}, not {value!r}")
    elif origin is tuple:
        for item in value:  # type: ignore[attr-defined]
            check_type(item, get_args(hint)[0], where)


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin in _KINDS:
        return isinstance(value, _KINDS[origin][0]) and (origin is bool or not isinstance(value, bool))
    return not (isinstance(origin, type) and dataclasses.is_dataclass(origin)) or isinstance(value, origin)


def as_whole(value: object, where: str) -> int:
    """A whole number, be it NumPy's or Python's, as Python's. Raises ConfigError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{where} must be a whole number, not {value!r}")
    return int(value)


def as_number(value: object, where: str) -> float:
    """A number, be it NumPy's or Python's, as Python's. Raises ConfigError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{where} must be a number, not {value!r}")
    return float(value)


def check_choice(value: object, choices: Iterable[object], where: str) -> None:
    """Raise ConfigError, with the nearest choice, unless a value is one of those there are.

    >>> check_choice("int9", ("auto", "float32", "bfloat16", "int8"), "precision")
    Traceback (most recent call last):
    paraformer.errors.ConfigError: precision must be auto, float32, bfloat16 or int8, not 'int9'; did you mean int8?
    """
    choices = tuple(choices)
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return
    *first, last = map(str, choices)
    listed = f"{', '.join(first)} or {last}" if first else last
    raise ConfigError(f"{where} must be {listed}, not {value!r}{nearest(value, map(str, choices), alike=0.5)}")


_SIZE = 1 << 24
_MOST = {"layers": 1000, "attention_layers": 1000, "frame_ms": 1000.0, "shift_ms": 1000.0}
"""Far beyond any model: what a damaged file says would else be built before it is found not to fit."""


def check_ranges(settings: Any, where: str, least: Mapping[str, float]) -> None:
    """Raise ConfigError for a number, in settings or their parts, that is not finite, too small or beyond any model.

    least: smallest values by name, or by "where.name"; else floats begin at 0 and integers at 1. Shares that end in
    "dropout" are at most 1.
    """
    for name, value in vars(settings).items():
        place = f"{where}.{name}"
        if dataclasses.is_dataclass(value):
            check_ranges(value, place, least)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            begin = least.get(place, least.get(name, 0.0 if isinstance(value, float) else 1))
            end = 1.0 if name.endswith("dropout") else _MOST.get(name, math.inf if isinstance(value, float) else _SIZE)
            if not (begin <= value <= end and math.isfinite(value)):
                bound = f"at least {begin}" if value < begin or not math.isfinite(value) else f"at most {end}"
                raise ConfigError(f"{place.removeprefix('model.')} must be {bound}, not {value}")


def nearest(word: object, known: Iterable[str], alike: float = 0.75) -> str:
    """A question to end an error with, "; did you mean kernel?"; empty where nothing known looks like the word."""
    found = difflib.get_close_matches(str(word), list(known), 1, alike)
    return f"; did you mean {found[0]}?" if found else ""
