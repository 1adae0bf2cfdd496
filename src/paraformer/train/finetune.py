"""Fine-tuning: a model that is there, speech of a new kind, and a run of the ordinary loop with settings that fit both.

A run directory is that of any training, with `data/`, the training and dev part as prepared sets, and `finetune.json`,
which says whether the model has become better.
"""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from paraformer import contract
from paraformer.bundle import Bundle, is_ours, replacing
from paraformer.checkpoint import open_any
from paraformer.config import ChunkConfig, ModelConfig, ObjectiveConfig, SanmEncoderConfig, SeacoConfig
from paraformer.data.augment import UNCHANGED
from paraformer.data.dataset import BatchConfig, JoinConfig
from paraformer.data.skips import Skips
from paraformer.data.sources import open_data
from paraformer.data.utterances import utterances
from paraformer.errors import ConfigError, DataError
from paraformer.evaluate.normalise import Normalizer
from paraformer.evaluate.results import Pass
from paraformer.evaluate.run import collect, recognize_whole
from paraformer.evaluate.significance import Comparison
from paraformer.evaluate.summary import compare_passes
from paraformer.language import LanguageModel
from paraformer.loader import load
from paraformer.manifests import Utterance
from paraformer.train import parallel
from paraformer.train.checkpoints import newest
from paraformer.train.config import DrawnConfig, LiveConfig, OptimiserConfig, TrainConfig
from paraformer.train.drawn import drawn_words
from paraformer.train.finish import finish
from paraformer.train.gate import pass_gate
from paraformer.train.loop import train
from paraformer.train.parts import DEV, TRAIN, Parts, hours, keep, parts_of
from paraformer.train.speech import SETUP, read_setup
from paraformer.weights import Storage, storage

RESULTS, DATA = "finetune.json", "data"
EPOCHS, FEWEST_STEPS, MOST_STEPS = 5, 200, 20_000
PEAK_LR, FRONT_PEAK_LR, LORA_FACTOR, REFERENCE_DIM = 5e-5, 1e-5, 4.0, 512
"""Learning rates of a model 512 wide, without and with a front; that of others falls with their width.

With 5e-5 an encoder that has Whisper's weights unlearns in its first steps what it knows of noisy speech. Adapters
start at zero and take four times as much; with ten times, the former embedded model became worse.
"""
LIVE_SHARE = 0.3
_OUTDATED = ("name", "errors", "averaged")
"""What the card of the original says of itself alone."""
GENTLE = dataclasses.replace(
    UNCHANGED,
    speed=(0.9, 1.1),
    pace=(0.9, 1.1),
    tract=(0.95, 1.05),
    gain_db=(-10.0, 6.0),
    channel_db=1.0,
    frequency_masks=1,
    time_masks=1,
)
"""The data are of the kind that the model is to become good at: they are varied, and not made into others."""


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """What is to be fine-tuned, on what, and how; None leaves a choice to the model and the amount of speech."""

    model: Path
    """Bundle or FunASR directory."""
    data: Path
    """Speech of any kind that `open_data` knows."""
    out: Path
    dev: Path | None = None
    """Speech of the same kind to choose weights and to compare with; None: a part of `data` is held out."""
    general: Path | None = None
    """Speech of another kind, on which the model should not become worse."""
    lora_rank: int | None = None
    """Train adapters of this rank instead of all weights."""
    steps: int | None = None
    peak_lr: float | None = None
    live: Literal["auto", "on", "off"] = "auto"
    """Whether some steps are computed as live sessions would; auto: where the model recognises live."""
    gate: bool = True
    """Whether ten utterances must be learnt before the run begins."""


@dataclass(frozen=True)
class Result:
    """The new bundle and what became of the error rates; neither, where a signal ended the run before it was done."""

    bundle: Path | None
    verdicts: tuple[Verdict, ...]
    signal: signal.Signals | None


