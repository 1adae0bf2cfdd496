from __future__ import annotations

import logging

import pytest

from paraformer.data.skips import EMPTY, TOO_LONG, Skipped, Skips
from paraformer.errors import DataError


def test_the_first_of_each_reason_are_named_and_all_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    skips = Skips(named=2)
    with caplog.at_level(logging.WARNING, "paraformer"):
        skips.extend(Skipped(f"a{i}", TOO_LONG, "99 s") for i in range(5))
        skips.add(Skipped("b", EMPTY))
    assert caplog.messages == [
        "left out a0: too long, 99 s",
        "left out a1: too long, 99 s; more of these are only counted",
        "left out b: empty text",
    ]
    assert str(skips) == "6 left out (5 too long, 1 empty text)"
    assert str(Skips()) == "none left out"


def test_or_the_first_one_ends_the_run() -> None:
    with pytest.raises(DataError, match="utterance a: too long, 99 s"):
        Skips("stop").add(Skipped("a", TOO_LONG, "99 s"))
