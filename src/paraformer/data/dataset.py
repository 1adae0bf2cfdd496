"""Cuts to training batches: join short ones, sort by length into batches, load, change, compute features, pad."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32
from lhotse import CutSet
from lhotse.cut import Cut, MonoCut
from lhotse.dataset.sampling import DynamicBucketingSampler
from torch.utils.data import DataLoader, Dataset

from paraformer.config import FrontendConfig
from paraformer.data.augment import AugmentConfig, Noise, Samples, augment_frames, augment_samples, spec_augment
from paraformer.errors import ConfigError, DataError
from paraformer.frontend import Cmvn, Frontend, fbank, lfr
from paraformer.model.paraformer import Batch
from paraformer.text import Vocabulary

PADDING_ID = -1


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """How clips are strung together, so that single words come to look like sentences."""

    clips: int = 5
    """At most so many in one utterance."""
    total_s: float = 8.0
    """No clip is added that would make the utterance longer than this."""
    gap_s: tuple[float, float] = (0.0, 0.25)
    """Silence between clips."""
    edge_s: tuple[float, float] = (0.0, 0.4)
    """Silence before and after the utterance."""
    probability: float = 0.7
    """Of adding one more clip, each time, to an utterance that is already long enough to stand alone."""
    alone_s: float = 2.5


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Size of the batches and length of the utterances in them."""

    seconds: float = 150.0
    """Speech per batch, padding included."""
    buckets: int = 12
    """Classes of like length, at least 2."""
    longest_s: float = 12.0

    def __post_init__(self) -> None:
        if self.buckets < 2 or self.seconds <= 0:
            raise ConfigError(f"batches of {self.seconds} s from {self.buckets} buckets: need over 0 s and 2 buckets")


@dataclass(frozen=True)
class Symbols:
    """Text to the ids of the tokens and, where the CTC layer has units of its own, of the syllables."""

    vocabulary: Vocabulary
    syllables: Mapping[str, int] = field(default_factory=dict)
    """Tone-marked pinyin to id, from 1; 0 is the blank."""

    def syllable_ids(self, text: str) -> list[int]:
        """Ids of the syllables of `text`; characters without a known reading are left out."""
        return [self.syllables[s] for s in syllables_of(text) if s in self.syllables]


def syllables_of(text: str) -> list[str]:
    """Pinyin with tone numbers, one per character; heteronyms are resolved by the words they stand in."""
    from pypinyin import Style, lazy_pinyin

    return list(lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True))


def syllable_table(texts: Sequence[str]) -> dict[str, int]:
    """All syllables of `texts` in alphabetical order, numbered from 1."""
    found = {syllable for text in texts for syllable in syllables_of(text)}
    return {syllable: i + 1 for i, syllable in enumerate(sorted(found))}


def join_cuts(cuts: CutSet, config: JoinConfig, rng: np.random.Generator) -> CutSet:
    """String clips together in a random order, each cut to its voiced part, with silence between and around."""
    order = list(cuts)
    rng.shuffle(order)
    waiting = [_voiced(cut) for cut in order]
    joined = []
    while waiting:
        parts = [waiting.pop()]
        while waiting and len(parts) < config.clips:
            total = sum(part.duration for part in parts)
            enough = total >= config.alone_s and rng.random() >= config.probability
            if enough or total + waiting[-1].duration > config.total_s:
                break
            parts.append(waiting.pop())
        joined.append(_concatenate(parts, config, rng))
    return CutSet.from_cuts(joined)


def _voiced(cut: Cut) -> MonoCut:
    start, end = (cut.custom or {}).get("voiced", (0.0, cut.duration))
    voiced = cut.truncate(offset=start, duration=end - start, preserve_id=True)
    assert isinstance(voiced, MonoCut)
    return voiced


def _concatenate(parts: Sequence[MonoCut], config: JoinConfig, rng: np.random.Generator) -> Cut:
    """One cut of several, with silences drawn from `rng`."""
    joined: Cut = parts[0].pad(duration=parts[0].duration + rng.uniform(*config.edge_s), direction="left")
    for part in parts[1:]:
        joined = joined.pad(duration=joined.duration + rng.uniform(*config.gap_s)).append(part)
    return joined.pad(duration=joined.duration + rng.uniform(*config.edge_s))


def text_of(cut: Cut) -> str:
    """Transcript of a cut, in the order of time."""
    return "".join(s.text or "" for s in sorted(cut.supervisions, key=lambda s: s.start))


