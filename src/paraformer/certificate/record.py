"""The certificate beside an exported model: what it is, what it was made with, and how far it was from torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from paraformer.bundle import checksum, replacing
from paraformer.config import ChunkConfig, ModelConfig
from paraformer.errors import ConfigError, ModelError, ModelNotFound
from paraformer.settings import from_mapping
from paraformer.weights import Storage

FILE = "certificate.json"
FORMAT = 1

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

    tokens: int
    log_probs: float

    def within(self, limit: Difference) -> bool:
        """Whether neither part is above the limit's."""
        return self.tokens <= limit.tokens and self.log_probs <= limit.log_probs


@dataclass(frozen=True)
class Certificate:
    """sha256: of every file; differences: of each check when the export was made; measured: errors on some data."""

    form: Form
    model: ModelConfig
    versions: Mapping[str, str]
    sha256: Mapping[str, str]
    differences: Mapping[str, Difference]
    measured: Mapping[str, Any] | None = None

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
            return cls._from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is not a certificate that this version reads: {error}") from error

    @classmethod
    def _from_dict(cls, values: dict[str, Any]) -> Certificate:
        if values.pop("format") != FORMAT:
            raise ConfigError(f"its format is not {FORMAT}")
        values["form"] = from_mapping(Form, values["form"], "form")
        values["model"] = ModelConfig.from_dict(values["model"])
        values["differences"] = {name: Difference(**found) for name, found in values["differences"].items()}
        return from_mapping(cls, values, "certificate")


def changed_files(directory: Path, sha256: Mapping[str, str]) -> list[str]:
    """Names of the files that are gone or not what they were."""
    return [name for name, digest in sha256.items() if _digest(directory / name) != digest]


def _digest(path: Path) -> str | None:
    return checksum(path) if path.is_file() else None
