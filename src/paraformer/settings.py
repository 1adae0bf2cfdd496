"""Values by name to settings: what is unknown, missing, of another type or out of range is named."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

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
        raise ConfigError(f"{where} must hold settings by name, not {values!r:.60}")
    return values


_KINDS: Mapping[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
    tuple: ((tuple, list), "a list"),
    Mapping: ((Mapping,), "settings by name"),
    NoneType: ((NoneType,), "nothing"),
}


def check_type(value: object, hint: Any, where: str) -> None:
    """Raise ConfigError unless a value is of the annotated type: a number, text, choice, list, dataclass or None."""
    origin = get_origin(hint) or hint
    if origin is Literal:
        check_choice(value, get_args(hint), where)
    elif origin in (Union, UnionType):
        if not any(_fits(value, one) for one in get_args(hint)):
            raise ConfigError(f"{where} cannot be {value!r:.60}")
    elif not _fits(value, hint):
        what = _KINDS[origin][1] if origin in _KINDS else "settings by name"
        raise ConfigError(f"{where} must be {what}, not {value!r:.60}")
    elif origin is tuple:
        for item in value:  # type: ignore[attr-defined]
            check_type(item, get_args(hint)[0], where)
    elif origin is Mapping and get_args(hint):
        for name, item in value.items():  # type: ignore[attr-defined]
            check_type(item, get_args(hint)[1], f"{where}.{name}")


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin in _KINDS:
        return isinstance(value, _KINDS[origin][0]) and (origin is bool or not isinstance(value, bool))
    return not (isinstance(origin, type) and dataclasses.is_dataclass(origin)) or isinstance(value, origin)


def as_whole(value: object, where: str) -> int:
    """A whole number, be it NumPy's or Python's, as Python's. Raises ConfigError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{where} must be a whole number, not {value!r:.60}")
    return int(value)


def as_number(value: object, where: str) -> float:
    """A number, be it NumPy's or Python's, as Python's. Raises ConfigError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{where} must be a number, not {value!r:.60}")
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(f"{where} must be a number that fits 64 bits, not {value!s:.60}") from error


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
    raise ConfigError(f"{where} must be {listed}, not {value!r:.60}{nearest(value, map(str, choices), alike=0.5)}")


@dataclasses.dataclass(frozen=True)
class Between:
    """The numbers, ends included, with which a setting means something; part of its annotation."""

    least: float
    most: float


Size = Annotated[int, Between(1, 1 << 24)]
"""Its end is far beyond any model: what a damaged file says would else be built before it is found not to fit."""
Count = Annotated[int, Between(0, 1 << 24)]
Layers = Annotated[int, Between(1, 1000)]
Share = Annotated[float, Between(0.0, 1.0)]
Factor = Annotated[float, Between(0.0, 1000.0)]
Seconds = Annotated[float, Between(0.0, 1e9)]


def check_ranges(settings: Any, where: str = "") -> None:
    """Raise ConfigError for a number, in settings or their parts, that is not `Between` what its annotation says.

    where: of what the settings are a part, as "encoder"; "" for the whole.
    """
    for name, bounds in _bounds(settings.__class__).items():
        value, place = getattr(settings, name), f"{where}.{name}" if where else name
        for one in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(one):
                check_ranges(one, place)
            elif bounds is not None and one is not None and not bounds.least <= one <= bounds.most:
                bound = f"at most {bounds.most}" if one > bounds.most else f"at least {bounds.least}"
                raise ConfigError(f"{place} must be {bound}, not {one}")


@cache
def _bounds(cls: type) -> Mapping[str, Between | None]:
    """The range of each field; None: it has none, being no number."""
    return {name: _range_of(hint) for name, hint in get_type_hints(cls, include_extras=True).items()}


def _range_of(hint: Any) -> Between | None:
    """The range in an annotation such as Share, Share | None or tuple[Share, Share]."""
    told = [data for data in getattr(hint, "__metadata__", ()) if isinstance(data, Between)]
    return next((found for found in (*told, *map(_range_of, get_args(hint))) if found is not None), None)


def nearest(word: object, known: Iterable[str], alike: float = 0.75) -> str:
    """A question to end an error with, "; did you mean kernel?"; empty where nothing known looks like the word."""
    found = difflib.get_close_matches(str(word), list(known), 1, alike)
    return f"; did you mean {found[0]}?" if found else ""