def finetune(plan: Finetuning, *, bar: bool = False) -> Result:
    """Train until the steps or a signal end it, then average, compare and write `out`/bundle.

    The same plan goes on from the last checkpoint in `out`. All processes call it. Raises TrainingError where the gate
    stays shut or bad steps end the run, DataError, ConfigError and ModelError as what it is made of.
    """
    original, _ = open_any(plan.model)
    parts = parts_of(plan.data, plan.dev, Skips())
    sets = {"new domain": utterances(parts.dev)}
    if plan.general is not None:
        sets["general"] = utterances(open_data(plan.general))
    config, data = configure(plan, original, hours(parts.train)), plan.out / DATA
    # Before anything is written, and once: a run that goes on has passed it.
    if plan.gate and newest(plan.out) is None and parallel.rank() == 0:
        pass_gate(config, parts.train, default_lr(original.config, lora=False))
    with parallel.first_goes_ahead():
        keep(parts.train, data, TRAIN, Skips())
        keep(parts.dev, data, DEV, Skips())
    outcome = train(config, data, plan.out, bar=bar)
    # What follows is files and recognition, of which one process can do all.
    if outcome.signal is not None or parallel.rank() > 0:
        return Result(None, (), outcome.signal)
    bundle = finish(config, data, plan.out, config.keep, stored=_stored(plan.model))
    if (plan.model / contract.LM).is_file():
        _take_along_lm(plan.model, original, bundle)
    verdicts = tuple(verdict(name, said, plan.model, bundle) for name, said in sets.items())
    _write_results(plan, parts, original, bundle, verdicts)
    return Result(bundle, verdicts, None)


