from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.utils import fastcopy
from loaded_batches import loaded
from speech_archives import write_archive

from paraformer.config import FrontendConfig
from paraformer.data.augment import UNCHANGED, AugmentConfig
from paraformer.data.dataset import (
    BatchConfig,
    Example,
    JoinConfig,
    SpeechDataset,
    Symbols,
    epoch_plan,
    estimate_cmvn,
    join_cuts,
    load,
    measuring_batches,
    nothing_said,
    syllable_table,
    syllables_of,
    text_of,
)
from paraformer.data.prepare import prepare, vocabulary
from paraformer.errors import DataError
from paraformer.frontend import Frontend
from paraformer.text import Vocabulary

SHORT = JoinConfig(clips=2, total_s=1.2, alone_s=0.3)
TEXTS = ["一", "二", "三", "四", "一二", "三四", "二三四", "一三", "二四", "四", "三二一"]


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> CutSet:
    directory = tmp_path_factory.mktemp("speech")
    return prepare([write_archive(directory / "tones.tar", TEXTS)], directory)["tones"]


@pytest.fixture(scope="module")
def dataset(cuts: CutSet) -> SpeechDataset:
    config = FrontendConfig()
    cmvn = estimate_cmvn(list(cuts), config, AugmentConfig())
    return SpeechDataset(Symbols(Vocabulary(vocabulary(TEXTS)), syllable_table(TEXTS)), config, cmvn)


@pytest.mark.parametrize("seed", range(5))
def test_joining_keeps_every_text_once_and_in_one_piece(cuts: CutSet, seed: int) -> None:
    config = JoinConfig(clips=3, total_s=2.0, alone_s=0.5)
    joined = list(join_cuts(cuts, config, np.random.default_rng(seed)))
    assert sorted("".join(text_of(cut) for cut in joined)) == sorted("".join(TEXTS))
    assert all(len(cut.supervisions) <= 3 for cut in joined)
    slack = 2 * config.edge_s[1] + 2 * config.gap_s[1]
    assert all(cut.duration <= config.total_s + slack + 0.01 for cut in joined)
    assert all(len(load(cut)) == pytest.approx(cut.duration * 16000, abs=1) for cut in joined)


def test_epoch_plan_depends_on_the_epoch_alone(cuts: CutSet) -> None:
    def texts(epoch: int) -> list[list[str]]:
        plan = epoch_plan(cuts, SHORT, BatchConfig(seconds=3.0, buckets=2), epoch)
        return [[text_of(cut) for cut in part] for part in plan]

    assert texts(0) == texts(0)
    assert texts(0) != texts(1)


def test_batches_are_padded_with_zeros_and_minus_ones(cuts: CutSet, dataset: SpeechDataset) -> None:
    [(batch, references)] = measuring_batches(cuts, dataset)
    assert sorted(references) == sorted(TEXTS)
    assert batch.ctc_targets is not None
    for row, text in enumerate(references):
        length = int(batch.lengths[row])
        assert not batch.feats[row, length:].any()
        ids = batch.targets[row].tolist()
        assert ids == dataset.symbols.vocabulary.encode(text) + [-1] * (len(ids) - len(text))
        assert int(batch.target_lengths[row]) == len(text)
        assert (batch.ctc_targets[row] > 0).sum() == len(text)


