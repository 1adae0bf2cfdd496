"""The command's Chinese: nothing is left out or lost on the way, and nothing read where no Chinese is wanted."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import messages
import pytest
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st
from test_chinese import faults

from paraformer.cli import translation


def entries() -> dict[str, str]:
    with messages.CATALOGUE.open("rb") as file:
        return {one.id: one.string for one in read_po(file, locale="zh") if one.id}


ENTRIES = entries()
TEMPLATES = [one for one in ENTRIES if translation.PLACE.search(one)]


def speak(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paraformer.cli", *arguments]
    plain = {
        name: value for name, value in os.environ.items() if name not in {"LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"}
    }
    return subprocess.run(
        command,
        env=plain | {"PYTHONUTF8": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )


def test_everything_that_the_command_says_is_translated_and_nothing_else() -> None:
    said = messages.extracted()
    ours = {text for text, place in said.items() if place != "argparse"}  # argparse's own differ by version of Python
    assert ours - set(ENTRIES) == set(), "run scripts/messages.py and translate what it prints"
    assert not [text for text, chinese in ENTRIES.items() if not chinese]
    assert not set(ENTRIES) - set(said) or sys.version_info[:2] != (3, 11)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the catalogue has the words of Python 3.11's argparse")
def test_so_are_the_words_of_argparse() -> None:
    assert set(messages.of_argparse()) <= set(ENTRIES)


def test_translations_have_the_places_of_what_they_translate() -> None:
    for text, chinese in ENTRIES.items():
        assert sorted(messages.PLACES.findall(chinese)) == sorted(messages.PLACES.findall(text)), text


def test_the_compiled_catalogue_is_that_of_the_text() -> None:
    compiled = {text: chinese for text, chinese in translation.catalogue()._catalog.items() if text}  # type: ignore[attr-defined]
    assert compiled == ENTRIES, "run scripts/messages.py"


def test_chinese_is_written_as_on_the_pages() -> None:
    assert not [found for text in ENTRIES.values() for found in faults(messages.PLACES.sub("`", text))]


@given(st.sampled_from(TEMPLATES), st.lists(st.from_regex(r"[0-9x/]{1,8}", fullmatch=True), min_size=9, max_size=9))
def test_a_sentence_keeps_what_was_put_into_it(template: str, values: list[str]) -> None:
    places = translation.PLACE.findall(template)
    chinese = translation.translated(template.format(**dict(zip(places, values, strict=False))))
    assert any("\u4e00" <= mark <= "\u9fff" for mark in chinese) or ENTRIES[template] == template
    assert all(value in chinese for value, _ in zip(values, places, strict=False))


def test_a_sentence_within_a_sentence_is_translated_too() -> None:
    said = "talk.wav failed: reading talk.m4a needs an optional dependency: pip install 'paraformer[av]'"
    assert translation.translated(said) == "talk.wav 失败：读取 talk.m4a需要可选组件：pip install 'paraformer[av]'"


@pytest.mark.parametrize("unknown", ["", "something that nobody says", "talk.wav: 你好"])
def test_what_is_not_known_stays(unknown: str) -> None:
    assert translation.translated(unknown) == unknown


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "zh_CN.GB18030"}, True),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "C"}, False),
        ({"LANGUAGE": "en", "LANG": "zh_CN.UTF-8"}, False),
        ({}, False),
    ],
)
def test_the_locale_is_found_as_gettext_finds_it(variables: dict[str, str], wanted: bool) -> None:
    assert translation.chinese(variables) is wanted


def test_help_and_errors_are_in_chinese_where_the_locale_is(tmp_path: Path) -> None:
    chinese = {"LANG": "zh_CN.UTF-8"}
    said = speak("transcribe", "--help", **chinese).stdout
    assert said.startswith("用法：")
    assert "显示帮助并退出" in said
    assert "recognise" not in said
    missing = tmp_path / "talk.wav"
    assert speak("transcribe", str(missing), **chinese).stderr == f"paraformer: 没有文件 {missing}；请检查名字\n"
    wrong = speak("serve", "--port", "x", **chinese)
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (
        2,
        "paraformer serve：错误：参数 --port：端口是 0 到 65535，而不是 'x'",
    )


def test_elsewhere_all_is_english_and_no_catalogue_is_opened() -> None:
    code = (
        "from paraformer.cli import translation; "
        "from paraformer.cli import _parser; _parser(); "
        "assert translation.catalogue.cache_info().currsize == 0"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"LANG": "C.UTF-8", "LANGUAGE": "", "LC_ALL": ""}, check=True
    )
    assert speak("transcribe", "--help", LANG="de_DE.UTF-8").stdout.startswith("usage:")


def test_every_help_of_the_parser_is_reached() -> None:
    """What localise walks is what scripts/messages collects."""
    from paraformer.cli.options import parser

    options = parser()
    translation.localise(options)
    left = [text for text in messages.helps(options) if text in ENTRIES and ENTRIES[text] != text]
    assert left == []
    assert isinstance(options, argparse.ArgumentParser)


@pytest.mark.parametrize("page", ["troubleshooting.md", "troubleshooting.zh.md"])
def test_troubleshooting_quotes_what_is_said(page: str) -> None:
    """The first column of its tables: sentences or their beginnings, with … for what a case puts there."""
    templates = [translation.PLACE.sub("…", text) for text in (*ENTRIES, *ENTRIES.values())]
    missing_extra = translation.PLACE.sub("…", next(text for text in ENTRIES if text.startswith("{feature} needs")))
    said = templates + [missing_extra.replace("…", feature, 1) for feature in templates]
    text = (messages.ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    quotes = [quote for row in rows for quote in re.findall(r"`([^`]*)`", row)]
    assert len(quotes) > 20
    patterns = {quote: ".*?".join(re.escape(part) for part in quote.split("…")) for quote in quotes}
    assert [quote for quote in quotes if not any(re.search(patterns[quote], one) for one in said)] == []
