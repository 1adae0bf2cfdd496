"""Model directories with one thing wrong: an error that names it, or the result of the unharmed one; nothing between.

Every file is removed, emptied, cut and swapped with another model's; every setting is removed, misspelt and given
values of other types. Only a setting that is honoured may change what is recognised, and only where it is given another
value of its own type; and of FunASR's files, which carry no checksums, no one can know that they were swapped whole.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_bundle
import torch
import yaml
from companion_dirs import WRITERS, companion_dir
from funasr_dirs import GOLDEN, write_funasr
from test_checkpoint_variants import variant_dir

import paraformer
from paraformer import checkpoint
from paraformer.bundle import Bundle
from paraformer.checkpoint import funasr_parts, native
from paraformer.errors import ParaformerError
from paraformer.language import LanguageModel
from paraformer.model.paraformer import Paraformer
from paraformer.segment.fsmn import FsmnVad
from paraformer.speakers import VoiceEncoder

SIGNAL = tiny.signal(25_000)
OTHER_VALUES: tuple[Any, ...] = (None, "text", 3.5, -1, 0, 7, True, [], {}, [1, 2], {"a": 1}, math.nan, 10**30, "")
FOREIGN = "not an error of ours"
FEW = (None, "text", -1)
"""Of the values, those that every run tries; all of them are slow, as are models of our own form of other kinds."""


# -- directories ------------------------------------------------------------------------------------------------------


@cache
def funasr_directory() -> Path:
    return write_funasr(Path(mkdtemp(prefix="paraformer-funasr-")))


@cache
def other_funasr_directory() -> Path:
    """Another model of the same sizes, all of whose files hold something else."""
    directory = Path(mkdtemp(prefix="paraformer-funasr-"))
    write_funasr(directory)
    weights = torch.load(directory / "model.pt", weights_only=True)
    torch.save({name: tensor.roll(1, 0) for name, tensor in weights.items()}, directory / "model.pt")
    tokens = json.loads((directory / "tokens.json").read_text())
    (directory / "tokens.json").write_text(json.dumps([*tokens[:3], *reversed(tokens[3:])]))
    (directory / "am.mvn").write_text((GOLDEN / "am.mvn").read_text().replace("<LearnRateCoef> 0 [ -", "[ -1"))
    (directory / "seg_dict").write_text("other ot@@ her\n")
    return directory


@cache
def bundle_directory() -> Path:
    """A bundle with graphs and a language model."""
    directory = Path(mkdtemp(prefix="paraformer-bundle-"))
    shutil.copytree(tiny_bundle.directory(), directory, dirs_exist_ok=True)
    return with_lm(directory, [[3, 4, 5, 6], [7, 8, 9]])


@cache
def other_bundle_directory() -> Path:
    """Another model of the same sizes."""
    directory = Path(mkdtemp(prefix="paraformer-bundle-"))
    shutil.copytree(tiny_bundle.directory(), directory, dirs_exist_ok=True)
    bundle = Bundle.open(directory)
    torch.manual_seed(2)
    native.save(bundle, Paraformer(bundle.config), directory)
    return with_lm(directory, [[9, 8, 7, 6, 5]])


def with_lm(directory: Path, sentences: list[list[int]]) -> Path:
    LanguageModel.count(sentences, len(tiny.TOKENS), least_bigram=1, least_trigram=1).save(directory / "lm.safetensors")
    Bundle.open(directory).save(directory)
    return directory


def copied(directory: Path, target: Path) -> Path:
    """The directory under links: no file of it is written to, only replaced."""
    target.mkdir(parents=True)
    for path in directory.iterdir():
        os.link(path, target / path.name)
    return target


def replaced(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


# -- what comes of them -----------------------------------------------------------------------------------------------


def recognised(directory: Path) -> object:
    """All that a model makes of a signal, whole and live."""
    recognizer = paraformer.load(directory, vad=False)
    session = recognizer.stream()
    session.accept(SIGNAL)
    session.finish()
    return [
        (token.text, token.start_s, token.end_s, token.confidence)
        for transcript in (recognizer.transcribe(SIGNAL), session.transcript())
        for token in transcript.tokens
    ]


@cache
def expected(directory: Path, use: Callable[[Path], Any] = recognised) -> object:
    """Of the unharmed directory."""
    found = use(directory)
    assert len(found) > 8, "a model that says nothing tells nothing"
    return found


def outcome(directory: Path, base: Path, use: Callable[[Path], object] = recognised) -> str:
    """What came of it: "same", "other", or the error."""
    try:
        return "same" if use(directory) == expected(base, use) else "other"
    except ParaformerError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  all of them are shown together
        return f"{FOREIGN}: {error!r}"


# -- files ------------------------------------------------------------------------------------------------------------

DIRECTORIES: Mapping[str, tuple[Callable[[], Path], Callable[[], Path]]] = {
    "funasr": (funasr_directory, other_funasr_directory),
    "bundle": (bundle_directory, other_bundle_directory),
}
HARMS: Mapping[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "first bytes": lambda data: data[:10],
    "half": lambda data: data[: len(data) // 2],
    "last byte gone": lambda data: data[:-1].rstrip(b"\n}]>"),
    "doubled": lambda data: data + data,
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: "你好\n".encode(),
}
BY_FILE = [
    *(
        ("funasr", name)
        for name in ("config.yaml", "configuration.json", "model.pt", "tokens.json", "am.mvn", "seg_dict")
    ),
    *(("bundle", f"{name}.safetensors") for name in ("model", "lm")),
    *(("bundle", name) for name in ("config.json", "encoder.onnx", "decoder.onnx", "look_back.onnx")),
]
UNKNOWABLE = {("funasr", name) for name in ("model.pt", "tokens.json", "am.mvn")}
"""Swapped whole for another model's of the same sizes."""


