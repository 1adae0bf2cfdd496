"""The gate: data from which nothing can be learnt are found out before the run, and named."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import tiny_bundle
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.utils import fastcopy
from speech_archives import write_archive
from training import TEXTS

from paraformer.bundle import Bundle
from paraformer.checkpoint import native
from paraformer.data.sources import open_data
from paraformer.errors import DataError, TrainingError
from paraformer.loader import locate
from paraformer.train.finetune import Finetuning, configure, finetune
from paraformer.train.gate import STEPS, UTTERANCES, Trial, attempt, drawn, pass_gate
from paraformer.train.speech import Speech, new_setup

GOOD = Trial((2.0, 1.5, 1.1, 0.8, 0.6, 0.5, 0.4), miscounted=0.02, entropy=4.0, foreign=0.0, speed=4.0)
SHUT = dataclasses.replace(GOOD, cross_entropy=(9.0, 8.5, 8.0, 7.5, 7.0, 6.5, 6.0))
SAMPLES = files("paraformer") / "samples"


def test_a_loss_that_falls_far_enough_opens_the_gate() -> None:
    assert GOOD.learnt
    assert not SHUT.learnt
    assert not dataclasses.replace(GOOD, cross_entropy=(2.0, float("nan"))).learnt
    assert dataclasses.replace(GOOD, entropy=0.0).learnt, "one word again and again is learnt at once"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cross_entropy": (2.0, float("inf"))}, "not finite"),
        ({"foreign": 0.5}, "50 % of the characters are new"),
        ({"speed": 30.0}, "30.0 characters per second"),
        ({"miscounted": 0.7}, "not have as many characters as are heard"),
        ({}, "wrong sample rate"),
    ],
)
def test_what_probably_is_wrong_is_said(change: dict[str, object], words: str) -> None:
    assert words in dataclasses.replace(SHUT, **change).fault


def test_a_third_of_the_entropy_or_half_a_nat_is_enough() -> None:
    def learnt(last: float, entropy: float) -> bool:
        return dataclasses.replace(GOOD, cross_entropy=(9.0, last), entropy=entropy).learnt

    assert learnt(2.0, 6.0)
    assert not learnt(2.01, 6.0)
    assert learnt(0.5, 0.9)
    assert not learnt(0.51, 0.9)


@pytest.mark.parametrize(
    ("inside", "outside", "words"),
    [
        ({"foreign": 0.3}, {"foreign": 0.31}, "new to the model"),
        ({"miscounted": 0.4}, {"miscounted": 0.41}, "not have as many characters"),
        ({"speed": 0.7}, {"speed": 0.69}, "characters per second"),
        ({"speed": 12.0}, {"speed": 12.1}, "characters per second"),
    ],
)
def test_faults_begin_beyond_their_bounds(inside: dict[str, float], outside: dict[str, float], words: str) -> None:
    assert words not in dataclasses.replace(SHUT, **inside).fault
    assert words in dataclasses.replace(SHUT, **outside).fault


def trial(directory: Path, **objective: Any) -> tuple[Trial, list[Cut]]:
    """Of the tones, with the tiny model, of whose characters it knows two of four."""
    cuts = list(open_data(write_archive(directory / "tones.tar", TEXTS[:10])))
    model = directory / "model"
    shutil.copytree(tiny_bundle.directory(), model)
    bundle = Bundle.open(model)
    counted = dataclasses.replace(bundle.config.objective, **objective)
    dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, objective=counted)).save(model)
    config = configure(Finetuning(model=model, data=directory, out=directory / "out"), native.load(model)[0], 1.0)
    setup = new_setup(config, Speech(CutSet.from_cuts(cuts), CutSet.from_cuts([]), []))
    return attempt(config, setup, cuts, 1e-3), cuts


def test_what_a_trial_measures(tmp_path: Path) -> None:
    got, cuts = trial(tmp_path)
    said = "".join(TEXTS[:10])
    assert got.speed == pytest.approx(len(said) / sum(cut.duration for cut in cuts))
    shares = [said.count(character) / len(said) for character in "一二三四"]
    assert got.entropy == pytest.approx(-sum(share * math.log(share) for share in shares))
    assert got.foreign == pytest.approx(sum(said.count(character) for character in "二四") / len(said))
    assert len(got.cross_entropy) == STEPS + 1
    assert all(later < earlier for earlier, later in pairwise(got.cross_entropy))
    assert 0 < got.miscounted < 10


def test_a_trial_measures_per_token_whatever_the_model_is_trained_by(tmp_path: Path) -> None:
    outcomes = []
    for number, normalized in enumerate((True, False)):
        (tmp_path / str(number)).mkdir()
        outcomes.append(trial(tmp_path / str(number), length_normalized=normalized, label_smoothing=0.1 * number)[0])
    values = [dataclasses.astuple(outcome) for outcome in outcomes]
    assert values[0][1:] == pytest.approx(values[1][1:], rel=1e-4)
    # Rounding depends on where arrays lie in memory; counted by utterances, values would be several times as large.
    assert outcomes[0].cross_entropy == pytest.approx(outcomes[1].cross_entropy, rel=1e-4)


def test_long_utterances_are_drawn_only_where_others_are_too_few() -> None:
    lengths = [12.1, 30.0, *[1.0] * 9, 12.0, 40.0]
    cuts: Any = [SimpleNamespace(duration=length) for length in lengths]
    assert max(cut.duration for cut in drawn(cuts, 0)) == 12.0
    assert sorted(cut.duration for cut in drawn(cuts[:-2], 0)) == [*[1.0] * 9, 12.1]


def test_a_model_that_knows_nothing_of_it_does_not_pass_and_leaves_no_run(tmp_path: Path) -> None:
    data = write_archive(tmp_path / "tones.tar", TEXTS)
    with pytest.raises(TrainingError, match=rf"{UTTERANCES} utterances were not learnt in {STEPS} steps.*data check"):
        finetune(Finetuning(model=tiny_bundle.directory(), data=data, out=tmp_path / "out", steps=2))
    assert not (tmp_path / "out").exists()


def test_ten_utterances_are_drawn_none_of_them_long(tmp_path: Path) -> None:
    cuts = list(open_data(write_archive(tmp_path / "tones.tar", TEXTS)))
    assert len({cut.id for cut in drawn(cuts, 0)}) == UTTERANCES
    assert [cut.id for cut in drawn(cuts, 0)] == [cut.id for cut in drawn(cuts, 0)]
    assert [cut.id for cut in drawn(cuts, 0)] != [cut.id for cut in drawn(cuts, 1)]


def test_utterances_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    data = open_data(write_archive(tmp_path / "tones.tar", TEXTS[:4]))
    cuts = [cut.map_supervisions(lambda said: fastcopy(said, text="…")) for cut in data]
    plan = Finetuning(model=tiny_bundle.directory(), data=tmp_path, out=tmp_path / "out")
    config = configure(plan, native.load(plan.model)[0], 1.0)
    with pytest.raises(DataError, match=r"none of 4 utterances can be used: .*tones-0: empty text"):
        pass_gate(config, cuts, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["transcripts", "rate"])
def test_the_embedded_model_finds_out_wrong_data(wrong: str, tmp_path: Path) -> None:
    texts = [(name, said["text"]) for name, said in json.loads((SAMPLES / "texts.json").read_text("utf-8")).items()]
    said = [text for _, text in texts]
    for name, _ in texts:
        samples, rate = soundfile.read(str(SAMPLES / name))
        soundfile.write(tmp_path / name, samples, rate * 2 if wrong == "rate" else rate)
    if wrong == "transcripts":
        said = [*said[1:], said[0]]
    rows = "".join(f"{name},{text}\n" for (name, _), text in zip(texts, said, strict=True))
    (tmp_path / "samples.csv").write_text("path,text\n" + rows, encoding="utf-8")
    data = tmp_path / "samples.csv"
    with pytest.raises(TrainingError, match="were not learnt"):
        finetune(Finetuning(model=locate(None), data=data, dev=data, out=tmp_path / "out", steps=2))
