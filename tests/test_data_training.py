"""A training run over shards with everything in them that data can do wrong."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
from training import CONFIG, prepared

from paraformer.data.augment import AugmentConfig
from paraformer.data.dataset import BatchConfig
from paraformer.data.prepare import load_cuts
from paraformer.data.shar import open_shar, write_shar
from paraformer.data.skips import Skips
from paraformer.errors import DataError
from paraformer.train.loop import train

SHARDS = dataclasses.replace(CONFIG, train_sets=("tones", "shards"), held_out=2, steps=12)


def bad_shards(data: Path) -> None:
    """Shards of the tones: one utterance is damaged, one has no text, one is too long."""
    cuts = list(load_cuts(data, "tones"))
    cuts[1].supervisions[0].text = "……"
    cuts[2] = cuts[2].append(cuts[3]).append(cuts[3]).append(cuts[3])
    cuts[2].id = "long"
    write_shar(cuts, data / "shards", Skips("stop"))
    path, offset, size = list(open_shar(data / "shards"))[5].custom["shard"]
    held = bytearray(Path(path).read_bytes())
    held[offset : offset + size] = b"\xa5" * size
    Path(path).write_bytes(held)


def test_a_run_over_bad_shards_goes_on_or_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = prepared(tmp_path)
    bad_shards(data)
    batch = BatchConfig(seconds=6.0, buckets=2, longest_s=2.0)
    every = AugmentConfig(room_probability=0.5, codec_probability=0.5)
    config = dataclasses.replace(SHARDS, batch=batch, augment=every)
    with caplog.at_level(logging.WARNING, "paraformer.data"):
        train(config, data, tmp_path / "run")
    for name, reason in (("tones-5", "unreadable audio"), ("tones-1", "empty text"), ("2", "too long")):
        assert any(name in message and reason in message for message in caplog.messages), reason
    stopping = dataclasses.replace(config, batch=dataclasses.replace(batch, on_bad="stop"))
    with pytest.raises(DataError, match="mend or remove it"):
        train(stopping, data, tmp_path / "stopped")
