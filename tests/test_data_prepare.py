from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_archives import sound_of, write_archive

from paraformer.data.prepare import load_cuts, prepare, save_cuts, spoken_text, vocabulary
from paraformer.data.reading import load, measured, voiced_span
from paraformer.data.skips import Skips
from paraformer.data.sources import open_data
from paraformer.errors import DataError
from paraformer.evaluate.utterances import read_utterances


def test_prepare_keeps_samples_texts_and_speakers(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "tones.tar", ["一二", "三四"])
    cuts = prepare([archive], tmp_path / "out")["tones"]
    assert [cut.supervisions[0].text for cut in cuts] == ["一二", "三四"]
    assert {cut.supervisions[0].speaker for cut in cuts} == {"tones"}
    np.testing.assert_allclose(next(iter(cuts)).load_audio()[0], sound_of("一二"), atol=1e-4)


def test_prepare_reads_back_what_it_wrote(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "tones.tar", ["一"])
    prepare([archive], tmp_path / "out")
    archive.unlink()
    assert len(prepare([archive], tmp_path / "out")["tones"]) == 1
    assert len(load_cuts(tmp_path / "out", "tones")) == 1


def test_a_prepared_set_is_right_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made under a relative name, read in another directory, and again after it was moved."""
    write_archive(tmp_path / "tones.tar", ["一二"])
    monkeypatch.chdir(tmp_path)
    prepare([Path("tones.tar")], Path("out"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_allclose(load(*load_cuts(Path("../out"), "tones")), sound_of("一二"), atol=1e-4)
    (tmp_path / "out").rename(tmp_path / "moved")
    np.testing.assert_allclose(load(*open_data(tmp_path / "moved")), sound_of("一二"), atol=1e-4)
    np.testing.assert_allclose(read_utterances(tmp_path / "moved/tones")[0].load(), sound_of("一二"), atol=1e-4)


def test_audio_outside_a_prepared_set_is_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", sound_of("一二"), 16000)
    Path("list.tsv").write_text("path\ttext\na.wav\t一二\n", encoding="utf-8")
    save_cuts(measured(open_data("list.tsv"), Skips("stop")), Path("sets"), "tones")
    monkeypatch.chdir("/")
    assert len(load(*load_cuts(tmp_path / "sets", "tones"))) == len(sound_of("一二"))


def test_what_cannot_be_prepared_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"not a tar")
    with pytest.raises(DataError, match=r"bad\.tar"):
        prepare([tmp_path / "bad.tar"], tmp_path / "out")
    with pytest.raises(DataError, match="'none'"):
        load_cuts(tmp_path, "none")


def test_what_is_bad_in_an_archive_is_left_out(tmp_path: Path) -> None:
    """Another rate is none of it; what does not decode is, and what the archive lacks."""
    [cut] = prepare([write_archive(tmp_path / "slow.tar", ["一"], rate=8000)], tmp_path / "slow")["slow"]
    assert (cut.sampling_rate, len(load(cut))) == (16000, 2 * len(sound_of("一")))
    sound = (tmp_path / "slow/audio/slow/slow-0.wav").read_bytes()
    entries = [{"id": name, "audio": f"{name}.x", "text": "一"} for name in ("good", "broken", "gone")]
    manifest = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries).encode()
    members = {"manifest.jsonl": manifest, "good.x": sound, "broken.x": b"no sound"}
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    skips = Skips()
    assert [cut.id for cut in open_data(tmp_path / "some.tar", skips)] == ["good"]
    assert [cut.id for cut in prepare([tmp_path / "some.tar"], tmp_path / "out", skips)["some"]] == ["good"]
    assert sorted(one.id for one in skips.found) == ["broken", "broken", "gone", "gone"]


@pytest.mark.parametrize(
    ("text", "spoken"), [("你好，世界！", "你好世界"), ("ＡＢc 12", "abc12"), ("……", ""), ("三.五", "三五")]
)
def test_spoken_text(text: str, spoken: str) -> None:
    assert spoken_text(text) == spoken


def test_vocabulary_has_special_tokens_at_their_ids() -> None:
    assert vocabulary(["三一", "一二"]) == ("<blank>", "<s>", "</s>", "一", "三", "二", "<unk>")


def test_voiced_span_leaves_silence_out() -> None:
    samples = np.zeros(32000, np.float32)
    samples[8000:16000] = 0.5
    assert voiced_span(samples) == pytest.approx((0.4, 1.1), abs=0.011)
    assert voiced_span(np.zeros(16000, np.float32)) == (0.0, 1.0)
    assert voiced_span(np.zeros(10, np.float32)) == (0.0, 10 / 16000)