@pytest.mark.parametrize(("form", "name"), BY_FILE)
@pytest.mark.parametrize("metadata", [True, False], ids=["", "without metadata"])
def test_a_harmed_file_is_named_or_changes_nothing(tmp_path, form, name, metadata):
    if not metadata and (form == "bundle" or name == "configuration.json"):
        pytest.skip("nothing else to do without")
    make, make_other = DIRECTORIES[form]
    base, wrong = make(), []
    harms = {**HARMS, "removed": None, "swapped": lambda data: (make_other() / name).read_bytes()}
    for index, (kind, harm) in enumerate(harms.items()):
        directory = copied(base, tmp_path / str(index))
        if not metadata:
            (directory / "configuration.json").unlink()
        if harm is None:
            (directory / name).unlink()
        else:
            replaced(directory / name, harm((directory / name).read_bytes()))
        found = outcome(directory, base)
        if found == "other" and not (kind == "swapped" and (form, name) in UNKNOWABLE):
            wrong.append(f"{kind}: in silence")
        elif found not in ("same", "other") and (found.startswith(FOREIGN) or not named(name, directory, found)):
            wrong.append(f"{kind}: {found}")
    assert not wrong, "\n".join(wrong)


def named(name: str, directory: Path, error: str) -> bool:
    """Settings decide which files and tensors there must be: one of those may be what is missing."""
    return name in error or (name.startswith("config.") and str(directory) in error)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "encoder.onnx", "look_back.onnx", "decoder.onnx", "lm.safetensors"]
)
def test_a_harmed_file_is_seen_by_the_graphs_too(tmp_path, name):
    base = bundle_directory()
    harms = {**HARMS, "removed": None, "swapped": lambda data: (other_bundle_directory() / name).read_bytes()}
    for index, harm in enumerate(harms.values()):
        directory = copied(base, tmp_path / str(index))
        if harm is None:
            (directory / name).unlink()
        else:
            data = (directory / name).read_bytes()
            if harm(data) == data:
                continue
            replaced(directory / name, harm(data))
        with pytest.raises(ParaformerError, match=name):
            paraformer.load(directory, backend="onnx", vad=False)


def test_settings_that_belong_to_other_weights_are_seen(tmp_path):
    base, other = bundle_directory(), other_bundle_directory()
    directory = copied(base, tmp_path / "m")
    replaced(directory / "config.json", (other / "config.json").read_bytes())
    for act in (paraformer.load, checkpoint.open_any):
        with pytest.raises(ParaformerError, match=r"model\.safetensors"):
            act(directory)


# -- settings ---------------------------------------------------------------------------------------------------------


