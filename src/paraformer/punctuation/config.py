"""Settings of a punctuation model: a SAN-M encoder over words, and which mark follows each (spec: variants 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paraformer.config import SanmEncoderConfig
from paraformer.errors import ConfigError
from paraformer.settings import Count, Layers, Share, Size, check_ranges, from_mapping

NONE = "_"
"""The mark of a word that none follows."""
UNKNOWN_MARK = "<unk>"
"""A class of published models that is no mark."""
ENDS = ("。", "？", "！")
"""Marks that end a sentence."""


@dataclass(frozen=True, kw_only=True)
class PunctuationConfig:
    """A CT-Transformer: embedding, positions, SAN-M blocks, one score for each mark.

    marks: classes in the order of their scores, "_" for none. attention: what a word sees; "whole": all words; "live":
    itself and those before it, and all only in the last block.
    """

    vocab_size: Size
    marks: tuple[str, ...] = (NONE, "，", "。", "？", "！", "、")
    dim: Size = 192
    heads: Size = 6
    ffn_dim: Size = 768
    layers: Layers = 4
    kernel: Size = 11
    shift: Count = 0
    """Words by which the memory is moved into the past."""
    dropout: Share = 0.1
    attention: Literal["whole", "live"] = "whole"

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.dim % self.heads:
            raise ConfigError(f"a width of {self.dim} must be a multiple of its {self.heads} heads")
        if self.kernel % 2 == 0 or self.shift > (self.kernel - 1) // 2:
            raise ConfigError(f"a memory of kernel {self.kernel} cannot be moved by {self.shift}; kernels are odd")
        if NONE not in self.marks or "。" not in self.marks or len(set(self.marks)) != len(self.marks):
            raise ConfigError(f"marks must be different and hold {NONE!r} and '。', not {' '.join(self.marks)}")

    @property
    def encoder(self) -> SanmEncoderConfig:
        """Of the blocks."""
        return SanmEncoderConfig(
            dim=self.dim,
            heads=self.heads,
            ffn_dim=self.ffn_dim,
            layers=self.layers,
            kernel=self.kernel,
            shift=self.shift,
            dropout=self.dropout,
            attention_dropout=self.dropout,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PunctuationConfig:
        """Read `to_dict`'s output. Raises ConfigError for what is unknown, missing, of another type or out of range."""
        config = from_mapping(cls, values, "punctuation", optional=())
        return dataclasses.replace(config, marks=tuple(config.marks))
