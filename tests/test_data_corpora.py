"""Corpora are found in directory trees that look like the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from speech_archives import RATE, sound_of

from paraformer.cli import main
from paraformer.data.corpora import open_corpus
from paraformer.data.dataset import text_of
from paraformer.data.prepare import load_cuts
from paraformer.data.skips import Skips
from paraformer.errors import DataError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound_of(text), RATE)
    return path


def aishell(root: Path) -> None:
    lines = []
    for part, text in (("train", "一二"), ("dev", "三"), ("test", "四")):
        write(root / f"data_aishell/wav/{part}/S0002/BAC009S0002W{part}.wav", text)
        lines.append(f"BAC009S0002W{part} {' '.join(text)}\n")
    transcripts = root / "data_aishell/transcript/aishell_transcript_v0.8.txt"
    transcripts.parent.mkdir()
    transcripts.write_text("".join(lines), encoding="utf-8")


def aishell2(root: Path) -> None:
    for part, text in (("data", "一二"), ("dev", "三"), ("test", "四")):
        write(root / f"AISHELL-2/iOS/{part}/wav/C0001/IC0001W{part}.wav", text)
        (root / f"AISHELL-2/iOS/{part}/trans.txt").write_text(f"IC0001W{part}\t{text}\n", encoding="utf-8")


def wenetspeech(root: Path) -> None:
    path = write(root / "audio/train/youtube/B00000/Y1.wav", "一二三四")
    begin, split, end = 0.0, 0.7, 1.4
    subsets = (["L", "M", "S", "DEV"], ["TEST_NET", "TEST_MEETING"])
    segments = [
        {"sid": f"Y1_S{i}", "begin_time": b, "end_time": e, "text": text, "subsets": parts, "confidence": 1.0}
        for i, (b, e, text, parts) in enumerate([(begin, split, "一二", subsets[0]), (split, end, "三四", subsets[1])])
    ]
    audio = {"aid": "Y1", "duration": 1.4, "path": str(path.relative_to(root)), "segments": segments}
    (root / "WenetSpeech.json").write_text(json.dumps({"audios": [audio]}), encoding="utf-8")


def speechio(root: Path) -> None:
    for part, text in (("SPEECHIO_ASR_ZH00000", "一二"), ("SPEECHIO_ASR_ZH00003", "三")):
        write(root / part / "wav/001.wav", text)
        rows = "ID\tAUDIO\tDURATION\tTEXT\n" + f"{part}_001\twav/001.wav\t0.8\t{text}\n"
        (root / part / "metadata.tsv").write_text(rows, encoding="utf-8")


TREES = {
    "aishell": (aishell, {"aishell_train": "一二", "aishell_dev": "三", "aishell_test": "四"}),
    "aishell2": (aishell2, {"aishell2_train": "一二", "aishell2_dev": "三", "aishell2_test": "四"}),
    "wenetspeech": (
        wenetspeech,
        {f"wenetspeech_{p}": "一二" for p in ("l", "m", "s", "dev")}
        | {f"wenetspeech_{p}": "三四" for p in ("test_net", "test_meeting")},
    ),
    "speechio": (speechio, {"speechio_zh00000": "一二", "speechio_zh00003": "三"}),
}


@pytest.mark.parametrize("corpus", TREES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # lhotse leaves a file open
def test_one_command_prepares_a_corpus(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, expected = TREES[corpus]
    (tmp_path / "corpus").mkdir()
    build(tmp_path / "corpus")
    assert main(["data", "prepare", corpus, str(tmp_path / "corpus"), str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    for name, text in expected.items():
        [cut] = load_cuts(tmp_path / "out", name)
        assert text_of(cut) == text
        assert cut.sampling_rate == RATE
        assert cut.voiced[1] > cut.voiced[0]
        assert f"{name}: 1 utterances" in shown


@pytest.mark.parametrize("corpus", TREES)
def test_a_directory_without_the_corpus_says_what_is_needed(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        open_corpus(corpus, tmp_path, Skips())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_parts_can_be_chosen(tmp_path: Path) -> None:
    wenetspeech(tmp_path)
    assert list(open_corpus("wenetspeech", tmp_path, Skips(), ["S"])) == ["wenetspeech_s"]
    with pytest.raises(DataError, match="no part XL"):
        open_corpus("wenetspeech", tmp_path, Skips(), ["XL"])
    with pytest.raises(DataError, match="no corpus is called"):
        open_corpus("librispeech", tmp_path, Skips())
    with pytest.raises(DataError, match="there is no directory"):
        open_corpus("aishell", tmp_path / "none", Skips())
