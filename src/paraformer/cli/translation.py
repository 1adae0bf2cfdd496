"""What the command says, in Chinese where the locale is: gettext's catalogue, which `scripts/messages.py` makes.

The code speaks English alone, and errors stay so for programs. The parser is translated once it is made; the sentence
of an error is found among the templates of the catalogue when it is printed. Without Chinese nothing is read.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gettext import GNUTranslations

DOMAIN = "paraformer"
LOCALE = Path(__file__).parent.parent / "locale"
PLACE = re.compile(r"\{(\w+)\}")
_CHINESE = 0x04
"""Windows' number of the language, in the lower ten bits of that of a locale."""


def chinese(environment: Mapping[str, str] | None = None) -> bool:
    """Whether Chinese is wanted, by the variables that gettext goes by, or else by the language of Windows."""
    variables = os.environ if environment is None else environment
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := variables.get(name):
            return value.lower().startswith("zh")
    if sys.platform == "win32":
        import ctypes

        language: int = ctypes.windll.kernel32.GetUserDefaultUILanguage()
        return language & 0x3FF == _CHINESE
    return False


def bind() -> None:
    """Let argparse find its own words in the catalogue; before a parser is made."""
    import gettext

    gettext.bindtextdomain(DOMAIN, str(LOCALE))
    gettext.textdomain(DOMAIN)
    os.environ.setdefault("LANGUAGE", "zh")  # where nothing but Windows has told the language


def localise(options: argparse.ArgumentParser) -> None:
    """Translate the descriptions and helps of a parser and of its commands, and what it says of wrong values."""
    say = catalogue().gettext
    options.description = options.description and say(options.description)
    options.epilog = options.epilog and say(options.epilog)
    for action in options._actions:  # noqa: SLF001  argparse has no other way to ask
        action.help = action.help and say(action.help)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for choice in action._choices_actions:  # noqa: SLF001
                choice.help = choice.help and say(choice.help)
            for command in action.choices.values():
                localise(command)
        elif callable(action.type) and action.type.__module__.startswith("paraformer."):
            action.type = _telling(action.type)


def _telling(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of option whose faults are told in Chinese."""

    @functools.wraps(kind)
    def read(text: str) -> object:
        try:
            return kind(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(translated(str(error))) from error

    return read


def translated(message: str) -> str:
    """A finished sentence in Chinese, as far as the catalogue knows it and its parts."""
    if not message or (known := catalogue().gettext(message)) != message:
        return message and known
    for pattern, template in _patterns():
        if found := pattern.fullmatch(message):
            return template.format(
                **{name: translated(value) for name, value in found.groupdict().items() if value is not None}
            )
    return message


@functools.cache
def catalogue() -> GNUTranslations:
    """The Chinese catalogue."""
    from gettext import translation

    return translation(DOMAIN, LOCALE, ["zh"])


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The templates with places, those first that have most words of their own."""
    pairs = [(key, value) for key, value in catalogue()._catalog.items() if isinstance(key, str) and PLACE.search(key)]  # type: ignore[attr-defined]  # noqa: SLF001  gettext lists no ids
    pairs.sort(key=lambda pair: -len(PLACE.sub("", pair[0])))
    return [(pattern(key), value) for key, value in pairs]


def pattern(template: str) -> re.Pattern[str]:
    """What matches the sentences that a template makes."""
    parts = PLACE.split(template)
    return re.compile("".join(f"(?P<{part}>.*?)" if at % 2 else re.escape(part) for at, part in enumerate(parts)))
