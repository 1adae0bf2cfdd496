"""Arrays of other shapes and types than annotations state are errors in every test."""

from __future__ import annotations

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation

from paraformer.audio.signal import chosen
from paraformer.backends.base import Decoded

IDS, ROWS, SCORES = np.zeros(2, np.int64), np.zeros(3, np.float32), np.zeros((2, 5), np.float32)


def test_arguments_of_functions() -> None:
    Decoded.of(SCORES, ROWS)
    with pytest.raises(BeartypeCallHintViolation, match="rows"):
        Decoded.of(SCORES, ROWS[None])


def test_fields_of_dataclasses_agree_with_each_other() -> None:
    Decoded(IDS, ROWS[:2], ROWS, SCORES)
    with pytest.raises(BeartypeCallHintViolation, match="tokens"):
        Decoded(IDS, ROWS, ROWS, SCORES)


def test_functions_that_take_no_arrays_are_as_they_are_written() -> None:
    assert not hasattr(chosen, "__wrapped__")
