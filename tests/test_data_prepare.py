from __future__ import annotations

import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_archives import flac, sound_of, write_archive, write_entries

from paraformer.data.prepare import load_cuts, prepare, save_cuts, spoken_text, vocabulary
from paraformer.data.reading import load, measured, voiced_span
from paraformer.data.skips import Skips
from paraformer.data.sources import open_data
from paraformer.errors import AudioError, DataError
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
    write_entries(tmp_path / "some.tar", entries, {"good.x": sound, "broken.x": b"no sound"})
    skips = Skips()
    assert [cut.id for cut in open_data(tmp_path / "some.tar", skips)] == ["good"]
    assert [cut.id for cut in prepare([tmp_path / "some.tar"], tmp_path / "out", skips)["some"]] == ["good"]
    assert sorted(one.id for one in skips.found) == ["broken", "broken", "gone", "gone"]


STRANGE = [
    "../../../out",
    "/{tmp}/out",
    "a/b",
    "..",
    ".",
    "a b",
    "a:b\\c",
    "长" * 90,
    "\0",
    "é",
    "e\u0301",
    "A",
    "a",
    7,
]


def test_ids_of_an_archive_name_no_place_and_each_keeps_its_sound(tmp_path: Path) -> None:
    """Whatever the id, its file lies where the others do, is no other's, and holds what was said under that id."""
    ids = [id_.format(tmp=tmp_path) if isinstance(id_, str) else id_ for id_ in STRANGE]
    texts = [f"{'一二三四'[i % 4]}{'一二三四'[i // 4]}" for i in range(len(ids))]
    entries = [{"id": id_, "audio": text, "text": text} for id_, text in zip(ids, texts, strict=True)]
    archive = write_entries(tmp_path / "x.tar", entries, {text: flac(sound_of(text)) for text in texts})
    cuts = list(prepare([archive], tmp_path / "deep/er/out", Skips("stop"))["x"])
    assert [cut.id for cut in cuts] == [str(id_) for id_ in ids]
    files = [Path(cut.recording.sources[0].source).resolve() for cut in load_cuts(tmp_path / "deep/er/out", "x")]
    assert {file.parent for file in files} == {tmp_path / "deep/er/out/audio/x"}
    assert len({file.name.casefold() for file in files}) == len(ids)
    assert set(tmp_path.rglob("*.wav")) == set(files)
    for cut, text in zip(load_cuts(tmp_path / "deep/er/out", "x"), texts, strict=True):
        np.testing.assert_allclose(load(cut), sound_of(text), atol=1e-4)


@pytest.mark.parametrize("texts", [("一二", "三四"), ("一二", "三")], ids=["of one length", "of two lengths"])
def test_an_id_that_comes_twice_in_an_archive_is_left_out_the_second_time(
    tmp_path: Path, texts: tuple[str, str]
) -> None:
    entries = [{"id": "a", "audio": text, "text": text} for text in texts]
    archive = write_entries(tmp_path / "x.tar", entries, {text: flac(sound_of(text)) for text in texts})
    for read in (lambda skips: open_data(archive, skips), lambda skips: prepare([archive], tmp_path, skips)["x"]):
        skips = Skips()
        [cut] = read(skips)
        assert (cut.supervisions[0].text, skips.counts) == ("一二", {"id used twice": 1})
        np.testing.assert_allclose(load(cut), sound_of("一二"), atol=1e-4)
        assert skips.found[0].detail == "x.tar, line 2"


