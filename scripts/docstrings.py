"""Lets the site's reference show docstrings as they are written here: `name: ...` tells of an argument."""

from __future__ import annotations

import re
from typing import Any

import griffe

_TOLD = re.compile(r"^(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*)(?P<shape> \([^)]*\))?: ", re.MULTILINE)
_BESIDE = re.compile(r"(?<=[.;]) (?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?=[a-z0-9\"])")


class Told(griffe.Extension):
    """Makes list items of the lines of docstrings that tell of arguments and fields."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring, as Markdown."""
        if obj.docstring is not None:
            obj.docstring.value = told(obj.docstring.value)


def told(docstring: str) -> str:
    r"""A docstring with a list in place of its telling lines.

    >>> told("Do it.\n\nname: what is done. size: how large.\nRaises OSError.")
    'Do it.\n\n- `name`: what is done.\n- `size`: how large.\n\nRaises OSError.'
    """
    head, line_break, body = docstring.partition("\n")
    body = _TOLD.sub(r"- `\g<names>`\g<shape>: ", _BESIDE.sub(r"\n\g<names>: ", body))
    body = re.sub(r"^((?!- |  ).+)\n(?=- `)", r"\1\n\n", body, flags=re.MULTILINE)
    body = re.sub(
        r"^(- `.*(?:\n(?!- |\n|Raises |Returns |>>> ).+)*)\n(?=Raises |Returns |>>> )",
        r"\1\n\n",
        body,
        flags=re.MULTILINE,
    )
    return head + line_break + body
