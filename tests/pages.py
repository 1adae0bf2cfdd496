"""The pages of README and site as a newcomer finds them: fenced blocks in order, and what a comment says about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if not path.stem.endswith(".zh")))
CHINESE = (*ROOT.glob("README.zh.md"), *sorted((ROOT / "docs").glob("*.zh.md")))
_BLOCK = re.compile(
    r"(?:^<!-- (?P<how>not run|slow|background): (?P<why>.+?) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_INSTALL = re.compile(r"^pip install (?:'paraformer\[(?P<extras>[\w,]+)\]'|paraformer)(?: && |$)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    how: "" it is run; "slow" with the slow tests; "background" until the page ends; "not run", and why says the reason.
    title: the file as which a reader saves it.
    """

    language: str
    code: str
    how: str
    why: str
    title: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order."""
    return [
        Block(found["language"], found["code"], found["how"] or "", found["why"] or "", found["title"] or "")
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def installed(code: str) -> tuple[str, set[str]]:
    """Code without its `pip install paraformer` lines, and the extras that these name."""
    extras = {extra for found in _INSTALL.finditer(code) for extra in (found["extras"] or "").split(",") if extra}
    return _INSTALL.sub("", code), extras


def bare(code: str) -> str:
    """Code without comments and spacing, to compare a page with its translation."""
    return "\n".join(
        " ".join(re.split(r"\s+# ", line)[0].split()) for line in code.splitlines() if not line.startswith("#")
    )
