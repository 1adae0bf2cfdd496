"""Collects what the command says into the catalogue of its Chinese, and compiles that: `python scripts/messages.py`.

Ids are the English words as they stand in code: helps and descriptions of the parser, argparse's own words, and the
texts of errors, warnings and complaints, where `{name}` stands for what a case puts there. What is new has no
translation yet, which tests/test_messages.py does not let pass; what is gone is left out.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from paraformer import errors
from paraformer.cli.complain import ADVICE
from paraformer.cli.options import parser

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "paraformer"
CATALOGUE = SOURCE / "locale" / "zh" / "LC_MESSAGES" / "paraformer.po"
SPOKEN = {
    "ArgumentTypeError",
    "complain",
    "warning",
    *(name for name, kind in vars(errors).items() if isinstance(kind, type)),
}
"""What is called with a text that the command prints."""
PLACES = re.compile(r"\{\w+\}|%\(\w+\)[sr]|%[sr]")
"""What stands in a text for what a case puts there, as Python's two ways of formatting have it."""
GIVEN_BACK = {"mistake", "refusal"}
"""Functions of the command whose result is complained, by the last word of their names."""
HEAD = "# The command in Chinese: made by scripts/messages.py, translated here, in the terms of docs/terms.zh.toml."
BEGUN = datetime(2026, 11, 29, tzinfo=UTC)
"""What the catalogue says of its date, whenever it is written."""
SYSTEM = (
    "No such file or directory",
    "Permission denied",
    "Is a directory",
    "Not a directory",
    "File exists",
    "No space left on device",
)
"""Words of the operating system that are met most."""


def extracted() -> dict[str, str]:
    """Every id, and where it comes from: "help", "argparse", "errno", or a file of the package."""
    found = dict.fromkeys(helps(parser()), "help") | dict.fromkeys(of_argparse(), "argparse")
    for path in sorted(SOURCE.rglob("*.py")):
        for template in templates(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(template, str(path.relative_to(SOURCE)))
    return found | dict.fromkeys((*SYSTEM, *ADVICE.values()), "errno")


def helps(options: argparse.ArgumentParser) -> Iterator[str]:
    """The descriptions and helps of a parser and of its commands."""
    yield from (text for text in (options.description, options.epilog) if text)
    for action in options._actions:  # noqa: SLF001  argparse has no other way to ask
        if action.help and action.help != argparse.SUPPRESS:
            yield action.help
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            yield from (choice.help for choice in action._choices_actions if choice.help)  # noqa: SLF001
            for command in action.choices.values():
                yield from helps(command)


def of_argparse() -> Iterator[str]:
    """The words that argparse itself hands to gettext."""
    for call in ast.walk(ast.parse(Path(argparse.__file__).read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and _called(call) in {"_", "ngettext"}:
            yield from (one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str))


def templates(module: ast.Module) -> Iterator[str]:
    """The texts that a module's code speaks, and those that errors and the functions of GIVEN_BACK return."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and node.args and (_called(node) in SPOKEN or _is_init(node)):
            yield from _texts(node.args[0], node.args[1:])
        elif isinstance(node, ast.FunctionDef) and node.name.rpartition("_")[2] in GIVEN_BACK:
            yield from _returned(node)
        elif isinstance(node, ast.ClassDef) and node.name in SPOKEN:
            for one in node.body:
                if isinstance(one, ast.FunctionDef) and one.name == "__str__":
                    yield from _returned(one)


def _returned(function: ast.FunctionDef) -> Iterator[str]:
    for one in ast.walk(function):
        if isinstance(one, ast.Return) and one.value is not None:
            yield from _texts(one.value, [])


def _called(call: ast.Call) -> str:
    function = call.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _is_init(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "super().__init__"


def _texts(node: ast.expr, values: list[ast.expr]) -> Iterator[str]:
    """The templates of an expression: a text, one with values in it, or one of two."""
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body, values)
        yield from _texts(node.orelse, values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from _worth(_percent(node.value, values) if values else node.value)
    elif isinstance(node, ast.JoinedStr):
        names: list[str] = []
        parts = [one.value if isinstance(one, ast.Constant) else _place(one.value, names) for one in node.values]
        yield from _worth("".join(str(part) for part in parts))


def _worth(template: str) -> Iterator[str]:
    """The template, if there are words in it besides its places."""
    text = " ".join(template.split())
    if re.search(r"[A-Za-z]{2}", re.sub(r"\{\w+\}", "", text)):
        yield text


def _place(value: ast.expr, names: list[str]) -> str:
    """A place for a value, with a name that tells what it is."""
    inner = value.value if isinstance(value, ast.FormattedValue) else value
    name = inner.id if isinstance(inner, ast.Name) else inner.attr if isinstance(inner, ast.Attribute) else "value"
    name = name.strip("_").lower()
    while name in names:
        name = re.sub(r"\d*$", lambda number: str(int(number[0] or 1) + 1), name, count=1)
    names.append(name)
    return f"{{{name}}}"


def _percent(text: str, values: list[ast.expr]) -> str:
    """A text of logging, its %s as places."""
    names: list[str] = []
    rest = iter(values)
    return re.sub(r"%[.\d]*[sdfgr]", lambda _: _place(next(rest), names), text)


def main() -> int:
    """Bring the catalogue up to date; say what is not translated. The same words give the same bytes."""
    with CATALOGUE.open("rb") as file:
        known = read_po(file, locale="zh")
    ours = "The Paraformer developers"
    who = {"last_translator": ours, "language_team": ours, "msgid_bugs_address": ours, "version": "messages"}
    catalogue = Catalog(
        "zh", project="paraformer", header_comment=HEAD, creation_date=BEGUN, revision_date=BEGUN, fuzzy=False, **who
    )
    for text in extracted():
        old = known.get(text)
        catalogue.add(text, old.string if old else "")
    with CATALOGUE.open("wb") as file:
        write_po(file, catalogue, width=0, sort_output=True)
    with CATALOGUE.with_suffix(".mo").open("wb") as file:
        write_mo(file, catalogue)
    missing = [one.id for one in catalogue if one.id and not one.string]
    print(*missing, sep="\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
