"""The language model: proper distributions, what was counted, and the best text by it and the decoder together."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

import paraformer
from paraformer import native
from paraformer.backends.base import Decoded, LiveState
from paraformer.bundle import Bundle
from paraformer.candidates import Candidates
from paraformer.cli import main
from paraformer.config import SOS_ID, ChunkConfig
from paraformer.contract import LM
from paraformer.errors import DataError, ModelError
from paraformer.language import LanguageModel, sentences_of
from paraformer.session import Session
from paraformer.speech_model import SpeechModel
from paraformer.text import Vocabulary

SIZE = 9
SENTENCES = st.lists(st.lists(st.integers(3, SIZE - 1), max_size=12), min_size=1, max_size=12).filter(any)
WORDS = np.arange(SIZE)


@given(SENTENCES, st.integers(1, 3), st.integers(1, 3))
def test_every_distribution_sums_to_one(sentences: list[list[int]], least_bigram: int, least_trigram: int) -> None:
    model = LanguageModel.count(sentences, SIZE, least_bigram=least_bigram, least_trigram=least_trigram)
    older, newer = (axis.ravel() for axis in np.meshgrid(WORDS, WORDS))
    sums = np.exp(model.log_probs(older, newer, WORDS)).sum(-1)
    np.testing.assert_allclose(sums, 1, atol=2e-2)  # the tables are kept in 16 bits


def test_what_was_seen_is_likely() -> None:
    model = LanguageModel.count([[3, 4, 5]] * 5 + [[3, 4, 6]], SIZE)
    after = model.log_probs(np.array([3]), np.array([4]), WORDS)[0]
    assert after.argmax() == 5
    assert after[6] > after[7]
    first = model.log_probs(np.array([SOS_ID]), np.array([SOS_ID]), WORDS)[0]
    assert first.argmax() == 3
    assert (model.bigrams, model.trigrams) == (3, 2), "3 after <s>, 4 and 5 were seen three times, 6 once"


def best(model: LanguageModel, scores: np.ndarray, history: tuple[int, ...] = (), *, weight: float) -> np.ndarray:
    candidates = Candidates.of(scores)
    return candidates.chosen(model.best(candidates, history, weight=weight))[0]


def best_of_all(model: LanguageModel, scores: np.ndarray, weight: float) -> float:
    """The largest total of any sequence."""
    totals = []
    for ids in product(range(3, scores.shape[1]), repeat=len(scores)):
        history = [SOS_ID, SOS_ID, *ids]
        language = sum(
            float(model.log_probs(np.array([a]), np.array([b]), np.array([c]))[0, 0])
            for a, b, c in zip(history, history[1:], history[2:], strict=False)
        )
        totals.append(sum(scores[t, i] for t, i in enumerate(ids)) + weight * language)
    return max(totals)


@given(SENTENCES, st.integers(0, 3), st.integers(0, 1000))
def test_the_beam_finds_the_best_sequence_of_a_small_vocabulary(sentences, tokens: int, seed: int) -> None:
    model = LanguageModel.count(sentences, SIZE, least_bigram=1, least_trigram=1)
    scores = np.random.default_rng(seed).normal(size=(tokens, SIZE)).astype(np.float32)
    scores[:, :3] = -50  # items without text
    ids = best(model, scores, weight=0.7)
    history = [SOS_ID, SOS_ID, *ids.tolist()]
    total = sum(float(scores[t, i]) for t, i in enumerate(ids)) + 0.7 * sum(
        float(model.log_probs(np.array([a]), np.array([b]), np.array([c]))[0, 0])
        for a, b, c in zip(history, history[1:], history[2:], strict=False)
    )
    assert len(ids) == tokens
    assert total >= best_of_all(model, scores, 0.7) - 1e-3


@given(st.integers(0, 6), st.integers(0, 1000))
def test_without_weight_the_scores_decide(tokens: int, seed: int) -> None:
    model = LanguageModel.count([[3, 4, 5]], SIZE)
    scores = np.random.default_rng(seed).normal(size=(tokens, SIZE)).astype(np.float32)
    np.testing.assert_array_equal(best(model, scores, weight=0), scores.argmax(-1))


@pytest.mark.skipif(native.family(native.FLOAT32) is None, reason="there is no compiled code here")
@given(SENTENCES, st.integers(1, 3), st.integers(0, 9), st.integers(0, 1000), st.floats(0, 3), st.booleans())
def test_compiled_code_finds_what_numpy_finds(sentences, least: int, tokens: int, seed: int, weight, coarse) -> None:
    """To the last bit of every sum: else a near tie would be decided otherwise. Coarse scores make ties exact."""
    model = LanguageModel.count(sentences, SIZE, least_bigram=least, least_trigram=least)
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.permutation(SIZE) for _ in range(tokens)] or [WORDS])[:tokens]
    log_probs = rng.normal(size=ids.shape).round(0 if coarse else 9).astype(np.float32)
    candidates, silent = Candidates(ids, log_probs), model._silent[ids]
    before = tuple(rng.integers(1, SIZE, 2).tolist())
    assert model._compiled is not None
    got = model._compiled(candidates, silent, before, weight)
    np.testing.assert_array_equal(got, model._best(candidates, silent, before, weight))


@pytest.mark.skipif(native.family(native.FLOAT32) is None, reason="there is no compiled code here")
def test_compiled_code_reads_every_number_of_16_bits() -> None:
    """One pair for each: which of two items follows says which of two numbers is larger."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    size = len(numbers) + 1
    arrays = {
        "unigram": np.full(size, -9, np.float32),
        "unigram_backoff": np.zeros(size, np.float32),
        "bigrams": np.array([0, size - 1, *[0] * (size - 2)], np.uint16),
        "bigram_word": np.arange(1, size).astype(np.uint16),
        "bigram": numbers,
        "bigram_backoff": np.zeros(size - 1, np.float16),
        "trigrams": np.zeros(size - 1, np.uint16),
        "trigram_word": np.zeros(0, np.uint16),
        "trigram": np.zeros(0, np.float16),
    }
    model = LanguageModel(arrays)
    rng = np.random.default_rng(0)
    assert model._compiled is not None
    for _ in range(40):
        words = rng.integers(3, size, (1, 4000))
        candidates = Candidates(words, -numbers[words - 1].astype(np.float32))  # that what is read makes them equal
        candidates.log_probs[0, 77] += 1e-6 * (1 + abs(candidates.log_probs[0, 77]))
        silent = np.zeros(words.shape, bool)
        assert model._compiled(candidates, silent, (1, 1), 1.0) == model._best(candidates, silent, (1, 1), 1.0) == 77


