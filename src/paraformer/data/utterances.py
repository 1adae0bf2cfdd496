"""Cuts as evaluation takes them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from lhotse.cut import Cut

from paraformer.data.reading import load
from paraformer.manifests import Utterance, speakers


def utterances(cuts: Iterable[Cut]) -> list[Utterance]:
    """With their texts as written, figures and all."""
    return [Utterance(cut.id, _written(cut), speaker_of(cut), partial(load, cut)) for cut in cuts]


def speaker_of(cut: Cut) -> str:
    """Who speaks in a cut, nothing where nobody is named."""
    return speakers(said.speaker for said in cut.supervisions)


def _written(cut: Cut) -> str:
    return " ".join(said.text or "" for said in sorted(cut.supervisions, key=lambda one: one.start))
