"""Who says what in every format, from the same tokens."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.cli import main
from paraformer.cli.formats import render
from paraformer.cli.intervals import spoken_turns
from paraformer.cli.options import loading, parser
from paraformer.subtitles import cues
from paraformer.types import Segment, Token, Transcript
from paraformer.writing import readable, sentences


def token(text: str, at: float, speaker: int | None, mark: str = "", spoken: str = "") -> Token:
    heard = tuple(Token(one, at, at + 0.2, 1.0) for one in spoken)
    return Token(text, at, at + 0.2, 0.5, mark=mark, spoken=heard, speaker=speaker)


def transcript(*segments: list[Token]) -> Transcript:
    made = [Segment(readable(one), one[0].start_s, one[-1].end_s, tuple(one)) for one in segments]
    tokens = [token for one in segments for token in one]
    return Transcript("".join(one.text for one in made), 10.0, tuple(made), sentences(tokens))


TALK = transcript(
    [token("好", 0.0, 0), token("15%", 0.2, 0, "，", "百分之十五"), token("hel@@", 0.4, 0), token("lo", 0.6, 0, "。")],
    [token("是", 2.0, 0), token("吗", 2.2, 1), token("对", 2.4, 1, "？"), token("走", 2.6, 1)],
)


def rendered(form: str, *, timestamps: bool = False) -> list[str]:
    return render(TALK, form, name="a talk.wav", timestamps=timestamps).split("\n")


def test_sentences_end_where_another_speaks() -> None:
    told = [(one.text, one.speaker) for one in TALK.sentences]
    assert told == [("好15%，hello。", 0), ("是", 0), ("吗对？", 1), ("走", 1)]
    values = json.loads(rendered("json", timestamps=True)[0])
    assert [one["speaker"] for one in values["sentences"]] == [0, 0, 1, 1]
    assert [one["speaker"] for part in values["segments"] for one in part["tokens"]] == [0, 0, 0, 0, 0, 1, 1, 1]


def test_text_subtitles_and_tables() -> None:
    assert rendered("text") == ["S0: 好15%，hello。", "S0: 是", "S1: 吗对？走"]
    assert rendered("text", timestamps=True)[0] == "[00:00:00.000 - 00:00:00.800] S0: 好15%，hello。"
    assert [cue.text for cue in cues(TALK)] == ["S0: 好15%，hello。", "是", "S1: 吗对？", "走"]
    assert rendered("tsv", timestamps=True)[-1] == "a talk.wav\t2.600\t2.800\t走\tS1"
    assert rendered("ctm")[0] == "a_talk.wav 1 0.000 0.200 好 0.5000 lex S0"
    assert [line.split()[4] for line in rendered("ctm")] == ["好", "15%", "hello", "是", "吗", "对", "走"]
    assert rendered("rttm") == [
        "SPEAKER a_talk.wav 1 0.000 0.800 <NA> <NA> S0 <NA> <NA>",
        "SPEAKER a_talk.wav 1 2.000 0.200 <NA> <NA> S0 <NA> <NA>",
        "SPEAKER a_talk.wav 1 2.200 0.600 <NA> <NA> S1 <NA> <NA>",
    ]
    grid = "\n".join(rendered("textgrid"))
    assert 'name = "speakers"' in grid
    assert grid.count('text = "S0"') == 2


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["好", "hel@@", "lo", "<unk>", "a"]), st.integers(0, 2)), min_size=1),
        max_size=4,
    )
)
def test_no_token_is_lost_or_told_twice(segments: list[list[tuple[str, int]]]) -> None:
    place = iter(range(1000))
    made = transcript(*([token(text, next(place), who) for text, who in one] for one in segments))
    assert [one for sentence in made.sentences for one in sentence.tokens] == list(made.tokens)
    said = spoken_turns(made)
    assert [turn.start_s for turn in said] == sorted(turn.start_s for turn in said)
    for one in made.tokens:
        (turn,) = [turn for turn in said if turn.start_s <= one.start_s < turn.end_s]
        assert turn.speaker == one.speaker


def test_without_speakers_nothing_is_told_of_them() -> None:
    plain = transcript([token("好", 0.0, None, "。"), token("是", 0.3, None)])
    assert render(plain, "text", name="a", timestamps=False) == "好。是"
    assert render(plain, "rttm", name="a", timestamps=False) == ""
    assert "speaker" not in render(plain, "json", name="a", timestamps=True)
    assert "lex" not in render(plain, "ctm", name="a", timestamps=False)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--speakers"], {"speakers": "cam++"}),
        (["--speakers", "2"], {"speakers": "cam++", "speaker_count": 2}),
        (["--speakers", "voices", "--speaker-count", "3"], {"speakers": "voices", "speaker_count": 3}),
        ([], {}),
    ],
)
def test_options(asked: list[str], told: dict[str, object]) -> None:
    found = loading(parser().parse_args(["transcribe", "a.wav", *asked]))
    assert {name: found[name] for name in ("speakers", "speaker_count") if name in found} == told


def test_options_that_do_not_go_together() -> None:
    assert main(["transcribe", "a.wav", "--format", "rttm"]) == 2
    assert main(["transcribe", "a.wav", "--stream", "--speakers"]) == 2
