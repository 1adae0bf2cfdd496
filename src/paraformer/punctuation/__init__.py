"""Marks for texts that have none: published CT-Transformers, and a small model of the package's own.

`paraformer.load_punctuation` opens one; `Punctuation.punctuate` is for texts, `writing` for what was recognised.
"""

from __future__ import annotations

from paraformer.punctuation.config import ENDS, NONE, PunctuationConfig
from paraformer.punctuation.model import Punctuation, Undecided

__all__ = ["ENDS", "NONE", "Punctuation", "PunctuationConfig", "Undecided"]
