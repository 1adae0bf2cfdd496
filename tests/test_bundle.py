from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from safetensors import SafetensorError

from paraformer.bundle import Bundle, making, replacing
from paraformer.config import ChunkConfig, ModelConfig, TrainingChunk
from paraformer.errors import AudioNotFound, ConfigError, ModelError, ModelNotFound
from paraformer.frontend import Cmvn

TOKENS = ("<blank>", "<s>", "</s>", "你", "好", "he@@", "llo", "<unk>")
CONFIG = ModelConfig(
    vocab_size=len(TOKENS), live=ChunkConfig(left=0), training_chunks=(TrainingChunk(size=12, stride=8),)
)
ROWS = arrays(np.float32, 560, elements=st.floats(-1e9, 1e9, width=32))
SCALES = arrays(np.float32, 560, elements=st.floats(0, 1e9, exclude_min=True, width=32))


def bundle(**changes) -> Bundle:
    fields = {
        "words": {"hello": ("he@@", "llo")},
        "card": {"licence": "Apache-2.0"},
        "units": ("yi1", "er4"),
        **changes,
    }
    return Bundle(None, fields.pop("config", CONFIG), fields.pop("tokens", TOKENS), **fields)


def saved(path: Path, **changes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(b"weights")
    bundle(**changes).save(path)
    return path


def edited(path: Path, **changes) -> Path:
    """A saved bundle whose config.json was changed; None removes a key."""
    values = {**json.loads((saved(path) / "config.json").read_text()), **changes}
    (path / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None or k == "cmvn"}))
    return path


def test_what_is_saved_is_opened(tmp_path):
    opened = Bundle.open(saved(tmp_path / "m"))
    assert opened.directory == tmp_path / "m"
    assert opened.config == CONFIG
    assert opened.tokens == TOKENS
    assert opened.cmvn is None
    assert opened.words == {"hello": ("he@@", "llo")}
    assert opened.units == ("yi1", "er4")
    assert opened.card == {"licence": "Apache-2.0"}
    opened.verify()


@given(shift=ROWS, scale=SCALES)
def test_cmvn_survives_exactly(tmp_path_factory, shift, scale):
    cmvn = Cmvn(shift, scale)
    opened = Bundle.open(saved(tmp_path_factory.mktemp("m"), cmvn=cmvn)).cmvn
    assert opened is not None
    assert opened.shift.dtype == np.float32
    assert opened.shift.tobytes() == cmvn.shift.tobytes()
    assert opened.scale.tobytes() == cmvn.scale.tobytes()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"format": 2}, ModelError, "format 2, this version reads 1"),
        ({"format": None}, ModelError, "format None"),
        ({"surprise": 1}, ConfigError, "unknown: surprise"),
        ({"tokens": None}, ConfigError, "missing: tokens"),
        ({"tokens": "abc"}, ConfigError, "tokens must be list, not str"),
        ({"tokens": [1] * len(TOKENS)}, ConfigError, "tokens must be strings"),
        ({"tokens": ["a"]}, ModelError, "1 tokens, but the model's vocabulary is 8"),
        ({"tokens": [*TOKENS[:-1], "你"]}, ModelError, "holds '你' twice"),
        ({"model": {**CONFIG.to_dict(), "layers": 3}}, ConfigError, "unknown setting in model: layers"),
        ({"model": {**CONFIG.to_dict(), "encoder": 3}}, ConfigError, "config.json"),
        ({"cmvn": {"shift": [1.0], "scale": [1.0]}}, ModelError, "1 values, but model input rows have 560"),
        ({"cmvn": {"shift": [1.0]}}, ConfigError, "shift and scale"),
        ({"cmvn": {"shift": [1.0] * 560, "scale": [0.0] * 560}}, ConfigError, "scales that are not above 0"),
        ({"cmvn": {"shift": [1.0] * 560, "scale": [-1.0] * 560}}, ConfigError, "scales that are not above 0"),
        ({"cmvn": {"shift": [1e39] * 560, "scale": [1.0] * 560}}, ConfigError, "shifts that are not finite"),
        ({"cmvn": {"shift": [1.0] * 560, "scale": [1e30] * 560}}, ConfigError, "scales that are not finite or beyond"),
        ({"cmvn": {"shift": [1.0] * 560, "scale": [float("nan")] * 560}}, ConfigError, "scales that are not finite"),
    ],
)
def test_wrong_settings_are_named(tmp_path, changes, kind, message):
    with pytest.raises(kind, match=message) as caught:
        Bundle.open(edited(tmp_path / "m", **changes))
    assert str(tmp_path / "m") in str(caught.value)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(ModelNotFound, match=r"no model directory .*nowhere"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        Bundle.open(tmp_path)
    bundle().save(tmp_path)
    with pytest.raises(ModelNotFound, match=r"model\.safetensors is missing"):
        Bundle.open(tmp_path)
    saved(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not JSON"):
        Bundle.open(tmp_path)


def test_verify_names_changed_and_missing_files(tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"graph")
    (tmp_path / "README.md").write_bytes(b"free to change")
    opened = Bundle.open(saved(tmp_path))
    (tmp_path / "README.md").write_bytes(b"changed")
    opened.verify()
    (tmp_path / "encoder.onnx").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"encoder\.onnx, model\.safetensors"):
        opened.verify()


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with contextlib.suppress(OSError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("I/O error: no room (os error 28)")], ids=repr
)
@pytest.mark.parametrize("write", [replacing, making])
def test_a_full_disk_is_told_with_what_was_to_be_written(write, error, tmp_path) -> None:
    """The system names no file in such an error, and a library the temporary one."""
    with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '.*model'$"), write(tmp_path / "model"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_stays_as_it_is(tmp_path) -> None:
    for error in (
        FileNotFoundError(2, "none", "other"),
        AudioNotFound("there is no other"),
        SafetensorError("cut"),
    ):
        with pytest.raises(type(error), match=re.escape(str(error))), replacing(tmp_path / "model"):
            raise error


def test_settings_that_do_not_fit_are_refused_before_anything_is_written():
    with pytest.raises(ModelError, match="8 tokens, but the model's vocabulary is 9"):
        bundle(config=replace(CONFIG, vocab_size=9))


def test_settings_with_a_byte_order_mark_are_read(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"format": 0}', encoding="utf-8-sig")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="has format 0"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(("text", "words"), [("[" * 100_000, "is not JSON"), ('{"format": true}', "has format True")])
def test_settings_nested_without_end_and_formats_that_are_no_number(text: str, words: str, tmp_path) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match=words):
        Bundle.open(tmp_path)
