"""Names of published models -> directories on this machine, through the official hub clients (extra [hub]).

A directory is taken as it is. A model that a client has in its cache is used without touching the network; anything
else is fetched only when the caller says so. What came is written down beside it, file by file, and a model that
changed since is refused.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paraformer import contract
from paraformer.bundle import CONFIG_FILE, FUNASR_FILES, checksum, replacing
from paraformer.errors import MissingExtra, ModelError, ModelNotFound
from paraformer.paths import at_home, is_directory, is_file

logger = logging.getLogger(__name__)

_LARGE = "ms:iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404"
ALIASES: Mapping[str, str] = {
    "paraformer": f"{_LARGE}-pytorch",
    "paraformer-zh-streaming": f"{_LARGE}-online",
    "paraformer-online": f"{_LARGE}-online",
    "ct-punc": "ms:iic/punc_ct-transformer_cn-en-common-vocab471067-large",
    "ct-punc-c": "ms:iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch",
    "cam++": "ms:iic/speech_campplus_sv_zh-cn_16k-common",
    "fa-zh": "ms:iic/speech_timestamp_prediction-v1-16k-offline",
    "fsmn-vad": "ms:iic/speech_fsmn_vad_zh-cn-16k-common-pytorch",
    "paraformer-zh": "ms:iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
}
"""FunASR's short names. "paraformer-zh" is a SeACo-Paraformer on ModelScope, where the name leads; what Hugging Face
has under it, "hf:funasr/paraformer-zh", is a plain one, without hotwords."""

OWNERS: Mapping[str, tuple[Literal["ms", "hf"], str]] = {
    "iic": ("ms", "iic"),
    "damo": ("ms", "iic"),
    "funasr": ("hf", "funasr"),
}
"""Owner in an id without "ms:" or "hf:" -> its hub, and its name there today."""

WEIGHTS = (contract.WEIGHTS, contract.PACKED, "model.pt", "model.pb", "campplus_cn_common.bin")
SETTINGS = (CONFIG_FILE, *FUNASR_FILES)
FILES = (
    *WEIGHTS,
    *SETTINGS,
    "am.mvn",
    "tokens.json",
    "tokens.txt",
    "seg_dict",
    "jieba_usr_dict",
    contract.LM,
    *contract.GRAPHS,
)
"""All that recognition and training need of a repository; nothing else of it is fetched."""


@dataclass(frozen=True)
class Source:
    """A repository: hub "ms" (ModelScope) or "hf" (Hugging Face), and "owner/name" there."""

    hub: Literal["ms", "hf"]
    id: str

    def __str__(self) -> str:
        return f"{self.hub}:{self.id}"


def resolve(name: str | Path, *, revision: str | None = None, download: bool = False) -> Path:
    """The directory of a model: a directory itself, or where a published model lies in its client's cache.

    name: a directory, a name of ALIASES, or an id such as "iic/...", "funasr/...", "ms:owner/name", "hf:owner/name".
    revision: branch, tag or commit; None: the cached one, or the hub's default when fetching.
    download: whether to fetch a model that is not in the cache; what is in the cache is never looked up again.

    Raises ModelNotFound (no such name, not in the cache, or not to be had), ModelError (changed since it came) and
    MissingExtra (no hub client installed).
    """
    path = at_home(name)
    if str(name) and is_directory(path):
        return path
    if is_file(path) and str(name) not in ALIASES:
        raise ModelNotFound(f"{name} is a file; a model is a directory, so name the one that holds it")
    source = parse(str(name))
    directory = _cached(source, revision)
    if directory is None:
        if not download:
            raise ModelNotFound(f"{name} is not on this machine yet; fetch it once: paraformer pull {name}")
        directory = _fetch(source, revision)
    _hold_to_record(directory, source, revision)
    return directory


def parse(name: str) -> Source:
    """The repository that a name or id means. Raises ModelNotFound if it means none."""
    hub, separator, repository = ALIASES.get(name, name).partition(":")
    if separator and hub in ("ms", "hf") and _is_id(repository):
        return Source("ms" if hub == "ms" else "hf", repository)
    owner, _, rest = name.partition("/")
    if owner in OWNERS and _is_id(name):
        known, today = OWNERS[owner]
        return Source(known, f"{today}/{rest}")
    if _is_id(name):
        raise ModelNotFound(
            f"there is no directory {name}; if it is a published model, say where: ms:{name} or hf:{name}"
        )
    raise ModelNotFound(f"there is no model directory or published model {name!r}; published are {', '.join(ALIASES)}")


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text, re.ASCII) is not None


# -- the clients ------------------------------------------------------------------------------------------------------


def _cached(source: Source, revision: str | None) -> Path | None:
    """The complete copy in the client's cache, if there is one; never touches the network."""
    find = _find_modelscope if source.hub == "ms" else _find_hugging_face
    directory = find(source, revision)
    return directory if directory is not None and _is_complete(directory) else None


