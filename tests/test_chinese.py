"""Chinese as written here: simplified, by the terms of docs/terms.zh.toml, with its own marks and spaces at Latin."""

from __future__ import annotations

import re
import tomllib

import pytest
from pages import CHINESE, ROOT

TERMS: dict[str, list[str]] = tomllib.loads((ROOT / "docs" / "terms.zh.toml").read_text(encoding="utf-8"))["terms"]
VARIANTS = [
    (re.compile(rf"\b{variant}\b" if variant.isascii() else variant), term)
    for term, variants in TERMS.items()
    for variant in variants
]
HAN = "\u3400-\u9fff"


def prose(text: str) -> str:
    """Markdown without code, links' targets and comments."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)|https?://\S+", "`", text)


def faults(text: str) -> list[str]:
    """What is not as it is written here, with the line in which it stands."""
    found = []
    for line in text.splitlines():
        found += [f"{variant}, for {term}: {line}" for variant, term in VARIANTS if variant.search(line)]
        found += [
            f"{mark}, not of the simplified ones: {line}"
            for mark in re.findall(f"[{HAN}]", line)
            if not simplified(mark)
        ]
        found += [f"half-width {mark}: {line}" for mark in re.findall(f"(?<=[{HAN}])[,;!?](?![a-z0-9])", line)]
        found += [f"no space at {place}: {line}" for place in re.findall(f"[{HAN}][A-Za-z]|[A-Za-z][{HAN}]", line)]
    return found


def simplified(mark: str) -> bool:
    """Whether GB 2312 has it, the set of simplified characters that are in use; two that it lacks are used here."""
    try:
        mark.encode("gb2312")
    except UnicodeEncodeError:
        return mark in "啰嗯"
    return True


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_a_chinese_page_keeps_to_simplified_characters_and_the_list_of_terms(page) -> None:
    assert faults(prose(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("wrong", ["語音", "可信度", "你好,世界", "用Python写", "一个 token"])
def test_faults_are_found(wrong: str) -> None:
    assert len(faults(wrong)) >= 1


def test_terms_do_not_forbid_each_other() -> None:
    for term in TERMS:
        assert not [variant for variants in TERMS.values() for variant in variants if variant in term]
