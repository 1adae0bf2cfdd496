"""From a name or directory to a recogniser: an option is there or named, a directory opens as fast as it can."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_bundle
import torch
from funasr_dirs import golden_tensors, write_funasr
from test_checkpoint_variants import KINDS as VARIANTS
from test_checkpoint_variants import variant_dir

import paraformer
from paraformer import checkpoint, loader
from paraformer import native as engine
from paraformer.backends import native, panels
from paraformer.backends.kept import sharing
from paraformer.bundle import Bundle, _digest, is_ours
from paraformer.checkpoint import funasr, funasr_directory
from paraformer.config import ChunkConfig, ModelConfig
from paraformer.errors import ConfigError, MissingExtra, ModelError, ModelNotFound, UnsupportedModel
from paraformer.frontend import Cmvn
from paraformer.model.paraformer import Paraformer
from paraformer.weights import Stored

FAST = pytest.mark.skipif(not native.fast("int8"), reason="this processor has no fast int8")


@pytest.fixture
def bundle(tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bundle.directory(), tmp_path / "bundle"))


@pytest.fixture
def base_install(monkeypatch) -> None:
    for package in ("onnxruntime", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "paraformer.backends.onnx", raising=False)
    monkeypatch.delenv("PARAFORMER_ISA", raising=False)


# -- what computes ----------------------------------------------------------------------------------------------------


@FAST
def test_the_base_install_computes_in_every_precision(base_install, monkeypatch):
    assert (paraformer.load().engine, paraformer.load().device) == ("native int8", "cpu")
    for precision in ("float32", "bfloat16"):
        if native.available(precision):
            assert paraformer.load(precision=precision).engine == f"native {precision}"
    monkeypatch.setenv("PARAFORMER_ISA", "plain")
    assert paraformer.load().engine == "native float32"  # of plain kernels the faster one


def test_what_needs_graphs_names_the_extra_that_runs_them(base_install, monkeypatch):
    with pytest.raises(MissingExtra, match=r"own engine cannot run it, needs .* 'paraformer\[onnx\]'"):
        paraformer.load(backend="onnx")
    monkeypatch.setenv("PARAFORMER_ISA", "none")
    with pytest.raises(MissingExtra, match=r"'paraformer\[onnx\]'"):
        paraformer.load()
    monkeypatch.setattr(engine, "library", lambda: None)
    with pytest.raises(MissingExtra, match=r"neither a wheel nor a C compiler, needs .* 'paraformer\[onnx\]'"):
        paraformer.load()


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "foo"}, "backend must be auto, native, onnx or torch, not 'foo'"),
        ({"backend": "tourch"}, "not 'tourch'; did you mean torch?"),
        ({"backend": None}, "backend must be .* not None"),
        ({"precision": "garbage"}, "precision must be auto, float32, bfloat16 or int8, not 'garbage'"),
        ({"precision": "bf16"}, "not 'bf16'; did you mean bfloat16?"),
        ({"precision": 8}, "precision must be .* not 8"),
        ({"backend": "torch", "precision": "int8"}, "torch backend computes in float32 or bfloat16"),
        ({"device": "nonsense"}, "no device 'nonsense' here, but cpu"),
        ({"device": "meta"}, "'meta' computes nothing"),
        ({"device": 0}, "device must be a name such as 'cpu' or 'cuda', not 0"),
        ({"device": "cuda", "backend": "onnx"}, "backend 'onnx' computes on the CPU only"),
        ({"device": "cuda", "backend": "native"}, "backend 'native' computes on the CPU only"),
        ({"device": "cuda", "precision": "int8"}, "precision 'int8' computes on the CPU only"),
        ({"threads": np.float64(2)}, "threads must be a whole number"),
        ({"threads": "2"}, "threads must be a whole number, not '2'"),
        ({"threads": 2.0}, "threads must be a whole number, not 2.0"),
        ({"threads": True}, "threads must be a whole number, not True"),
        ({"threads": None}, "threads must be a whole number, not None"),
        ({"threads": -1}, "threads must be 0 .* not -1"),
        ({"chunk": [5, 10, 5]}, r"chunk must be a ChunkConfig .* not \[5, 10, 5\]"),
        ({"lm_weight": "0.3"}, "lm_weight must be a number, not '0.3'"),
        ({"lm_weight": -1.0}, "lm_weight must be a number from 0 to 1000, not -1.0"),
        ({"lm_weight": 1e308}, r"lm_weight must be a number from 0 to 1000, not 1e\+308"),
        ({"threads": 10**9}, "threads must be 0"),
        ({"lm_weight": float("nan")}, "lm_weight must be a number from 0 to 1000, not nan"),
        ({"vad": 0}, "vad must be"),
        ({"punctuation": None}, "punctuation must be true, false or .* not None"),
        ({"itn": 1}, "itn must be true, false or a list of kinds .* not 1"),
        ({"itn": None}, "itn must be true, false or a list of kinds .* not None"),
        ({"lm": 0}, "lm must be true or false, not 0"),
        ({"download": None}, "download must be true or false, not None"),
        ({"model": 5}, "model must be a directory or a published name, not 5"),
        ({"model": b"dir"}, "model must be a directory or a published name"),
    ],
)
def test_an_option_that_there_is_not_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        paraformer.load(**options)


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is such a device here")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_device_that_is_not_here_is_named_with_those_that_are(device):
    with pytest.raises(ConfigError, match=f"no device '{device}' here, but cpu"):
        paraformer.load(device=device)


@pytest.mark.parametrize("device", ["tpu", "", "cpu:", "CPU"])
def test_what_is_no_device_takes_one_short_sentence(device):
    with pytest.raises(ConfigError, match=f"^there is no device '{device}' here, but cpu.{{0,100}}$"):
        paraformer.load(device=device)


def test_a_numbered_cpu_is_the_cpu(bundle):
    for backend in ("auto", "onnx", "torch"):
        assert loader.choose(bundle, backend, device="cpu:0") == loader.choose(bundle, backend)
        assert (
            paraformer.load(bundle, backend=backend, device="cpu:0").engine
            == paraformer.load(bundle, backend=backend).engine
        )
    with pytest.raises(ConfigError, match="no device 'cpu:x' here"):
        paraformer.load(bundle, device="cpu:x")


def test_numbers_of_numpy_are_numbers(bundle):
    recognizer = paraformer.load(
        bundle, threads=np.int64(2), lm_weight=np.float32(0.5), chunk=ChunkConfig(left=np.int32(5), chunk=np.int64(10))
    )
    session = recognizer.stream(rate=np.int64(8000))
    session.accept(tiny.signal(9000))
    restored = recognizer.restore(session.save())
    assert (restored.rate, restored.chunk) == (8000, ChunkConfig(left=5, chunk=10))


@pytest.mark.parametrize("value", ["5", 2.5, True, None])
def test_a_chunk_setting_is_of_whole_numbers(value):
    with pytest.raises(ConfigError, match="left of a chunk setting must be a whole number"):
        ChunkConfig(left=value)


# -- places -----------------------------------------------------------------------------------------------------------


def test_a_directory_below_home(bundle, monkeypatch):
    monkeypatch.setenv("HOME", str(bundle.parent))
    assert paraformer.load("~/bundle").engine
    with pytest.raises(ModelNotFound, match="~/nowhere"):
        paraformer.load("~/nowhere")


def test_what_is_no_model_says_what_it_is(tmp_path, bundle):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFound, match=r"neither config.json nor config.yaml, nor anything else"):
        paraformer.load(tmp_path / "empty")
    with pytest.raises(ModelNotFound, match=r"model\.safetensors is a file; a model is a directory"):
        paraformer.load(bundle / "model.safetensors")
    with pytest.raises(ModelNotFound, match=f"there is a model in {bundle}; name that"):
        paraformer.load(tmp_path)
    (tmp_path / "many").mkdir()
    for index in range(7):
        (tmp_path / "many" / f"{index}.wav").touch()
    with pytest.raises(ModelNotFound, match=r"but 0\.wav, 1\.wav, .* and 2 more; name the directory that holds"):
        paraformer.load(tmp_path / "many")


def test_the_root_of_a_hugging_face_cache_names_the_model_in_it(tmp_path, bundle):
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / "0123abc"
    shutil.copytree(bundle, snapshot)
    for root in (tmp_path / "hub", tmp_path / "hub" / "models--someone--tiny"):
        with pytest.raises(ModelNotFound, match=f"there is a model in {snapshot}; name that"):
            paraformer.load(root)
    assert paraformer.load(snapshot).engine


# -- whose a directory is ---------------------------------------------------------------------------------------------

FOREIGN = {
    "config.json": json.dumps({"model_type": "paraformer", "architectures": ["Paraformer"]}),
    "configuration.json": json.dumps({"framework": "pytorch", "task": "auto-speech-recognition"}),
}


@pytest.mark.parametrize("act", [paraformer.load, loader.open_settings, checkpoint.open_any, loader.choose])
def test_a_hubs_own_settings_beside_a_model_change_nothing(tmp_path, bundle, act):
    theirs = write_funasr(tmp_path / "funasr")
    (theirs / "config.json").write_text(FOREIGN["config.json"])
    (bundle / "configuration.json").write_text(FOREIGN["configuration.json"])
    assert not is_ours(theirs)
    assert is_ours(bundle)
    act(theirs)
    act(bundle)
    checkpoint.convert(theirs, tmp_path / "ours")
    assert is_ours(tmp_path / "ours")


def test_a_damaged_bundle_stays_one(bundle):
    (bundle / "configuration.json").write_text(FOREIGN["configuration.json"])
    (bundle / "config.json").write_text("{")
    assert is_ours(bundle)
    with pytest.raises(ModelError, match=r"config\.json is not JSON"):
        paraformer.load(bundle)


# -- engines ----------------------------------------------------------------------------------------------------------


@FAST
def test_a_funasr_directory_runs_as_fast_as_the_bundle_made_of_it(tmp_path):
    theirs = write_funasr(tmp_path / "funasr")
    ours = checkpoint.convert(theirs, tmp_path / "ours")
    loaded = [paraformer.load(directory, vad=False) for directory in (theirs, ours)]
    assert [one.engine for one in loaded] == ["native int8"] * 2
    first, second = (one.transcribe(tiny.signal(40_000)) for one in loaded)
    assert first == second
    assert str(loader.choose(theirs)) == str(loader.choose(ours)) == "native int8"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PARAFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@FAST
def test_a_funasr_directory_is_packed_once(tmp_path, cache, monkeypatch):
    theirs, signal = write_funasr(tmp_path / "funasr"), tiny.signal(40_000)
    expected = paraformer.load(theirs).transcribe(signal)
    (kept,) = cache.rglob("*.safetensors")
    with monkeypatch.context() as only:
        only.setattr(funasr_directory, "load_weights", lambda *_: pytest.fail("read again"))
        assert paraformer.load(theirs).transcribe(signal) == expected
    kept.write_bytes(kept.read_bytes()[:1000])
    assert paraformer.load(theirs).transcribe(signal) == expected
    weights = golden_tensors("online")
    torch.save({name: tensor * 0.5 for name, tensor in weights.items()}, theirs / "model.pt")
    paraformer.load(theirs)
    (other,) = cache.rglob("*.safetensors")
    assert other.name != kept.name


@FAST
def test_a_bundle_is_packed_once_too_so_that_processes_share_its_weights(tmp_path, cache, monkeypatch):
    ours, signal = checkpoint.convert(write_funasr(tmp_path / "funasr"), tmp_path / "ours"), tiny.signal(40_000)
    expected = paraformer.load(ours).transcribe(signal)
    assert len(list(cache.rglob("*.safetensors"))) == 1
    monkeypatch.setattr(native, "packed", lambda *_: pytest.fail("packed again"))
    assert paraformer.load(ours).transcribe(signal) == expected


@FAST
def test_processes_that_open_a_model_at_once_share_one_file(tmp_path, cache, monkeypatch):
    theirs, pack, kept = write_funasr(tmp_path / "funasr"), native.packed, []

    def while_another_does(*arguments):
        monkeypatch.setattr(native, "packed", pack)
        paraformer.load(theirs)
        kept.extend(path.stat().st_ino for path in cache.rglob("*.safetensors"))
        return pack(*arguments)

    monkeypatch.setattr(native, "packed", while_another_does)
    paraformer.load(theirs)
    assert [path.stat().st_ino for path in cache.rglob("*") if path.is_file()] == kept


@FAST
def test_what_nobody_opened_for_a_month_leaves_the_cache(tmp_path, cache):
    """The directory of a checkpoint that was looked at once may be long gone."""
    directories = [write_funasr(tmp_path / name) for name in ("forgotten", "used", "new")]
    kept = []
    for directory in directories[:2]:
        paraformer.load(directory)
        kept.append(next(path for path in cache.rglob("*.safetensors") if path not in kept))
    for path in kept:
        os.utime(path, (0, 0))
    paraformer.load(directories[1])
    paraformer.load(directories[2])
    assert len(found := set(cache.rglob("*.safetensors"))) == 2
    assert kept[0] not in found and kept[1] in found


def put(path: Path, what: str) -> None:
    """Something that is no file, in place of one or of a directory."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    match what:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "link to itself":
            path.symlink_to(path.name)


