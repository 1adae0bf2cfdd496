"""Lists: the same names, quotes and lines whoever reads them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from paraformer.errors import DataError
from paraformer.manifests import json_rows, listed, speakers, table_rows


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_quotes_mean_something_between_commas_only(tmp_path: Path) -> None:
    comma = write(tmp_path / "a.csv", 'path,text\na.wav,"一,\n二"\nb.wav,三\n')
    assert [(number, row["text"]) for number, row in table_rows(comma)] == [(3, "一,\n二"), (4, "三")]
    tab = write(tmp_path / "a.tsv", 'path\ttext\na.wav\t"一\nb.wav\t二\n')
    assert [(number, row["text"]) for number, row in table_rows(tab)] == [(2, '"一'), (3, "二")]


def test_columns_without_names_have_them_only_where_that_is_agreed(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "a.wav,一\n\nb.wav,二\n")
    assert [row for _, row in table_rows(table, ("audio", "text"))] == [
        {"audio": "a.wav", "text": "一"},
        {"audio": "b.wav", "text": "二"},
    ]
    assert [row for _, row in table_rows(table)] == [{"a.wav": "b.wav", "一": "二"}]
    named = write(tmp_path / "b.csv", "Sentence,PATH\n一,a.wav\n")
    assert [row for _, row in table_rows(named, ("audio", "text"))] == [{"Sentence": "一", "PATH": "a.wav"}]


def test_a_first_line_of_other_names_is_told_from_a_file_and_its_text(tmp_path: Path) -> None:
    for names in ("recording,words", "path,label", "number"):
        table = write(tmp_path / "a.csv", f"{names}\na.wav,一\n")
        with pytest.raises(DataError, match=rf"line 1: needs a path .* but has {names.replace(',', ', ')}"):
            list(table_rows(table, ("audio", "text")))


@pytest.mark.parametrize("unnamed", [(), ("audio", "text")])
@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".tsv.gz", "\t")])
def test_more_values_than_columns_are_refused(
    tmp_path: Path, suffix: str, separator: str, unnamed: tuple[str, ...]
) -> None:
    """A comma in a text would end it there. Empty values, as spreadsheets leave them, say nothing."""
    rows = [["path", "text"], ["a.wav", "一", "", " "], ["b.wav", "二", "三"]]
    text = "".join(separator.join(row) + "\n" for row in rows[bool(unnamed) :])
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    found = table_rows(path, unnamed)
    assert list(next(found)[1].values()) == ["a.wav", "一"]
    with pytest.raises(DataError, match=rf"line {3 - bool(unnamed)}: 3 values for 2 columns"):
        next(found)


@pytest.mark.parametrize("names", ["path,text,text", "path,text,Text ", "path,text,path", "path,text,id,ID"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, names: str) -> None:
    table = write(tmp_path / "a.csv", f"{names}\na.wav,一,二,三\n")
    with pytest.raises(DataError, match="line 1: two columns are called"):
        list(table_rows(table))


def test_columns_that_nobody_reads_may_be_called_anything(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "path,text,,,x,x\na.wav,一,1,2,3,4\n")
    assert [listed(row, table, number).text for number, row in table_rows(table)] == ["一"]


@pytest.mark.parametrize("twice", ['"text": "二"', '"Text": "二"', '"extra": {"a": 1, "a": 2}'])
def test_what_a_line_says_twice_is_refused(tmp_path: Path, twice: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"audio": "a.wav", "text": "一", ' + twice + "}\n")
    with pytest.raises(DataError, match=r"line 1: .*is there twice"):
        [listed(row, path, number) for number, row in json_rows(path)]


def test_values_have_their_usual_names_in_any_case(tmp_path: Path) -> None:
    one = listed({"Key": 7, "source": " a.wav ", "target": " 一 ", "Client_ID": "anna"}, tmp_path / "x.jsonl", 1)
    assert (one.audio, one.written, one.text, one.id, one.speaker) == (tmp_path / "a.wav", "a.wav", "一", "7", "anna")
    corpus = listed({"path": "a.wav", "text": "", "source": "some corpus"}, tmp_path / "x.csv", 1)
    assert (corpus.written, corpus.text, corpus.id, corpus.speaker) == ("a.wav", "", None, None)


@pytest.mark.parametrize("row", [{}, {"text": "一"}, {"path": "", "text": "一"}, {"path": 3, "text": "一"}])
def test_a_row_without_audio_is_named(tmp_path: Path, row: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"x\.csv, line 5: needs a path"):
        listed(row, tmp_path / "x.csv", 5)


@pytest.mark.parametrize("start", [5.0, "2.5", -1, float("nan"), float("inf")])
def test_a_part_of_a_file_is_refused(tmp_path: Path, start: object) -> None:
    """NeMo's lists name parts of files: with the whole file, the text of one would be that of all."""
    row = {"audio_filepath": "a.wav", "text": "一", "duration": 2.0}
    assert listed({**row, "offset": 0.0}, tmp_path / "x.jsonl", 1) == listed(row, tmp_path / "x.jsonl", 1)
    assert listed({**row, "start": "of the day"}, tmp_path / "x.jsonl", 1) == listed(row, tmp_path / "x.jsonl", 1)
    with pytest.raises(DataError, match=r"x\.jsonl, line 3: offset is .* a whole file"):
        listed({**row, "offset": start}, tmp_path / "x.jsonl", 3)


def test_files_stand_beside_their_list_or_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.wav").touch()
    monkeypatch.chdir(tmp_path / "here")
    elsewhere = tmp_path / "lists" / "x.csv"
    assert listed({"path": "a.wav", "text": ""}, elsewhere, 1).audio == Path("a.wav")
    assert listed({"path": "b.wav", "text": ""}, elsewhere, 1).audio == tmp_path / "lists" / "b.wav"


def test_lists_may_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress('\ufeff{"a": 1}\n\n{"a": 2}'.encode()))
    assert list(json_rows(path)) == [(1, {"a": 1}), (3, {"a": 2})]


def test_nobody_is_no_speaker() -> None:
    assert speakers(["b", None, "a", "unknown", "", "b"]) == "a+b"
    assert speakers([None, "unknown"]) == ""
