"""One input of many fails, the others go on: what counts as a failure, and what it says."""

from __future__ import annotations

import pytest

from paraformer.errors import AudioError, InputFailed, attempt


def test_nothing_fails() -> None:
    with attempt("talk.wav") as result:
        pass
    assert result.error is None


def test_errors_of_ours_are_kept_as_they_are() -> None:
    ours = AudioError("talk.wav holds no audio track")
    with attempt("talk.wav") as result:
        raise ours
    assert result.error is ours


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (IndexError("frame 7"), "talk.wav failed: IndexError: frame 7"),
        (RuntimeError("one\ntwo"), "talk.wav failed: RuntimeError: one"),
        (AssertionError(), "talk.wav failed: AssertionError"),
        (OSError(5, "Input/output error"), "talk.wav failed: Input/output error"),
    ],
)
def test_any_other_error_names_the_input_and_has_its_cause(error: Exception, words: str) -> None:
    with attempt("talk.wav") as result:
        raise error
    assert isinstance(result.error, InputFailed)
    assert str(result.error) == words
    assert result.error.__cause__ is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_concerns_the_whole_process_is_not_a_failure_of_one_input(kind: type[BaseException]) -> None:
    with pytest.raises(kind), attempt("talk.wav"):
        raise kind
