"""Where results go: to standard output, or into a directory with one file for each input."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from errno import ENOTDIR
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Protocol

from paraformer.bundle import replacing
from paraformer.cli.formats import SUFFIXES, Heard, render
from paraformer.cli.live import Decision
from paraformer.cli.sources import STDIN
from paraformer.records import described, rounded
from paraformer.types import Token, Transcript

LONGEST_NAME = 255
"""Bytes, on the disks of today."""


class Results(Protocol):
    """The fate of each input, called in this order: begin, any number of decided (live only), end."""

    def begin(self, name: str) -> None:
        """Work on the input `name` starts."""

    def decided(self, name: str, decision: Decision) -> None:
        """A live session knows more."""

    def end(self, name: str, heard: Heard) -> None:
        """The input is done."""


@dataclass
class Printed:
    """Results on standard output, live text as soon as it is decided; `labelled`: inputs are told apart by name."""

    form: str
    timestamps: bool
    labelled: bool
    second_pass: bool = False
    _open_line: bool = field(default=False, init=False)
    _told: bool = field(default=False, init=False)
    """Whether all of this input that is decided is printed already."""

    def begin(self, name: str) -> None:  # noqa: ARG002 - told apart by the label
        """Start on a line of its own."""
        if self._open_line:  # the input before this one failed halfway
            print()
        self._open_line = self._told = False

    def decided(self, name: str, decision: Decision) -> None:
        """Print the new text at once, where the form can be printed piece by piece."""
        if self.form == "json":
            for event in self._events(name, decision):
                print(json.dumps(rounded(event), ensure_ascii=False), flush=True)
        elif self.second_pass:
            for one in decision.revisions if self.form in ("text", "tsv") else ():
                self._print(name, Transcript(one.segment.text, decision.heard_s, (one.segment,)))
                self._told = True
        elif self.form in ("text", "tsv") and self.timestamps:
            self._print(name, decision.transcript())
            self._told = True
        elif self.form == "text":
            print(self._label(name) * (not self._open_line) + decision.text, end="", flush=True)
            self._open_line = self._told = True

    def end(self, name: str, heard: Heard) -> None:
        """Print the result, or end the line that holds it already."""
        if not self._told:
            self._print(name, heard)
        elif self._open_line:
            print()
            self._open_line = False

    def _events(self, name: str, decision: Decision) -> Iterator[dict[str, Any]]:
        """New text, and then the sentences that were recognised again, with the tokens that they replace."""

        def told(tokens: Sequence[Token]) -> dict[str, Any]:
            return {"tokens": [described(token) for token in tokens]} if self.timestamps else {}

        head = {"file": name, "heard_s": decision.heard_s}
        if decision.text:
            yield {**head, "new": decision.text, **told(decision.tokens)}
        for one in decision.revisions:
            segment = one.segment
            times = {"start_s": segment.start_s, "end_s": segment.end_s}
            sentence = {"sentence": one.number, "replaces": one.replaces, "text": segment.text}
            yield {**head, **sentence, **times, **told(segment.tokens)}

    def _print(self, name: str, heard: Heard) -> None:
        text = render(heard, self.form, name=name, timestamps=self.timestamps)
        print("\n".join(self._label(name) + line for line in text.split("\n")), flush=True)

    def _label(self, name: str) -> str:
        return f"{name}: " if self.labelled and self.form == "text" else ""


class Saved:
    """Results in a directory, each called after its input; nothing is replaced unless `overwrite` says so."""

    def __init__(self, form: str, timestamps: bool, directory: Path, targets: Mapping[str, Path]) -> None:
        """targets: where the result of each input goes, as `targets` says, in a directory that can be written."""
        self._form, self._timestamps = form, timestamps
        self._directory, self._targets = directory, targets

    def begin(self, name: str) -> None:
        """Nothing is printed."""

    def decided(self, name: str, decision: Decision) -> None:
        """Wait for the end."""

    def end(self, name: str, heard: Heard) -> None:
        """Write the file, all of it or nothing."""
        text = render(heard, self._form, name=name, timestamps=self._timestamps)
        target = self._directory / self._targets[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            temporary.write_text(text + "\n" if text else "", encoding="utf-8")


def make_writable(directory: Path) -> None:
    """Make a directory for results, and be sure that files can be made in it. Raises OSError where not."""
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(ENOTDIR, "is a file; name a directory for the results", str(directory))
    directory.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=directory, prefix="."):
        pass


def refusal(target: Path, *, overwrite: bool) -> str:
    """Why a result cannot go to this file, as far as can be known before the work; empty if it can."""
    if len(os.fsencode(target.name)) > LONGEST_NAME:
        return f"{target.name} is too long for the name of a file: rename the input, or print the result"
    if target.exists() and not overwrite:
        return f"{target} exists already: remove it or add --overwrite"
    return ""


def targets(names: Sequence[str], form: str) -> dict[str, Path]:
    """The file for the result of each input, within the directory of results: one each, for this set always the same.

    "a/talk.wav" gives "talk.txt". Inputs that would share a file get the folder in which they differ, "a/talk.txt" and
    "b/talk.txt", if need be the whole name, "talk.wav.txt" and "talk.mp3.txt", or else a digest of their path. Names
    that differ in case or composition alone count as the same, as on many disks.
    """
    chosen = dict.fromkeys(names, Path())
    unsettled = list(chosen)
    for choose in (_by_stem, _by_folder, _by_name, _by_digest):
        chosen |= choose(unsettled, SUFFIXES[form])
        taken = Counter(_folded(path) for path in chosen.values())
        unsettled = [name for name, path in chosen.items() if taken[_folded(path)] > 1]
    return chosen


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def _by_stem(names: Sequence[str], suffix: str) -> dict[str, Path]:
    return {name: Path(_stem(name) + suffix) for name in names}


def _by_folder(names: Sequence[str], suffix: str) -> dict[str, Path]:
    return {name: folder / (_stem(name) + suffix) for name, folder in _folders(names).items()}


def _by_name(names: Sequence[str], suffix: str) -> dict[str, Path]:
    return {
        name: folder / (("stdin" if name == STDIN else Path(name).name) + suffix)
        for name, folder in _folders(names).items()
    }


def _by_digest(names: Sequence[str], suffix: str) -> dict[str, Path]:
    digests = {name: sha256(os.fsencode(Path(name).absolute())).hexdigest()[:8] for name in names}
    return {name: folder / f"{_stem(name)}-{digests[name]}{suffix}" for name, folder in _folders(names).items()}


def _folders(names: Sequence[str]) -> dict[str, Path]:
    """The folder of each input, seen from the innermost that holds all inputs with its stem."""
    folders = {name: Path(name).parent.resolve() for name in names if name != STDIN}
    alike = defaultdict(list)
    for name, folder in folders.items():
        alike[_folded(Path(_stem(name)))].append(folder)
    commons = {stem: os.path.commonpath(group) for stem, group in alike.items()}
    found = {name: folder.relative_to(commons[_folded(Path(_stem(name)))]) for name, folder in folders.items()}
    return dict.fromkeys(names, Path()) | found


def _stem(name: str) -> str:
    return "stdin" if name == STDIN else Path(name).stem