NO_FILES = pytest.mark.parametrize("what", ["pipe", "directory", "device", "link to itself"])


@FAST
@NO_FILES
@pytest.mark.parametrize("place", ["cache", "int8", "file"])
def test_what_is_no_file_in_the_cache_holds_nobody_up(tmp_path, cache, place, what):
    theirs, signal = write_funasr(tmp_path / "funasr"), tiny.signal(40_000)
    expected = paraformer.load(theirs).transcribe(signal)
    (kept,) = cache.rglob("*.safetensors")
    put({"cache": cache, "int8": kept.parent, "file": kept}[place], what)
    assert paraformer.load(theirs).transcribe(signal) == expected


@NO_FILES
@pytest.mark.parametrize("name", ["config.yaml", "configuration.json", "model.pt", "am.mvn", "tokens.json", "seg_dict"])
def test_what_is_no_file_in_a_model_directory_is_named(tmp_path, name, what):
    theirs = write_funasr(tmp_path / "funasr")
    put(theirs / name, what)
    with pytest.raises(ModelNotFound, match=name.replace(".", r"\.")):
        paraformer.load(theirs)


@FAST
def test_the_cache_may_be_named_by_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PARAFORMER_CACHE", "~/kept")
    paraformer.load(write_funasr(tmp_path / "funasr"))
    assert list((tmp_path / "kept").rglob("*.safetensors"))


