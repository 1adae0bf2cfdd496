"""The documentation site: `scripts/docs`.

One page is one file in docs/, PAGE.md; PAGE.zh.md is the same in Chinese. The English site is made of the first, the
Chinese one of the second where there is one, so that its other pages are the English ones. Both have the settings of
zensical.toml.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Pages that lie beside docs/."""
SECTIONS = {"Start": "入门", "Better": "用好", "Train": "训练", "Reference": "参考", "Measured": "测量"}
HOME = "首页"
_HAN, _MARK = "\u2e80-\u2fff\u3400-\u9fff\uf900-\ufaff", "\u3000-\u303f\uff00-\uffef“”‘’—…"
_BREAK = re.compile(
    rf"(?<=[{_HAN}{_MARK}])\n *(?=[{_HAN}{_MARK}])"  # between characters
    rf"|(?<=[{_MARK}])\n *(?!\d+\. )(?=[\w`\[]|\*\*)|(?<=[\w`)*])\n *(?=[{_MARK}])"  # or on either side of a mark
)
"""Where a line of a Chinese paragraph ends and no space belongs."""


def assemble(chinese: bool) -> None:
    """Write the pages of one language into build/en or build/zh."""
    target = BUILD / ("zh" if chinese else "en")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target, ignore=shutil.ignore_patterns("*.zh.md"))
    for name in BESIDE:
        shutil.copy(ROOT / name, target)
    if chinese:
        for page in (ROOT / "docs").glob("*.zh.md"):
            name = page.name.replace(".zh.md", ".md")
            text = unbroken(linked(page.read_text(encoding="utf-8")))
            (target / name).write_text(text, encoding="utf-8")
    for page in target.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r"\]\(\.\./(CHANGELOG|CONTRIBUTING)\.md", r"](\1.md", text), encoding="utf-8")


def linked(text: str) -> str:
    """A Chinese page whose links fit the site: PAGE.zh.md is PAGE.md there, and PAGE.md stands a site above."""

    def link(match: re.Match[str]) -> str:
        page, chinese, anchor = match.groups()
        if not chinese and (ROOT / "docs" / f"{page}.zh.md").exists():
            return f"](../{page}/{anchor})"
        return f"]({page}.md{anchor})"

    return re.sub(r"\]\((\w[\w-]*)(\.zh)?\.md([^)]*)\)", link, text)


def unbroken(text: str) -> str:
    """A Chinese page without the ends of lines inside its paragraphs, where browsers would show spaces."""
    parts = re.split(r"(^ *```.*?^ *```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if at % 2 else _BREAK.sub("", part) for at, part in enumerate(parts))


def settings(chinese: bool) -> str:
    """zensical.toml as it is, or with what is otherwise in Chinese: sections, and titles as the pages have them."""
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    if not chinese:
        return text
    for english, name in SECTIONS.items():
        text = text.replace(f'{{ "{english}" = [', f'{{ "{name}" = [')
    text = re.sub(r'\{ "(?!Home)[^"]+" = ("[\w/.-]+\.md") \}', r"\1", text)
    for english, name in (
        ('"Home"', f'"{HOME}"'),
        ('"build/en"', '"build/zh"'),
        ('site_dir = "site"', 'site_dir = "site/zh"'),
        ('language = "en"', 'language = "zh"'),
        ('link = "./"', 'link = "../"'),
        ('link = "./zh/"', 'link = "./"'),
    ):
        text = text.replace(english, name)
    return text


def main() -> int:
    """Build both sites; the exit code of the first that fails."""
    for chinese in (False, True):
        assemble(chinese)
        file = ROOT / (".zensical.zh.toml" if chinese else ".zensical.en.toml")
        file.write_text(settings(chinese), encoding="utf-8")
        built = subprocess.run(
            [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", file], cwd=ROOT, check=False
        )
        file.unlink()
        if built.returncode:
            return built.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
