from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from funasr_dirs import write_funasr
from hub_server import COMMIT, Hub, serving

from paraformer import checkpoint, hub
from paraformer.errors import MissingExtra, ModelError, ModelNotFound

ONLINE = "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-online"
NAMES = ["paraformer-zh-streaming", "hf:someone/tiny"]
"""One model of each hub."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The golden streaming model, with files that nobody needs."""
    directory = write_funasr(tmp_path_factory.mktemp("published"))
    for name in ("README.md", "model.onnx", "model_quant.onnx"):
        (directory / name).write_text("not needed")
    return directory


@pytest.fixture
def server(model, tmp_path, monkeypatch):
    """A hub that both clients take for theirs, and empty caches."""
    constants = pytest.importorskip("huggingface_hub.constants")
    modelscope = pytest.importorskip("modelscope_hub")
    with serving({ONLINE: model, "someone/tiny": model, "someone/empty": without_model(tmp_path)}) as running:
        # What MODELSCOPE_ENDPOINT, MODELSCOPE_CACHE, HF_ENDPOINT and HF_HUB_CACHE set when the clients are first used.
        usual = modelscope.get_default_config()
        modelscope.set_default_config(
            modelscope.HubConfig(endpoint=running.url, cache_dir=tmp_path / "modelscope", config_dir=tmp_path / "home")
        )
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hugging_face"))
        yield running
        modelscope.set_default_config(usual)


def without_model(tmp_path: Path) -> Path:
    directory = tmp_path / "empty"
    directory.mkdir()
    (directory / "README.md").write_text("no model here")
    return directory


def changed(path: Path, data: bytes) -> None:
    """Replace what a cached file holds, through the links of a cache, at a time that differs."""
    real = path.resolve()
    real.write_bytes(data)
    os.utime(real, ns=(0, 0))


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_and_ids():
    assert str(hub.parse("paraformer-zh-streaming")) == f"ms:{ONLINE}"
    assert hub.parse("paraformer-online") == hub.parse("paraformer-zh-streaming")
    assert str(hub.parse(f"damo/{ONLINE[4:]}")) == f"ms:{ONLINE}"
    assert str(hub.parse("funasr/paraformer-zh-streaming")) == "hf:funasr/paraformer-zh-streaming"
    assert str(hub.parse("ms:someone/thing")) == "ms:someone/thing"
    assert str(hub.parse("hf:iic/thing")) == "hf:iic/thing"
    assert all(hub.parse(name).hub == "ms" for name in hub.ALIASES)


@pytest.mark.parametrize("name", ["nothing", "", "a/b/c", "ms:", "ms:x", "gs:a/b", "../a", "iic/..", "/nowhere"])
def test_other_names_are_not_found(name):
    with pytest.raises(ModelNotFound, match=r"published are paraformer, "):
        hub.parse(name)


def test_an_unknown_owner_needs_a_hub():
    with pytest.raises(ModelNotFound, match="ms:someone/thing or hf:someone/thing"):
        hub.parse("someone/thing")


