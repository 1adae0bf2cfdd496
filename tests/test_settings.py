"""Every number of every setting has a range in which it means something, and is refused beyond it by its name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import reduce
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from paraformer.config import (
    ChunkConfig,
    ConformerEncoderConfig,
    ContextualConfig,
    FrontConfig,
    ModelConfig,
    ObjectiveConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
    SeacoConfig,
    TextConfig,
    TrainingChunk,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
    WindowsConfig,
)
from paraformer.errors import ConfigError
from paraformer.segment import SegmentConfig
from paraformer.settings import _bounds
from paraformer.train.config import TrainConfig

MODELS = [
    ModelConfig(
        vocab_size=9,
        encoder=SanmEncoderConfig(front=FrontConfig(), windows=WindowsConfig(dim=512, heads=4)),
        decoder=SanmDecoderConfig(text=TextConfig()),
    ),
    ModelConfig(vocab_size=9, hotwords=SeacoConfig(no_bias_id=8)),
    ModelConfig(vocab_size=9, hotwords=ContextualConfig()),
    ModelConfig(vocab_size=9, training_chunks=(TrainingChunk(size=10, stride=5),)),
    ModelConfig(vocab_size=9, encoder=ConformerEncoderConfig(), decoder=TransformerDecoderConfig()),
    ModelConfig(vocab_size=9, encoder=TransformerEncoderConfig(), decoder=TransformerDecoderConfig()),
]
WHOLES: list[Any] = [
    SegmentConfig(),
    *MODELS,
    TrainConfig(
        model=dataclasses.replace(MODELS[1], live=ChunkConfig()),
        train_sets=("a",),
        dev_set="b",
        steps=1,
        train_h=1.0,
        patience=1,
        init="x",
        lora_rank=1,
    ),
]


def numbers(settings: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The paths of all settings that are numbers, and not one of a few choices."""
    hints = get_type_hints(type(settings))
    for name, value in vars(settings).items():
        first = value[0] if isinstance(value, tuple) and value else value
        if dataclasses.is_dataclass(value):
            yield from numbers(value, *path, name)
        elif isinstance(first, int | float) and not isinstance(first, bool) and get_origin(hints[name]) is not Literal:
            yield (*path, name)


def at(whole: Any, path: tuple[str, ...]) -> Any:
    return reduce(getattr, path, whole)


def changed(settings: Any, path: tuple[str, ...], value: Any) -> Any:
    if len(path) > 1:
        value = changed(getattr(settings, path[0]), path[1:], value)
    return dataclasses.replace(settings, **{path[0]: value})


@pytest.mark.parametrize("whole", WHOLES, ids=lambda whole: type(whole).__name__)
def test_every_number_has_a_range(whole: Any) -> None:
    for path in numbers(whole):
        bounds, now = _bounds(at(whole, path[:-1]).__class__)[path[-1]], at(whole, path)
        assert bounds is not None, path
        first, *rest = now if isinstance(now, tuple) else (now,)
        beyond = (1e308, math.inf, -math.inf, math.nan) if isinstance(first, float) else (10**30,)
        for wrong in (bounds.least - 1, bounds.most + 1, *beyond):
            with pytest.raises(ConfigError, match=f"{path[-1]}|chunk setting|look-back"):
                changed(whole, path, (wrong, *rest) if isinstance(now, tuple) else wrong)


def test_no_part_of_a_model_or_a_run_is_left_out_above() -> None:
    seen = {type(at(whole, path[:-1])) for whole in WHOLES for path in numbers(whole)} | {TrainingChunk}
    for kind in (TrainConfig, ModelConfig, SanmEncoderConfig, SanmDecoderConfig):
        for hint in get_type_hints(kind).values():
            assert {part for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part)} <= seen


def test_an_edge_of_a_range_is_in_it() -> None:
    objective = ObjectiveConfig(ctc_weight=1.0, label_smoothing=1.0, sampling_ratio=0.0, mwer_weight=1000.0)
    assert ModelConfig(vocab_size=0, objective=objective).objective == objective