def configure(plan: Finetuning, original: Bundle, train_h: float) -> TrainConfig:
    """The settings of the run for so many hours of speech.

    Of a SeACo-Paraformer, unless its settings say that it trains the decoder too, only what hears hotwords learns, and
    recognition without any stays as it is. Raises ConfigError where a model cannot learn live steps or adapters.
    """
    hearing = isinstance(original.config.hotwords, SeacoConfig) and not original.config.hotwords.trains_decoder
    if hearing and plan.lora_rank is not None:
        raise ConfigError("what hears hotwords is small and is trained whole: leave out the low-rank changes")
    steps = plan.steps or default_steps(train_h, BatchConfig().seconds)
    return TrainConfig(
        model=dataclasses.replace(original.config, objective=objective_of(original)),
        train_sets=(TRAIN,),
        dev_set=DEV,
        steps=steps,
        init=str(plan.model),
        frozen=recognising_parts(original.config) if hearing else (),
        extend_vocabulary=not hearing,  # a character that cannot be recognised cannot be a hotword's either
        lora_rank=plan.lora_rank,
        held_out=0,  # `parts_of` has held out whole speakers, which a run cannot
        dev_utterances=200,
        batch=BatchConfig(longest_s=30.0),
        # The model hears sentences already; strings of clips would teach it pauses that nobody makes.
        join=JoinConfig(clips=1, edge_s=(0.0, 0.0)),
        augment=GENTLE,
        optimiser=OptimiserConfig(
            peak_lr=plan.peak_lr or default_lr(original.config, lora=plan.lora_rank is not None),
            # A run may be shorter than the usual warm-up is.
            warmup_steps=min(500, steps // 10),
        ),
        live=live_steps(original.config, plan.live),
        precision="bfloat16" if torch.cuda.is_available() else "float32",
        measure_steps=max(10, steps // 20),
        keep=3,
        patience=8,
    )


def recognising_parts(config: ModelConfig) -> tuple[str, ...]:
    """Of a SeACo-Paraformer, all but what hears hotwords."""
    return ("encoder", "predictor", "decoder", *(("ctc",) if config.ctc_vocab_size else ()))


def default_steps(train_h: float, batch_s: float) -> int:
    """EPOCHS times through the data, within bounds: little data is seen more often, much of it less."""
    return min(MOST_STEPS, max(FEWEST_STEPS, round(EPOCHS * train_h * 3600 / batch_s)))


def default_lr(config: ModelConfig, *, lora: bool) -> float:
    """The peak of the learning rate."""
    front = isinstance(config.encoder, SanmEncoderConfig) and config.encoder.front
    peak = FRONT_PEAK_LR if front else PEAK_LR
    return peak * REFERENCE_DIM / config.encoder.dim * (LORA_FACTOR if lora else 1)


def objective_of(original: Bundle) -> ObjectiveConfig:
    """The model's own objective. A CTC layer over units that the bundle does not name cannot be trained: it goes.

    What new texts have beyond the named units, CTC is not told of.
    """
    config, objective = original.config, original.config.objective
    if config.ctc_vocab_size == config.vocab_size or not config.ctc_vocab_size:
        return dataclasses.replace(objective, ctc_units=0)
    if original.units:
        return objective
    return dataclasses.replace(objective, ctc_weight=0.0, ctc_units=0, middle_ctc_weight=0.0)


def live_steps(config: ModelConfig, wanted: Literal["auto", "on", "off"]) -> LiveConfig | None:
    """Live steps for a model that recognises live; for one that has only ever seen chunks, no others.

    Raises ConfigError where they are wanted of a model that cannot compute them, or not wanted of one that knows
    nothing else.
    """
    if wanted == "on" and not config.streaming:
        raise ConfigError("this model recognises whole utterances only; leave live steps to `auto`, or start another")
    if wanted == "off" and config.training_chunks:
        raise ConfigError("this model recognises live only and would unlearn it; leave live steps to `auto`")
    if wanted == "off" or (wanted == "auto" and config.live is None and not config.training_chunks):
        return None
    chunks = (config.live or ChunkConfig(),)
    return LiveConfig(chunks=chunks, probability=1.0 if config.training_chunks else LIVE_SHARE, start=0.0)


def _stored(original: Path) -> Storage:
    """Small weights stay small; but 8 bits, from which training began, would round what it changed to nothing."""
    small = is_ours(original) and storage(original / contract.WEIGHTS) != "float32"
    return "float16" if small else "float32"


def _take_along_lm(model: Path, original: Bundle, directory: Path) -> None:
    """The original's language model, which new tokens join; its checksum is recorded with the results."""
    tokens = Bundle.open(directory).tokens
    # New tokens stand before <unk> and so have moved the numbers of others: the counts move along.
    place = {token: index for index, token in enumerate(tokens)}
    places = np.array([place[token] for token in original.tokens], np.int64)
    known = LanguageModel.open(model / contract.LM, len(original.tokens), original.config.units)
    known.moved(places, len(tokens)).save(directory / contract.LM)


def _write_results(
    plan: Finetuning, parts: Parts, original: Bundle, directory: Path, verdicts: tuple[Verdict, ...]
) -> None:
    """finetune.json, and the model card, which keeps what the original's says of where it comes from."""
    added = read_setup(plan.out / SETUP).added
    facts = {
        "model": str(plan.model),
        "data": str(plan.data),
        "hours": round(hours(parts.train), 3),
        "dev": parts.held_out,
        "general": None if plan.general is None else str(plan.general),
        "lora_rank": plan.lora_rank,
        "new_tokens": list(added),
    }
    with replacing(plan.out / RESULTS) as temporary:
        results = {**facts, "results": {one.name: one.to_dict() for one in verdicts}}
        temporary.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    bundle = Bundle.open(directory)
    # Where a model comes from stays true of what is made of it, and so do the terms that it came with.
    kept = {key: value for key, value in original.card.items() if key not in _OUTDATED}
    own = {key: bundle.card[key] for key in ("averaged", "errors")}
    card = {**kept, "fine_tuned": {**facts, "results": [str(one) for one in verdicts]}, **own}
    dataclasses.replace(bundle, card=card).save(directory)


_SAID = {"better": "better", "worse": "worse", "not distinguishable": "not told apart"}


@dataclass(frozen=True)
class Verdict:
    """What became of the error rate on one set."""

    name: str
    utterances: int
    comparison: Comparison

    def __str__(self) -> str:
        before, after = 100 * self.comparison.before, 100 * self.comparison.after
        return (
            f"{self.name}: {_SAID[self.comparison.verdict]}, CER {before:.2f} % -> {after:.2f} %, "
            f"{self.comparison.points}, {self.utterances} utterances"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; rates are shares, not percent."""
        change = self.comparison.change
        return {
            "verdict": _SAID[self.comparison.verdict],
            "utterances": self.utterances,
            "before": self.comparison.before,
            "after": self.comparison.after,
            "change": [change.low, change.high],
            "level": change.level,
            "probability_better": self.comparison.probability_better,
        }


def verdict(name: str, utterances: Sequence[Utterance], before: Path, after: Path) -> Verdict:
    """Recognise the utterances with both models, as files, and compare them by the paired bootstrap.

    Both run on torch, so that nothing else differs, and listen for hotwords out of the texts if they have a way to of
    their own. Raises DataError where no utterance could be recognised.
    """
    # The same utterances twice, so that the bootstrap can pair them: what is hard is hard for both.
    first, second = recognised(before, utterances), recognised(after, utterances)
    if not (first.scored and second.scored):
        raise DataError(f"none of the {len(utterances)} utterances of {name} could be recognised")
    return Verdict(name, len(first.scored), compare_passes(first, second))


def recognised(model: Path, utterances: Sequence[Utterance]) -> Pass:
    """What a model makes of whole utterances."""
    recognizer = load(model, backend="torch", device=str(parallel.device()), vad=False)
    if recognizer.config.hotwords is not None:
        recognizer = recognizer.with_hotwords(drawn_words((one.text for one in utterances), DrawnConfig(), 0))
    return collect(recognize_whole(recognizer, utterances, Normalizer()), "whole")
