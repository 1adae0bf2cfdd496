"""What a run makes of its prepared archives: symbols, CMVN, training cuts, held-out cuts, noises.

Symbols and CMVN are written beside the checkpoints, so that a resumed run and its final model use the same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor

from paraformer.bundle import replacing
from paraformer.checkpoint import open_any, strict, whisper
from paraformer.config import ModelConfig, SanmDecoderConfig
from paraformer.data.augment import Noise
from paraformer.data.dataset import Symbols, estimate_cmvn, nothing_said, syllable_table, text_of
from paraformer.data.prepare import load_cuts, vocabulary
from paraformer.data.reading import load
from paraformer.errors import ConfigError
from paraformer.frontend import Cmvn
from paraformer.text import Vocabulary
from paraformer.train.adapt import extend_rows, extend_tokens
from paraformer.train.checkpoints import read_weights
from paraformer.train.config import TrainConfig

SETUP = "setup.json"
WHISPER = "whisper:"
"""Begins an init_encoder that is a Whisper model."""
_CMVN_UTTERANCES = 2000


@dataclass(frozen=True)
class Setup:
    """Model settings with their sizes filled in, symbols and CMVN. words: as of a bundle."""

    model: ModelConfig
    tokens: tuple[str, ...]
    syllables: dict[str, int]
    cmvn: Cmvn
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    """Tokens that the model did not have before."""

    @property
    def symbols(self) -> Symbols:
        """Text to ids."""
        return Symbols(Vocabulary(self.tokens, self.words), self.syllables)


@dataclass(frozen=True)
class Speech:
    """Cuts of a run."""

    train: CutSet
    held_out: CutSet
    noises: list[Noise]

    @classmethod
    def load(cls, config: TrainConfig, data: Path) -> Speech:
        """Read the manifests below `data` and the noises themselves."""
        sets = [load_cuts(data, name) for name in config.train_sets]
        # Of the first set alone: what is added to a recipe later leaves the same utterances held out.
        order = np.random.default_rng(config.seed).permutation(len(sets[0]))
        first = list(sets[0])
        held_out = [first[i] for i in order[: config.held_out]]
        train = [first[i] for i in order[config.held_out :]] + [cut for cuts in sets[1:] for cut in cuts]
        silent = list(load_cuts(data, config.noise_set)) if config.noise_set else []
        noises = [load(cut) for cut in silent]
        train = train if config.train_h is None else drawn_hours(train, config.train_h, config.seed)
        # After the hours are drawn, which are of speech.
        train += [nothing_said(cut) for cut in silent] * config.noise_copies
        return cls(CutSet.from_cuts(train), CutSet.from_cuts(held_out), noises)


def drawn_hours(cuts: Sequence[Cut], hours: float, seed: int) -> list[Cut]:
    """So many hours of the cuts, in a random order of which less is the beginning. Raises ConfigError for too few."""
    # The order does not know how many hours are wanted, so the fewer are always the beginning of the more.
    order, left_s = np.random.default_rng(seed).permutation(len(cuts)), hours * 3600
    chosen: list[Cut] = []
    for index in order:
        if left_s <= 0:
            return chosen
        chosen.append(cuts[index])
        left_s -= cuts[index].duration
    if left_s > 0:
        raise ConfigError(f"train_h is {hours:g}, but the training sets hold {hours - left_s / 3600:.2f} hours")
    return chosen


def set_up(config: TrainConfig, speech: Speech, out: Path) -> Setup:
    """Read `out`/setup.json, or work it out from what the run starts from or the training cuts and write it."""
    path = out / SETUP
    if path.is_file():
        return read_setup(path)
    setup = new_setup(config, speech)
    values = {
        "model": setup.model.to_dict(),
        "tokens": setup.tokens,
        "syllables": setup.syllables,
        "cmvn": setup.cmvn.to_text(),
        "words": setup.words,
        "added": setup.added,
    }
    # Written once: neither a run that goes on nor its final model may hang on what the data have become meanwhile.
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, ensure_ascii=False, indent=1), encoding="utf-8")
    return setup


def new_setup(config: TrainConfig, speech: Speech) -> Setup:
    """The setup of what the run starts from or, if from nothing, of the training cuts."""
    source = config.init or config.init_encoder
    if source and source.startswith(WHISPER):
        return _from_speech(config, speech)
    return _from_model(source, config, speech) if source else _from_speech(config, speech)


def read_setup(path: Path) -> Setup:
    """The setup of a run, from its setup.json."""
    values = json.loads(path.read_text(encoding="utf-8"))
    model = ModelConfig.from_dict(values["model"])
    words = {word: tuple(pieces) for word, pieces in values.get("words", {}).items()}
    cmvn, added = Cmvn.parse(values["cmvn"]), tuple(values.get("added", ()))
    return Setup(model, tuple(values["tokens"]), values["syllables"], cmvn, words, added)


def initial_weights(init: str, setup: Setup) -> dict[str, Tensor]:
    """The weights of a model directory, or of a file that another run left, with rows for the tokens of `setup`.

    A CTC layer that `setup` has no use for is left out. Raises CheckpointError where they do not fit.
    """
    weights, tokens = _weights_of(init)
    shapes = _shapes(setup)
    # A layer that only training needs may go; whatever else is too much is a sign of another model, and an error below.
    if not setup.model.ctc_vocab_size:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("ctc.")}
    weights = extend_rows(weights, shapes, tokens, setup.tokens)
    strict.check(shapes, weights, init)
    return weights


def encoder_weights(source: str, setup: Setup) -> dict[str, Tensor]:
    """Those of the encoder and of the CTC layer, if `setup` has one; of a Whisper, all but what makes windows of rows.

    Raises CheckpointError where they do not fit, ModelNotFound where there is no Whisper.
    """
    if source.startswith(WHISPER):
        return whisper.encoder_weights(source.removeprefix(WHISPER), setup.model, setup.cmvn)
    # What is left behind may be of any size, so only these are compared.
    taken = ("encoder.", "ctc.") if setup.model.ctc_vocab_size else ("encoder.",)
    shapes = _shapes(setup)
    weights, _ = _weights_of(source)
    weights = {name: tensor for name, tensor in weights.items() if name.startswith(taken)}
    strict.check({name: shape for name, shape in shapes.items() if name.startswith(taken)}, weights, source)
    return weights


def _shapes(setup: Setup) -> dict[str, torch.Size]:
    """Of every weight of the model."""
    return {name: tensor.shape for name, tensor in strict.skeleton(setup.model).state_dict().items()}


def _weights_of(source: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights and vocabulary of a model directory, or of a file that another run left."""
    if not Path(source).is_dir():
        return read_weights(Path(source)), _of_run(Path(source)).tokens
    bundle, model = open_any(source)
    return model.state_dict(), bundle.tokens


