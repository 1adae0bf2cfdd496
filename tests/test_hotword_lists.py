"""Lists of hotwords of any length, on every engine: rows of a batch are as alone; bad lists are told of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_checkpoint_variants import E2E, GOLDEN, variant_dir

from paraformer import load
from paraformer.backends import native
from paraformer.certificate.record import Form
from paraformer.checkpoint import funasr
from paraformer.errors import ConfigError
from paraformer.export.directories import write
from paraformer.hotwords import LONGEST, MOST
from paraformer.recognizer import Recognizer

ENGINES = ("torch", "onnx", *(["native"] if native.available("float32") else []))
SOUNDS = np.random.default_rng(0).normal(size=48000).astype(np.float32) * 0.1
KNOWN = "一丁丂七丄丅丆万丈三上下丌不与丏丐丑丒专且丕世丗丘丙业丛东丝丞丟丠両丢丣"


@pytest.fixture(scope="module")
def recognizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Recognizer]]:
    found: dict[str, dict[str, Recognizer]] = {}
    for name in ("seaco", "contextual"):
        directory = variant_dir(tmp_path_factory.mktemp(name), name)
        bundle, model = funasr.load(directory)
        bundle = replace(bundle, words={})  # hotwords are cut into their characters
        write(bundle, model, directory / "ours", Form(runtime="paraformer"))
        found[name] = {engine: load(directory / "ours", backend=engine, precision="float32") for engine in ENGINES}
    return found


def told(transcript: Any) -> list[tuple[str, float, float]]:
    """Tokens and times, without confidences, whose last bits are the batch's on torch."""
    return [(token.text, round(token.start_s, 3), round(token.end_s, 3)) for token in transcript.tokens]


def words(count: int) -> list[str]:
    """So many different ones."""
    return [KNOWN[i % 36] + KNOWN[(i // 36) % 36] + KNOWN[i // 1296] for i in range(count)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 300])
@pytest.mark.parametrize("name", ["seaco", "contextual"])
def test_rows_of_a_batch_are_as_alone(
    name: str, count: int, engine: str, recognizers: dict[str, dict[str, Recognizer]], speech: np.ndarray
) -> None:
    """Around the fifty from which each recording chooses its own."""
    listening = recognizers[name][engine].with_hotwords(words(count))
    parts = [speech, speech[20000:50001], speech[5000:31000], SOUNDS]
    together = listening.transcribe(parts)
    assert [told(one) for one in together] == [told(listening.transcribe(part)) for part in parts]
    on_torch = recognizers[name]["torch"].with_hotwords(words(count)).transcribe(parts)
    assert [one.text for one in together] == [one.text for one in on_torch]


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with np.load(Path(__file__).parent / "golden/frontend_offline.npz") as arrays:
        return arrays["wav_int16"].astype(np.float32) / 32768


def test_lists_in_one_call_may_differ(recognizers: dict[str, dict[str, Recognizer]], speech: np.ndarray) -> None:
    """Recordings that are told of other words do not change one another."""
    recognizer = recognizers["seaco"]["torch"]
    lists = [[], words(3), words(60), ["万丈", "三上"]]
    alone = [recognizer.with_hotwords(one).transcribe(speech) for one in lists]
    again = [recognizer.transcribe([speech, SOUNDS], hotwords=one)[0] for one in lists]
    assert list(map(told, alone)) == list(map(told, again))


def test_lists_that_cannot_be(recognizers: dict[str, dict[str, Recognizer]], speech: np.ndarray) -> None:
    recognizer = recognizers["seaco"]["torch"]
    for given, message in (
        ("一丁", "must be a list of texts"),
        ([1, 2], "must be a list of texts"),
        (["一" * (LONGEST + 1)], f"one may have {LONGEST}"),
        ([f"{number}" for number in range(MOST + 1)], "are too many"),
        (Path("nowhere.txt"), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=message) as raised:
            recognizer.with_hotwords(given)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)
    plain = recognizer.transcribe(speech, hotwords=[])
    assert recognizer.transcribe(speech, hotwords=["", "  "]) == plain
    assert recognizer.transcribe(np.zeros(32000, np.float32), hotwords=words(60)).tokens == ()
    assert recognizer.transcribe(np.zeros(0, np.float32), hotwords=words(2)).tokens == ()


def test_thousands_of_hotwords(recognizers: dict[str, dict[str, Recognizer]], speech: np.ndarray) -> None:
    many = [KNOWN[i % 36] + KNOWN[(i // 36) % 36] + KNOWN[i // 1296] + KNOWN[i % 7] for i in range(5000)]
    listening = recognizers["seaco"]["torch"].with_hotwords(many)
    assert len(listening.transcribe(speech).tokens) == len(recognizers["seaco"]["torch"].transcribe(speech).tokens)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_list_is_not_none(recognizers, engine: str) -> None:
    """Of goldens `seaco_e2e`: the hotword "" is a list with "none of these" alone, null is no list."""
    recognizer = recognizers["seaco"][engine]
    wave = np.load(GOLDEN / "frontend_offline.npz")["wav_int16"]
    cases = {case["hotword"]: case for case in E2E["seaco"]["cases"] if case["seg_dict"] and "batch" not in case}
    for hotword, given in (("", []), ("", [" "]), (None, None)):
        got = recognizer.transcribe(wave, hotwords=given)
        assert " ".join(got.text) == cases[hotword]["result"][0]["text"]