def test_training_hears_what_recognition_hears(dataset: SpeechDataset) -> None:
    """Bit for bit for every length: nothing, less than a frame, around every frame and window, and seconds."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    training = SpeechDataset(dataset.symbols, dataset.frontend.config, dataset.cmvn, UNCHANGED)
    frontend, rng = Frontend(dataset.frontend.config, dataset.cmvn), np.random.default_rng(0)
    edges = [edge + extra for edge in range(400, 5000, 160) for extra in (-1, 0, 1)]
    for length in (*range(0, 3200, 7), *edges, 40_000):
        heard = frontend.whole(noise[:length])
        np.testing.assert_array_equal(training.windows(noise[:length], rng), heard, strict=True)
        np.testing.assert_array_equal(dataset.windows(noise[:length], rng), heard, strict=True)


def test_cmvn_is_that_of_the_rows_that_recognition_makes(cuts: CutSet) -> None:
    rows = np.concatenate([Frontend(FrontendConfig()).whole(load(cut)) for cut in cuts]).astype(np.float64)
    cmvn = estimate_cmvn(list(cuts), FrontendConfig(), UNCHANGED)
    np.testing.assert_allclose(cmvn.shift, -rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(cmvn.scale, 1 / rows.std(0), rtol=1e-4)


def test_cmvn_of_nothing_is_an_error(cuts: CutSet) -> None:
    with pytest.raises(DataError, match="no audio can be read"):
        estimate_cmvn([], FrontendConfig(), UNCHANGED)


def test_cmvn_normalises(cuts: CutSet) -> None:
    quiet = AugmentConfig(
        speed=(1.0, 1.0), reverb_probability=0.0, gain_db=(0.0, 0.0), floor_probability=1.0, floor_snr_db=(30.0, 30.0)
    )
    cmvn = estimate_cmvn(list(cuts), FrontendConfig(), quiet)
    quiet_dataset = SpeechDataset(Symbols(Vocabulary(vocabulary(TEXTS))), FrontendConfig(), cmvn, quiet)
    [(batch, _)] = measuring_batches(cuts, quiet_dataset)
    rows = torch.cat([feats[:n] for feats, n in zip(batch.feats, batch.lengths, strict=True)])
    assert batch.ctc_targets is None
    assert rows.mean().abs() < 0.3


def test_loading_ahead_gives_the_same_batches(cuts: CutSet, dataset: SpeechDataset) -> None:
    augmenting = SpeechDataset(dataset.symbols, FrontendConfig(), dataset.cmvn, AugmentConfig(), seed=1)
    plan = epoch_plan(cuts, SHORT, BatchConfig(seconds=3.0, buckets=2), 0)
    for here, there in zip(loaded(plan, augmenting, 0), loaded(plan, augmenting, 1), strict=True):
        torch.testing.assert_close(here.batch.feats, there.batch.feats)


def test_a_text_is_encoded_once(cuts: CutSet, dataset: SpeechDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = Symbols.encode
    monkeypatch.setattr(Symbols, "encode", lambda self, text: encoded.append(text) or encode(self, text))
    assert sorted(dataset[cuts].texts) == sorted(encoded) == sorted(TEXTS)


def test_names_belong_to_the_rows(cuts: CutSet, dataset: SpeechDataset) -> None:
    some = list(cuts)
    some[1] = some[1].map_supervisions(lambda s: fastcopy(s, text="龘"))
    one = dataset[CutSet.from_cuts(some)]
    assert one.names == [cut.id for cut in some if cut is not some[1]]
    assert len(one.names) == len(one.batch.lengths)
    assert [left_out.id for left_out in one.skipped] == ["tones-1"]


def test_what_memory_would_not_hold_is_not_measured(
    cuts: CutSet, dataset: SpeechDataset, caplog: pytest.LogCaptureFixture
) -> None:
    hour = next(iter(cuts)).pad(duration=3600.0)
    with caplog.at_level(logging.WARNING, "paraformer.data"):
        batches = list(measuring_batches([*cuts, hour], dataset))
    assert [len(texts) for _, texts in batches] == [len(TEXTS)]
    [said] = caplog.messages
    assert said.startswith("not measured with: 1 left out (1 too long), first tones-0: too long, 3600.00 s; ")


def test_an_error_rate_of_nothing_is_no_error_rate(cuts: CutSet, dataset: SpeechDataset) -> None:
    hour, gone = next(iter(cuts)).pad(duration=3600.0), next(iter(cuts))
    sources = [fastcopy(source, source="gone.wav") for source in gone.recording.sources]
    gone = fastcopy(gone, recording=fastcopy(gone.recording, sources=sources))
    for useless in ([], [hour], [gone], [nothing_said(cut) for cut in cuts]):
        with pytest.raises(DataError, match="no utterance with a transcript to measure with"):
            list(measuring_batches(useless, dataset))


def test_syllables_carry_tones() -> None:
    assert syllables_of("中国") == ["zhong1", "guo2"]
    assert syllable_table(["中国", "国"]) == {"guo2": 1, "zhong1": 2}


def test_only_marked_cuts_may_say_nothing(cuts: CutSet, dataset: SpeechDataset) -> None:
    mute = cuts.map_supervisions(lambda s: fastcopy(s, text=""))
    assert dataset[mute].batch is None
    assert {left_out.reason for left_out in dataset[mute].skipped} == {"empty text"}
    loaded = dataset[CutSet.from_cuts(nothing_said(cut) for cut in cuts)]
    assert not loaded.skipped
    assert loaded.texts == [""] * len(cuts)


def test_a_batch_of_noise_alone_has_targets_of_no_length(dataset: SpeechDataset) -> None:
    batch = dataset.collate([Example(np.zeros((rows, 560), np.float32), "", []) for rows in (9, 5)])
    assert batch.ctc_targets is not None
    for targets in (batch.targets, batch.ctc_targets):
        assert (targets.shape, targets.dtype) == ((2, 0), torch.int64)
