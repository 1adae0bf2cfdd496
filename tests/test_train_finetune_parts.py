"""What is held out for measuring, and what a comparison says."""

from __future__ import annotations

from pathlib import Path

import pytest
from lhotse import AudioSource, Recording, SupervisionSegment
from lhotse.cut import MonoCut

from paraformer.data.skips import Skips
from paraformer.data.utterances import speaker_of, utterances
from paraformer.evaluate.cer import ErrorCounts
from paraformer.evaluate.significance import compare
from paraformer.train.finetune import Verdict
from paraformer.train.parts import LEAST, MOST, hold_out, parts_of


def cuts(count: int, speakers: int) -> list[MonoCut]:
    return [cut(str(number), f"speaker {number % speakers}" if speakers else "") for number in range(count)]


def cut(name: str, speaker: str) -> MonoCut:
    recording = Recording(name, [AudioSource("file", [0], f"{name}.wav")], 16000, 16000, 1.0)
    said = SupervisionSegment(name, name, 0.0, 1.0, text="共3.5元。", speaker=speaker)
    return MonoCut(name, 0.0, 1.0, 0, [said], recording=recording)


@pytest.mark.parametrize(("count", "speakers"), [(8, 0), (40, 2), (200, 0), (200, 40), (6000, 60), (6000, 0)])
def test_nothing_is_trained_on_and_measured_with(count: int, speakers: int) -> None:
    parts = hold_out(cuts(count, speakers))
    train, dev = ({one.id for one in part} for part in (parts.train, parts.dev))
    assert not train & dev
    assert len(train) + len(dev) == count
    assert 0 < len(dev) <= max(count // 2, 2)
    assert len(dev) >= min(count // 10, MOST) or len(dev) >= LEAST
    assert hold_out(cuts(count, speakers)) == parts


def test_speakers_are_held_out_where_there_are_enough() -> None:
    parts = hold_out(cuts(200, 40))
    train, dev = ({speaker_of(one) for one in part} for part in (parts.train, parts.dev))
    assert not train & dev
    assert "speakers" in parts.held_out
    assert "random" in hold_out(cuts(200, 3)).held_out


def test_a_dev_set_of_its_own_leaves_all_to_training(tmp_path: Path) -> None:
    from training import TEXTS, prepared

    data = prepared(tmp_path)
    parts = parts_of(data / "tones", data / "dev", Skips())
    assert (len(parts.train), len(parts.dev), parts.held_out) == (len(TEXTS), 2, str(data / "dev"))


def test_texts_are_compared_as_they_are_written() -> None:
    (one,) = utterances([cut("a", "unknown")])
    assert (one.id, one.text, one.speaker) == ("a", "共3.5元。", "")


@pytest.mark.parametrize(("after", "word"), [(1, "better"), (9, "worse"), (5, "not told apart")])
def test_one_line_says_what_became_of_it(after: int, word: str) -> None:
    before, now = ([ErrorCounts(edits, 0, 0, 10)] * 30 for edits in (5, after))
    verdict = Verdict("general", 30, compare(before, now))
    assert str(verdict).startswith(f"general: {word}, CER 50.00 % -> {10 * after:.2f} %, ")
    assert "\n" not in str(verdict)
    assert verdict.to_dict()["verdict"] == word
