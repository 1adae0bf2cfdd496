"""Every kind of data opens to the same cuts; what is wrong with it is named."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from lhotse.cut import MonoCut
from speech_archives import RATE, sound_of, write_archive

from paraformer import audio
from paraformer.data.dataset import text_of
from paraformer.data.hugging_face import from_hugging_face
from paraformer.data.prepare import load_cuts, save_cuts
from paraformer.data.reading import at_rate, load, measured, readable
from paraformer.data.recordings import recording_of
from paraformer.data.shar import write_shar
from paraformer.data.skips import Skips
from paraformer.data.sources import open_data
from paraformer.errors import AudioError, AudioNotFound, DataError, MissingExtra

TEXTS = {"a": "一二", "b": "三四一"}


def write_wavs(directory: Path, rate: int = RATE) -> dict[str, Path]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = {name: directory / f"{name}.wav" for name in TEXTS}
    for name, path in paths.items():
        soundfile.write(path, sound_of(TEXTS[name]), rate)
    return paths


def kaldi(directory: Path) -> Path:
    paths = write_wavs(directory)
    (directory / "wav.scp").write_text("".join(f"{name} {path}\n" for name, path in paths.items()))
    (directory / "text").write_text("".join(f"{name}\t{text}\n" for name, text in TEXTS.items()))
    return directory


def kaldi_segments(directory: Path) -> Path:
    directory.mkdir()
    soundfile.write(directory / "long.wav", np.concatenate([sound_of(text) for text in TEXTS.values()]), RATE)
    end = len(sound_of(TEXTS["a"])) / RATE
    (directory / "wav.scp").write_text(f"long {directory / 'long.wav'}\n")
    (directory / "text").write_text("".join(f"{name} {text}\n" for name, text in TEXTS.items()))
    (directory / "segments").write_text(f"a long 0.0 {end}\nb long {end} -1\n")
    (directory / "utt2spk").write_text("a tones\nb tones\n")
    return directory


def funasr(directory: Path) -> Path:
    write_wavs(directory)
    rows = [{"key": name, "source": f"{name}.wav", "source_len": 9, "target": TEXTS[name]} for name in TEXTS]
    path = directory / "train.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def table(directory: Path, suffix: str, separator: str) -> Path:
    write_wavs(directory / "wavs")
    lines = [("Path", "Sentence", "other")] + [(f"wavs/{name}.wav", text, "x") for name, text in TEXTS.items()]
    path = directory / f"train{suffix}"
    path.write_text("\ufeff" + "".join(separator.join(line) + "\n" for line in lines), encoding="utf-8")
    return path


def hugging_face(directory: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    paths = write_wavs(directory / "wavs")
    columns = {"audio": [str(path) for path in paths.values()], "sentence": list(TEXTS.values()), "id": list(TEXTS)}
    dataset = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    dataset.save_to_disk(str(directory / "saved"))
    return directory / "saved"


def parquet(directory: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    (directory / "set").mkdir(parents=True)
    sounds = [{"bytes": path.read_bytes(), "path": None} for path in write_wavs(directory / "wavs").values()]
    dataset = datasets.Dataset.from_dict({"audio": sounds, "text": list(TEXTS.values())})
    dataset.cast_column("audio", datasets.Audio(decode=False)).to_parquet(str(directory / "set" / "part.parquet"))
    return directory / "set"


def prepared(directory: Path) -> Path:
    save_cuts(measured(open_data(kaldi(directory / "kaldi")), Skips("stop")), directory / "sets", "tones")
    return directory / "sets" / "tones"


def prepared_directory(directory: Path) -> Path:
    return prepared(directory).parent


def shards(directory: Path) -> Path:
    write_shar(open_data(kaldi(directory / "kaldi")), directory / "shards", Skips("stop"))
    return directory / "shards"


def archive(directory: Path) -> Path:
    directory.mkdir()
    return write_archive(directory / "tones.tar", list(TEXTS.values()))


KINDS: dict[str, Callable[[Path], Path]] = {
    "kaldi": kaldi,
    "kaldi with segments": kaldi_segments,
    "funasr": funasr,
    "csv": lambda directory: table(directory, ".csv", ","),
    "tsv": lambda directory: table(directory, ".tsv", "\t"),
    "saved by datasets": hugging_face,
    "parquet": parquet,
    "prepared set": prepared,
    "directory of prepared sets": prepared_directory,
    "shar": shards,
    "archive": archive,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the library datasets
def test_every_kind_gives_the_same_speech(kind: str, tmp_path: Path) -> None:
    cuts = list(open_data(KINDS[kind](tmp_path / "data"), Skips("stop")))
    assert [text_of(cut) for cut in cuts] == list(TEXTS.values())
    assert all(cut.id == cut.supervisions[0].id for cut in cuts)
    for cut in cuts:
        np.testing.assert_allclose(load(cut), sound_of(text_of(cut)), atol=1e-4)


def test_relative_paths_and_ids_of_tables(tmp_path: Path) -> None:
    cuts = list(open_data(table(tmp_path, ".tsv", "\t")))
    assert [cut.id for cut in cuts] == ["wavs/a", "wavs/b"]


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_training_hears_a_file_as_recognition_does(tmp_path: Path, rate: int) -> None:
    """Speech on the second channel, at any rate: the same samples, alone and joined to others."""
    speech = np.repeat(sound_of("一"), 3)[: rate // 2]
    soundfile.write(tmp_path / "a.wav", np.stack([np.zeros_like(speech), speech], axis=1), rate)
    (tmp_path / "list.csv").write_text("path,text\na.wav,一\n", encoding="utf-8")
    heard = audio.read(tmp_path / "a.wav")
    save_cuts(measured(open_data(tmp_path / "list.csv"), Skips("stop")), tmp_path / "sets", "tones")
    for cuts in (open_data(tmp_path / "list.csv"), load_cuts(tmp_path / "sets", "tones")):
        [cut] = cuts
        assert cut.sampling_rate == rate
        np.testing.assert_array_equal(load(cut), heard)
        joined = load(at_rate(cut).pad(duration=cut.duration + 0.5, direction="left").append(at_rate(cut)))
        np.testing.assert_array_equal(joined[8000:][: len(heard)], heard)
        np.testing.assert_array_equal(joined[-len(heard) :], heard)
        assert not joined[:8000].any()


def test_a_cut_may_name_its_channel(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([np.zeros(8000), sound_of("一")[:8000]], axis=1), RATE)
    recording = recording_of(tmp_path / "a.wav", "a")
    for channel, loud in ((0, False), (1, True)):
        cut = MonoCut(id="a", start=0.0, duration=0.5, channel=channel, recording=recording)
        assert load(cut).any() == loud


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"duration": math.nan}, "cut b begins at 0.0 s and lasts nan s"),
        ({"duration": math.inf}, "lasts inf s"),
        ({"duration": -1.0}, "lasts -1.0 s"),
        ({"start": -1.0}, "begins at -1.0 s"),
        ({"start": math.nan}, "begins at nan s"),
        ({"recording": None}, "damaged"),
        ({"recording": 7}, "damaged"),
    ],
)
def test_cuts_that_cannot_be_are_refused(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    soundfile.write(tmp_path / "a.wav", sound_of("一")[:8000], RATE)
    cut = MonoCut("a", 0.0, 0.5, 0, recording=recording_of(tmp_path / "a.wav", "a")).to_dict()
    rows = [{**cut, "supervisions": []}, {**cut, "id": "b", **changed}]
    path = tmp_path / "x.cuts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=said):
        open_data(path)


@pytest.mark.parametrize("channel", [1, 2])
def test_a_chosen_channel_is_heard_everywhere(tmp_path: Path, channel: int) -> None:
    columns = np.stack([sound_of("一")[:8000], sound_of("二")[:8000]], axis=1)
    soundfile.write(tmp_path / "call.wav", columns, RATE)
    soundfile.write(tmp_path / "one.wav", columns[:, 0], RATE)
    (tmp_path / "list.csv").write_text("path,text\ncall.wav,一\none.wav,一\n", encoding="utf-8")
    skips = Skips()
    cuts = open_data(tmp_path / "list.csv", skips, channel)
    save_cuts(measured(cuts, skips), tmp_path / "sets", "calls")
    for prepared in (cuts, load_cuts(tmp_path / "sets", "calls")):
        np.testing.assert_array_equal(load(prepared[0]), audio.read(tmp_path / "call.wav", channel=channel))
        assert len(prepared) == 3 - channel
    assert [(one.id, one.detail) for one in skips.found] == [("one", "there is no channel 2")] * (channel - 1)


def test_channels_that_cancel_are_left_out_and_named(tmp_path: Path) -> None:
    sound = sound_of("一")[:8000]
    soundfile.write(tmp_path / "phase.wav", np.stack([sound, -sound], axis=1), RATE)
    (tmp_path / "list.csv").write_text("path,text\nphase.wav,一\n", encoding="utf-8")
    skips = Skips()
    assert not list(readable(open_data(tmp_path / "list.csv"), skips))
    assert "phase has channels in opposite phase" in skips.found[0].detail
    assert len(list(readable(open_data(tmp_path / "list.csv", channel=1), skips))) == 1


def test_whatever_fails_is_the_failure_of_one_utterance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts, mono = list(open_data(kaldi(tmp_path / "kaldi"))), audio.mono
    calls = iter(range(10))

    def strange(*values: object) -> np.ndarray:
        if next(calls) == 0:
            raise ZeroDivisionError("deep inside")
        return mono(*values)

    monkeypatch.setattr(audio, "mono", strange)
    skips = Skips()
    assert [cut.id for cut, _ in readable(cuts, skips)] == [cut.id for cut in cuts[1:]]
    assert skips.counts == {"unreadable audio": 1}
    assert "deep inside" in skips.found[0].detail


def test_what_has_no_usable_file_is_named_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_wavs(tmp_path)
    (tmp_path / "broken.wav").write_bytes(b"RIFF no")
    names = ["a", "gone", "broken", "b", "a"]
    (tmp_path / "list.csv").write_text("path,text\n" + "".join(f"{n}.wav,一\n" for n in names), encoding="utf-8")
    skips = Skips()
    with caplog.at_level(logging.WARNING, "paraformer"):
        cuts = open_data(tmp_path / "list.csv", skips)
    assert [cut.id for cut in cuts] == ["a", "b"]
    assert skips.counts == {"missing file": 1, "unreadable audio": 1, "id used twice": 1}
    assert "gone.wav" in caplog.text
    with pytest.raises(DataError, match=r"gone: missing file"):
        open_data(tmp_path / "list.csv", Skips("stop"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.csv", "a,b\n1,2\n", "needs a path"),
        ("list.jsonl", "{no", "line 1: not JSON"),
        ("list.jsonl", "[1]", "not a JSON object"),
        ("list.jsonl", '{"key": "a", "target": "一"}', "needs a path"),
        ("list.xlsx", "", "no data that is known"),
        ("list.csv", "path,text\n", "no usable utterance"),
        ("x.cuts.jsonl.gz", "not gzip", "damaged"),
    ],
)
def test_files_that_are_no_data_say_so(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / name)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("wav.scp", "a sox a.wav -t wav - |\n", "run it and list the file"),
        ("text", "a 一\nzz 二\n", "'zz'"),
        ("text", "a 一\na 二\n", "line 2"),
        ("segments", "a a 0.0\n", "'a' needs a recording"),
        ("segments", "a a nan 0.2\nb b 0.0 0.2\n", "'a' needs a recording"),
        ("segments", "a a 0.0 inf\nb b 0.0 0.2\n", "'a' needs a recording"),
        ("segments", "a a 0.0 0.2\n", "text has 'b', of which"),
        ("segments", "", "text has 'a', of which"),
    ],
)
def test_kaldi_directories_that_do_not_fit_together(tmp_path: Path, file: str, content: str, message: str) -> None:
    directory = kaldi(tmp_path / "kaldi")
    (directory / file).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        open_data(directory)


@pytest.mark.parametrize(
    ("times", "good"),
    [
        ("0.1 -1", (0.1, 0.7)),
        ("0.1 0.3", (0.1, 0.2)),
        ("0.1 1.2", (0.1, 0.7)),
        ("-1.0 0.5", None),
        ("0.0 0.0", None),
        ("0.5 0.2", None),
        ("0.1 -2", None),
        ("0.9 1.0", None),
        ("0.1 1.4", None),
        ("0.1 99", None),
    ],
)
def test_segments_lie_within_their_recording(tmp_path: Path, times: str, good: tuple[float, float] | None) -> None:
    """Of 0.8 s; Kaldi itself lets them end half a second after it."""
    directory = kaldi(tmp_path / "kaldi")
    (directory / "segments").write_text(f"a a {times}\nb b 0.0 0.5\n")
    skips = Skips()
    cuts = open_data(directory, skips)
    found = {cut.id: pytest.approx((cut.start, cut.duration)) for cut in cuts}
    assert found == {"b": (0.0, 0.5)} | ({"a": good} if good else {})
    assert [one.id for one in skips.found] == ([] if good else ["a"])
    assert all("a.wav is 0.80 s long" in one.detail for one in skips.found)


@pytest.mark.parametrize("path", [".", "..", "/", "./", "一" * 300, "a\0b"])
def test_a_path_that_is_no_file_costs_its_line(tmp_path: Path, path: str) -> None:
    write_wavs(tmp_path)
    rows = [{"audio": path, "text": "一"}, {"audio": "b.wav", "text": "一"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    skips = Skips()
    assert [cut.id for cut in open_data(tmp_path / "list.jsonl", skips)] == ["b"]
    assert [bool(one.id) and one.reason for one in skips.found] == ["missing file"]


def test_directories_that_are_no_data_say_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "readme").touch()
    with pytest.raises(DataError, match="it holds readme"):
        open_data(tmp_path)
    with pytest.raises(DataError, match="there is no"):
        open_data(tmp_path / "nothing")


def test_samples_that_cannot_be_read_are_one_error(tmp_path: Path) -> None:
    cut = next(iter(open_data(kaldi(tmp_path / "kaldi"))))
    path = Path(cut.recording.sources[0].source)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AudioError, match="the audio of a cannot be read"):
        load(cut)
    path.unlink()
    with pytest.raises(AudioNotFound, match=r"no file .*a\.wav"):
        load(cut)


def test_an_empty_set_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable utterance"):
        save_cuts(CutSet.from_cuts([]), tmp_path, "none")


def test_what_is_not_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"path,text\n\xff\xfe,\x80\n")
    with pytest.raises(DataError, match="cannot be read as text"):
        open_data(tmp_path / "list.csv")


def test_hugging_face_data_need_text_and_sound(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match="has the columns words"):
        list(from_hugging_face(datasets.Dataset.from_dict({"words": ["一"]}), Skips()))
    (tmp_path / "dataset_info.json").touch()
    with pytest.raises(DataError, match="Hugging Face data set"):
        open_data(tmp_path)


def test_hugging_face_rows_without_sound_are_left_out(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    sounds = [{"bytes": b"no", "path": None}, {"bytes": None, "path": str(tmp_path / "gone.wav")}, None]
    dataset = datasets.Dataset.from_dict({"audio": sounds, "text": ["一"] * 3})
    skips = Skips()
    assert not list(from_hugging_face(dataset.cast_column("audio", datasets.Audio(decode=False)), skips))
    assert skips.counts == {"unreadable audio": 1, "missing file": 2}


def test_hugging_face_ids_of_sentences_are_made_ids_of_utterances(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    paths = [str(path) for path in write_wavs(tmp_path).values()]
    dataset = datasets.Dataset.from_dict({"id": [5, 5], "audio": paths, "text": list(TEXTS.values())})
    cuts = list(from_hugging_face(dataset.cast_column("audio", datasets.Audio(decode=False)), Skips("stop"), "dev-"))
    assert [(cut.id, cut.recording.id) for cut in cuts] == [("5", "5"), ("5-dev-00000001", "5-dev-00000001")]


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "dataset_info.json").touch()
    with pytest.raises(MissingExtra, match=r"paraformer\[hf\]"):
        open_data(tmp_path)