@FAST
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells what is mapped")
def test_weights_are_mapped_only_to_be_shared(tmp_path, cache):
    """And are the same: from large pages of their own a live step takes less time."""
    theirs, signal = write_funasr(tmp_path / "funasr"), tiny.signal(40_000)
    expected = paraformer.load(theirs).transcribe(signal)
    (kept,) = cache.rglob("*.safetensors")
    assert str(kept) not in Path("/proc/self/maps").read_text()
    with sharing():
        shared = paraformer.load(theirs)
    assert str(kept) in Path("/proc/self/maps").read_text()
    assert shared.transcribe(signal) == expected


@FAST
@pytest.mark.parametrize("damage", ["cut", "empty", "of another model", "a weight less", "of another kind"])
def test_a_damaged_file_in_the_cache_is_made_again(tmp_path, cache, damage):
    theirs, signal = write_funasr(tmp_path / "funasr"), tiny.signal(40_000)
    expected = paraformer.load(theirs).transcribe(signal)
    (kept,) = cache.rglob("*.safetensors")
    good, arrays = kept.read_bytes(), dict(Stored(kept, mapped=False))
    if damage in ("cut", "empty"):
        kept.write_bytes(good[: -1 if damage == "cut" else 0])
    else:
        name = next(name for name in arrays if name.endswith(".words"))
        changed = {
            "of another model": native.packed(tiny.model("whisper").state_dict(), tiny.config("whisper")),
            "a weight less": {key: array for key, array in arrays.items() if key != name},
            "of another kind": arrays | {name: arrays[name].view(np.int64)},
        }
        panels.save(changed[damage], kept)
    assert paraformer.load(theirs).transcribe(signal) == expected
    assert kept.read_bytes() == good


