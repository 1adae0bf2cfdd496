from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraformer.errors import DataError, ModelError
from paraformer.text import Kind, TextAssembler, Vocabulary, Word, parse_tokens, parse_words, words_of

GOLDEN = Path(__file__).parent / "golden"
CASES = [c for c in json.loads((GOLDEN / "text_postprocess.json").read_text()) if c["tokens"] != ["你", "@@"]]
POOL = [
    "你",
    "好",
    "3",
    "12",
    "hel@@",
    "lo",
    "a",
    "b",
    "c",
    "ok",
    "it's",
    "'",
    "a@@",
    "<unk>",
    "é",
    "…",
    "@@",
    " x ",
    "",
]
TOKENS = st.lists(st.one_of(st.sampled_from(POOL), st.text(max_size=3)), max_size=12)
WORDS = {"hello": ("hel@@", "lo"), "ok": ("ok",), "你": ("你",)}


def vocabulary(**how: Any) -> Vocabulary:
    return Vocabulary(["<blank>", "<s>", "</s>", "你", "好", "hel@@", "lo", "ok", "a", "b", "<unk>"], **how)


# -- laws -------------------------------------------------------------------------------------------------------------


@given(TOKENS)
def test_deltas_together_are_the_text(tokens: list[str]) -> None:
    assembler = TextAssembler()
    deltas = []
    for token in tokens:
        assembler = TextAssembler.from_dict(json.loads(json.dumps(assembler.to_dict())))
        deltas.append(assembler.push(token))
    assert "".join(deltas) + assembler.finish() == Vocabulary.join(tokens)


@given(TOKENS, TOKENS)
def test_what_was_handed_out_never_changes(tokens: list[str], others: list[str]) -> None:
    assembler = TextAssembler()
    given_out = "".join(assembler.push(token) for token in tokens)
    assert Vocabulary.join([*tokens, *others]).startswith(given_out)


@given(TOKENS)
def test_text_has_no_space_at_its_ends(tokens: list[str]) -> None:
    text = Vocabulary.join(tokens)
    assert text == text.strip()


@given(TOKENS)
def test_words_lie_in_order(tokens: list[str]) -> None:
    found = words_of(tokens)
    assert Vocabulary.join(tokens).replace(" ", "") == "".join(word.text for word in found).replace(" ", "")
    assert all(0 <= word.first <= word.last < len(tokens) for word in found)
    lasts = [word.last for word in found]
    assert lasts == sorted(set(lasts))


@given(TOKENS)
def test_a_space_stands_after_english_words_only(tokens: list[str]) -> None:
    """And not before a Chinese character; a mark is followed by none."""
    found, text = words_of(tokens), ""
    for before, word in zip([None, *found], found, strict=False):
        spaced = before is not None and before.kind is Kind.ENGLISH and word.kind is not Kind.CHINESE
        text += " " * spaced + word.text
    assert Vocabulary.join(tokens) == text


def test_no_space_after_a_mark() -> None:
    assert Vocabulary.join(["…", "ok", "…", "ok", "…", "…"]) == "…ok …ok ……"


@given(st.text(alphabet="你好世界再见", max_size=20))
def test_encode_then_decode(text: str) -> None:
    characters = Vocabulary(["<blank>", *"你好世界再见", "<unk>"])
    assert characters.decode(characters.encode(text)) == text


# -- goldens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: "_".join(case["tokens"]))
def test_text_golden(case: dict[str, Any]) -> None:
    assert Vocabulary.join(case["tokens"]) == case["text"]
    assert [word.text for word in words_of(case["tokens"])] == case["words"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "_".join(case["tokens"]))
def test_words_and_times_golden(case: dict[str, Any]) -> None:
    """Token i lasts from 100 i to 100 i + 90, silent tokens not counted."""
    spoken = [token for token in case["tokens"] if not token.startswith("<")]
    found = words_of(spoken)
    assert " ".join(word.text for word in found) == case["ts_text"]
    times = [[100 * word.first, 100 * word.last + 90] for word in found]
    if any(mark in spoken for mark in "…。"):  # the reference loses the times of such tokens
        times = [time for time, word in zip(times, found, strict=True) if word.kind is not Kind.OTHER]
    assert times == case["ts"]


# -- what is held back ------------------------------------------------------------------------------------------------


def test_an_unfinished_word_is_held_back() -> None:
    assembler = TextAssembler()
    assert [assembler.push(token) for token in ("好", "hel@@", "lo", "wor@@", "ld", "你")] == [
        "好", "", "hello", "", " world", "你",
    ]  # fmt: skip
    assert assembler.push("hel@@") == ""
    assert assembler.finish() == ""


