"""Batches of few shapes, as CUDA graphs need them, and bfloat16: the laws on the CPU, where nothing is captured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import paraformer
from paraformer import audio, loader
from paraformer.backends.base import Decoded
from paraformer.backends.captured import Captured, bucket, filled
from paraformer.backends.torch import TorchBackend
from paraformer.checkpoint import open_any
from paraformer.config import ChunkConfig
from paraformer.model.paraformer import Paraformer

CHUNK = ChunkConfig(left=2, chunk=4, right=2, encoder_look_back=1, decoder_look_back=1)
SAMPLES = sorted((Path(paraformer.__file__).parent / "samples").glob("*.flac"))


@cache
def backend(**how: Any) -> TorchBackend:
    model = Paraformer(tiny.config())
    model.load_state_dict(tiny.model().state_dict())
    return TorchBackend(model, **how)


def feats(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + rows).standard_normal((rows, tiny.config().frontend.input_dim)).astype("f4")


def same(got: Decoded, expected: Decoded) -> None:
    np.testing.assert_array_equal(got.ids, expected.ids)
    np.testing.assert_allclose(got.confidences, expected.confidences, atol=1e-5)
    np.testing.assert_allclose(got.weights, expected.weights, atol=1e-5)
    assert (got.units is None) == (expected.units is None)
    if got.units is not None and expected.units is not None:
        np.testing.assert_allclose(got.units, expected.units, atol=1e-4)


@given(st.integers(1, 100_000))
def test_a_bucket_is_at_most_half_as_large_again(count: int) -> None:
    assert count <= bucket(count) <= max(1.5 * count, 2)
    assert bucket(bucket(count)) == bucket(count) <= bucket(count + 1)


def test_what_is_filled_up_is_there_first() -> None:
    assert filled([1, 2, 3, 4, 5]) == [1, 2, 3, 4, 5, 5]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7))
def test_few_shapes_change_no_utterance(rows: list[int]) -> None:
    utterances = [feats(count, seed) for seed, count in enumerate(rows)]
    for got, expected in zip(
        backend(few_shapes=True).whole(utterances), backend(few_shapes=False).whole(utterances), strict=True
    ):
        same(got, expected)


@given(st.lists(st.integers(0, 13), min_size=1, max_size=5))
def test_few_shapes_change_no_stream(rows: list[int]) -> None:
    """Streams of any length, which end at different steps, as a batch that becomes smaller."""
    streams = [feats(count, seed) for seed, count in enumerate(rows)]
    plain, few = (stepped(backend(few_shapes=which), streams) for which in (False, True))
    for ours, theirs in zip(few, plain, strict=True):
        for got, expected in zip(ours, theirs, strict=True):
            same(got, expected)


def stepped(engine: TorchBackend, streams: list[np.ndarray]) -> list[list[Decoded]]:
    """What each step of each stream comes to."""
    states = [engine.init_state(CHUNK) for _ in streams]
    said: list[list[Decoded]] = [[] for _ in streams]
    for start in range(0, max(map(len, streams)) + 1, CHUNK.chunk):
        alive = [number for number, stream in enumerate(streams) if start <= len(stream)]
        frames = [streams[number][start : start + CHUNK.chunk] for number in alive]
        final = [len(part) < CHUNK.chunk for part in frames]
        decoded, following = engine.step(frames, final, [states[number] for number in alive], CHUNK)
        for number, one, state in zip(alive, decoded, following, strict=True):
            said[number].append(one)
            states[number] = state
    return said


def test_all_lengths_and_numbers_take_few_shapes() -> None:
    seen: set[tuple[object, ...]] = set()

    def noting(setting: object, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.add((setting, *(tensor.shape for tensor in tensors)))
        return engine._heard(setting, *tensors)  # type: ignore[arg-type]

    engine = TorchBackend(Paraformer(tiny.config()), few_shapes=True)
    engine._hear = Captured(noting)
    for count in range(1, 9):
        for rows in range(1, 50, 4):
            engine.whole([feats(rows)] * count)
    assert len(seen) <= 6 * 10


@pytest.fixture
def valueless(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paraformer]:
    """A model of tensors that have only shapes: looking at a value, for which a card would be waited for, raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    with torch.device("meta"), torch.inference_mode():
        yield Paraformer(tiny.config()).eval()


@pytest.mark.parametrize("tokens", [1, 12])
def test_nothing_that_is_captured_waits_for_a_value(tokens: int, valueless: Paraformer) -> None:
    config, counts = valueless.config, torch.empty(3, dtype=torch.int64)
    heard = valueless.hear(torch.empty(3, 24, config.frontend.input_dim), counts)
    assert valueless.spell(heard, tokens).log_probs.shape == (3, tokens, config.vocab_size)
    state = valueless.init_state(3, CHUNK, torch.device("meta"))
    frames, final = torch.empty(3, CHUNK.chunk, config.frontend.input_dim), torch.empty(3, dtype=torch.bool)
    output, after = valueless.step(frames, counts, final, state, CHUNK, tokens)
    assert output.logits.shape == (3, tokens, config.vocab_size)
    shapes, before = ({name: one.shape for name, one in which.tensors().items()} for which in (after, state))
    assert shapes == before


def test_what_has_to_be_waited_for_is_noticed(valueless: Paraformer) -> None:
    feats, lengths = torch.empty(1, 9, valueless.config.frontend.input_dim), torch.empty(1, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="meta"):
        valueless.recognize(feats, lengths)


@cache
def shipped(precision: Any) -> paraformer.Recognizer:
    bundle, model = open_any(loader.locate(None))
    return paraformer.Recognizer(bundle, TorchBackend(model, precision=precision, few_shapes=True))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_bfloat16_hears_what_float32_hears(sample: Path) -> None:
    """Whole and live: not a character more or less, and confidences within 0.05."""
    exact, fast = shipped("float32").transcribe(sample), shipped("bfloat16").transcribe(sample)
    assert fast.text == exact.text
    np.testing.assert_allclose([t.confidence for t in fast.tokens], [t.confidence for t in exact.tokens], atol=0.05)
    live = []
    for precision in ("float32", "bfloat16"):
        session = shipped(precision).stream()
        session.feed(audio.read(sample))
        session.end()
        shipped(precision).advance([session])
        live.append(session.transcript().text)
    assert live[0] == live[1]


def test_names_tell_the_precision() -> None:
    assert shipped("bfloat16").engine == "torch bfloat16"
    assert shipped("float32").engine == "torch float32"


@pytest.mark.gpu
def test_captured_on_a_card_is_what_is_called_there() -> None:
    model = tiny.model()
    called, captured = (TorchBackend(model, "cuda", few_shapes=which) for which in (False, True))
    utterances = [feats(rows) for rows in (3, 17, 40)]
    for _ in range(2):  # captured, then replayed
        for got, expected in zip(captured.whole(utterances), called.whole(utterances), strict=True):
            np.testing.assert_array_equal(got.ids, expected.ids)
            np.testing.assert_allclose(got.confidences, expected.confidences, atol=1e-4)
    for ours, theirs in zip(stepped(captured, utterances), stepped(called, utterances), strict=True):
        for got, expected in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(got.ids, expected.ids)
