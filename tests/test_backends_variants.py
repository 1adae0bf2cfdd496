"""The package's own engine on models with more than encoder, predictor and decoder, and with the first predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from test_model_hotwords import variant

from paraformer.backends import native, panels
from paraformer.backends.base import Decoded
from paraformer.backends.graphs import GraphBackend
from paraformer.backends.torch import TorchBackend
from paraformer.config import (
    ContextualConfig,
    ModelConfig,
    ObjectiveConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SeacoConfig,
    TimingConfig,
)
from paraformer.model.paraformer import Paraformer
from paraformer.native import families
from paraformer.weights import Stored

pytestmark = pytest.mark.skipif(not native.available("float32"), reason="the engine was not built")
SEACO = SeacoConfig(bidirectional=True, heads=2, ffn_dim=24, layers=3, attention_layers=2, kernel=5, no_bias_id=3)
FINE = TimingConfig(rate=2, recurrent=True, from_conv=True)
KINDS = ("bicif", "seaco", "contextual", "first", "both ways", "not recurrent", "decoder's words")
WORDS: dict[str, list[list[int]] | None] = {
    "nobody asked": None,
    "none": [],
    "few": [[5, 9, 14], [20, 21], [7], [23, 12, 20, 8, 3]],
    "many": [[3 + n % 20, 4 + n % 7, 5 + n % 11][: 1 + n % 3] for n in range(70)],
}


def drawn(**parts: object) -> Paraformer:
    """A tiny model with random weights, for whole utterances alone."""
    config: ModelConfig = replace(tiny.config(), live=None, **parts)
    torch.manual_seed(5)
    model = Paraformer(config).eval()
    with torch.no_grad():
        model.predictor.output.weight.mul_(4.0)
        model.decoder.output.weight.mul_(6.0)
    return model


@cache
def model(kind: str) -> Paraformer:
    whole = replace(tiny.config().decoder, shift=0, layers=3)
    assert isinstance(whole, SanmDecoderConfig)
    match kind:
        case "first":
            return drawn(predictor=PredictorConfig(version=1, left=2, right=1))
        case "both ways":
            return drawn(decoder=whole, predictor=PredictorConfig(timing=FINE), hotwords=SEACO)
        case "not recurrent":
            return drawn(predictor=PredictorConfig(timing=replace(FINE, recurrent=False)))
        case "decoder's words":
            return drawn(decoder=whole, hotwords=ContextualConfig(own_embedding=False, recurrent_layers=2))
    return variant(kind)


def engine(kind: str, precision: panels.Precision, threads: int = 1) -> GraphBackend:
    made = model(kind)
    return GraphBackend(native.NativeEngine(made.state_dict(), made.config, precision, threads), made.config)


def whole(backend: TorchBackend | GraphBackend, words: Sequence[Sequence[int]] | None) -> list[Decoded]:
    utterances = [np.random.default_rng(n).standard_normal((n, 560)).astype(np.float32) for n in (33, 1, 80)]
    return backend.whole(utterances, None if words is None else backend.encode_hotwords(words))


def cases() -> list[tuple[str, str]]:
    listening = ("seaco", "contextual", "both ways", "decoder's words")
    return [(kind, words) for kind in KINDS for words in (WORDS if kind in listening else ["nobody asked"])]


@pytest.mark.parametrize(("kind", "words"), cases())
@pytest.mark.parametrize("family", families())
def test_every_variant_is_as_torch_has_it(kind: str, words: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAFORMER_ISA", family)
    expected, got = whole(TorchBackend(model(kind)), WORDS[words]), whole(engine(kind, "float32", 2), WORDS[words])
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.ids, two.ids)
        np.testing.assert_allclose(one.confidences, two.confidences, atol=1e-4)
        np.testing.assert_allclose(one.weights, two.weights, atol=1e-5)
        assert (one.fine is None) == (two.fine is None)
        if one.fine is not None and two.fine is not None:
            np.testing.assert_allclose(one.fine, two.fine, atol=1e-5)


@pytest.mark.parametrize(("kind", "words"), cases())
def test_no_number_depends_on_threads_or_on_where_weights_come_from(kind: str, words: str, tmp_path: Path) -> None:
    if not native.available("int8"):
        pytest.skip("this processor has no int8")
    made = model(kind)
    panels.save(native.packed(made.state_dict(), made.config), tmp_path / "packed")
    stored = native.NativeEngine(Stored(tmp_path / "packed", mapped=True), made.config, "int8", 3)
    alone, together = (whole(one, WORDS[words]) for one in (engine(kind, "int8"), GraphBackend(stored, made.config)))
    for one, two in zip(alone, together, strict=True):
        for name in ("ids", "scores", "weights", *(["fine"] if one.fine is not None else [])):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("precision", "close"), [("bfloat16", 0.03), ("int8", 0.05)])
def test_other_precisions_are_near(kind: str, precision: panels.Precision, close: float) -> None:
    """Weights, of which few are enough; scores of tokens where as many are heard."""
    if not native.available(precision):
        pytest.skip(f"this processor has no {precision}")
    words = None if model(kind).config.hotwords is None else []
    got, expected = (whole(engine(kind, one), words) for one in (precision, "float32"))
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_allclose(one.weights, two.weights, atol=close)
        if one.fine is not None and two.fine is not None and len(one.ids) == len(two.ids):
            np.testing.assert_allclose(one.fine, two.fine, atol=close)


@pytest.mark.parametrize("kind", [*KINDS, *tiny.KINDS])
def test_shapes_are_those_of_all_tensors(kind: str) -> None:
    made = tiny.model(kind) if kind in tiny.KINDS else model(kind)
    assert native.shapes(made.config) == {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}


def test_shapes_with_ctc_are_those_of_all_tensors() -> None:
    config = replace(tiny.config(), objective=ObjectiveConfig(ctc_weight=0.3))
    expected = {name: tuple(tensor.shape) for name, tensor in Paraformer(config).state_dict().items()}
    assert native.shapes(config) == expected