@FAST
def test_other_weights_are_seen_whatever_their_time_says(tmp_path, cache):
    """As programs that copy and unpack set it."""
    theirs = write_funasr(tmp_path / "funasr")
    paraformer.load(theirs)
    (kept,) = cache.rglob("*.safetensors")
    before = (theirs / "model.pt").stat()
    (theirs / "other").write_bytes((theirs / "model.pt").read_bytes())
    (theirs / "other").replace(theirs / "model.pt")
    os.utime(theirs / "model.pt", ns=(before.st_atime_ns, before.st_mtime_ns))
    paraformer.load(theirs)
    (other,) = cache.rglob("*.safetensors")
    assert other.name != kept.name


@FAST
def test_what_a_process_that_died_left_in_the_cache_is_removed(tmp_path, cache):
    left, new = cache / "int8" / ".died.new", cache / "int8" / ".writes.new"
    left.parent.mkdir(parents=True)
    left.touch()
    new.touch()
    os.utime(left, (0, 0))
    paraformer.load(write_funasr(tmp_path / "funasr"))
    assert sorted(path.suffix for path in left.parent.iterdir()) == [".new", ".safetensors"]
    assert new.exists()


@FAST
def test_callers_that_pack_the_same_directory_at_once_leave_one_file(tmp_path, cache):
    theirs = write_funasr(tmp_path / "funasr")
    with ThreadPoolExecutor(4) as callers:
        heard = set(callers.map(lambda _: paraformer.load(theirs).transcribe(tiny.signal(40_000)).text, range(8)))
    assert heard == {paraformer.load(theirs).transcribe(tiny.signal(40_000)).text}
    assert len(list((cache / "int8").iterdir())) == 1