def test_letters_are_held_back_until_their_run_ends() -> None:
    assembler = TextAssembler()
    assert [assembler.push(token) for token in ("the", "t", "v", "is", "a")] == ["the", "", "", " TV is", ""]
    assert assembler.finish() == " a"


def test_words_of_an_abbreviation_and_a_word() -> None:
    assert words_of(["我", "u", "s", "b", "hel@@", "lo"]) == [
        Word("我", 0, 0, Kind.CHINESE),
        Word("USB", 1, 3, Kind.ENGLISH),
        Word("hello", 4, 5, Kind.ENGLISH),
    ]


def test_a_mark_after_an_english_word_is_not_lost() -> None:
    """The reference deletes it in favour of the space that it believes to stand there."""
    assert Vocabulary.join(["ok", "…", "中"]) == "ok …中"


@pytest.mark.parametrize("character", "一\u9fff09@")
def test_no_space_before_what_stands_side_by_side(character: str) -> None:
    """Ideographs from the first to the last of their block, digits, and "@"."""
    assert Vocabulary.join(["ok", character, "ok", character]) == f"ok{character}ok{character}"
    assert words_of([character])[0].kind is Kind.CHINESE


def test_a_piece_left_unfinished_keeps_the_space_before_it() -> None:
    assert Vocabulary.join(["ok", "hel@@", "好"]) == "ok 好"


def test_a_word_of_three_pieces_begins_with_the_first() -> None:
    assert words_of(["好", "hel@@", "l@@", "o"])[1] == Word("hello", 1, 3, Kind.ENGLISH)


def test_spaces_around_tokens_do_not_count() -> None:
    assert Vocabulary.join([" 好 ", " ok ", "\u3000好"]) == "好ok好"


# -- vocabulary -------------------------------------------------------------------------------------------------------


def test_decode_and_token() -> None:
    assert len(vocabulary()) == 11
    assert vocabulary().token(5) == "hel@@"
    assert vocabulary().decode([1, 3, 4, 5, 6, 8, 9, 10, 2]) == "你好hello AB"


def test_encode_by_characters() -> None:
    assert vocabulary().encode("你 好a界") == [3, 4, 8, 10]


def test_encode_by_words() -> None:
    words = vocabulary(words=WORDS)
    assert words.encode("Hello OK 你好") == [5, 6, 7, 3, 4]
    assert words.encode("ab界 …") == [8, 9, 10, 10]
    assert words.encode("  ") == []
    assert words.encode("……") == [10], "marks alone are one unknown word"


def test_encode_without_unknown() -> None:
    with pytest.raises(DataError, match="neither '界' nor <unk>"):
        Vocabulary(["你"]).encode("界")


def test_a_token_that_occurs_twice() -> None:
    with pytest.raises(ModelError, match="holds 'a' twice"):
        Vocabulary(["a", "b", "a"])


@pytest.mark.parametrize(
    "text",
    [
        '["<blank>", "[", "hel@@"]',
        '{"hel@@": 2, "<blank>": 0, "[": 1}',
        "<blank>\n[\nhel@@\n",
        "\ufeff<blank>\r\n[\r\nhel@@\r\n",
        "<blank> 0\n[ 1\nhel@@ 2\n",
        "hel@@ 2\n<blank>\t0\n[ 1",
    ],
)
def test_forms_of_token_lists(text: str) -> None:
    assert parse_tokens(text) == ("<blank>", "[", "hel@@")


@pytest.mark.parametrize("text", ["a\nb 2\nc", "12", "null", '"a"'])
def test_lists_of_tokens_that_look_like_something_else(text: str) -> None:
    assert parse_tokens(text) == tuple(text.split("\n"))


def test_tokens_golden() -> None:
    tokens = parse_tokens((GOLDEN / "tokens.json").read_text())
    assert len(tokens) == 50
    assert (tokens[0], tokens[3], tokens[-1]) == ("<blank>", "一", "<unk>")


@pytest.mark.parametrize("text", ["a 0\nb 2\n", "a 1\nb 2\n", '{"a": 0, "b": 0}', '{"a": "x"}'])
def test_token_lists_with_holes(text: str) -> None:
    with pytest.raises(ModelError, match="not 0, 1, 2"):
        parse_tokens(text)


@pytest.mark.parametrize("text", ["[1, 2]", "[]", "{}", '["a", null]'])
def test_token_lists_of_anything_but_strings(text: str) -> None:
    with pytest.raises(ModelError, match="JSON list of strings"):
        parse_tokens(text)


def test_words() -> None:
    assert parse_words("hello hel@@ lo\nok ok\n\n你 你\n") == WORDS