def places(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of nested settings."""
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


def held(values: Any, place: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """The mapping in which a key stands, and the key."""
    for key in place[:-1]:
        values = values[key]
    return values, place[-1]


def harmed(values: Mapping[str, Any], place: tuple[str, ...], others: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Settings with one key removed, misspelt, or given another value."""
    changed = deepcopy(values)
    mapping, key = held(changed, place)
    del mapping[key]
    yield "removed", changed
    spellings = (f"{key}x", key[:-1], key.upper(), f"{key[1:2]}{key[:1]}{key[2:]}")
    for misspelt in spellings if others is OTHER_VALUES else spellings[:2]:
        if misspelt != key:
            changed = deepcopy(values)
            mapping, key = held(changed, place)
            mapping[misspelt] = mapping.pop(key)
            yield f"misspelt {misspelt}", changed
    for other in others:
        changed = deepcopy(values)
        mapping, key = held(changed, place)
        was, mapping[key] = mapping[key], other
        if type(was) is not type(other) or was != other:
            yield f"{other!r}", changed


def honoured() -> set[str]:
    """FunASR's settings that may be given another value of their own type."""
    parts = [funasr_parts.FRONTEND, funasr_parts.OBJECTIVE]
    for kinds in (funasr_parts.ENCODERS, funasr_parts.DECODERS, funasr_parts.PREDICTORS):
        parts += kinds.values()
    return {key for part in parts for key in part.fields}


def write_yaml(path: Path, values: Any) -> None:
    replaced(path, yaml.safe_dump(values, allow_unicode=True).encode())


def write_json(path: Path, values: Any) -> None:
    replaced(path, json.dumps(values, ensure_ascii=False).encode())


def try_all(tmp_path: Path, form: str, name: str, others: tuple[Any, ...], *, metadata: bool = True) -> int:
    """Every harm to every setting of one file. Returns how many there were."""
    base = DIRECTORIES[form][0]()
    text = (base / name).read_text(encoding="utf-8")
    values = yaml.safe_load(text) if name.endswith("yaml") else json.loads(text)
    write, count, wrong = write_yaml if name.endswith("yaml") else write_json, 0, []
    directory = copied(base, tmp_path / "m")
    if not metadata:
        (directory / "configuration.json").unlink()
    for place in places(values):
        if place[0] in ("card", "words", "sha256", "seal", "units") and len(place) > 1:
            continue  # free, for training or for checks
        for kind, changed in harmed(values, place, others):
            write(directory / name, changed)
            found, where = outcome(directory, base), ".".join(place)
            count += 1
            value = form == "funasr" and place[-1] in honoured() and not kind.startswith(("removed", "misspelt"))
            if found == "same" or (found == "other" and value):
                continue
            if found == "other" or found.startswith(FOREIGN) or str(directory) not in found:
                wrong.append(f"{where} {kind}: {found}")
    assert not wrong, "\n".join(wrong)
    return count


@pytest.mark.parametrize("name", ["config.yaml", "configuration.json"])
def test_a_harmed_setting_of_funasrs(tmp_path, name):
    assert try_all(tmp_path, "funasr", name, FEW) > 50


def test_a_harmed_setting_of_a_bundle(tmp_path):
    assert try_all(tmp_path, "bundle", "config.json", FEW) > 300


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("form", "name", "metadata"),
    [
        ("funasr", "config.yaml", True),
        ("funasr", "config.yaml", False),
        ("funasr", "configuration.json", True),
        ("bundle", "config.json", True),
    ],
)
def test_every_value_of_every_setting(tmp_path, form, name, metadata):
    try_all(tmp_path, form, name, OTHER_VALUES, metadata=metadata)


# -- other kinds of models --------------------------------------------------------------------------------------------


def heard(directory: Path) -> list[object]:
    """What a model for whole recordings makes of speech, without and with hotwords."""
    loaded = paraformer.load(directory, backend="torch", vad=False)
    transcripts = [loaded.transcribe(speech())]
    if loaded.config.hotwords is not None:
        transcripts.append(loaded.transcribe(speech(), hotwords=["万丈", "三上"]))
    return [(token.text, token.start_s, token.confidence) for one in transcripts for token in one.tokens]


@cache
def speech() -> np.ndarray:
    with np.load(GOLDEN / "frontend_offline.npz") as arrays:
        return arrays["wav_int16"].astype(np.float32) / 32768


def marked(directory: Path) -> list[object]:
    loaded = paraformer.load_punctuation(directory)
    text = "今天abc天气很好hello world我们出去走走吧模型" * 2
    return [loaded.punctuate(text), *loaded.scores(list(text)).ravel().tolist()]


