"""Settings of a training run, the recipe that gives them, and the file that keeps them.

A recipe is a function that returns a TrainConfig; it is named "module:function". config.json of a run directory says
what the run computes, so that it is not continued as another one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from paraformer.bundle import replacing
from paraformer.config import ChunkConfig, ModelConfig
from paraformer.data.augment import AugmentConfig
from paraformer.data.dataset import BatchConfig, JoinConfig
from paraformer.errors import ConfigError
from paraformer.model.objective import Trainable
from paraformer.model.paraformer import Paraformer
from paraformer.settings import Between, Count, Factor, Seconds, Share, Size, check_ranges

Steps = Annotated[int, Between(1, 1_000_000_000)]


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW, its learning rate rising linearly and then falling by `schedule`."""

    peak_lr: Factor = 1e-3
    warmup_steps: Count = 500
    schedule: Literal["cosine", "inverse_root"] = "cosine"
    """cosine: half a cosine down to 0 at the last step. inverse_root: as 1 / sqrt(step), which knows no last step."""
    weight_decay: Factor = 0.01
    betas: tuple[Share, Share] = (0.9, 0.98)
    clip_norm: Annotated[float, Between(1e-6, 1e9)] = 5.0


@dataclass(frozen=True, kw_only=True)
class BadStepConfig:
    """What is a bad step, and what happens then. Its utterances are named in events.jsonl; the weights stay."""

    action: Literal["skip", "stop"] = "skip"
    divergence: Annotated[float, Between(1.0, 1e9)] = 100.0
    """A gradient norm so many times its running mean is as bad as one that is not finite."""
    in_a_row: Size = 10
    """So many end the run even where each would be skipped."""


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """Steps that see the input in windows, exactly as a live session does; the others see whole utterances."""

    chunks: tuple[ChunkConfig, ...] = (ChunkConfig(),)
    """One is drawn for every live step. The first is what the model is measured with."""
    probability: Share = 0.3
    """Share of live steps among all."""
    start: Share = 0.2
    """Share of the steps that come before the first live one."""

    def __post_init__(self) -> None:
        if not self.chunks:
            raise ConfigError("live.chunks is empty: name at least one chunk setting, or set live to None")

    @property
    def always(self) -> bool:
        """Whether the model never sees a whole utterance, and so is measured live alone."""
        return self.probability >= 1 and self.start <= 0


@dataclass(frozen=True, kw_only=True)
class DrawnConfig:
    """Stretches of a batch's transcripts that a model is told of as hotwords, drawn anew for each batch."""

    without: Share = 0.25
    """Share of utterances of which none is drawn."""
    longest: Annotated[int, Between(2, 64)] = 8
    """Tokens of a stretch; the shortest has two."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a run, apart from where its data lie and where its results go."""

    model: ModelConfig
    """vocab_size 0 and ctc_units 0 are filled in from the training texts."""
    train_sets: tuple[str, ...]
    """Names of prepared archives."""
    train_h: Annotated[float, Between(1e-6, 1e9)] | None = None
    """Hours of them that are trained on, drawn utterance by utterance; less is always part of more. None: all."""
    system: str = "paraformer"
    """The model: a Paraformer, or the "module:class" of another `Trainable`, called with `model`; what it is trained to
    is no bundle, and of other models only the encoder can be taken over (init_encoder)."""
    steps: Steps
    dev_set: str
    init: str | None = None
    """What the run starts from: a model directory, or a file of weights that another run left beside or below its
    setup.json. Vocabulary and CMVN come along; the sizes in `model` must be the same."""
    init_encoder: str | None = None
    """The same, but of a model whose encoder and CTC layer alone are taken; everything else starts from nothing.
    "whisper:DIR" takes a Whisper's encoder, with the settings that `paraformer.checkpoint.whisper.settings` gives."""
    frozen: tuple[str, ...] = ()
    """Parts of the model that stay as they were at the start, as "encoder.front" or "encoder.blocks.0"."""
    extend_vocabulary: bool = False
    """Characters of the training texts that the vocabulary of `init` lacks become tokens."""
    lora_rank: Size | None = None
    """Train a change of this rank to each linear layer, and leave all other weights of `init` as they are."""
    test_sets: tuple[str, ...] = ()
    noise_set: str | None = None
    """Prepared archive of noises that augmentation mixes in."""
    noise_copies: Count = 0
    """How many times an epoch each noise is also an utterance of its own, in which nothing is said."""
    held_out: Count = 100
    """Utterances of the first training set kept for measuring."""
    dev_utterances: Count = 60
    """Utterances of dev_set decoded during training; all of them at the end."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    join: JoinConfig = field(default_factory=JoinConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    easy_epochs: Count = 0
    """Epochs at the start in which clips stay single and nearly clean: alignment is found in short utterances."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    live: LiveConfig | None = field(default_factory=LiveConfig)
    hotwords: DrawnConfig = field(default_factory=DrawnConfig)
    """Of a model that listens for hotwords."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of matrix products; weights, losses and sums stay float32."""
    workers: Annotated[int, Between(0, 1024)] = 1
    seed: Annotated[int, Between(0, (1 << 63) - 1)] = 0
    accumulate: Size = 1
    """Batches of each process that one step adds up."""
    sharded: bool = False
    """Several processes divide parameters and optimiser among them (FSDP2) instead of each holding all (DDP)."""
    on_bad_step: BadStepConfig = field(default_factory=BadStepConfig)
    log_steps: Steps = 20
    save_s: Seconds = 180.0
    """Wall-clock time between checkpoints."""
    measure_steps: Steps = 500
    """Steps between measurements on dev_set."""
    keep: Size = 5
    """Weights kept for averaging: those of the measurements with the lowest CER on dev_set."""
    patience: Size | None = None
    """The run ends after so many measurements without a lower CER on dev_set; None: after `steps`."""

    card: Mapping[str, str] = field(default_factory=dict)
    """What the model card says besides what the run finds out: sources, licence."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.system != "paraformer" and self.init is not None:
            raise ConfigError(f"{self.system} takes over no whole model; start from an encoder alone (init_encoder)")
        if self.init and self.init_encoder:
            raise ConfigError("init and init_encoder are both given: name one model to start from")
        if not self.train_sets:
            raise ConfigError("train_sets is empty: name at least one prepared archive")
        if (self.extend_vocabulary or self.lora_rank is not None) and self.init is None:
            raise ConfigError("extend_vocabulary and lora_rank change a model that is there: name it in init")
        if self.lora_rank is not None and self.sharded:
            raise ConfigError("lora_rank goes with whole models (sharded=False)")


def load_recipe(name: str) -> TrainConfig:
    """Import "module:function" and call it. Raises ConfigError if there is no such function, or it returns else."""
    config = _imported(name, "recipe")()
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"recipe {name!r} returned {type(config).__name__}, not a TrainConfig")
    return config


def new_model(system: str, config: ModelConfig) -> Trainable:
    """The model that a run trains, with new weights.

    system: as in TrainConfig. Raises ConfigError where there is none of this name, or the settings are not for it.
    """
    if system == "paraformer":
        return Paraformer(config)
    kind = _imported(system, "system")
    if not (isinstance(kind, type) and issubclass(kind, Trainable)):
        raise ConfigError(f"system {system!r} is not a Trainable; see paraformer.model.objective")
    return kind(config)


def _imported(name: str, what: str) -> Any:
    """What "module:name" means. Raises ConfigError where there is no such thing."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"no {what} {name!r}: {error}; name it as module:name") from error


