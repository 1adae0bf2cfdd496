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