def aligned(directory: Path) -> list[object]:
    tokens = paraformer.load_aligner(directory).align(SIGNAL, "a hello a").tokens
    return [time for token in tokens for time in (token.start_s, token.end_s)]


def spoken(directory: Path) -> list[object]:
    detector = FsmnVad.open(directory)
    scores, _ = detector.network.step(rows(detector.network.config.input_dim), detector.network.init_state())
    return [*detector.spans(np.concatenate([speech(), np.zeros(32_000, np.float32), speech()])), *scores.ravel()]


def rows(width: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((9, width)).astype(np.float32)


def voice(directory: Path) -> list[object]:
    return VoiceEncoder.open(directory)(SIGNAL[:24_000]).tolist()


def others_dir(path: Path, name: str) -> Path:
    """A directory of FunASR's whose settings are, where they may be, not those that it would take for missing ones."""
    if name not in WRITERS:
        return variant_dir(path, name)
    directory = companion_dir(path, name)
    if name == "detector":
        settings = yaml.safe_load((directory / "config.yaml").read_text())
        rules = {"max_end_silence_time": 500, "window_size_ms": 180, "speech_noise_thres": 0.5, "do_extend": 0}
        rules |= {"sil_to_speech_time_thres": 110, "speech_to_sil_time_thres": 120, "max_single_segment_time": 2000}
        settings["model_conf"] |= rules | {"speech_2_noise_ratio": 1.1}
        settings["encoder_conf"]["lstride"] = 2
        write_yaml(directory / "config.yaml", settings)
    return directory


OTHERS: Mapping[str, Callable[[Path], list[object]]] = {
    "bicif": heard,
    "seaco": heard,
    "contextual": heard,
    "punctuation": marked,
    "realtime": marked,
    "aligner": aligned,
    "detector": spoken,
    "voices": voice,
}
FILES = ("config.yaml", "configuration.json", "config.json")


def try_other(tmp_path: Path, name: str, form: str, others: tuple[Any, ...]) -> int:
    """Every harm to every setting of a model of this kind. Returns how many there were."""
    base = others_dir(tmp_path / "theirs", name)
    if form == "ours":
        checkpoint.convert(base, tmp_path / "ours")
        base = tmp_path / "ours"
    directory, count, wrong = copied(base, tmp_path / "m"), 0, []
    for file in (base / file for file in FILES if (base / file).exists()):
        is_yaml = file.suffix == ".yaml"
        text = file.read_text(encoding="utf-8")
        values, write = yaml.safe_load(text) if is_yaml else json.loads(text), write_yaml if is_yaml else write_json
        for place in places(values):
            if place[0] in ("card", "words", "pieces", "sha256") and len(place) > 1:
                continue  # free, for training or for checks
            was = held(values, place)[0][place[-1]]
            for kind, changed in harmed(values, place, others):
                write(directory / file.name, changed)
                found, count = outcome(directory, base, OTHERS[name]), count + 1
                now = held(changed, place)[0].get(place[-1])
                meant = isinstance(now, type(was)) or (isinstance(was, int | float) and isinstance(now, int | float))
                meant |= kind in ("removed", "None") and (name, form) == ("detector", "funasr")  # FunASR's own defaults
                if found == "same" or (found == "other" and (meant or (place[-1], now) in NOTHING)):
                    continue
                if found == "other" or found.startswith(FOREIGN) or str(directory) not in found:
                    wrong.append(f"{file.name} {'.'.join(place)} {kind}: {found}")
        replaced(directory / file.name, file.read_bytes())
    assert not wrong, "\n".join(wrong)
    return count


NOTHING = (("cmvn", None), ("cmvn_file", None), ("dictionary", None), ("dictionary", "text"), ("sanm_shfit", None))
"""Settings that may be nothing or, of the dictionary, anything, and are then honoured."""


@pytest.mark.parametrize("name", ["punctuation", "aligner", "detector", "voices"])
def test_a_harmed_setting_of_a_companion(tmp_path, name):
    assert try_other(tmp_path, name, "funasr", FEW[:1]) > 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", ["funasr", "ours"])
@pytest.mark.parametrize("name", OTHERS)
def test_every_value_of_every_setting_of_other_kinds(tmp_path, name, form):
    try_other(tmp_path, name, form, (*OTHER_VALUES, 0.37))