CMVN = Cmvn(np.full(560, -8.0, np.float32), np.full(560, 0.25, np.float32))


@FAST
@pytest.mark.slow
def test_a_large_funasr_directory(tmp_path, cache):
    """220 million random weights: torch's text in float32, most of its tokens in int8, and opened again in no time."""
    config = ModelConfig(vocab_size=8404)
    torch.manual_seed(1)
    network = Paraformer(config).eval()
    tokens = ("<blank>", "<s>", "</s>", *(chr(0x4E00 + index) for index in range(8400)), "<unk>")
    funasr.save(Bundle(None, config, tokens, CMVN), network, tmp_path / "large")
    del network
    heard = {}
    for options in ({"backend": "torch"}, {"precision": "float32"}, {"precision": "int8"}):
        recognizer = paraformer.load(tmp_path / "large", vad=False, **options)
        heard[recognizer.engine] = [token.text for token in recognizer.transcribe(tiny.signal(320_000)).tokens]
    assert len(heard["torch float32"]) > 20
    assert heard["native float32"] == heard["torch float32"]
    same = sum(one == two for one, two in zip(heard["native int8"], heard["torch float32"], strict=True))
    assert same > 0.8 * len(heard["torch float32"])
    start = time.process_time()
    assert paraformer.load(tmp_path / "large").engine == "native int8"
    assert time.process_time() - start < 0.6  # 0.25 s; by the process's own time, which others do not take


@FAST
def test_a_cache_that_cannot_be_written_to_goes_without(tmp_path, cache):
    theirs = write_funasr(tmp_path / "funasr")
    cache.write_text("a file, where the directory would be")
    assert paraformer.load(theirs).engine == "native int8"