def _fetch(source: Source, revision: str | None) -> Path:
    """Download the files into the client's cache."""
    directory = (_get_modelscope if source.hub == "ms" else _get_hugging_face)(source, revision)
    if not _is_complete(directory):
        raise ModelError(f"{source} holds no model that can be opened: settings, weights or both are missing in it")
    return directory


def _is_complete(directory: Path) -> bool:
    return all(any((directory / name).is_file() for name in names) for names in (SETTINGS, WEIGHTS))


def _modelscope() -> Any:
    """ModelScope's client; MODELSCOPE_ENDPOINT and MODELSCOPE_CACHE move it elsewhere."""
    try:
        import modelscope_hub
    except ImportError as error:
        raise MissingExtra("Finding models of ModelScope", "hub") from error
    return modelscope_hub


def _find_modelscope(source: Source, revision: str | None) -> Path | None:
    client = _modelscope()
    try:
        found = client.HubApi().download_repo(source.id, "model", revision=revision, local_files_only=True)
    except client.CacheError:
        return None
    directory = Path(found)
    # Caches of old clients have no place for the revision: it is only as sure as our record.
    if revision is not None and directory.name != revision and _read_record(directory).get("revision") != revision:
        return None
    return directory


def _get_modelscope(source: Source, revision: str | None) -> Path:
    client = _modelscope()
    try:
        return Path(client.HubApi().download_repo(source.id, "model", revision=revision, allow_patterns=list(FILES)))
    except Exception as error:
        raise _not_fetched(source, "ModelScope", error) from error


def _hugging_face() -> Any:
    """Hugging Face's client; HF_ENDPOINT and HF_HOME move it elsewhere."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra("Finding models of Hugging Face", "hub") from error
    return huggingface_hub


def _find_hugging_face(source: Source, revision: str | None) -> Path | None:
    client = _hugging_face()
    try:
        found = client.snapshot_download(
            source.id, revision=revision, allow_patterns=list(FILES), local_files_only=True
        )
    except FileNotFoundError:
        return None
    return Path(found)


def _get_hugging_face(source: Source, revision: str | None) -> Path:
    client = _hugging_face()
    try:
        return Path(client.snapshot_download(source.id, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:
        raise _not_fetched(source, "Hugging Face", error) from error


def _not_fetched(source: Source, place: str, error: Exception) -> ModelNotFound:
    """Whatever went wrong: the clients let errors of several HTTP libraries through, with nothing in common."""
    return ModelNotFound(f"{source} could not be fetched from {place}: {' '.join(str(error).split())}")


# -- what came ------------------------------------------------------------------------------------------------------


def _record_path(directory: Path) -> Path:
    """Beside the model, outside the folder that the clients list as revisions."""
    parent = directory.parent
    return (parent.parent if parent.name == "snapshots" else parent) / f".paraformer-{directory.name}.json"


def _read_record(directory: Path) -> dict[str, Any]:
    """What is written down about a cached model; empty if nothing is."""
    path = _record_path(directory)
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is damaged; delete it to accept the model beside it as it is") from error
    return record


def _hold_to_record(directory: Path, source: Source, revision: str | None) -> None:
    """Compare a model with its record. The first time, also when another program fetched it, there is one to write."""
    record = _read_record(directory)
    if directory.parent.name == "snapshots":  # else a cache of an old client, one directory for all revisions
        revision = directory.name
    if not record or revision not in (None, record["revision"]):
        _write_record(directory, source, revision)
        return
    present = {name for name in FILES if (directory / name).is_file()}
    differing = present ^ set(record["files"])
    differing |= {name for name in present - differing if not _unchanged(directory / name, record["files"][name])}
    if differing:
        raise ModelError(
            f"{directory} changed since it was first fetched: {', '.join(sorted(differing))}; delete it and fetch "
            f"{source} again, or accept the change by deleting {_record_path(directory)}"
        )


def _write_record(directory: Path, source: Source, revision: str | None) -> None:
    """Write down every file with size, time and checksum. A cache that cannot be written to goes without."""
    files = {name: _fingerprint(directory / name) for name in FILES if (directory / name).is_file()}
    record = {"source": str(source), "revision": revision, "files": files}
    path = _record_path(directory)
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        logger.warning("cannot write %s, so later changes of the model will go unnoticed: %s", path, error)


def _fingerprint(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "sha256": checksum(path)}


def _unchanged(path: Path, known: Mapping[str, Any]) -> bool:
    """Size and time tell at once; only a file with another time is read."""
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (known["bytes"], known["modified_ns"]):
        return True
    return bool(status.st_size == known["bytes"] and checksum(path) == known["sha256"])