def test_a_directory_needs_no_client(tmp_path):
    code = (
        "import sys; from paraformer import hub; print(hub.resolve(sys.argv[1], download=True));"
        "assert not {'huggingface_hub', 'modelscope_hub', 'modelscope', 'requests', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path)


@pytest.mark.parametrize(("name", "client"), [("paraformer", "modelscope_hub"), ("funasr/any", "huggingface_hub")])
def test_without_the_client_the_extra_is_named(monkeypatch, name, client):
    monkeypatch.setitem(sys.modules, client, None)
    with pytest.raises(MissingExtra, match=r"paraformer\[hub\]"):
        hub.resolve(name)


# -- fetching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_fetched_unless_asked(server: Hub, name):
    with pytest.raises(ModelNotFound, match=f"paraformer pull {name}"):
        hub.resolve(name)
    assert server.requests == []


@pytest.mark.parametrize("name", NAMES)
def test_fetched_once_then_never_again(server: Hub, model, name):
    directory = hub.resolve(name, download=True)
    assert server.fetched() == {path.name for path in model.iterdir()} & set(hub.FILES)
    server.requests.clear()
    assert hub.resolve(name) == hub.resolve(name, download=True) == directory
    assert server.requests == []
    server.shutdown()
    server.server_close()
    assert hub.resolve(name, download=True) == directory
    bundle, _ = checkpoint.open_any(directory)
    assert bundle.config.streaming


def test_the_environment_moves_the_clients(model, tmp_path):
    with serving({ONLINE: model, "someone/tiny": model}) as running:
        environment = {
            "MODELSCOPE_ENDPOINT": running.url,
            "MODELSCOPE_CACHE": str(tmp_path / "modelscope"),
            "MODELSCOPE_HOME": str(tmp_path / "home"),
            "HF_ENDPOINT": running.url,
            "HF_HOME": str(tmp_path / "hugging_face"),
        }
        code = "import sys; from paraformer import hub; [print(hub.resolve(n, download=True)) for n in sys.argv[1:]]"
        command = [sys.executable, "-c", code, *NAMES]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    first, second = map(Path, done.stdout.split())
    assert first.is_relative_to(tmp_path / "modelscope")
    assert second.is_relative_to(tmp_path / "hugging_face")


@pytest.mark.parametrize(("name", "revision"), [(NAMES[0], "v2.0.4"), (NAMES[1], COMMIT)])
def test_a_revision_is_its_own(server: Hub, name, revision):
    directory = hub.resolve(name, revision=revision, download=True)
    assert directory.name == revision
    assert any(revision in request for request in server.requests)
    assert hub.resolve(name, revision=revision) == directory
    with pytest.raises(ModelNotFound, match="not on this machine"):
        hub.resolve(name, revision="v9.9.9")


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_changed_since_is_refused(server: Hub, name):
    directory = hub.resolve(name, download=True)
    weights = (directory / "model.pt").read_bytes()
    changed(directory / "model.pt", weights)
    assert hub.resolve(name) == directory  # another time alone is no change
    changed(directory / "model.pt", weights[:-1] + b"\1")
    with pytest.raises(ModelError, match=r"changed since it was first fetched: model\.pt; delete it"):
        hub.resolve(name)
    (directory / "am.mvn").unlink()  # Hugging Face's client would fetch this one again, and still the other differs
    (directory / "tokens.txt").write_text("more\n")
    with pytest.raises(ModelError, match=r"model\.pt, tokens\.txt;"):
        hub.resolve(name, download=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_record_is_named(server: Hub, name):
    directory = hub.resolve(name, download=True)
    record = next(directory.parents[1].glob(".paraformer-*.json"))
    record.write_text("{")
    with pytest.raises(ModelError, match=record.name):
        hub.resolve(name)
    record.unlink()
    assert hub.resolve(name) == directory
    assert record.is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_half_fetched_model_is_not_taken_for_whole(server: Hub, name):
    directory = hub.resolve(name, download=True)
    (directory / "model.pt").unlink()
    next(directory.parents[1].glob(".paraformer-*.json")).unlink()
    with pytest.raises(ModelNotFound, match="not on this machine"):
        hub.resolve(name)
    assert hub.resolve(name, download=True) == directory
    assert (directory / "model.pt").is_file()


@pytest.mark.parametrize("name", ["ms:someone/gone", "hf:someone/gone"])
def test_a_model_that_does_not_exist(server: Hub, name):
    with pytest.raises(ModelNotFound, match=f"{name} could not be fetched from .*404"):
        hub.resolve(name, download=True)


@pytest.mark.parametrize("name", ["ms:someone/empty", "hf:someone/empty"])
def test_a_repository_without_a_model(server: Hub, name):
    with pytest.raises(ModelError, match=f"{name} "):
        hub.resolve(name, download=True)


def test_no_network(server: Hub):
    server.shutdown()
    server.server_close()
    with pytest.raises(ModelNotFound, match="hf:someone/tiny could not be fetched from Hugging Face"):
        hub.resolve("hf:someone/tiny", download=True)


def test_paraformer_zh_is_the_one_with_hotwords():
    seaco = "speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch"
    assert str(hub.parse("paraformer-zh")) == f"ms:iic/{seaco}" == str(hub.parse(f"damo/{seaco}"))
    assert str(hub.parse("funasr/paraformer-zh")) == "hf:funasr/paraformer-zh"


def test_caches_of_old_clients_are_found(server: Hub, model, tmp_path):
    old = tmp_path / "modelscope" / "hub" / "models" / ONLINE
    old.parent.mkdir(parents=True)
    old.symlink_to(model)
    assert hub.resolve("paraformer-zh-streaming") == old
    assert server.requests == []
    with pytest.raises(ModelNotFound, match="not on this machine"):  # their revision is not known
        hub.resolve("paraformer-zh-streaming", revision="v2.0.4")


def test_a_cache_that_cannot_be_written_to_still_serves(server: Hub, monkeypatch, caplog):
    directory = hub.resolve(NAMES[0], download=True)
    next(directory.parents[1].glob(".paraformer-*.json")).unlink()

    def refuse(path: Path):
        raise PermissionError(f"{path} is read-only")

    monkeypatch.setattr(hub, "replacing", refuse)
    assert hub.resolve(NAMES[0]) == directory
    assert "changes of the model will go unnoticed" in caplog.text


def test_a_bundle_comes_with_all_that_it_was_saved_with(tmp_path):
    """What is left behind would be missed when the model is opened."""
    from paraformer.bundle import HASHED, Bundle
    from paraformer.loader import locate

    needed = set(Bundle.open(locate(None)).seal) - {"model", "tokens", "cmvn", "confidence"}
    assert needed, "the embedded model is sealed"
    assert needed <= set(hub.FILES)
    assert {"model.int8.safetensors", "lm.safetensors"} <= {name for name in hub.FILES if name.endswith(HASHED)}