@FAST
def test_a_user_without_a_home_goes_without(tmp_path, monkeypatch):
    """As in containers that run as any number."""
    for name in ("PARAFORMER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    assert paraformer.load(write_funasr(tmp_path / "funasr")).engine == "native int8"


@FAST
@pytest.mark.parametrize("name", ["online", "offline_A", "offline_B", "bicif", "seaco", "contextual"])
def test_funasrs_own_numbers_are_to_be_had(tmp_path, name):
    """By the engine as by torch: the same text, and times and confidences within rounding."""
    directory = variant_dir(tmp_path, name) if name in VARIANTS else write_funasr(tmp_path, name)
    ours, torchs = (
        paraformer.load(directory, **options) for options in ({"precision": "float32"}, {"backend": "torch"})
    )
    assert (ours.engine, torchs.engine) == ("native float32", "torch float32")
    for got, expected in zip(
        *(one.transcribe([tiny.signal(60_000), tiny.signal(9_000, 1)]) for one in (ours, torchs)), strict=True
    ):
        assert got.text == expected.text
        for one, two in zip(got.tokens, expected.tokens, strict=True):
            assert one.text == two.text
            for name in ("start_s", "end_s", "confidence"):
                assert abs(getattr(one, name) - getattr(two, name)) < 1e-4


NO_TORCH = """
import sys
sys.modules |= {"torch": None, "onnxruntime": None}
import paraformer
from pathlib import Path
import numpy as np
recognizer = paraformer.load(Path(sys.argv[1]))
print(recognizer.engine, recognizer.transcribe(np.load(sys.argv[2])).text)
"""


@FAST
@pytest.mark.parametrize("name", ["online", "seaco"])
def test_a_funasr_directory_needs_no_torch(tmp_path, name):
    directory = variant_dir(tmp_path / "model", name) if name in VARIANTS else write_funasr(tmp_path / "model", name)
    np.save(tmp_path / "signal.npy", tiny.signal(60_000))
    command = [sys.executable, "-c", NO_TORCH, str(directory), str(tmp_path / "signal.npy")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert found == f"native int8 {paraformer.load(directory).transcribe(tiny.signal(60_000)).text}"


def test_a_kind_of_model_that_the_engine_lacks_runs_on_torch(tmp_path):
    directory = write_funasr(tmp_path, "aishell_conformer")
    assert paraformer.load(directory).engine == "torch float32"
    for options in ({"backend": "native"}, {"precision": "int8"}, {"backend": "native", "precision": "float32"}):
        with pytest.raises(UnsupportedModel, match="SAN-M encoders and decoders; leave backend and precision out"):
            paraformer.load(directory, **options)


@FAST
def test_the_engine_alone_takes_the_precision_that_is_faster_here(monkeypatch):
    assert paraformer.load(backend="native").engine == "native int8"
    monkeypatch.setenv("PARAFORMER_ISA", "plain")
    assert paraformer.load(backend="native").engine == "native float32"


def test_the_onnx_backend_asks_for_graphs(tmp_path):
    with pytest.raises(ModelNotFound, match=r"FunASR directory, without graphs .*convert --graphs"):
        paraformer.load(write_funasr(tmp_path), backend="onnx")


def packed(bundle: Path) -> Path:
    """A directory of int8 weights alone."""
    for path in bundle.glob("*"):
        path.unlink()
    opened = Bundle.open(tiny_bundle.directory())
    panels.save(native.packed(tiny.model().state_dict(), opened.config), bundle / "model.int8.safetensors")
    opened.save(bundle)
    return bundle


@pytest.mark.skipif(not native.available("int8"), reason="the engine was not built")
@pytest.mark.parametrize("options", [{"backend": "torch"}, {"backend": "onnx"}, {"precision": "float32"}])
def test_int8_weights_alone_open_without_options(bundle, options):
    directory = packed(bundle)
    assert paraformer.load(directory).engine == "native int8"
    with pytest.raises(ModelError, match=r"holds int8 weights only, .* leave backend, precision and device out"):
        paraformer.load(directory, **options)
    with pytest.raises(ModelError, match=r"holds int8 weights only, .* take the model that it was exported from"):
        checkpoint.open_any(directory)


@pytest.mark.skipif(not native.available("int8"), reason="the engine was not built")
def test_int8_weights_without_an_engine_are_no_circle_of_advice(bundle, monkeypatch):
    directory = packed(bundle)
    monkeypatch.setattr(native, "available", lambda precision: False)
    with pytest.raises(
        UnsupportedModel, match=r"int8 weights only, which this .* take the directory that it was exported"
    ):
        paraformer.load(directory)


# -- the seal ---------------------------------------------------------------------------------------------------------


def test_weights_of_another_model_are_seen_whatever_their_size(tmp_path):
    """One number changed in each of many blocks, as training does."""
    path = tmp_path / "model.safetensors"
    rng = np.random.default_rng(0)
    path.write_bytes(rng.bytes(3_000_000))
    opened = Bundle.open(tiny_bundle.directory())
    opened.save(tmp_path)
    Bundle.open(tmp_path).check("model.safetensors")
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 500):
        data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"changed since it was saved: model\.safetensors belongs to another model"):
        Bundle.open(tmp_path).check("model.safetensors")


def test_settings_that_were_edited_are_named(bundle):
    values = json.loads((bundle / "config.json").read_text())
    values["model"]["predictor"]["tail_threshold"] = 0.3
    (bundle / "config.json").write_text(json.dumps(values))
    for act in (paraformer.load, checkpoint.open_any):
        with pytest.raises(ModelError, match="changed since it was saved: model"):
            act(bundle)


