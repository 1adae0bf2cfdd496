"""Shards: the same batches as plain files; damage costs what it hits and no more."""

from __future__ import annotations

import dataclasses
import gzip
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
from loaded_batches import loaded
from speech_archives import sound_of, write_archive

from paraformer.config import FrontendConfig
from paraformer.data import shar
from paraformer.data.augment import AugmentConfig
from paraformer.data.dataset import (
    BatchConfig,
    JoinConfig,
    SpeechDataset,
    Symbols,
    epoch_plan,
    estimate_cmvn,
    text_of,
)
from paraformer.data.prepare import load_cuts, prepare, vocabulary
from paraformer.data.reading import load
from paraformer.data.shar import open_shar, write_shar
from paraformer.data.skips import Skips
from paraformer.errors import DataError
from paraformer.text import Vocabulary

TEXTS = ["一", "二", "三", "四", "一二", "三四", "二三四", "一三"]
JOIN = JoinConfig(clips=2, total_s=1.2, alone_s=0.3)
BATCH = BatchConfig(seconds=3.0, buckets=2)


@pytest.fixture
def plain(tmp_path: Path) -> CutSet:
    return prepare([write_archive(tmp_path / "tones.tar", TEXTS)], tmp_path / "plain")["tones"]


@pytest.fixture
def shards(plain: CutSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shards, of three, three and two utterances."""
    monkeypatch.setattr(shar, "SHARD_SIZE", 3)
    assert write_shar(plain, tmp_path / "shards", Skips("stop")) == len(TEXTS)
    return tmp_path / "shards"


def dataset(cuts: CutSet) -> SpeechDataset:
    cmvn = estimate_cmvn(list(cuts), FrontendConfig(), AugmentConfig())
    return SpeechDataset(Symbols(Vocabulary(vocabulary(TEXTS))), FrontendConfig(), cmvn, AugmentConfig())


def damage(path: Path, place: int, count: int = 64) -> None:
    data = bytearray(path.read_bytes())
    data[place : place + count] = b"\xa5" * count
    path.write_bytes(data)


def place_of(cuts: CutSet, number: int) -> tuple[Path, int, int]:
    path, offset, size = list(cuts)[number].custom["shard"]
    return Path(path), offset, size


def test_shards_give_the_batches_of_plain_files(plain: CutSet, shards: Path) -> None:
    packed = load_cuts(shards.parent, "shards")
    assert len(list(shards.glob("recording.*.tar"))) == 3
    examples = dataset(plain)
    plans = [epoch_plan(cuts, JOIN, BATCH, 1) for cuts in (plain, packed)]
    batches = [loaded(plan, examples, workers) for plan, workers in zip(plans, (0, 1), strict=True)]
    for here, there in zip(*batches, strict=True):
        torch.testing.assert_close(here.batch.feats, there.batch.feats)
        torch.testing.assert_close(here.batch.targets, there.batch.targets)


def test_shards_are_right_from_anywhere(plain: CutSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made under a relative name, read in another directory, and again after they were moved."""
    monkeypatch.chdir(tmp_path)
    write_shar(plain, Path("shards"), Skips("stop"))
    expected = [load(cut) for cut in plain]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for place in ("shards", "moved"):
        for cut, samples in zip(open_shar(Path("..") / place), expected, strict=True):
            np.testing.assert_array_equal(load(cut), samples)
        if place == "shards":
            (tmp_path / "shards").rename(tmp_path / "moved")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # lhotse leaves files open
def test_lhotse_reads_our_shards_and_we_read_those_of_lhotse(plain: CutSet, shards: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    plain.to_shar(theirs, fields={"recording": "flac"}, shard_size=3)
    for cuts in (CutSet.from_shar(in_dir=shards), open_shar(theirs)):
        for cut, expected in zip(cuts, plain, strict=True):
            assert (cut.id, text_of(cut), cut.voiced) == (expected.id, text_of(expected), expected.voiced)
            np.testing.assert_allclose(load(cut), load(expected), atol=1e-4)


def test_a_damaged_utterance_in_the_middle_of_a_shard_is_the_only_one_lost(
    plain: CutSet, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, offset, size = place_of(open_shar(shards), 4)
    damage(path, offset, size)
    plan = epoch_plan(open_shar(shards), JoinConfig(clips=1), BATCH, 0)
    with caplog.at_level(logging.WARNING, "paraformer.data"):
        batches = loaded(plan, dataset(plain))
    assert len(batches) == len(plan)
    assert [message.split(":")[0] for message in caplog.messages] == ["left out tones-4"]
    assert sum(len(one.batch.feats) for one in batches) >= len(TEXTS) - 1
    with pytest.raises(DataError, match=r"tones-4.*unreadable audio"):
        loaded(plan, dataset(plain), on_bad="stop")


def test_a_damaged_header_in_a_shard_costs_one_utterance(shards: Path) -> None:
    path, offset, _ = place_of(open_shar(shards), 3)
    damage(path, offset - 512)
    skips = Skips()
    assert [text_of(cut) for cut in open_shar(shards, skips)] == [text for text in TEXTS if text != TEXTS[3]]
    assert [skipped.id for skipped in skips.found] == ["tones-3"]
    with pytest.raises(DataError, match="tones-3"):
        open_shar(shards, Skips("stop"))


def test_a_shard_that_was_cut_short_loses_its_end(shards: Path) -> None:
    path, offset, _ = place_of(open_shar(shards), 1)
    path.write_bytes(path.read_bytes()[: offset + 100])
    skips = Skips()
    assert len(open_shar(shards, skips)) == len(TEXTS) - 2
    assert [skipped.id for skipped in skips.found] == ["tones-1", "tones-2"]


def test_a_damaged_manifest_loses_the_rest_of_its_shard(shards: Path) -> None:
    manifest = shards / "cuts.000001.jsonl.gz"
    lines = gzip.decompress(manifest.read_bytes()).splitlines(keepends=True)
    manifest.write_bytes(gzip.compress(lines[0] + b"{no\n"))
    skips = Skips()
    assert len(open_shar(shards, skips)) == len(TEXTS) - 2
    assert "cuts.000001" in str(skips.found[0])


def test_directories_without_whole_shards_are_named(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Shar shards"):
        open_shar(tmp_path)
    (shards / "recording.000001.tar").unlink()
    with pytest.raises(DataError, match=r"no recording\.000001\.tar"):
        open_shar(shards)


def test_what_cannot_be_read_does_not_enter_the_shards(plain: CutSet, tmp_path: Path) -> None:
    Path(list(plain)[1].recording.sources[0].source).unlink()
    skips = Skips()
    assert write_shar(plain, tmp_path / "rest", skips) == len(TEXTS) - 1
    assert skips.counts == {"missing file": 1}
    with pytest.raises(DataError, match="there already"):
        write_shar(plain, tmp_path / "rest", skips)
    with pytest.raises(DataError, match="nothing was written"):
        write_shar(CutSet.from_cuts([list(plain)[1]]), tmp_path / "none", skips)
    assert not list(tmp_path.glob("*none*"))


def test_a_part_of_a_recording_becomes_all_of_its_place(plain: CutSet, tmp_path: Path) -> None:
    whole = list(plain)[4]
    assert write_shar([whole.truncate(offset=0.1, duration=0.3, preserve_id=True)], tmp_path / "part", Skips()) == 1
    [cut] = open_shar(tmp_path / "part")
    assert load(cut) == pytest.approx(sound_of(TEXTS[4])[1600:6400], abs=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_utterances_make_an_epoch_too(plain: CutSet, count: int) -> None:
    plan = epoch_plan(CutSet.from_cuts(list(plain)[:count]), JoinConfig(clips=1), BatchConfig(), 0)
    assert sum(len(part) for part in plan) == count
    with pytest.raises(DataError, match="no utterance is at most"):
        epoch_plan(plain, JoinConfig(clips=1), BatchConfig(longest_s=0.1), 0)


def test_sounds_of_one_id_are_not_taken_for_each_other(plain: CutSet, shards: Path, tmp_path: Path) -> None:
    """Neither by us, who pack one of them, nor where others have packed both."""
    first, second, *_ = plain
    skips = Skips()
    assert write_shar([first, dataclasses.replace(second, id=first.id)], tmp_path / "ours", skips) == 1
    assert skips.counts == {"id used twice": 1}
    np.testing.assert_allclose(load(*open_shar(tmp_path / "ours")), load(first), atol=1e-4)
    manifest = shards / "cuts.000000.jsonl.gz"
    lines = gzip.decompress(manifest.read_bytes()).splitlines(keepends=True)
    manifest.write_bytes(gzip.compress(b"".join([*lines, lines[0]])))
    skips = Skips()
    assert len(open_shar(shards, skips)) == len(TEXTS) - 1
    assert skips.counts == {"id used twice": 2}


@pytest.mark.parametrize("id_", ["a//b", "./a", "a.b", "../a", "/a", "长"])
def test_ids_of_any_form_are_found_in_a_shard(plain: CutSet, tmp_path: Path, id_: str) -> None:
    write_shar([dataclasses.replace(next(iter(plain)), id=id_)], tmp_path / "ours", Skips("stop"))
    [cut] = open_shar(tmp_path / "ours", Skips("stop"))
    assert cut.id == id_


def test_a_full_disk_ends_it_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = prepare([write_archive(tmp_path / "tones.tar", ["一二", "三四"])], tmp_path / "sets")["tones"]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    skips = Skips()
    monkeypatch.setattr("lhotse.shar.AudioTarWriter.write", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*shards'"):
        write_shar(cuts, tmp_path / "shards", skips)
    assert not skips.found and {path.name for path in tmp_path.iterdir()} == {"tones.tar", "sets"}
