"""Words that a recogniser is told to listen for: names, terms, whatever a general model has rarely seen."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from paraformer.errors import ConfigError

Hotwords = Sequence[str] | Path
"""The words, or a file with one on each line. What stands in one text or line is one, spaces and all."""

MOST, LONGEST = 100_000, 64
"""Words of a list; characters of a word. Far beyond what helps: a longer list is a language model's business."""


_WEIGHTED = re.compile(r"(.*\S)\s+-?\d+")
"""A line of a list for FunASR's runtime: a word, and how much it weighs there."""
_log = logging.getLogger(__name__)


def listed(hotwords: Hotwords) -> tuple[str, ...]:
    """The words of a list or file in their order, each once, with single spaces; what is blank is left out.

    Raises ConfigError for what is neither, for a file that cannot be read, and beyond `MOST` or `LONGEST`.

    >>> listed(["达摩院", " GPT  four ", "", "达摩院"])
    ('达摩院', 'GPT four')
    """
    given: object = _lines(hotwords) if isinstance(hotwords, Path) else hotwords
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(word, str) for word in given):
        raise ConfigError(f"hotwords must be a list of texts or the Path of a file with one a line, not {given!r:.60}")
    words = tuple(dict.fromkeys(spaced for word in given if (spaced := " ".join(word.split()))))
    if len(words) > MOST:
        raise ConfigError(f"{len(words)} hotwords are too many: a list may hold {MOST}; take those that matter")
    if long := next((word for word in words if len(word) > LONGEST), None):
        raise ConfigError(f"the hotword {long[:10]!r}... has {len(long)} characters; one may have {LONGEST}")
    return words


def _lines(path: Path) -> list[str]:
    """Where every line ends in a number, that is a weight, of which nothing here makes use."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} holds no hotwords in UTF-8: {error}; save it as UTF-8, one word a line") from error
    except OSError as error:
        raise ConfigError(f"hotwords cannot be read from {path}: {error}; name a text file, one word a line") from error
    if any("\0" in line for line in lines):
        raise ConfigError(f"{path} holds no hotwords but bytes; name a text file, one word a line")
    weighted = [_WEIGHTED.fullmatch(line.strip()) for line in lines if line.strip()]
    words = [one[1] for one in weighted if one is not None]
    if not words or len(words) < len(weighted):
        return lines
    _log.warning(
        "%s gives each hotword a weight, as for FunASR's runtime: weights are not used", path, extra={"note": True}
    )
    return words