def test_a_bundle_of_an_earlier_version_has_no_seal(bundle):
    values = json.loads((bundle / "config.json").read_text())
    del values["seal"]
    (bundle / "config.json").write_text(json.dumps(values))
    assert paraformer.load(bundle).engine


@pytest.mark.parametrize("backend", ["native", "onnx", "torch"])
@pytest.mark.parametrize(
    ("part", "name", "value"), [("encoder", "layers", 1), ("encoder", "kernel", 0), ("decoder", "ffn_dim", 8)]
)
def test_without_a_seal_every_tensor_is_that_of_the_settings(bundle, backend, part, name, value):
    """On every engine, and also where it would never ask for the tensor."""
    values = json.loads((bundle / "config.json").read_text())
    values["seal"], values["model"][part][name] = {}, value
    (bundle / "config.json").write_text(json.dumps(values))
    precision = "float32" if backend == "native" else "auto"
    with pytest.raises(ModelError, match=r"unexpected: |of the wrong shape: |has only|does not fit the settings"):
        paraformer.load(bundle, backend=backend, precision=precision)


def test_without_a_seal_too_a_language_model_that_is_a_broken_link_is_gone(bundle):
    """As a cache of links leaves it when what they point to is removed."""
    values = json.loads((bundle / "config.json").read_text())
    values["seal"] = {}
    (bundle / "config.json").write_text(json.dumps(values))
    (bundle / "lm.safetensors").unlink(missing_ok=True)
    assert paraformer.load(bundle).engine
    (bundle / "lm.safetensors").symlink_to(bundle / "removed")
    with pytest.raises(ModelNotFound, match="is gone; get it again, or load with lm=False"):
        paraformer.load(bundle)


def test_the_seal_is_of_what_was_written_whatever_settings_came_later(bundle):
    """A version that knows more settings opens models of one that knew fewer."""
    values = json.loads((bundle / "config.json").read_text())
    for name in ("front", "windows", "activation", "norm_epsilon"):
        del values["model"]["encoder"][name]
    values["seal"]["model"] = _digest(values["model"])
    (bundle / "config.json").write_text(json.dumps(values))
    assert paraformer.load(bundle).engine
    checkpoint.open_any(bundle)


def test_torch_computes_in_bfloat16_where_both_are_asked_for() -> None:
    assert str(loader.choose(loader.locate(None), "torch", precision="bfloat16")) == "torch bfloat16"
    assert str(loader.choose(loader.locate(None), precision="bfloat16")) == "native bfloat16"


# -- graphs alone -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["sherpa-onnx", "funasr-onnx"])
def test_graphs_of_other_runtimes_are_told_as_such(tmp_path, runtime):
    directory = tmp_path / "model"
    if runtime == "sherpa-onnx":
        directory.mkdir()
        (directory / "tokens.txt").touch()
    else:
        write_funasr(directory)
        (directory / "model.pt").unlink()
    (directory / "model_quant.onnx").touch()
    with pytest.raises(
        ModelNotFound, match=r"and model_quant\.onnx is for other runtimes; take the model that it was made of"
    ):
        paraformer.load(directory)


def test_a_device_without_torch_names_the_extra(base_install, monkeypatch):
    monkeypatch.delitem(sys.modules, "paraformer.backends.torch", raising=False)
    with pytest.raises(MissingExtra, match=r"device 'cuda' needs .* 'paraformer\[torch\]'"):
        paraformer.load(device="cuda")


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/model", "a\0b"])
@pytest.mark.parametrize("option", ["model", "vad", "punctuation", "speakers"])
def test_names_that_no_file_can_have_are_not_found(name, option):
    with pytest.raises(ModelNotFound, match="there is no model directory or published model"):
        paraformer.load(**{option: name})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lm_weight": 10**400}, "lm_weight must be a number that fits 64 bits"),
        ({"threads": 10**400}, "threads must be"),
        ({"backend": "x" * 10_000}, "backend must be"),
        ({"punctuation": list(range(10_000))}, "punctuation must be"),
        ({"itn": [["date"]]}, "there is no kind of number"),
        ({"chunk": list(range(10_000))}, "chunk must be"),
    ],
)
def test_a_value_of_any_size_is_told_shortly(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        paraformer.load(**options)
    assert len(str(error.value)) < 300
