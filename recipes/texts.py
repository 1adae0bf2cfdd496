"""Texts as `recipes.reading` and `paraformer lm` want them: a clause a line, Chinese characters only, numbers read out.

    python -m recipes.texts text/*.txt.xz runs/texts --exclude speech/{dev,test}_*.supervisions.jsonl.gz

Needs cn2an. Lines with letters or with many numbers are left out, and so are clauses of five characters and more that
the speech to measure with says. Cost: half a minute of one core for 24 million characters.
"""

from __future__ import annotations

import argparse
import lzma
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from recipes.synthesise import spoken_in

MOST_NUMBERS = 4
"""Of a line; more is a table."""
LEAST_EXCLUDED = 5
_LETTERS, _NUMBERS, _OTHERS = re.compile("[A-Za-z]"), re.compile("[0-9]+"), re.compile("[^\u4e00-\u9fff]+")


def clauses(lines: Iterable[str], read_out: Callable[[str], str], excluded: str) -> Iterator[str]:
    """Clauses of lines. read_out: a line with its numbers in characters; ValueError where it cannot.

    excluded: all that must not be among them, as one text.
    """
    for line in lines:
        numbers = len(_NUMBERS.findall(line))
        if _LETTERS.search(line) or numbers > MOST_NUMBERS:
            continue
        try:
            said = read_out(line) if numbers else line
        except ValueError:
            continue
        for clause in _OTHERS.split(said):
            if clause and not (len(clause) >= LEAST_EXCLUDED and clause in excluded):
                yield clause


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    from cn2an import transform

    parser = argparse.ArgumentParser(description="A clause a line, numbers read out")
    parser.add_argument("texts", type=Path, nargs="+", metavar="NAME.txt.xz")
    parser.add_argument("out", type=Path)
    parser.add_argument("--exclude", type=Path, nargs="+", default=[], help="manifests of speech to measure with")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    excluded = spoken_in(options.exclude)
    for path in options.texts:
        with (
            lzma.open(path, "rt", encoding="utf-8") as lines,
            (options.out / path.stem).open("w", encoding="utf-8") as out,
        ):
            out.writelines(f"{clause}\n" for clause in clauses(lines, lambda line: transform(line, "an2cn"), excluded))


if __name__ == "__main__":
    main()