def _from_model(source: str, config: TrainConfig, speech: Speech) -> Setup:
    """The setup of another model, with the objective of the recipe. Raises ConfigError where the sizes are others."""
    found = _of_directory(source, config, speech) if Path(source).is_dir() else _of_run(Path(source))
    if config.extend_vocabulary:
        found = _extended(found, speech)
    units = found.model.objective.ctc_units if config.model.objective.ctc_weight > 0 else 0
    objective = dataclasses.replace(config.model.objective, ctc_units=units)
    model = dataclasses.replace(config.model, vocab_size=len(found.tokens), objective=objective)
    model = _with_units(model, len(found.syllables) + 1)  # number 0 is the blank
    # What weights are made of must be the same; how they learn, and how it is cut into live steps, is the recipe's.
    rest = model if config.init_encoder else found.model
    its = dataclasses.replace(rest, encoder=found.model.encoder, frontend=found.model.frontend)
    if dataclasses.replace(its, vocab_size=model.vocab_size, objective=objective, live=model.live) != model:
        raise ConfigError(f"{source} has other sizes than the recipe's model; give the recipe those it has")
    return dataclasses.replace(found, model=model)


def _with_units(model: ModelConfig, units: int) -> ModelConfig:
    """The model with so many units in its decoder's text part, where it has one."""
    decoder = model.decoder
    if not isinstance(decoder, SanmDecoderConfig) or decoder.text is None:
        return model
    text = dataclasses.replace(decoder.text, units=units)
    return dataclasses.replace(model, decoder=dataclasses.replace(decoder, text=text))


def _of_directory(source: str, config: TrainConfig, speech: Speech) -> Setup:
    """A model's own. Where it does not record its syllables, they must be those of the training texts again."""
    bundle = open_any(source)[0]
    syllables, units = {}, bundle.config.objective.ctc_units if config.model.objective.ctc_weight > 0 else 0
    if units and bundle.units:
        # From 1: the first output of a CTC layer is the blank.
        syllables = {name: number for number, name in enumerate(bundle.units, start=1)}
    elif units:
        syllables = syllable_table([text_of(cut) for cut in speech.train])
    if units != (len(syllables) + 1 if syllables else 0):
        raise ConfigError(f"{source} was trained on texts with other syllables; start from the same training sets")
    dim = bundle.config.frontend.input_dim
    # One that changes nothing, not one of these texts' recordings: the weights know rows as they come.
    cmvn = bundle.cmvn or Cmvn(np.zeros(dim, np.float32), np.ones(dim, np.float32))
    return Setup(bundle.config, bundle.tokens, syllables, cmvn, bundle.words)


def _extended(setup: Setup, speech: Speech) -> Setup:
    """The same with the characters of the training texts."""
    extended = extend_tokens(setup.tokens, setup.words, map(text_of, speech.train))
    return dataclasses.replace(setup, tokens=extended.tokens, words=extended.words, added=extended.added)


def _of_run(weights: Path) -> Setup:
    """The setup of the run that left a file of weights, found beside or above it."""
    # Beside averaged weights, above those of a single step.
    for directory in (weights.parent, weights.parent.parent):
        if (directory / SETUP).is_file():
            return read_setup(directory / SETUP)
    raise ConfigError(f"{weights} has no {SETUP} beside it or above, which says what model it is; copy it there")


def _from_speech(config: TrainConfig, speech: Speech) -> Setup:
    """Vocabulary, syllables and CMVN of the training cuts."""
    texts = [text_of(cut) for cut in speech.train]
    tokens, ctc = vocabulary(texts), config.model.objective.ctc_weight > 0
    decoder = config.model.decoder
    reads = isinstance(decoder, SanmDecoderConfig) and decoder.text is not None
    syllables = syllable_table(texts) if ctc or reads else {}
    objective = dataclasses.replace(config.model.objective, ctc_units=len(syllables) + 1 if ctc else 0)
    model = dataclasses.replace(config.model, vocab_size=len(tokens), objective=objective)
    if reads:
        model = _with_units(model, len(syllables) + 1)
    # Some of all sets: the mean of one, or of the first sentences of a reader, is that of a microphone.
    order = np.random.default_rng(config.seed).permutation(len(speech.train))[:_CMVN_UTTERANCES]
    cuts = list(speech.train)
    cmvn = estimate_cmvn([cuts[i] for i in order], model.frontend, config.augment, speech.noises)
    return Setup(model, tokens, syllables, cmvn)