def test_items_without_text_are_passed_over() -> None:
    model = LanguageModel.count([[3, 4, 5]] * 5, SIZE)
    scores = np.full((4, SIZE), -9.0, np.float32)
    scores[0, 3], scores[1, 0], scores[2, 4] = 0, 0, 0
    scores[3, [5, 7]] = 0
    assert best(model, scores, weight=1).tolist() == [3, 0, 4, 5]


def test_history_counts() -> None:
    model = LanguageModel.count([[3, 4, 5]] * 5 + [[6, 4, 7]] * 5, SIZE)
    scores = np.full((1, SIZE), -9.0, np.float32)
    scores[0, [5, 7]] = 0
    assert best(model, scores, (3, 4), weight=1).tolist() == [5]
    assert best(model, scores, (6, 4), weight=1).tolist() == [7]


def test_a_saved_model_is_the_same(tmp_path: Path) -> None:
    model = LanguageModel.count([[3, 4, 5], [5, 6]] * 4, SIZE)
    model.save(tmp_path / "lm")
    again = LanguageModel.open(tmp_path / "lm", SIZE)
    older, newer = WORDS, WORDS[::-1].copy()
    np.testing.assert_array_equal(model.log_probs(older, newer, WORDS), again.log_probs(older, newer, WORDS))
    with pytest.raises(ModelError, match="not a language model of this vocabulary"):
        LanguageModel.open(tmp_path / "lm", SIZE + 1)
    (tmp_path / "lm").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        LanguageModel.open(tmp_path / "lm", SIZE)


