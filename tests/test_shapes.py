"""Arrays of other shapes and types than annotations state are errors in every test."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float32, TypeCheckError
from shapes import checked

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


@checked
def halves(samples: Float32[np.ndarray, " samples"]) -> Iterator[Float32[np.ndarray, " samples"]]:
    for start in (0, len(samples) // 2):
        yield samples[start : start + len(samples) // 2]


@checked
def first(rows: Float32[np.ndarray, " samples"], parts: Iterator[np.ndarray]) -> Float32[np.ndarray, " part"]:
    return next(parts)


def test_generators_are_calls_of_their_own() -> None:
    """Checked where they are called, whoever wants their values."""
    assert len(first(ROWS, halves(np.zeros(8, np.float32)))) == 4
    with pytest.raises(TypeCheckError, match="samples"):
        halves(IDS)


def test_functions_that_take_no_arrays_are_as_they_are_written() -> None:
    assert not hasattr(chosen, "__wrapped__")
