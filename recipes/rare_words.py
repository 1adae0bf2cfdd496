"""A list to try hotwords with: the rarest words of some speech's texts, and others that nobody says in it.

    python -m recipes.rare_words DATA text/*.txt.xz > words.txt
    paraformer evaluate --data DATA --live --hotwords words.txt

Words are jieba's (extra [punctuation]), of two characters and more that the model knows; rare is what the texts hold
least often. The others come from jieba's dictionary, drawn by one seed from its rarer half.
"""

from __future__ import annotations

import argparse
import lzma
from collections.abc import Sequence
from pathlib import Path

import jieba
import numpy as np

from paraformer.cli.evaluate import opened
from paraformer.evaluate.normalise import PLAIN
from paraformer.loader import locate, open_settings


def rare_words(texts: Sequence[str], written: str, known: frozenset[str], count: int) -> list[str]:
    """Of `texts`, the words that `written` has least often; of equally rare ones the first."""
    words = dict.fromkeys(word for text in texts for word in jieba.cut(text))
    usable = [word for word in words if len(word) > 1 and known.issuperset(word)]
    return sorted(usable, key=written.count)[:count]


def others(texts: Sequence[str], known: frozenset[str], count: int, seed: int = 0) -> list[str]:
    """Words that no text holds."""
    jieba.initialize()
    said = "\n".join(texts)
    half = sorted(jieba.dt.FREQ.values())[len(jieba.dt.FREQ) // 2]
    rare = (word for word, often in jieba.dt.FREQ.items() if 0 < often <= max(half, 5) and 2 <= len(word) <= 6)
    found = sorted(word for word in rare if known.issuperset(word) and word not in said)
    return [found[place] for place in np.random.default_rng(seed).permutation(len(found))[:count]]


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("data", type=Path, metavar="DATA")
    options.add_argument("texts", type=Path, nargs="+", metavar="NAME.txt.xz")
    options.add_argument("--rare", type=int, default=200)
    options.add_argument("--others", type=int, default=2000)
    asked = options.parse_args()
    known = frozenset(open_settings(locate(None)).tokens)
    texts = [PLAIN(one.text) for one in opened(asked.data, "mix")[0]]
    written = "\n".join(lzma.decompress(path.read_bytes()).decode() for path in asked.texts)
    print("\n".join([*rare_words(texts, written, known, asked.rare), *others(texts, known, asked.others)]))


if __name__ == "__main__":
    main()
