"""Cuts to training batches: join short ones, sort by length into batches, load, change, compute features, pad."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from lhotse import CutSet
from lhotse.cut import Cut, MonoCut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lhotse.dataset.sampling.base import TimeConstraint
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from lhotse.utils import fastcopy
from torch.utils.data import Dataset

from paraformer.audio import Samples
from paraformer.config import FrontendConfig
from paraformer.data.augment import AugmentConfig, Noise, augment_frames, augment_samples, spec_augment
from paraformer.data.prepare import UNKNOWN, spoken_text
from paraformer.data.reading import VOICED, at_rate, load, name_of, readable, skipped
from paraformer.data.skips import EMPTY, TOO_LONG, Policy, Skipped, Skips
from paraformer.data.skips import UNKNOWN as UNKNOWN_TEXT
from paraformer.errors import DataError, attempt
from paraformer.frontend import Cmvn, Frontend
from paraformer.model.objective import Batch
from paraformer.settings import Between, Seconds, Share, Size, check_ranges
from paraformer.text import Vocabulary

_log = logging.getLogger(__name__)

PADDING_ID = -1
NO_SPEECH = "zxx"
"""Language of a supervision in which nothing is said (ISO 639-2: no linguistic content)."""
BABBLERS = 8
"""Utterances of a batch that the next one may hear as voices in the background."""
MEASURED_S = 60.0
"""Longer utterances are not measured with: memory for decoding grows with the square of the length."""
_UNITS = re.compile(r"[a-z]+|\S")
"""Of spoken text: Latin words, single characters."""


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """How clips are strung together, so that single words come to look like sentences."""

    clips: Size = 5
    """At most so many in one utterance."""
    total_s: Seconds = 8.0
    """No clip is added that would make the utterance longer than this."""
    gap_s: tuple[Seconds, Seconds] = (0.0, 0.25)
    """Silence between clips."""
    edge_s: tuple[Seconds, Seconds] = (0.0, 0.4)
    """Silence before and after the utterance."""
    probability: Share = 0.7
    """Of adding one more clip, each time, to an utterance that is already long enough to stand alone."""
    alone_s: Seconds = 2.5


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Size of the batches, length of the utterances in them, and what becomes of those that cannot be used."""

    seconds: Annotated[float, Between(1e-3, 1e9)] = 150.0
    """Speech per batch, padding included."""
    buckets: Annotated[int, Between(2, 10_000)] = 12
    """Classes of like length, at least 2."""
    longest_s: Seconds = 12.0
    """Longer ones are left out."""
    on_bad: Policy = "skip"
    """Whether audio that cannot be read, text without a known character or too long an utterance ends the run."""

    def __post_init__(self) -> None:
        check_ranges(self, "batch")


@dataclass(frozen=True)
class Symbols:
    """Text to the ids of the tokens and, where the CTC layer has units of its own, of the syllables."""

    vocabulary: Vocabulary
    syllables: Mapping[str, int] = field(default_factory=dict)
    """Tone-marked pinyin to id, from 1; 0 is the blank."""

    def encode(self, text: str) -> list[int]:
        """Ids of the tokens of `text`; none if there is not one character that the vocabulary knows."""
        ids = self.vocabulary.encode(" ".join(_UNITS.findall(text)))  # word pieces are for words that stand alone
        return ids if any(self.vocabulary.token(i) != UNKNOWN for i in ids) else []

    def syllable_ids(self, text: str) -> list[int]:
        """Ids of the syllables of `text`; characters without a known reading are left out."""
        return [self.syllables[s] for s in syllables_of(text) if s in self.syllables]


def syllables_of(text: str) -> list[str]:
    """Pinyin with tone numbers, one per character; heteronyms are resolved by the words they stand in.

    >>> syllables_of("中国的银行")
    ['zhong1', 'guo2', 'de5', 'yin2', 'hang2']
    """
    from pypinyin import Style, lazy_pinyin

    return list(lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True))


def syllable_table(texts: Sequence[str]) -> dict[str, int]:
    """All syllables of `texts` in alphabetical order, numbered from 1.

    >>> syllable_table(["中国", "国"])
    {'guo2': 1, 'zhong1': 2}
    """
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
    start, end = (cut.custom or {}).get(VOICED, (0.0, cut.duration))
    voiced = at_rate(cut).truncate(offset=start, duration=end - start, preserve_id=True)
    assert isinstance(voiced, MonoCut)
    return voiced


