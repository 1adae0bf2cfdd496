"""config.json of a run directory: what the run computes, so that it is not continued as another one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paraformer.bundle import replacing
from paraformer.errors import ConfigError
from paraformer.train.config import TrainConfig

CONFIG = "config.json"
FREE = (
    "workers",
    "sharded",
    "log_steps",
    "save_s",
    "measure_steps",
    "keep",
    "patience",
    "on_bad_step",
    "test_sets",
    "card",
)
"""Settings that do not change what the next step computes, with all below them."""
GROWING = ("steps",)
"""Settings that may become larger. With schedule "cosine" the learning rate goes on as the longer plan has it."""


def keep_config(config: TrainConfig, names: Sequence[str], out: Path) -> dict[str, str]:
    """Write config.json, or compare with the one that is there; returns the permitted changes, as "old -> new".

    names: of the training utterances. Raises ConfigError that shows every setting which changed and must not, the
    training speech included.
    """
    path = out / CONFIG
    new = _plain({**dataclasses.asdict(config), "speech": _fingerprint(names)})
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else new
    changes = dict(differences(old, new))
    refused = {name: pair for name, pair in changes.items() if not _permitted(config, name, *pair)}
    if refused:
        shown = "; ".join(f"{name}: {before!r} -> {after!r}" for name, (before, after) in refused.items())
        raise ConfigError(
            f"{out} holds a run with other settings: {shown}; go back to them or choose another directory"
        )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(new, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return {name: f"{before!r} -> {after!r}" for name, (before, after) in changes.items()}


def differences(old: object, new: object, name: str = "") -> Iterator[tuple[str, tuple[object, object]]]:
    """The dotted name, old and new value of every setting that differs; None stands for one that is not there."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, (old, new)


def _permitted(config: TrainConfig, name: str, before: Any, after: Any) -> bool:
    if name.partition(".")[0] in FREE or (name in GROWING and after > before):
        return True
    return before is None and after == _default(config, name)  # a newer version has a setting more


def _default(config: TrainConfig, name: str) -> object:
    """The default of a setting, as JSON has it; None where there is no such setting, or no default."""
    *parents, last = name.split(".")
    holder: object = config
    for parent in parents:
        holder = getattr(holder, parent, None)
    fields = dataclasses.fields(holder) if dataclasses.is_dataclass(holder) else ()
    for field in fields:
        if field.name == last and field.default is not dataclasses.MISSING:
            return _plain(field.default)
        if field.name == last and field.default_factory is not dataclasses.MISSING:
            return _plain(field.default_factory())
    return None


def _plain(value: Any) -> Any:
    """A value as it is read back from JSON."""
    as_mapping = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    return json.loads(json.dumps(as_mapping))


def _fingerprint(names: Sequence[str]) -> dict[str, int | str]:
    """Number and digest of the training utterances: positions within an epoch mean nothing for other speech."""
    return {"utterances": len(names), "digest": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]}
