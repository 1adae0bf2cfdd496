"""The site's two languages are made of one tree: links, titles, and docstrings as lists."""

from __future__ import annotations

import re
import tomllib

import pytest
import site_pages
from pages import CHINESE, ROOT

SECTIONS = re.compile(r'\{ "(\w+)" = \[')


def test_links_of_a_chinese_page_fit_its_site() -> None:
    text = "[安装](install.zh.md)、[英文页](hotwords.md#every-other-model)、[公式](spec.md)、[热词](hotwords.zh.md)"
    assert site_pages.linked(text) == (
        "[安装](install.md)、[英文页](../hotwords/#every-other-model)、[公式](spec.md)、[热词](hotwords.md)"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("分给集群的\n处理器，\n  文本", "分给集群的处理器，文本"),
        ("用 `--ray`\n，写进 int8\n目录。\n`key`", "用 `--ray`，写进 int8\n目录。`key`"),
        ("一段。\n\n二段\n* 甲。\n* 乙\n1. 丙。\n2. 丁", "一段。\n\n二段\n* 甲。\n* 乙\n1. 丙。\n2. 丁"),
        ("| 甲 | 乙。|\n|---|---|\n| 丙 | 丁 |", "| 甲 | 乙。|\n|---|---|\n| 丙 | 丁 |"),
        ("看：\n\n```sh\n# 注\n释\n```\n文\n字", "看：\n\n```sh\n# 注\n释\n```\n文字"),
        ("题\n<!-- slow: 注 -->\n```sh", "题\n<!-- slow: 注 -->\n```sh"),
    ],
)
def test_lines_of_a_chinese_paragraph_have_no_space_between_them(text: str, shown: str) -> None:
    assert site_pages.unbroken(text) == shown


@pytest.mark.parametrize("chinese", [False, True])
def test_both_sites_have_the_same_pages(chinese: bool) -> None:
    project = tomllib.loads(site_pages.settings(chinese))["project"]
    shown = re.findall(r"[\w/-]+\.md", str(project["nav"]))
    assert shown == re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert project["theme"]["language"] == ("zh" if chinese else "en")
    assert project["site_dir"] == ("site/zh" if chinese else "site")


def test_every_section_has_a_chinese_name() -> None:
    sections = SECTIONS.findall((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert set(sections) == set(site_pages.SECTIONS)
    assert set(SECTIONS.findall(site_pages.settings(chinese=True))) == set(site_pages.SECTIONS.values())


def test_the_chinese_tree_has_the_chinese_pages(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_pages, "BUILD", tmp_path)
    site_pages.assemble(chinese=True)
    site_pages.assemble(chinese=False)
    there = {path.name for path in (tmp_path / "zh").glob("*.md")}
    assert there == {path.name for path in (tmp_path / "en").glob("*.md")}
    for page in CHINESE:
        if page.parent.name == "docs":
            first = page.read_text(encoding="utf-8").splitlines()[0]
            assert (tmp_path / "zh" / page.name.replace(".zh", "")).read_text(encoding="utf-8").startswith(first)