def _concatenate(parts: Sequence[MonoCut], config: JoinConfig, rng: np.random.Generator) -> Cut:
    """One cut of several, with silences drawn from `rng`."""
    joined: Cut = parts[0].pad(duration=parts[0].duration + rng.uniform(*config.edge_s), direction="left")
    for part in parts[1:]:
        joined = joined.pad(duration=joined.duration + rng.uniform(*config.gap_s)).append(part)
    return joined.pad(duration=joined.duration + rng.uniform(*config.edge_s))


def text_of(cut: Cut) -> str:
    """What is spoken in a cut, in the order of time."""
    return spoken_text(" ".join(s.text or "" for s in sorted(cut.supervisions, key=lambda s: s.start)))


def nothing_said(cut: Cut) -> Cut:
    """The cut marked as having no speech, so that its empty text is taken for the truth and not for a fault."""
    return cut.map_supervisions(lambda s: fastcopy(s, text="", language=NO_SPEECH))


def says_nothing(cut: Cut) -> bool:
    """Whether all of the cut is marked so."""
    return bool(cut.supervisions) and all(s.language == NO_SPEECH for s in cut.supervisions)


class Example(NamedTuple):
    """One utterance as it goes into a batch. tokens: ids of its text."""

    windows: Float32[np.ndarray, "windows dim"]
    text: str
    tokens: list[int]


class Loaded(NamedTuple):
    """A padded batch of the utterances that could be used, None if there was none, and what was left out.

    names, texts: of the rows of the batch.
    """

    batch: Batch | None
    names: list[str]
    texts: list[str]
    skipped: list[Skipped]


