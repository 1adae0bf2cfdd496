"""The augmentation ablation: what each change of the training speech is worth on real speech.

Data and model: those of `recipes/hours.py` with all hours. One run has every augmentation that is kept, and for each of
them another run does without it. Measured as there.
Cost: planned for 20 minutes for each of eight runs on two cores (not measured yet); `--times 4` for a GPU, and then for
`recipes/hours.py` too: the run that has everything is the one of that recipe with all hours.
Result: docs/augmentation.md.
Command, `speech` being the prepared sets (see recipes/zh_small.py):

    python -m recipes.experiment recipes.augmentation --data speech --docs docs
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from paraformer.train.config import TrainConfig
from recipes.experiment import Experiment, Run
from recipes.hours import config

WITHOUT: dict[str, tuple[str, dict[str, Any]]] = {
    "speed": ("playback speed (voices)", {"speed": (1.0, 1.0)}),
    "pace": ("pace and rhythm", {"pace": (1.0, 1.0), "rhythm": 0.0}),
    "tract": ("length of the vocal tract", {"tract": (1.0, 1.0)}),
    "gain": ("level", {"gain_db": (0.0, 0.0)}),
    "reverberation": ("reverberation", {"reverb_probability": 0.0}),
    "noise": ("noises and noise floor", {"noise_probability": 0.0, "floor_probability": 0.0}),
    "channel": ("microphone", {"channel_db": 0.0}),
    "spec_augment": ("SpecAugment", {"frequency_masks": 0, "time_masks": 0}),
}
"""What is left out: its name, what it is, and the settings that turn it off."""


def without(name: str) -> TrainConfig:
    """The run that lacks one augmentation."""
    full = config()
    return dataclasses.replace(full, augment=dataclasses.replace(full.augment, **WITHOUT[name][1]))


EXPERIMENT = Experiment(
    name="augmentation",
    title="What each augmentation is worth",
    runs=(
        Run("all", "all of them", config, of="hours"),
        *(Run(f"without_{name}", f"without {what}", partial(without, name)) for name, (what, _) in WITHOUT.items()),
    ),
    beside="all",
)
