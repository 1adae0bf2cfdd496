"""What a run makes of its prepared archives: symbols, CMVN, training cuts, held-out cuts, noises.

Symbols and CMVN are written beside the checkpoints, so that a resumed run and its final model use the same.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import CutSet
from torch import Tensor

from paraformer.bundle import Bundle, replacing
from paraformer.checkpoint import native, strict
from paraformer.config import ModelConfig
from paraformer.data.augment import Noise
from paraformer.data.dataset import Symbols, estimate_cmvn, nothing_said, syllable_table, text_of
from paraformer.data.prepare import load_cuts, vocabulary
from paraformer.data.reading import load
from paraformer.errors import ConfigError
from paraformer.frontend import Cmvn
from paraformer.text import Vocabulary
from paraformer.train.checkpoints import read_weights
from paraformer.train.config import TrainConfig

SETUP = "setup.json"
_CMVN_UTTERANCES = 2000


@dataclass(frozen=True)
class Setup:
    """Model settings with their sizes filled in, symbols and CMVN."""

    model: ModelConfig
    tokens: tuple[str, ...]
    syllables: dict[str, int]
    cmvn: Cmvn

    @property
    def symbols(self) -> Symbols:
        """Text to ids."""
        return Symbols(Vocabulary(self.tokens), self.syllables)


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
        order = np.random.default_rng(config.seed).permutation(len(sets[0]))
        first = list(sets[0])
        held_out = [first[i] for i in order[: config.held_out]]
        train = [first[i] for i in order[config.held_out :]] + [cut for cuts in sets[1:] for cut in cuts]
        silent = list(load_cuts(data, config.noise_set)) if config.noise_set else []
        noises = [load(cut) for cut in silent]
        train += [nothing_said(cut) for cut in silent] if config.learn_noise else []
        return cls(CutSet.from_cuts(train), CutSet.from_cuts(held_out), noises)


def set_up(config: TrainConfig, speech: Speech, out: Path) -> Setup:
    """Read `out`/setup.json, or work it out from config.init or the training cuts and write it."""
    path = out / SETUP
    if path.is_file():
        return read_setup(path)
    setup = _from_init(config, speech) if config.init else _from_speech(config, speech)
    values = {
        "model": setup.model.to_dict(),
        "tokens": setup.tokens,
        "syllables": setup.syllables,
        "cmvn": setup.cmvn.to_text(),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, ensure_ascii=False, indent=1), encoding="utf-8")
    return setup


def read_setup(path: Path) -> Setup:
    """The setup of a run, from its setup.json."""
    values = json.loads(path.read_text(encoding="utf-8"))
    model = ModelConfig.from_dict(values["model"])
    return Setup(model, tuple(values["tokens"]), values["syllables"], Cmvn.parse(values["cmvn"]))


def initial_weights(init: str, setup: Setup) -> dict[str, Tensor]:
    """The weights of a bundle, or of a file that another run left. Raises CheckpointError where they do not fit."""
    if Path(init).is_dir():
        return native.load(init)[1].state_dict()
    weights = read_weights(Path(init))
    strict.check({name: p.shape for name, p in strict.skeleton(setup.model).state_dict().items()}, weights, init)
    return weights


def _from_init(config: TrainConfig, speech: Speech) -> Setup:
    """The setup of config.init, with the objective of the recipe. Raises ConfigError where the sizes are others."""
    assert config.init is not None
    found = _of_bundle(config.init, speech) if Path(config.init).is_dir() else _of_run(Path(config.init))
    objective = dataclasses.replace(config.model.objective, ctc_units=found.model.objective.ctc_units)
    model = dataclasses.replace(config.model, vocab_size=len(found.tokens), objective=objective)
    if dataclasses.replace(found.model, objective=objective, live=model.live) != model:
        raise ConfigError(f"{config.init} has other sizes than the recipe's model; give the recipe those it has")
    return dataclasses.replace(found, model=model)


def _of_bundle(init: str, speech: Speech) -> Setup:
    """A bundle's own. It does not record its syllables, so they must be those of the training texts again."""
    bundle = Bundle.open(init)
    syllables, units = {}, bundle.config.objective.ctc_units
    if units:
        syllables = syllable_table([text_of(cut) for cut in speech.train])
    if bundle.cmvn is None or units != (len(syllables) + 1 if syllables else 0):
        raise ConfigError(f"{init} was trained on texts with other syllables; start from the same training sets")
    return Setup(bundle.config, bundle.tokens, syllables, bundle.cmvn)


def _of_run(weights: Path) -> Setup:
    """The setup of the run that left a file of weights, found beside or above it."""
    for directory in (weights.parent, weights.parent.parent):
        if (directory / SETUP).is_file():
            return read_setup(directory / SETUP)
    raise ConfigError(f"{weights} has no {SETUP} beside it or above, which says what model it is; copy it there")


def _from_speech(config: TrainConfig, speech: Speech) -> Setup:
    """Vocabulary, syllables and CMVN of the training cuts."""
    texts = [text_of(cut) for cut in speech.train]
    tokens, ctc = vocabulary(texts), config.model.objective.ctc_weight > 0
    syllables = syllable_table(texts) if ctc else {}
    objective = dataclasses.replace(config.model.objective, ctc_units=len(syllables) + 1 if ctc else 0)
    model = dataclasses.replace(config.model, vocab_size=len(tokens), objective=objective)
    order = np.random.default_rng(config.seed).permutation(len(speech.train))[:_CMVN_UTTERANCES]
    cuts = list(speech.train)
    cmvn = estimate_cmvn([cuts[i] for i in order], model.frontend, config.augment, speech.noises)
    return Setup(model, tokens, syllables, cmvn)