LOGS = ("unigram", "unigram_backoff", "bigram", "bigram_backoff", "trigram")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bigrams", lambda array: array + np.uint16(1)),
        ("trigrams", lambda array: np.append(array[1:], array[0] + np.uint16(9)).astype(np.uint16)),
        ("bigram_word", lambda array: array * 0 + np.uint16(SIZE)),
        ("trigram_word", lambda array: array * 0 + np.uint16(65535)),
        ("bigram", lambda array: array[:-1]),
        ("trigram", lambda array: array[:-1]),
        ("bigram_backoff", lambda array: array[:-1]),
        ("unigram_backoff", lambda array: array[:-1]),
        ("unigram", lambda array: array.astype(np.float64)),
        ("bigram", lambda array: array[None]),
        ("bigram_word", lambda array: array[::-1].copy()),
        ("trigram_word", lambda array: array[::-1].copy()),
        *((name, lambda array: array * array.dtype.type(-1)) for name in LOGS),
        *((name, lambda array: array + array.dtype.type(np.nan)) for name in LOGS),
        *((name, lambda array: array - array.dtype.type(np.inf)) for name in LOGS),
    ],
)
def test_tables_that_do_not_fit_together_are_refused(name: str, change, tmp_path: Path) -> None:
    model = LanguageModel.count([[3, 4, 5], [3, 4, 6], [5, 6]] * 4, SIZE)
    model._arrays[name] = change(model._arrays[name])
    model.save(tmp_path / "lm")
    with pytest.raises(ModelError, match="not a language model of this vocabulary"):
        LanguageModel.open(tmp_path / "lm", SIZE)


@given(SENTENCES)
def test_items_that_join_change_nothing_between_the_others(sentences: list[list[int]]) -> None:
    model = LanguageModel.count(sentences, SIZE, least_bigram=1, least_trigram=1)
    places = np.where(WORDS == SIZE - 1, SIZE + 1, WORDS)
    wider = model.moved(places, SIZE + 2)
    older, newer = (axis.ravel() for axis in np.meshgrid(WORDS, WORDS))
    after = wider.log_probs(places[older], places[newer], np.arange(SIZE + 2))
    before = model.log_probs(older, newer, WORDS)
    np.testing.assert_array_equal(after[:, places], before)
    new = after[:, SIZE - 1 : SIZE + 1]
    assert (np.isfinite(new) & (new <= before.max(1)[:, None])).all()
    assert np.isfinite(wider.log_probs(np.array([SIZE]), np.array([SIZE - 1]), places)).all()


def test_texts_without_a_known_character_are_refused() -> None:
    with pytest.raises(DataError, match="no character"):
        LanguageModel.count([[]], SIZE)


def test_sentences_end_at_punctuation() -> None:
    vocabulary = Vocabulary(("<blank>", "<s>", "</s>", "你", "好", "ok", "<unk>"), None)
    found = list(sentences_of(["你好，ok 你。", "", "好！"], vocabulary))
    assert found == [vocabulary.encode("你好"), vocabulary.encode("ok 你"), vocabulary.encode("好")]


def with_lm() -> SpeechModel:
    plain = tiny.engine()
    spoken = [list(np.random.default_rng(n).integers(3, len(tiny.TOKENS) - 1, 30)) for n in range(20)]
    model = LanguageModel.count(spoken, len(tiny.TOKENS), least_bigram=1, least_trigram=1)
    return SpeechModel(plain.backend, plain.frontend, plain.vocabulary, model, 2.0)


@given(st.integers(0, 40_000), st.lists(st.integers(0, 12_000), max_size=6), st.floats(0, 1))
def test_packets_and_restoring_change_nothing(length: int, cuts: list[int], where: float) -> None:
    engine, samples = with_lm(), tiny.signal(length)
    whole, session = Session(engine, tiny.CHUNKS[0]), Session(engine, tiny.CHUNKS[0])
    whole.accept(samples)
    whole.finish()
    for number, packet in enumerate(np.split(samples, sorted(min(cut, length) for cut in cuts))):
        if number == int(where * len(cuts)):
            session = Session.restore(engine, session.save())
        session.accept(packet)
    session.finish()
    assert session.text == whole.text
    assert [token.text for token in session.tokens] == [token.text for token in whole.tokens]


