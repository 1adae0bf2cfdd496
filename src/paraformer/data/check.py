"""The doctor: what in a set of utterances would harm training, or make its results look better than they are."""

from __future__ import annotations

import hashlib
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from jaxtyping import Float16
from lhotse.cut import Cut

from paraformer.audio import SAMPLE_RATE, Samples
from paraformer.config import FrontendConfig
from paraformer.data.prepare import UNKNOWN, spoken_text
from paraformer.data.reading import name_of, readable, voiced_span
from paraformer.data.skips import EMPTY, Skips
from paraformer.errors import DataError
from paraformer.fbank import fbank
from paraformer.text import Vocabulary

RATE, ODD, CHARACTERS, SILENT = "other sample rate", "odd text", "unknown characters", "silent audio"
DURATION, SPEED = "duration out of line", "speaking rate out of line"
SHARED, TWOFOLD = "shared with the test set", "same sound, another text"
"""Kinds of problems, beside the reasons for which an utterance is left out altogether."""
SHORTEST_S, LONGEST_S = 0.2, 30.0
SLOWEST, FASTEST = 0.7, 12.0
"""Characters per second that nobody speaks at: Mandarin is read at 3 to 6."""
FAR, ENOUGH = 3.0, 20
"""A speaking rate this many times the median, or less of it, is out of line; among so many utterances at least."""
_SILENCE = 10 ** (-60 / 20)
_SLICES, _FRAMES, _BANDS, _FAINT = 32, FrontendConfig(mel_bins=16), 10, 1e-2
"""Of a sound's outline: slices of time; bands below 3.5 kHz, which a telephone lets through; energy beside the most."""
_ALIKE, _AS_LONG = 0.97, 5
"""Outlines of one recording correlate more than this and differ by less than so many frames; measured on 14 clips, most
of them single words: lossy codings keep 0.989 (of one 0.89), other takes of the same word by the same voice 0.966."""
_MARKUP = frozenset("<>[]{}|\\=_")


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one utterance."""

    kind: str
    id: str
    detail: str


@dataclass(frozen=True)
class Outline:
    """What stays of a sound whatever its level, its coding and the silence around it.

    length: frames from the first loud one to the last. cells: loudness in 32 slices of these by 10 bands, of zero mean
    and unit norm, so that a dot product is a correlation; zeros where there is too little to tell by.
    """

    length: int
    cells: Float16[np.ndarray, " cells"]

    @classmethod
    def of(cls, samples: Samples) -> Outline:
        """The outline of an utterance."""
        frames = fbank(samples, _FRAMES)[:, :_BANDS]
        energies = np.exp(frames).sum(1)
        loud = np.flatnonzero(energies >= _FAINT * energies.max(initial=0))
        if not len(loud) or loud[-1] + 1 - loud[0] < _SLICES:
            return cls(len(loud), np.zeros(_SLICES * _BANDS, np.float16))
        within = np.exp(0.3 * frames[loud[0] : loud[-1] + 1])  # near to how loud it seems: faint bands count little
        cells = np.concatenate([part.mean(0) for part in np.array_split(within, _SLICES)])
        cells -= cells.mean()
        return cls(len(within), (cells / max(float(np.linalg.norm(cells)), 1e-9)).astype(np.float16))


@dataclass(frozen=True)
class Heard:
    """One utterance as found. text: as written. digest: of its samples."""

    id: str
    text: str
    rate: int
    duration_s: float
    voiced_s: float
    peak: float
    digest: bytes
    outline: Outline

    @property
    def silent(self) -> bool:
        """Whether there is nothing to hear."""
        return self.peak < _SILENCE

    @property
    def spoken(self) -> str:
        """What is spoken of its text."""
        return spoken_text(self.text)

    @property
    def speed(self) -> float:
        """Chinese characters and Latin words per second from the first sound to the last."""
        return len(spoken_words(self.spoken)) / max(self.voiced_s, 1e-3)


@dataclass(frozen=True)
class Report:
    """What was heard, and all that is wrong with it."""

    heard: Sequence[Heard]
    findings: Sequence[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def check(cuts: Iterable[Cut], skips: Skips, vocabulary: Vocabulary | None = None, test: Iterable[Cut] = ()) -> Report:
    """Listen to every utterance of `cuts` and of a test set and report what is wrong.

    skips: what opening the data left out already; counts as found. vocabulary: of the model that the data are for;
    without one, the test set is held to the characters of `cuts`. Whether an utterance is shared, its sound tells, at
    any level, in any coding and with any silence around it; its transcript may be another.
    """
    training, testing = list(listen(cuts, skips)), list(listen(test, skips))
    heard = [*training, *testing]
    findings = [Finding(skipped.reason, skipped.id, skipped.detail) for skipped in skips.found]
    findings += [finding for one in heard for finding in faults(one)]
    findings += _unusual_speeds(heard)
    if vocabulary is not None:
        findings += [finding for one in heard for finding in _outside(one, known_to(vocabulary, one))]
    elif testing:
        learned = {word for one in training for word in spoken_words(one.spoken)}
        findings += [finding for one in testing for finding in _outside(one, learned)]
    return Report(heard, [*findings, *_twofold(heard), *_shared(training, testing)])


def listen(cuts: Iterable[Cut], skips: Skips) -> Iterator[Heard]:
    """Every utterance that can be read; the others go to `skips`."""
    for cut, samples in readable(cuts, skips):
        start, end = voiced_span(samples)
        text = " ".join(said.text or "" for said in cut.supervisions)
        rate, peak = int(cut.recording.sampling_rate), float(np.abs(samples).max())
        digest, outline = _digest(samples), Outline.of(samples)
        yield Heard(name_of(cut), text, rate, len(samples) / SAMPLE_RATE, end - start, peak, digest, outline)


def _digest(samples: Samples) -> bytes:
    """The same for the same sound in any lossless file."""
    return hashlib.blake2b(np.round(samples * 32767).astype(np.int16).tobytes(), digest_size=16).digest()


def spoken_words(spoken: str) -> list[str]:
    """Chinese characters, Latin words and single digits of a spoken text.

    >>> spoken_words("今天hello world好12")
    ['今', '天', 'hello', 'world', '好', '1', '2']
    """
    found: list[str] = []
    latin = False
    for character in spoken:
        goes_on = character.isascii() and character.isalpha()
        if latin and goes_on:
            found[-1] += character
        elif not character.isspace():
            found.append(character)
        latin = goes_on
    return found


def faults(one: Heard) -> Iterator[Finding]:
    """What is wrong with an utterance by itself."""
    if one.rate != SAMPLE_RATE:
        effect = "nothing above half of that" if one.rate < SAMPLE_RATE else "resampled at every load"
        yield Finding(RATE, one.id, f"{one.rate} Hz: {effect}")
    if not one.spoken:
        yield Finding(EMPTY, one.id, repr(one.text))
    if odd := _odd(one.text):
        yield Finding(ODD, one.id, odd)
    if one.silent:
        yield Finding(SILENT, one.id, "nothing above -60 dB")
    if not SHORTEST_S <= one.duration_s <= LONGEST_S:
        yield Finding(DURATION, one.id, f"{one.duration_s:.2f} s")


def _odd(text: str) -> str:
    """What is strange about a transcript, nothing if it is plain."""
    found = {c: why for c in text if (why := _oddity(c))}
    shown = ", ".join(f"{c!r} {why}" for c, why in list(found.items())[:5])
    return f"{shown} in {text!r}" if found else ""


@cache
def _oddity(character: str) -> str:
    """Why a character should not be in a transcript."""
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    if category[0] == "C" or character == "\N{REPLACEMENT CHARACTER}":
        return "is not a character to read"
    if category[0] == "N" and character != "〇":
        return "can be read in more than one way"
    if category[0] == "L" and not name.removeprefix("FULLWIDTH ").startswith(("CJK", "LATIN")):
        return "is of another script"
    return "looks like markup" if character in _MARKUP else ""


def known_to(vocabulary: Vocabulary, one: Heard) -> set[str]:
    """The words of an utterance that a vocabulary has tokens for."""
    return {word for word in spoken_words(one.spoken) if _known(vocabulary, word)}


def _known(vocabulary: Vocabulary, word: str) -> bool:
    try:
        return UNKNOWN not in map(vocabulary.token, vocabulary.encode(word))
    except DataError:  # it has no token for what is unknown either
        return False


def _outside(one: Heard, known: set[str]) -> Iterator[Finding]:
    if outside := [word for word in dict.fromkeys(spoken_words(one.spoken)) if word not in known]:
        yield Finding(CHARACTERS, one.id, f"{' '.join(outside[:10])} in {one.text!r}")


def _unusual_speeds(heard: Sequence[Heard]) -> Iterator[Finding]:
    """Utterances that are read faster or slower than anyone speaks, or than the others by far."""
    said = [one for one in heard if one.spoken]
    low, high = SLOWEST, FASTEST
    if len(said) >= ENOUGH:
        median = float(np.median([one.speed for one in said]))
        low, high = max(low, median / FAR), min(high, median * FAR)
    for one in said:
        if not low <= one.speed <= high:
            yield Finding(SPEED, one.id, f"{one.speed:.1f} per second: {one.text!r} in {one.voiced_s:.2f} s")


def _twofold(heard: Iterable[Heard]) -> Iterator[Finding]:
    """Utterances whose very samples have another transcript elsewhere."""
    first: dict[bytes, Heard] = {}
    for one in heard:
        other = first.setdefault(one.digest, one)
        if other.spoken != one.spoken and not one.silent:
            yield Finding(TWOFOLD, one.id, f"{one.text!r}, and {other.text!r} in {other.id}")


def _shared(training: Iterable[Heard], testing: Iterable[Heard]) -> Iterator[Finding]:
    """Utterances that are in both sets."""
    tested = sorted((one for one in testing if not one.silent), key=lambda one: one.outline.length)
    lengths, exact = [one.outline.length for one in tested], {one.digest: one for one in tested}
    for one in training:
        first = bisect_left(lengths, one.outline.length - _AS_LONG)
        last = bisect_right(lengths, one.outline.length + _AS_LONG)
        other = exact.get(one.digest) or _alike(one, tested[first:last])
        if other is not None:
            yield Finding(SHARED, one.id, f"is {other.id} there" + f" as {other.text!r}" * (other.spoken != one.spoken))


def _alike(one: Heard, others: Sequence[Heard]) -> Heard | None:
    """The one of these that sounds the same, if any does."""
    if not others:
        return None
    cells = np.stack([other.outline.cells for other in others]).astype(np.float32)
    correlations = cells @ one.outline.cells.astype(np.float32)
    best = int(correlations.argmax())
    return others[best] if correlations[best] > _ALIKE else None
