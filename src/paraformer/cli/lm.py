"""`paraformer lm`: a language model from texts, put beside a model's weights."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from paraformer import contract
from paraformer.bundle import Bundle
from paraformer.certificate.record import FILE as CERTIFICATE
from paraformer.cli.complain import complain
from paraformer.errors import DataError, MissingExtra, ModelError
from paraformer.language import LanguageModel, sentences_of
from paraformer.lexicon import Lexicon
from paraformer.mixture import Counts, mixed, tune
from paraformer.text import Vocabulary

MOST_READ = 1_000_000
"""Chinese characters of each text whose readings are counted: what a syllable is written as is known from fewer."""
_HAN = re.compile("[\u4e00-\u9fff]+")


def lm(options: argparse.Namespace) -> int:
    """Count, write, and say what came of it."""
    bundle = Bundle.open(options.model)
    path = options.model / contract.LM
    if path.exists() and not options.overwrite:
        raise ModelError(f"{path} exists already: add --overwrite to replace it, or give a copy of the model")
    vocabulary = Vocabulary(bundle.tokens, bundle.words)
    counted = _mixed(options, vocabulary) if options.dev else _counted(options, vocabulary)
    counted = counted.reading(_lexicon(options, bundle))
    counted.save(path)
    bundle.save(options.model)  # for the checksum
    if (options.model / CERTIFICATE).is_file():
        complain(
            "the certificate is of the model without this; make it anew with `paraformer export`", str(options.model)
        )
    print(f"{path}: {counted.bigrams} bigrams, {counted.trigrams} trigrams, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _counted(options: argparse.Namespace, vocabulary: Vocabulary) -> LanguageModel:
    """All texts as one."""
    two, three = options.least
    sentences = sentences_of(_lines(options.texts), vocabulary)
    return LanguageModel.count(sentences, len(vocabulary), least_bigram=two, least_trigram=three)


def _mixed(options: argparse.Namespace, vocabulary: Vocabulary) -> LanguageModel:
    """Each text with its weight, which is said."""
    texts = [Counts.of(sentences_of(_lines([path]), vocabulary), len(vocabulary)) for path in options.texts]
    weights, perplexity = tune(texts, sentences_of(_lines(options.dev), vocabulary))
    for path, text, weight in zip(options.texts, texts, weights.texts, strict=True):
        print(f"{path}: {text.items} items, weight {weight:.2g}")
    print(f"perplexity of the development text: {perplexity:.1f} before anything is cut")
    return mixed(texts, weights, options.megabytes)


def _lexicon(options: argparse.Namespace, bundle: Bundle) -> Lexicon | None:
    """How the texts' characters are read, for a model whose decoder hears syllables; None for another."""
    if not bundle.config.units or len(bundle.units) + 1 != bundle.config.units:
        return None
    try:
        from paraformer.data.dataset import syllables_of
    except ImportError as error:
        raise MissingExtra("this model hears syllables; reading texts for it", "train") from error
    items = {token: index for index, token in enumerate(bundle.tokens) if _HAN.fullmatch(token)}
    units = {name: number for number, name in enumerate(bundle.units, start=1)}

    def readings() -> Iterator[tuple[int, int]]:
        for text in (items, *(_lines([path]) for path in options.texts)):  # so no character is without a reading
            for run in _first(MOST_READ, text):
                pairs = zip(run, syllables_of(run), strict=True)
                yield from ((items[one], units.get(sound, 0)) for one, sound in pairs if one in items)

    return Lexicon.count(readings(), len(bundle.tokens), bundle.config.units)


def _first(most: int, lines: Iterable[str]) -> Iterator[str]:
    """The Chinese of lines, until it is so many characters."""
    for line in lines:
        for run in _HAN.findall(line):
            yield run
            most -= len(run)
        if most <= 0:
            return


def _lines(paths: Iterable[Path]) -> Iterator[str]:
    """Raises DataError for a file that is not text."""
    for path in paths:
        try:
            with path.open(encoding="utf-8-sig") as file:
                yield from file
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not UTF-8 text: {error.reason} at byte {error.start}; convert it first"
            ) from error