class SpeechDataset(Dataset[Loaded]):
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

    def __getitem__(self, cuts: CutSet) -> Loaded:
        """The padded batch of `cuts`, changed by draws that depend on the seed and the first utterance alone."""
        rng = np.random.default_rng([self.seed, *name_of(next(iter(cuts))).encode()])
        examples, names, left_out = [], [], []
        voices = deque[Noise](maxlen=BABBLERS)
        for cut in cuts:
            example = self.example(cut, rng, voices)
            if isinstance(example, Skipped):
                left_out.append(example)
            else:
                examples.append(example)
                names.append(name_of(cut))
        batch = self.collate(examples) if examples else None
        return Loaded(batch, names, [example.text for example in examples], left_out)

    def example(
        self, cut: Cut, rng: np.random.Generator, voices: MutableSequence[Noise] | None = None
    ) -> Example | Skipped:
        """One utterance, or why it cannot be used. voices: those before it, which it joins."""
        made: Example | Skipped | None = None
        with attempt(name_of(cut)) as making:
            made = self._example(cut, rng, [] if voices is None else voices)
        if making.error is not None:
            return skipped(cut, making.error)
        assert made is not None
        return made

    def _example(self, cut: Cut, rng: np.random.Generator, voices: MutableSequence[Noise]) -> Example | Skipped:
        text, samples = text_of(cut), load(cut)
        tokens = self.symbols.encode(text)
        if tokens or says_nothing(cut):
            example = Example(self.windows(samples, rng, voices), text, tokens)
            if tokens:
                voices.append(samples)
            return example
        return Skipped(name_of(cut), UNKNOWN_TEXT if text else EMPTY, text)

    def windows(
        self, samples: Samples, rng: np.random.Generator, voices: Sequence[Noise] = ()
    ) -> Float32[np.ndarray, "windows dim"]:
        """Model input of one utterance, changed at random if this dataset augments."""
        if self.augment is None:
            return self.frontend.whole(samples)
        windows = augmented_windows(samples, self.frontend, self.augment, self.noises, rng, voices)
        return spec_augment(windows, self.augment, rng, self.frontend.config.mel_bins)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Pad features with zeros and targets with -1."""
        feats, lengths = _pad([torch.from_numpy(example.windows) for example in examples], 0.0)
        targets, target_lengths = _pad(
            [torch.tensor(example.tokens, dtype=torch.int64) for example in examples], PADDING_ID
        )
        if not self.symbols.syllables:
            return Batch(feats, lengths, targets, target_lengths)
        ids = [self.symbols.syllable_ids(example.text) for example in examples]
        syllables = [torch.tensor(units, dtype=torch.int64) for units in ids]
        return Batch(feats, lengths, targets, target_lengths, *_pad(syllables, PADDING_ID))


def _pad(rows: Sequence[torch.Tensor], value: float) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value), lengths


def augmented_windows(
    samples: Samples,
    frontend: Frontend,
    config: AugmentConfig,
    noises: Sequence[Noise],
    rng: np.random.Generator,
    voices: Sequence[Noise] = (),
) -> Float32[np.ndarray, "windows dim"]:
    """Model input of one utterance as recognition makes it, with samples and frames changed at random on the way."""
    speed = float(rng.uniform(*config.speed))
    frames = frontend.frames(augment_samples(samples, speed, config, noises, rng, voices))
    return frontend.windows(augment_frames(frames, speed, config, rng))


def estimate_cmvn(
    cuts: Sequence[Cut], config: FrontendConfig, augment: AugmentConfig, noises: Sequence[Noise] = ()
) -> Cmvn:
    """Shift and scale that give the windows of `cuts` zero mean and unit variance, samples changed as in training.

    Without the changes, the digital silence of synthetic speech would inflate the variance of every bin. What cannot
    be read is left out. Raises DataError where that is everything.
    """
    frontend, rng, skips = Frontend(config), np.random.default_rng(0), Skips()
    count, total, squares = 0, np.zeros(config.input_dim), np.zeros(config.input_dim)
    for _, samples in readable(cuts, skips):
        windows = augmented_windows(samples, frontend, augment, noises, rng).astype(np.float64)
        count, total, squares = count + len(windows), total + windows.sum(0), squares + np.square(windows).sum(0)
    if not count:
        raise DataError(f"CMVN cannot be estimated, because no audio can be read: {skips}; see `paraformer data check`")
    mean = total / count
    scale = 1 / np.sqrt(squares / count - mean**2)
    return Cmvn(shift=-mean.astype(np.float32), scale=scale.astype(np.float32))


def epoch_plan(
    cuts: CutSet, join: JoinConfig, config: BatchConfig, epoch: int, skips: Skips | None = None
) -> list[CutSet]:
    """The cuts of each batch of one epoch; joints, order and batches depend on the epoch alone.

    Cuts of shards are planned without their audio. What is too long goes to `skips`, by default one that follows
    config.on_bad. Raises DataError if nothing is left.
    """
    skips = Skips(config.on_bad) if skips is None else skips
    fitting = _fitting(join_cuts(cuts, join, np.random.default_rng(epoch)), config.longest_s, skips)
    if not fitting:
        raise DataError(f"no utterance is at most {config.longest_s} s long; raise longest_s or cut the audio")
    sampler = DynamicBucketingSampler(
        CutSet.from_cuts(fitting).repeat(times=1, preserve_id=True),  # lazy, which this sampler insists on
        max_duration=config.seconds,
        duration_bins=_bins(fitting, config),
        shuffle=True,
        seed=epoch,
        drop_last=False,
        rank=0,
        world_size=1,
    )
    return list(sampler)


def _fitting(cuts: Iterable[Cut], longest_s: float, skips: Skips) -> list[Cut]:
    """The cuts that are not too long."""
    fitting = []
    for cut in cuts:
        if cut.duration <= longest_s:
            fitting.append(cut)
        else:
            skips.add(Skipped(name_of(cut), TOO_LONG, f"{cut.duration:.2f} s"))
    return fitting


def _bins(cuts: Sequence[Cut], config: BatchConfig) -> list[float]:
    """Durations at which buckets begin; fewer buckets than asked for where there are few utterances."""
    buckets = min(config.buckets, len(cuts) // 2)
    constraint = TimeConstraint(max_duration=config.seconds)
    return (estimate_duration_buckets(cuts, buckets, constraint) if buckets > 1 else []) or [config.longest_s]


def measuring_batches(cuts: Iterable[Cut], dataset: SpeechDataset, size: int = 20) -> Iterator[tuple[Batch, list[str]]]:
    """Batches of `size` utterances of like length, as they are, with their transcripts.

    What is bad is left out and told in one line, since the same sets are measured again and again. Raises DataError at
    the end if there was nothing to measure with: an error rate of nothing would say 0.
    """
    skips, characters = Skips(named=0), 0
    order = sorted(_fitting(cuts, MEASURED_S, skips), key=lambda cut: cut.duration)
    for first in range(0, len(order), size):
        loaded = dataset[CutSet.from_cuts(order[first : first + size])]
        skips.extend(loaded.skipped)
        characters += sum(map(len, loaded.texts))
        if loaded.batch is not None:
            yield loaded.batch, loaded.texts
    if skips.found:
        _log.warning("not measured with: %s, first %s; `paraformer data check` names all", skips, skips.found[0])
    if not characters:
        raise DataError(
            f"there is no utterance with a transcript to measure with: {skips}; see `paraformer data check`"
        )
