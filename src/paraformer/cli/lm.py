"""`paraformer lm`: a language model from texts, put beside a model's weights."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from paraformer import contract
from paraformer.bundle import Bundle
from paraformer.certificate.record import FILE as CERTIFICATE
from paraformer.cli.complain import complain
from paraformer.errors import DataError, ModelError
from paraformer.language import LanguageModel, sentences_of
from paraformer.text import Vocabulary


def lm(options: argparse.Namespace) -> int:
    """Count, write, and say what came of it."""
    bundle = Bundle.open(options.model)
    path = options.model / contract.LM
    if path.exists() and not options.overwrite:
        raise ModelError(f"{path} exists already: add --overwrite to replace it, or give a copy of the model")
    vocabulary = Vocabulary(bundle.tokens, bundle.words)
    counted = LanguageModel.count(
        sentences_of(_lines(options.texts), vocabulary),
        len(vocabulary),
        least_bigram=options.least[0],
        least_trigram=options.least[1],
    )
    counted.save(path)
    bundle.save(options.model)  # for the checksum
    if (options.model / CERTIFICATE).is_file():
        complain(
            "the certificate is of the model without this; make it anew with `paraformer export`", str(options.model)
        )
    print(f"{path}: {counted.bigrams} bigrams, {counted.trigrams} trigrams, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _lines(paths: Iterable[Path]) -> Iterator[str]:
    """Raises DataError for a file that is not text."""
    for path in paths:
        try:
            with path.open(encoding="utf-8") as file:
                yield from file
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not UTF-8 text: {error.reason} at byte {error.start}; convert it first"
            ) from error
