"""The augmentation ablation: what each change of the training speech is worth on real speech.

Data and model: those of `recipes/hours.py` with all hours, and its encoder, which has heard unchanged clips alone. One
run has every augmentation that is kept, and for each of them another run does without it. Measured as there.
Cost: 14 to 23 minutes for each of eight runs, two at a time on two cores; `--times 10` for a GPU, and then for
`recipes/hours.py` too: the encoder and the run that has everything are those of that recipe with all hours.
Result: errors on real speech 78.7 % with all, 81.7 % without pace and rhythm, 75.2 to 78.8 % without any other: in so
few steps most of them cost more than they teach. docs/augmentation.md has the rest.
Command, `speech` being the prepared sets (see recipes/zh_small.py):

    python -m recipes.experiment recipes.augmentation --data speech --docs docs
"""

from __future__ import annotations

import dataclasses
from functools import partial

from paraformer.data.augment import UNCHANGED
from paraformer.train.config import TrainConfig
from recipes.experiment import Experiment, Run
from recipes.hours import EXPERIMENT as HOURS
from recipes.hours import config

WITHOUT: dict[str, tuple[str, tuple[str, ...]]] = {
    "speed": ("playback speed (voices)", ("speed",)),
    "pace": ("pace and rhythm", ("pace", "rhythm")),
    "tract": ("length of the vocal tract", ("tract",)),
    "gain": ("level", ("gain_db",)),
    "reverberation": ("reverberation", ("reverb_probability",)),
    "noise": ("noises and noise floor", ("noise_probability", "floor_probability")),
    "channel": ("microphone", ("channel_db",)),
    "spec_augment": ("SpecAugment", ("frequency_masks", "time_masks")),
}
"""What is left out: its name, what it is, and the settings that are then as in `UNCHANGED`."""


def without(name: str) -> TrainConfig:
    """The run that lacks one augmentation."""
    full = config()
    off = {setting: getattr(UNCHANGED, setting) for setting in WITHOUT[name][1]}
    return dataclasses.replace(full, augment=dataclasses.replace(full.augment, **off))


EXPERIMENT = Experiment(
    name="augmentation",
    title="What each augmentation is worth",
    first=tuple(dataclasses.replace(run, of="hours") for run in HOURS.first if run.name == "encoder_all"),
    runs=(
        Run("all", "all of them", config, of="hours"),
        *(Run(f"without_{name}", f"without {what}", partial(without, name)) for name, (what, _) in WITHOUT.items()),
    ),
    beside="all",
)