def test_archives_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    archives = [write_archive(tmp_path / "x.tar", ["一"]), write_archive(tmp_path / "other" / "x.tar", ["二"])]
    with pytest.raises(DataError, match="2 archives are called 'x'"):
        prepare(archives, tmp_path / "out")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"id": "b", "audio": "a", "text": None}, "b: empty text, x.tar, line 2"),
        ({"id": "b", "audio": "a", "text": ""}, "b: empty text, x.tar, line 2"),
        ({"id": "b", "audio": "a", "text": 7}, "b: unusable entry, x.tar, line 2: its text is 7"),
        ({"id": "b", "text": "一"}, "b: unusable entry, x.tar, line 2: it names no audio"),
        ({"audio": "a", "text": "一"}, "x.tar, line 2: unusable entry, it has no id"),
        ({"id": None, "audio": "a", "text": "一"}, "x.tar, line 2: unusable entry, it has no id"),
        ({"id": ["b"], "audio": "a", "text": "一"}, "x.tar, line 2: unusable entry, its id is ['b']"),
        (
            {"id": "b\ud800", "audio": "a", "text": "一"},
            "x.tar, line 2: unusable entry, its id or text holds half a character",
        ),
        ([1], "x.tar, line 2: unusable entry, it is not a JSON object"),
        ("b", "x.tar, line 2: unusable entry, it is not a JSON object"),
    ],
)
def test_an_entry_that_says_too_little_is_named_and_the_others_are_prepared(
    tmp_path: Path, entry: object, said: str
) -> None:
    good = [{"id": name, "audio": "a", "text": "一", "voices": None} for name in ("a", "c")]
    archive = write_entries(tmp_path / "x.tar", [good[0], entry, good[1]], {"a": flac(sound_of("一"))})
    for read in (
        lambda skips: open_data(archive, skips),
        lambda skips: prepare([archive], tmp_path / skips.on_bad, skips)["x"],
    ):
        skips = Skips()
        assert [cut.id for cut in read(skips)] == ["a", "c"]
        assert [str(skipped) for skipped in skips.found] == [said]
        with pytest.raises(DataError, match=f"^utterance {re.escape(said)}; mend"):
            list(read(Skips("stop")))


def test_channels_that_cancel_in_an_archive_are_left_out_and_named(tmp_path: Path) -> None:
    sound = np.stack([sound_of("一"), sound_of("一")], axis=1)
    sounds = {"a": flac(sound), "b": flac(sound * [1, -1])}
    archive = write_entries(tmp_path / "x.tar", [{"id": id_, "audio": id_, "text": "一"} for id_ in sounds], sounds)
    skips = Skips()
    [cut] = prepare([archive], tmp_path, skips)["x"]
    np.testing.assert_allclose(load(cut), sound_of("一"), atol=1e-4)
    assert [one.detail.split(":")[0] for one in skips.found] == [
        "b has channels in opposite phase, which cancel each other"
    ]


def test_noise_needs_no_text(tmp_path: Path) -> None:
    entries = [{"id": "rain", "audio": "a", "label": "rain"}]
    archive = write_entries(tmp_path / "x.tar", entries, {"a": flac(sound_of("一"))})
    assert [cut.id for cut in prepare([archive], tmp_path, Skips("stop"))["x"]] == ["rain"]


@pytest.mark.parametrize("data", [b"\xff\xfe{}", b'{"id": 1', b""])
def test_manifests_of_archives_that_are_no_manifests(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(data)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "manifest.jsonl", "manifest.jsonl")
    with pytest.raises(DataError, match="not a speech archive" if data else "no usable"):
        prepare([tmp_path / "x.tar"], tmp_path / "out")


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


def test_a_full_disk_ends_it_and_leaves_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each utterance would be told to be damaged, and those before made a set that is never completed."""
    archive, write = write_archive(tmp_path / "tones.tar", ["一二", "三四", "四"]), Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "tones-1.wav":
            raise OSError(28, "No space left on device")
        return write(path, data)

    skips = Skips()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*tones-1.wav'"):
            prepare([archive], tmp_path / "out", skips)
    assert not skips.found
    assert len(prepare([archive], tmp_path / "out", skips)["tones"]) == 3


@pytest.mark.parametrize(("share", "rate"), [(0.5, 16000), (1.0, 8000), (1.3, 16000)])
def test_a_file_that_became_another_is_no_longer_the_utterance(share: float, rate: int, tmp_path: Path) -> None:
    """lhotse takes samples of any rate, and makes up half a second that is missing by mirroring what there is."""
    (cut,) = prepare([write_archive(tmp_path / "tones.tar", ["一二"])], tmp_path / "out")["tones"]
    (source,) = cut.recording.sources
    samples = load(cut)
    soundfile.write(source.source, np.resize(samples, round(share * len(samples))), rate)
    with pytest.raises(AudioError, match=r"holds .* s at .*, but 0.80 s at 16000 Hz when it was prepared; prepare it"):
        load(cut)