class Dictated:
    """A backend that hears what it is told to, one step after another."""

    name = "dictated"

    def __init__(self, steps: Iterable[np.ndarray]) -> None:
        self.config, self._steps = tiny.config(), iter(steps)

    def init_state(self, chunk: ChunkConfig) -> LiveState:
        return {}

    def step(self, frames, final, states, chunk) -> tuple[list[Decoded], list[LiveState]]:
        scores = next(self._steps)
        return [Decoded.of(scores, np.ones(len(scores), np.float32))], list(states)


def sure(*items: int | tuple[int, ...]) -> np.ndarray:
    """Scores of tokens, each of which is one item, or one of several that sound alike."""
    scores = np.full((len(items), SIZE), -30.0, np.float32)
    for row, item in zip(scores, items, strict=True):
        row[list(item) if isinstance(item, tuple) else [item]] = 0
    return scores


def dictated(model: LanguageModel, *steps: np.ndarray) -> list[str]:
    """What is decided in each step, as digits."""
    plain = tiny.engine()
    vocabulary = Vocabulary(["<blank>", "<s>", "</s>", *"345678"])
    session = Session(SpeechModel(Dictated(steps), plain.frontend, vocabulary, model, 1.0), ChunkConfig())
    return [session.accept(tiny.signal(9600)) for _ in steps]


@pytest.mark.parametrize("silent", [0, 1, 2])
@pytest.mark.parametrize(("first", "second"), [(3, 5), (6, 7)])
def test_items_without_text_have_no_place_in_the_history_of_a_stream(silent: int, first: int, second: int) -> None:
    """Nor do they make it shorter: the two items that stand for text are seen across any number of them."""
    model = LanguageModel.count([[3, 4, 5]] * 5 + [[6, 4, 7]] * 5, SIZE)
    steps = sure(first, 4, *[0, 2, 0][: silent + 1]), sure(), sure((5, 7)), sure()
    assert "".join(dictated(model, *steps)) == f"{first}4{second}"


@pytest.mark.parametrize(("heard", "last"), [(3, 6), (4, 7)])
def test_a_token_waits_for_the_two_that_follow_it(heard: int, last: int) -> None:
    model = LanguageModel.count([[3, 5, 6]] * 5 + [[4, 5, 7]] * 5, SIZE)
    steps = sure((3, 4)), sure(5), sure(last), sure(8), sure()
    assert dictated(model, *steps) == ["", "", str(heard), "5", f"{last}8"]


def test_the_command_makes_one_that_load_finds(tmp_path: Path, capsys) -> None:
    directory = tmp_path / "model"
    shutil.copytree(tiny_bundle.directory(), directory)
    (tmp_path / "text").write_text("一丁一丁七一丁\n" * 5, encoding="utf-8")
    assert main(["lm", str(directory), str(tmp_path / "text")]) == 0
    assert "trigrams" in capsys.readouterr().out
    Bundle.open(directory).verify()
    signal = tiny.signal(60_000)
    plain, ours = (paraformer.load(directory, lm=lm, lm_weight=50.0) for lm in (False, True))
    assert set(ours.transcribe(signal).text) <= set("一丁七") != set(plain.transcribe(signal).text)
    before = (directory / LM).read_bytes()
    (tmp_path / "text").write_text("七丁一\n" * 5, encoding="utf-8")
    assert main(["lm", str(directory), str(tmp_path / "text")]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (directory / LM).read_bytes() == before
    assert main(["lm", str(directory), str(tmp_path / "text"), "--overwrite"]) == 0
    assert (directory / LM).read_bytes() != before
    (tmp_path / "text").write_bytes("你好".encode("gbk"))
    assert main(["lm", str(directory), str(tmp_path / "text"), "--overwrite"]) == 1
    assert "is not UTF-8 text" in capsys.readouterr().err