class SpeechDataset(Dataset[Batch]):
    """Map-style dataset over lists of cuts, as lhotse samplers yield them.

    augment: None for measuring. noises: what add_noise draws from.
    """

    def __init__(
        self,
        symbols: Symbols,
        frontend: FrontendConfig,
        cmvn: Cmvn,
        augment: AugmentConfig | None = None,
        noises: Sequence[Noise] = (),
        seed: int = 0,
    ) -> None:
        self.symbols, self.cmvn, self.augment, self.noises, self.seed = symbols, cmvn, augment, noises, seed
        self.frontend = Frontend(frontend, cmvn)

    def __getitem__(self, cuts: CutSet) -> Batch:
        """The padded batch of `cuts`."""
        rng = np.random.default_rng([self.seed, *next(iter(cuts)).supervisions[0].id.encode()])
        return self.collate([(self.windows(load(cut), rng), text_of(cut)) for cut in cuts])

    def windows(self, samples: Samples, rng: np.random.Generator) -> Float32[np.ndarray, "windows dim"]:
        """Model input of one utterance, changed at random if this dataset augments."""
        if self.augment is None:
            return self.frontend.whole(samples)
        frames = augmented_frames(samples, self.frontend.config, self.augment, self.noises, rng)
        c = self.frontend.config
        return spec_augment(self.cmvn(lfr(frames, c.lfr_m, c.lfr_n)), self.augment, rng, c.mel_bins)

    def collate(self, examples: Sequence[tuple[Float32[np.ndarray, "_ dim"], str]]) -> Batch:
        """Pad features with zeros and targets with -1."""
        tokens = [self.symbols.vocabulary.encode(text) for _, text in examples]
        feats, lengths = _pad([torch.from_numpy(windows) for windows, _ in examples], 0.0)
        targets, target_lengths = _pad([torch.tensor(ids) for ids in tokens], PADDING_ID)
        if not self.symbols.syllables:
            return Batch(feats, lengths, targets, target_lengths)
        syllables = [torch.tensor(self.symbols.syllable_ids(text)) for _, text in examples]
        return Batch(feats, lengths, targets, target_lengths, *_pad(syllables, PADDING_ID))


def load(cut: Cut) -> Samples:
    """Samples of a cut, mono."""
    audio = cut.load_audio()
    if audio is None:
        raise DataError(f"cut {cut.id} has no audio")
    return np.ascontiguousarray(audio[0], dtype=np.float32)


def _pad(rows: Sequence[torch.Tensor], value: float) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value), lengths


def augmented_frames(
    samples: Samples, frontend: FrontendConfig, config: AugmentConfig, noises: Sequence[Noise], rng: np.random.Generator
) -> Float32[np.ndarray, "frames mel"]:
    """Log-mel frames of one utterance, samples and frames changed at random."""
    speed = float(rng.uniform(*config.speed))
    return augment_frames(fbank(augment_samples(samples, speed, config, noises, rng), frontend), speed, config, rng)


def estimate_cmvn(
    cuts: Sequence[Cut], config: FrontendConfig, augment: AugmentConfig, noises: Sequence[Noise] = ()
) -> Cmvn:
    """Shift and scale that give the windows of `cuts` zero mean and unit variance, samples changed as in training.

    Without the changes, the digital silence of synthetic speech would inflate the variance of every bin.
    """
    count, rng = 0, np.random.default_rng(0)
    total, squares = np.zeros(config.input_dim), np.zeros(config.input_dim)
    for cut in cuts:
        frames = augmented_frames(load(cut), config, augment, noises, rng)
        windows = lfr(frames, config.lfr_m, config.lfr_n).astype(np.float64)
        count, total, squares = count + len(windows), total + windows.sum(0), squares + np.square(windows).sum(0)
    mean = total / count
    scale = 1 / np.sqrt(squares / count - mean**2)
    return Cmvn(shift=-mean.astype(np.float32), scale=scale.astype(np.float32))


def epoch_plan(cuts: CutSet, join: JoinConfig, config: BatchConfig, epoch: int) -> list[CutSet]:
    """The cuts of each batch of one epoch; joints, order and batches depend on the epoch alone."""
    joined = join_cuts(cuts, join, np.random.default_rng(epoch))
    fitting = joined.filter(lambda cut: cut.duration <= config.longest_s)
    sampler = DynamicBucketingSampler(
        fitting.repeat(times=1, preserve_id=True),  # lazy, which this sampler insists on
        max_duration=config.seconds,
        num_buckets=config.buckets,
        shuffle=True,
        seed=epoch,
        drop_last=False,
        rank=0,
        world_size=1,
    )
    return list(sampler)


def load_batches(plan: Sequence[CutSet], dataset: SpeechDataset, workers: int) -> Iterator[Batch]:
    """The batches of `plan`, loaded ahead by worker processes."""
    prefetch = 8 if workers else None
    loader = DataLoader(dataset, sampler=plan, batch_size=None, num_workers=workers, prefetch_factor=prefetch)
    return iter(loader)


def measuring_batches(cuts: Iterable[Cut], dataset: SpeechDataset, size: int = 20) -> Iterator[tuple[Batch, list[str]]]:
    """Batches of `size` utterances of like length, as they are, with their transcripts."""
    order = sorted(cuts, key=lambda cut: cut.duration)
    for first in range(0, len(order), size):
        part = order[first : first + size]
        yield dataset[CutSet.from_cuts(part)], [text_of(cut) for cut in part]
