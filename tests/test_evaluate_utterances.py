from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from paraformer.errors import AudioError, AudioNotFound, DataError
from paraformer.evaluate.utterances import is_plain, read_utterances

RATE = 16000


def cut(path: Path, name: str = "a", **changed: object) -> dict[str, object]:
    """A cut as lhotse writes it: the second half of a file of one second."""
    source = {"type": "file", "channels": [0], "source": str(path)}
    recording = {"id": "r", "sources": [source], "sampling_rate": RATE, "num_samples": RATE, "duration": 1.0}
    said = [{"start": 0.2, "text": "天气", "speaker": "s1"}, {"start": 0.0, "text": "今天", "speaker": "s1"}]
    row = {"id": name, "start": 0.5, "duration": 0.5, "channel": 0, "supervisions": said, "recording": recording}
    return {**row, "type": "MonoCut", **changed}


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.repeat(np.float32([0.1, 0.5]), RATE // 2), RATE, subtype="FLOAT")
    return path


def write_cuts(path: Path, *rows: dict[str, object]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "path\ttext\tid\tspeaker\na.wav\t今天\tone\tanna\n"),
        ("a.csv", "id,audio,speaker,text\none,a.wav,anna,今天\n"),
        ("a.jsonl", '{"audio": "a.wav", "text": "今天", "id": "one", "speaker": "anna"}\n\n'),
        ("a.jsonl", '{"source": "a.wav", "target": "今天", "key": "one", "speaker": "anna"}'),
        ("a.jsonl", '\ufeff{"path": "a.wav", "text": "今天", "id": "one", "speaker": "anna"}'),
    ],
)
def test_lists(tmp_path: Path, wav: Path, name: str, content: str) -> None:
    manifest = tmp_path / name
    manifest.write_text(content, encoding="utf-8")
    assert is_plain(manifest)
    (utterance,) = read_utterances(manifest)
    assert (utterance.id, utterance.text, utterance.speaker) == ("one", "今天", "anna")
    assert len(utterance.load()) == RATE


def test_a_table_without_names_is_of_path_and_text(tmp_path: Path, wav: Path) -> None:
    (tmp_path / "a.tsv").write_text('a.wav\t"今天\n', encoding="utf-8")
    (utterance,) = read_utterances(tmp_path / "a.tsv")
    assert (utterance.id, utterance.text, utterance.speaker) == ("a.wav", '"今天', "")


def test_cuts_are_stretches_of_files(tmp_path: Path, wav: Path) -> None:
    write_cuts(tmp_path / "dev.cuts.jsonl.gz", cut(wav))
    assert is_plain(tmp_path / "dev")
    (utterance,) = read_utterances(tmp_path / "dev")
    assert (utterance.id, utterance.text, utterance.speaker) == ("a", "今天 天气", "s1")
    np.testing.assert_array_equal(utterance.load(), np.full(RATE // 2, 0.5, np.float32))


@pytest.mark.parametrize(
    ("start", "duration", "wrong"),
    [(-0.5, 0.5, "no seconds"), (0.5, 0.0, "no seconds"), (0.5, -0.2, "no seconds"), (0.5, 1.2, "before second 1.7")],
)
def test_a_stretch_lies_within_its_file(tmp_path: Path, wav: Path, start: float, duration: float, wrong: str) -> None:
    row = {**cut(wav, "a"), "start": start, "duration": duration}
    write_cuts(tmp_path / "dev.cuts.jsonl.gz", row)
    [utterance] = read_utterances(tmp_path / "dev")
    with pytest.raises(AudioError, match=wrong):
        utterance.load()


def test_a_directory_is_no_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_plain(Path())
    with pytest.raises(DataError, match="there is no file"):
        read_utterances(Path())


def test_audio_that_is_not_there(tmp_path: Path, wav: Path) -> None:
    late = cut(wav, "late", start=2.0)
    write_cuts(tmp_path / "dev.cuts.jsonl.gz", late, cut(tmp_path / "gone.wav", "gone"))
    first, second = read_utterances(tmp_path / "dev")
    with pytest.raises(AudioError, match="ends before second 2"):
        first.load()
    with pytest.raises(AudioNotFound, match=r"gone\.wav"):
        second.load()


def test_what_needs_lhotse_is_not_plain(tmp_path: Path, wav: Path) -> None:
    mixed = write_cuts(tmp_path / "mixed.cuts.jsonl.gz", {"id": "m", "type": "MixedCut", "tracks": []})
    memory = cut(wav)
    memory["recording"]["sources"][0]["type"] = "memory"  # type: ignore[index]
    assert not is_plain(mixed)
    assert not is_plain(write_cuts(tmp_path / "memory.cuts.jsonl.gz", memory))
    assert not is_plain(tmp_path)
    assert not is_plain(tmp_path / "speech.tar")
    with pytest.raises(DataError, match="not a stretch of one file"):
        read_utterances(write_cuts(tmp_path / "both.cuts.jsonl.gz", cut(wav), cut(wav, "b", type="MixedCut")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no utterances"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: not a JSON object"),
        ('{"audio": "a.wav"}', None),
        ('{"text": "今天"}', "line 1: needs a path"),
        ('{"audio": "a.wav", "text": 3}', "line 1: needs a path"),
        ('{"audio": "a.wav", "text": "一"}\n{"audio": "a.wav", "text": "一"}', "line 2: the id 'a.wav' was there"),
        ('{"supervisions": [], "type": "MonoCut"}', "line 1"),
    ],
)
def test_lines_that_cannot_be_used_are_named(tmp_path: Path, content: str, message: str | None) -> None:
    manifest = tmp_path / "a.jsonl"
    manifest.write_text(content, encoding="utf-8")
    if message is None:
        assert read_utterances(manifest)[0].text == ""
        return
    with pytest.raises(DataError, match=message):
        read_utterances(manifest)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*none\.jsonl"):
        read_utterances(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"not compressed")
    with pytest.raises(DataError, match=r"bad\.jsonl\.gz cannot be read"):
        read_utterances(tmp_path / "bad.jsonl.gz")


@pytest.mark.parametrize("channel", [1, 2])
def test_a_chosen_channel(tmp_path: Path, channel: int) -> None:
    columns = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "call.wav", columns, 16000, subtype="FLOAT")
    (tmp_path / "list.tsv").write_text("path\ttext\ncall.wav\t一\n", encoding="utf-8")
    (one,) = read_utterances(tmp_path / "list.tsv", channel)
    np.testing.assert_array_equal(one.load(), columns[:, channel - 1])
    (mean,) = read_utterances(tmp_path / "list.tsv")
    np.testing.assert_allclose(mean.load(), columns.mean(axis=1), atol=1e-7)
