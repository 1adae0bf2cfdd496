"""Where results go: to standard output, or into a directory with one file for each input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from paraformer.bundle import replacing
from paraformer.cli.complain import complain
from paraformer.cli.formats import SUFFIXES, render, rounded
from paraformer.cli.live import Decision
from paraformer.types import Transcript


class Results(Protocol):
    """The fate of each input, called in this order: begin, any number of decided (live only), end."""

    def begin(self, name: str) -> None:
        """Work on the input `name` starts. Raises FileExistsError where its result would replace a file."""

    def decided(self, name: str, decision: Decision) -> None:
        """A live session knows more."""

    def end(self, name: str, transcript: Transcript) -> None:
        """The input is done."""


@dataclass
class Printed:
    """Results on standard output, live text as soon as it is decided; `labelled`: inputs are told apart by name."""

    form: str
    timestamps: bool
    labelled: bool
    _open_line: bool = field(default=False, init=False)

    def begin(self, name: str) -> None:  # noqa: ARG002 - told apart by the label
        """Start on a line of its own."""
        if self._open_line:  # the input before this one failed halfway
            print()
        self._open_line = False

    def decided(self, name: str, decision: Decision) -> None:
        """Print the new text at once, where the form can be printed piece by piece."""
        if self.form == "json":
            event = {"file": name, "heard_s": decision.heard_s, "new": decision.text}
            tokens = {"tokens": [asdict(token) for token in decision.tokens]} if self.timestamps else {}
            print(json.dumps(rounded(event | tokens), ensure_ascii=False), flush=True)
        elif self.form == "text" and not self.timestamps:
            label = f"{name}: " if self.labelled and not self._open_line else ""
            print(label + decision.text, end="", flush=True)
            self._open_line = True

    def end(self, name: str, transcript: Transcript) -> None:
        """Print the result, or end the line that holds it already."""
        if self._open_line:
            print()
            self._open_line = False
            return
        text = render(transcript, self.form, name=name, timestamps=self.timestamps)
        label = f"{name}: " if self.labelled and self.form == "text" else ""
        print("\n".join(label + line for line in text.split("\n")), flush=True)


@dataclass
class Saved:
    """Results in a directory, each called after its input; nothing is replaced unless `overwrite` says so."""

    form: str
    timestamps: bool
    directory: Path
    overwrite: bool
    _taken: set[Path] = field(default_factory=set, init=False)
    _target: Path = field(default=Path(), init=False)

    def begin(self, name: str) -> None:
        """Choose the file."""
        self._target = self._free(name)
        if self._target.exists() and not self.overwrite:
            raise FileExistsError(f"{self._target} exists already: remove it or add --overwrite")
        self._taken.add(self._target)

    def _free(self, name: str) -> Path:
        stem = "stdin" if name == "-" else Path(name).stem
        target = self.directory / (stem + SUFFIXES[self.form])
        number = 1
        while target in self._taken:
            number += 1
            target = self.directory / f"{stem}-{number}{SUFFIXES[self.form]}"
        if number > 1:
            complain(f"another input has the same name, so this one goes to {target}", name)
        return target

    def decided(self, name: str, decision: Decision) -> None:
        """Wait for the end."""

    def end(self, name: str, transcript: Transcript) -> None:
        """Write the file, all of it or nothing."""
        text = render(transcript, self.form, name=name, timestamps=self.timestamps)
        self.directory.mkdir(parents=True, exist_ok=True)
        with replacing(self._target) as temporary:
            temporary.write_text(text + "\n" if text else "", encoding="utf-8")