CONFIG = "config.json"
FREE = (
    "workers",
    "sharded",
    "log_steps",
    "save_s",
    "measure_steps",
    "keep",
    "patience",
    "on_bad_step",
    "test_sets",
    "card",
)
"""Settings that do not change what the next step computes, with all below them."""
GROWING = ("steps",)
"""Settings that may become larger. With schedule "cosine" the learning rate goes on as the longer plan has it."""


def keep_config(config: TrainConfig, speech: Sequence[tuple[str, str]], out: Path) -> dict[str, str]:
    """Write config.json, or compare with the one that is there; returns the permitted changes, as "old -> new".

    speech: name and text of each training utterance. Raises ConfigError that shows every setting which changed and must
    not, the training speech included.
    """
    path = out / CONFIG
    # Both as JSON has them: tuples are lists there, and would differ from what is read back.
    new = _plain({**dataclasses.asdict(config), "speech": _fingerprint(speech)})
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else new
    changes = dict(differences(old, new))
    # All of them in one message, or each would be found only after the one before is mended.
    refused = {name: pair for name, pair in changes.items() if not _permitted(config, name, *pair)}
    if refused:
        shown = "; ".join(f"{name}: {before!r} -> {after!r}" for name, (before, after) in refused.items())
        raise ConfigError(
            f"{out} holds a run with other settings: {shown}; go back to them or choose another directory"
        )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(new, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return {name: f"{before!r} -> {after!r}" for name, (before, after) in changes.items()}


def differences(old: object, new: object, name: str = "") -> Iterator[tuple[str, tuple[object, object]]]:
    """The dotted name, old and new value of every setting that differs; None stands for one that is not there."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        # Of both, in their order: a setting may also be gone, or new.
        for key in dict.fromkeys((*old, *new)):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, (old, new)


def _permitted(config: TrainConfig, name: str, before: Any, after: Any) -> bool:
    if name.partition(".")[0] in FREE or (name in GROWING and after > before):
        return True
    return before is None and after == _default(config, name)  # a newer version has a setting more


def _default(config: TrainConfig, name: str) -> object:
    """The default of a setting, as JSON has it; None where there is no such setting, or no default."""
    *parents, last = name.split(".")
    holder: object = config
    for parent in parents:
        holder = getattr(holder, parent, None)
    fields = dataclasses.fields(holder) if dataclasses.is_dataclass(holder) else ()
    for one in fields:
        if one.name == last and one.default is not dataclasses.MISSING:
            return _plain(one.default)
        if one.name == last and one.default_factory is not dataclasses.MISSING:
            return _plain(one.default_factory())
    return None


def _plain(value: Any) -> Any:
    """A value as it is read back from JSON."""
    as_mapping = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    return json.loads(json.dumps(as_mapping))


def _fingerprint(speech: Sequence[tuple[str, str]]) -> dict[str, int | str]:
    """Number and digest of the training utterances: positions within an epoch mean nothing for other speech."""
    # In their order, by which epochs are drawn: the same utterances in another order are other batches.
    told = "\n".join(f"{name} {text}" for name, text in speech)
    return {"utterances": len(speech), "digest": hashlib.sha256(told.encode()).hexdigest()[:16]}
