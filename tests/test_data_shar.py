"""Shards: the same batches as plain files; damage costs what it hits and no more."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
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
    load_batches,
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
    pairs = zip(
        *(load_batches(plan, examples, workers) for plan, workers in zip(plans, (0, 1), strict=True)), strict=True
    )
    for here, there in pairs:
        torch.testing.assert_close(here.feats, there.feats)
        torch.testing.assert_close(here.targets, there.targets)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # lhotse leaves files open
def test_lhotse_reads_our_shards_and_we_read_those_of_lhotse(plain: CutSet, shards: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    plain.to_shar(theirs, fields={"recording": "flac"}, shard_size=3)
    for cuts in (CutSet.from_shar(in_dir=shards), open_shar(theirs)):
        for cut, expected in zip(cuts, plain, strict=True):
            assert (cut.id, text_of(cut), cut.voiced) == (expected.id, text_of(expected), expected.voiced)
            np.testing.assert_allclose(load(cut), load(expected), atol=1e-4)


def test_a_damaged_utterance_in_the_middle_of_a_shard_is_the_only_one_lost(plain: CutSet, shards: Path) -> None:
    path, offset, size = place_of(open_shar(shards), 4)
    damage(path, offset, size)
    cuts, skips = open_shar(shards), Skips()
    plan = epoch_plan(cuts, JoinConfig(clips=1), BATCH, 0)
    batches = list(load_batches(plan, dataset(plain), 0, skips))
    assert len(batches) == len(plan)
    assert [skipped.id for skipped in skips.found] == ["tones-4"]
    assert sum(len(batch.feats) for batch in batches) >= len(TEXTS) - 1
    with pytest.raises(DataError, match=r"tones-4.*unreadable audio"):
        list(load_batches(plan, dataset(plain), 0, Skips("stop")))


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


def test_utterances_that_cannot_be_used_are_counted_and_the_run_goes_on(plain: CutSet) -> None:
    cuts = list(plain)
    for cut, text in zip(cuts, ["龍龘", "", "一"], strict=False):
        cut.supervisions[0].text = text
    skips = Skips()
    single = JoinConfig(clips=1, edge_s=(0.0, 0.0))
    plan = epoch_plan(CutSet.from_cuts(cuts), single, BatchConfig(seconds=3.0, longest_s=1.0), 0, skips)
    rows = sum(len(batch.feats) for batch in load_batches(plan, dataset(plain), 0, skips))
    assert skips.counts == {"unknown characters only": 1, "empty text": 1, "too long": 1}
    assert rows >= len(TEXTS) - 3


def test_a_batch_of_nothing_usable_is_replaced_by_a_neighbour(plain: CutSet) -> None:
    plan = [CutSet.from_cuts([cut]) for cut in plain]
    for number in (0, 1, 5):
        next(iter(plan[number])).supervisions[0].text = "龘"
    batches = list(load_batches(plan, dataset(plain), 0))
    assert len(batches) == len(plan)
    assert all(batch is batches[2] for batch in batches[:2])
    assert batches[5] is batches[4]
    with pytest.raises(DataError, match="not one utterance can be used"):
        list(load_batches(plan[:2], dataset(plain), 0))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_utterances_make_an_epoch_too(plain: CutSet, count: int) -> None:
    plan = epoch_plan(CutSet.from_cuts(list(plain)[:count]), JoinConfig(clips=1), BatchConfig(), 0)
    assert sum(len(part) for part in plan) == count
    with pytest.raises(DataError, match="no utterance is at most"):
        epoch_plan(plain, JoinConfig(clips=1), BatchConfig(longest_s=0.1), 0)
