"""The certificate beside an exported model: what it is, what it was made with, and how far it was from torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from paraformer.bundle import checksum, replacing
from paraformer.config import ChunkConfig, ModelConfig
from paraformer.errors import ConfigError, ModelError, ModelNotFound
from paraformer.manifests import from_json
from paraformer.settings import Between, Count, Factor, by_name, check_choice, check_ranges, from_mapping
from paraformer.weights import Storage

T = TypeVar("T")

FILE = "certificate.json"
FORMAT = 1
_PARTS = frozenset((".json", ".yaml", ".txt", ".mvn", ".onnx", ".safetensors", ".npz", ".pt"))
"""What the names of files end in that some runtime may read; READMEs and the like are no part of a model."""

Runtime = Literal["paraformer", "sherpa-onnx", "funasr-onnx", "funasr"]
Precision = Literal["fp32", "fp16", "w8", "int8"]
"""fp16, w8: of the weights on disk, in 16 and 8 bits; all is computed in float32."""

EXACT = 1e-4
"""Log-probabilities of two computations in float32 differ by no more than this."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What was exported. live: for live recognition, where the runtime has one model for that and one for files."""

    runtime: Runtime = "paraformer"
    live: bool = False
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.runtime == "paraformer" and self.live:
            raise ConfigError("a directory for the base install is for whole files and for live recognition")
        if self.runtime == "funasr" and self.precision != "fp32":
            raise ConfigError(f"FunASR directories hold weights in float32, not {self.precision}")
        if self.foreign and self.precision in ("fp16", "w8"):
            raise ConfigError(f"graphs for {self.runtime} are exported in fp32 and int8, not in {self.precision}")

    @property
    def foreign(self) -> bool:
        """Whether the directory holds graphs of another runtime."""
        return self.runtime in ("sherpa-onnx", "funasr-onnx")

    @property
    def stored(self) -> Storage:
        """How the weights lie in a directory that every backend opens."""
        match self.precision:
            case "fp16":
                return "float16"
            case "w8":
                return "int8"
        return "float32"

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of those graphs, as their runtime has them: one for whole utterances, two for live steps."""
        sherpa = self.runtime == "sherpa-onnx"
        stems = ("encoder" if sherpa else "model", "decoder") if self.live else ("model",)
        suffix = "" if self.precision == "fp32" else ".int8" if sherpa else "_quant"
        return tuple(f"{stem}{suffix}.onnx" for stem in stems)

    def chunk(self, config: ModelConfig) -> ChunkConfig | None:
        """How live steps are cut: as the runtime has it, or as the model wants it; None without live steps."""
        if self.foreign:
            right = 3 if self.runtime == "sherpa-onnx" else 5
            return ChunkConfig(left=5, chunk=10, right=right) if self.live else None
        wanted = self.live if self.runtime == "funasr" else config.streaming
        return (config.live or ChunkConfig()) if wanted else None

    def whole(self, config: ModelConfig) -> bool:
        """Whether it recognises whole utterances at once. Models that only ever saw chunks do not."""
        return not config.training_chunks if self.runtime == "paraformer" else not self.live


@dataclass(frozen=True)
class Difference:
    """Between two results: tokens to edit, and the largest distance of the log-probabilities of equal tokens."""

    tokens: Count
    log_probs: Factor

    def within(self, limit: Difference) -> bool:
        """Whether neither part is above the limit's."""
        return self.tokens <= limit.tokens and self.log_probs <= limit.log_probs


Percent = Annotated[float, Between(0.0, 1e6)]


@dataclass(frozen=True)
class Change:
    """Character errors, in percent, of the model on torch and of its export, and how many more those are."""

    torch: Percent
    export: Percent
    change: Annotated[float, Between(-1e6, 1e6)]


@dataclass(frozen=True)
class Measured:
    """Errors on so many utterances of some data, in each mode that an export has."""

    data: str
    utterances: Count
    whole: Change | None = None
    live: Change | None = None


@dataclass(frozen=True)
class Certificate:
    """sha256: of every file; differences: of each check when the export was made; measured: errors on some data."""

    form: Form
    model: ModelConfig
    versions: Mapping[str, str]
    sha256: Mapping[str, str]
    differences: Mapping[str, Difference]
    measured: Measured | None = None

    def limit(self, check: str) -> Difference:
        """How far a check may be off. In int8 processors round differently, and a near tie may fall either way."""
        made = self.differences[check]
        if self.form.precision != "int8":
            return Difference(0, EXACT)
        return Difference(made.tokens + 1, 2 * made.log_probs + EXACT)

    def write(self, directory: Path) -> None:
        """Write it into the directory that it is about, atomically."""
        values = {"format": FORMAT, **asdict(self), "model": self.model.to_dict()}
        with replacing(directory / FILE) as temporary:
            temporary.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Certificate:
        """The certificate in a directory. Raises ModelNotFound without one, ModelError if it is damaged."""
        path = directory / FILE
        if not path.is_file():
            raise ModelNotFound(f"{directory} has no {FILE}; make one with `paraformer export`")
        try:
            return cls._from_dict(from_json(path.read_text(encoding="utf-8-sig")))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(
                f"{path} is not a certificate that this version reads: {error}; get the model again, or export it again"
            ) from error

    @classmethod
    def _from_dict(cls, found: Any) -> Certificate:
        """Raises ConfigError for what `write` would not have written."""
        values = dict(by_name(found, "it"))
        check_choice(values.pop("format", None), (FORMAT,), "format")
        values |= {name: read(values[name]) for name, read in _READ.items() if name in values}
        return from_mapping(cls, values, "certificate", optional=())


def _part(kind: type[T], where: str, found: Any) -> T:
    """One part, nothing of which may be missing or out of range."""
    part = from_mapping(kind, found, where, optional=())
    check_ranges(part, where)
    return part


def _differences(found: Any) -> dict[str, Difference]:
    each = by_name(found, "differences")
    return {name: _part(Difference, f"differences.{name}", one) for name, one in each.items()}


def _measured(found: Any) -> Measured | None:
    if found is None:
        return None
    values = by_name(found, "measured")
    modes = [mode for mode in ("whole", "live") if values.get(mode) is not None]
    changes = {mode: _part(Change, f"measured.{mode}", values[mode]) for mode in modes}
    return _part(Measured, "measured", {**values, **changes})


_READ: Mapping[str, Callable[[Any], Any]] = {
    "form": partial(_part, Form, "form"),
    "model": ModelConfig.from_dict,
    "differences": _differences,
    "measured": _measured,
}
"""How each part is read that is more than plain values."""


def changed_files(directory: Path, sha256: Mapping[str, str]) -> list[str]:
    """Names of the files that are gone, not what they were, or there without being named."""
    there = (path.name for path in sorted(directory.iterdir()) if path.suffix in _PARTS and path.name[0] != ".")
    named = {name: _digest(directory / name) == digest for name, digest in sha256.items()}
    return [name for name in dict.fromkeys((*named, *there)) if name != FILE and not named.get(name)]


def _digest(path: Path) -> str | None:
    return checksum(path) if path.is_file() else None
